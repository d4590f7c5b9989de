/*
 * The mixture on a CUDA device: memory, launches and copies. What the kernels compute and
 * what it costs is written in mixture_kernels.cuh.
 *
 * Rows stay where they are when they are in the device's memory. Rows in host memory (table
 * policies, or an exchange that gathers on the host) are copied in each call; they are
 * pageable, so the driver moves them through pinned buffers of its own, and another set
 * here would only copy them once more. Everything else that goes to or fro is small and
 * lies in a mailbox, laid out alike in pinned host memory and on the device.
 *
 * A normaliser is log Z of the mixture of one policy with exponent 1, so normalise and
 * combine are the same two kernels.
 */
#include "mixture_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/memory.h"
#include "mpo/policy.h"
#include "mixture_filter_kernels.cuh"
#include "../device/device_cuda.h"

/* Filtered draws that are made at a time; each needs 8 V bytes. */
#define FILTER_SLOTS 32

/* Small arrays of a call, the same offsets on both sides. */
struct mailbox {
    const float **row;           /* [H, B] */
    double *log_norm;            /* [H, B] */
    double *mu;                  /* [H] */
    double *inverse_temperature; /* [H] */
    double *one;                 /* the exponent of a policy alone */
    int32_t *draw_row;           /* [B] */
    double *uniform;             /* [B] */
    int32_t *token;              /* [B] */
    struct mpo_mixture_moments *moments;
    double *expectation;  /* [B, H] */
    double *log_proposal; /* [B] */
    double *log_policy;   /* [B, H] */
};

struct cuda {
    int32_t policy_count;
    int32_t vocab_size;
    int32_t block_count;
    int32_t row_capacity;
    bool rows_on_device;
    size_t row_stride; /* floats from a copied row to the next; keeps rows aligned */
    double end_bias;
    cudaStream_t stream;
    char *host_memory;   /* pinned */
    char *device_memory; /* the other mailbox */
    struct mailbox host;
    struct mailbox device;
    struct mixture_sums sums;
    uint8_t *flags;           /* [V] */
    float *copied;            /* [H, B, row_stride], none when rows are on the device */
    double *weight;           /* [FILTER_SLOTS, V] */
    struct mixture_view view; /* of the rows combined last */
};

static void cuda_close(void *pointer)
{
    struct cuda *cuda = (struct cuda *)pointer;
    if (cuda == NULL)
        return;
    cudaFree(cuda->copied);
    cudaFree(cuda->weight);
    cudaFree(cuda->flags);
    cudaFree(cuda->sums.row_sum);
    cudaFree(cuda->sums.row_max);
    cudaFree(cuda->sums.block_weight);
    cudaFree(cuda->sums.part);
    cudaFree(cuda->sums.block_max);
    cudaFree(cuda->device_memory);
    cudaFreeHost(cuda->host_memory);
    if (cuda->stream != NULL)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
}

/* ---- memory ---- */

/* Device memory; an allocation an array, so that a memory checker sees where each ends. */
template <class T>
static enum mpo_status reserve(const struct cuda *cuda, const char *what, size_t count,
                               T **out)
{
    enum mpo_status status = MPO_OK;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    MPO_TRY_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    if (cudaMalloc((void **)out, count * sizeof(T)) != cudaSuccess) {
        cudaGetLastError(); /* or the next launch would report it again */
        MPO_FAIL(MPO_ERR_MEMORY,
                 "the mixture of %d rows of %d policies needs %zu MiB of device memory for "
                 "%s, and %zu of %zu MiB are free; lower rollout.unit_prompts or "
                 "rollout.responses, or set run.device to cpu",
                 cuda->row_capacity, cuda->policy_count, (count * sizeof(T) >> 20) + 1,
                 what, free_bytes >> 20, total_bytes >> 20);
    }
cleanup:
    return status;
}

/* An array of the mailbox at base, which may not be there yet; returns where it ends. */
template <class T> static size_t lay_out(char *base, size_t offset, size_t count, T **out)
{
    const size_t line = 256;
    *out = base == NULL ? NULL : reinterpret_cast<T *>(base + offset);
    return offset + (count * sizeof(T) + line - 1) / line * line;
}

static size_t lay_out_mailbox(const struct cuda *cuda, char *base, struct mailbox *box)
{
    size_t policies = (size_t)cuda->policy_count;
    size_t rows = (size_t)cuda->row_capacity;
    size_t end = lay_out(base, 0, policies * rows, &box->row);
    end = lay_out(base, end, policies * rows, &box->log_norm);
    end = lay_out(base, end, policies, &box->mu);
    end = lay_out(base, end, policies, &box->inverse_temperature);
    end = lay_out(base, end, 1, &box->one);
    end = lay_out(base, end, rows, &box->draw_row);
    end = lay_out(base, end, rows, &box->uniform);
    end = lay_out(base, end, rows, &box->token);
    end = lay_out(base, end, rows, &box->moments);
    end = lay_out(base, end, rows * policies, &box->expectation);
    end = lay_out(base, end, rows, &box->log_proposal);
    return lay_out(base, end, rows * policies, &box->log_policy);
}

static enum mpo_status allocate(struct cuda *cuda)
{
    enum mpo_status status = MPO_OK;
    size_t policies = (size_t)cuda->policy_count;
    size_t rows = (size_t)cuda->row_capacity;
    size_t vocab = (size_t)cuda->vocab_size;
    size_t blocks = rows * (size_t)cuda->block_count;
    size_t box_bytes = lay_out_mailbox(cuda, NULL, &cuda->host);
    MPO_TRY_CUDA(cudaMallocHost((void **)&cuda->host_memory, box_bytes));
    MPO_TRY(reserve(cuda, "its mailbox", box_bytes, &cuda->device_memory));
    lay_out_mailbox(cuda, cuda->host_memory, &cuda->host);
    lay_out_mailbox(cuda, cuda->device_memory, &cuda->device);
    cuda->sums.moments = cuda->device.moments;
    cuda->sums.expectation = cuda->device.expectation;
    MPO_TRY(reserve(cuda, "block sums", blocks, &cuda->sums.block_max));
    MPO_TRY(reserve(cuda, "block sums", blocks * (policies + 2), &cuda->sums.part));
    MPO_TRY(reserve(cuda, "block sums", blocks, &cuda->sums.block_weight));
    MPO_TRY(reserve(cuda, "row sums", rows, &cuda->sums.row_max));
    MPO_TRY(reserve(cuda, "row sums", rows, &cuda->sums.row_sum));
    MPO_TRY(reserve(cuda, "the vocabulary", vocab, &cuda->flags));
    MPO_TRY(reserve(cuda, "filtered draws", FILTER_SLOTS * vocab, &cuda->weight));
    if (!cuda->rows_on_device)
        MPO_TRY(reserve(cuda, "rows of logits", policies * rows * cuda->row_stride,
                        &cuda->copied));
cleanup:
    return status;
}

/* ---- copies ---- */

/* Send count elements of the host's mailbox to the same place on the device. */
template <class T>
static enum mpo_status send(struct cuda *cuda, const T *from, size_t count)
{
    enum mpo_status status = MPO_OK;
    size_t offset = (size_t)((const char *)from - cuda->host_memory);
    MPO_TRY_CUDA(cudaMemcpyAsync(cuda->device_memory + offset, from, count * sizeof(T),
                                 cudaMemcpyHostToDevice, cuda->stream));
cleanup:
    return status;
}

/* The other way. The elements are there after the stream was waited for. */
template <class T> static enum mpo_status fetch(struct cuda *cuda, T *to, size_t count)
{
    enum mpo_status status = MPO_OK;
    size_t offset = (size_t)((char *)to - cuda->host_memory);
    MPO_TRY_CUDA(cudaMemcpyAsync(to, cuda->device_memory + offset, count * sizeof(T),
                                 cudaMemcpyDeviceToHost, cuda->stream));
cleanup:
    return status;
}

/* Tell the device where the rows are, and bring them there if they are not. */
static enum mpo_status send_rows(struct cuda *cuda, const float *const *logits,
                                 size_t count)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < count; i++) {
        if (cuda->rows_on_device) {
            cuda->host.row[i] = logits[i];
            continue;
        }
        float *copy = cuda->copied + i * cuda->row_stride;
        cuda->host.row[i] = copy;
        MPO_TRY_CUDA(cudaMemcpyAsync(copy, logits[i],
                                     (size_t)cuda->vocab_size * sizeof *copy,
                                     cudaMemcpyHostToDevice, cuda->stream));
    }
    MPO_TRY(send(cuda, cuda->host.row, count));
cleanup:
    return status;
}

static enum mpo_status send_tokens(struct cuda *cuda, const struct mpo_mixture_spec *spec)
{
    enum mpo_status status = MPO_OK;
    uint8_t *flags = NULL;
    MPO_NEW(spec->vocab_size, &flags);
    for (int32_t i = 0; i < spec->end_count; i++)
        flags[spec->end_token[i]] |= MIXTURE_ENDS;
    for (int32_t i = 0; i < spec->masked_count; i++)
        flags[spec->masked[i]] |= MIXTURE_MASKED;
    MPO_TRY_CUDA(
        cudaMemcpy(cuda->flags, flags, (size_t)spec->vocab_size, cudaMemcpyHostToDevice));
cleanup:
    free(flags);
    return status;
}

/* ---- life ---- */

/* A block of every policy's logits must fit into shared memory. */
static enum mpo_status reserve_shared(const struct cuda *cuda)
{
    enum mpo_status status = MPO_OK;
    const int static_bytes = 1024; /* at most, of the kernel's own */
    int device = 0;
    int limit = 0;
    int wanted = (int)MIXTURE_SLOT_BYTES(cuda->policy_count);
    MPO_TRY_CUDA(cudaGetDevice(&device));
    MPO_TRY_CUDA(
        cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    MPO_CHECK(wanted + static_bytes <= limit, MPO_ERR_DEVICE,
              "this device mixes at most %d policies, and there are %d; set run.device to "
              "cpu",
              (limit - static_bytes) / (int)MIXTURE_SLOT_BYTES(-1) - 2, cuda->policy_count);
    MPO_TRY_CUDA(cudaFuncSetAttribute(mixture_combine_blocks,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, wanted));
cleanup:
    return status;
}

static enum mpo_status cuda_open(const struct mpo_mixture_spec *spec, void **self)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = NULL;
    MPO_CHECK(spec->vocab_size <= MIXTURE_VOCAB_MAX, MPO_ERR_DATA,
              "a vocabulary of %d tokens; the cuda mixture takes at most %d",
              spec->vocab_size, MIXTURE_VOCAB_MAX);
    MPO_NEW(1, &cuda);
    cuda->policy_count = spec->policy_count;
    cuda->vocab_size = spec->vocab_size;
    cuda->block_count = (spec->vocab_size + MPO_MIXTURE_BLOCK - 1) / MPO_MIXTURE_BLOCK;
    cuda->row_capacity = spec->row_capacity;
    cuda->rows_on_device = spec->rows_on_device;
    cuda->row_stride =
        ((size_t)spec->vocab_size + MIXTURE_TOKENS - 1) / MIXTURE_TOKENS * MIXTURE_TOKENS;
    MPO_TRY(reserve_shared(cuda));
    MPO_TRY_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    MPO_TRY(allocate(cuda));
    MPO_TRY(send_tokens(cuda, spec));
    cuda->host.one[0] = 1.0;
    for (int32_t h = 0; h < spec->policy_count; h++)
        cuda->host.inverse_temperature[h] = 1.0 / spec->temperature[h];
    MPO_TRY(send(cuda, cuda->host.one, 1));
    MPO_TRY(send(cuda, cuda->host.inverse_temperature, (size_t)spec->policy_count));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
cleanup:
    if (status != MPO_OK) {
        cuda_close(cuda);
        cuda = NULL;
    }
    *self = cuda;
    return status;
}

static void cuda_set(void *self, const double *mu, double end_bias)
{
    struct cuda *cuda = (struct cuda *)self;
    memcpy(cuda->host.mu, mu, (size_t)cuda->policy_count * sizeof *mu);
    cuda->end_bias = end_bias;
}

/* ---- rows ---- */

static enum mpo_status launch_combine(const struct cuda *cuda,
                                      const struct mixture_view *view)
{
    enum mpo_status status = MPO_OK;
    dim3 blocks((unsigned)view->block_count, (unsigned)view->row_count);
    MPO_LAUNCH(mixture_combine_blocks, blocks, MIXTURE_THREADS,
               MIXTURE_SLOT_BYTES(view->policy_count), cuda->stream, *view, cuda->sums);
    MPO_TRY_CUDA(cudaGetLastError());
    MPO_LAUNCH(mixture_combine_rows, dim3((unsigned)view->row_count), MIXTURE_THREADS,
               MIXTURE_LIST_BYTES(view->block_count, view->policy_count), cuda->stream,
               *view, cuda->sums);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

static enum mpo_status cuda_normalise(void *self, int32_t policy_index, int32_t row_count,
                                      const float *const *logits, double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    double scale = cuda->host.inverse_temperature[policy_index];
    struct mixture_view alone = {};
    alone.row = cuda->device.row;
    alone.mu = cuda->device.one;
    alone.inverse_temperature = cuda->device.inverse_temperature + policy_index;
    alone.policy_count = 1;
    alone.row_count = row_count;
    alone.vocab_size = cuda->vocab_size;
    alone.block_count = cuda->block_count;
    MPO_TRY(send_rows(cuda, logits, (size_t)row_count));
    MPO_TRY(launch_combine(cuda, &alone));
    MPO_TRY(fetch(cuda, cuda->host.moments, (size_t)row_count));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    for (int32_t row = 0; row < row_count; row++) {
        double log_z = cuda->host.moments[row].log_z;
        bool all_masked = log_z <= (double)MPO_MASKED_LOGIT * scale;
        log_norm[row] = all_masked ? -INFINITY : log_z;
    }
cleanup:
    return status;
}

static enum mpo_status cuda_combine(void *self, const struct mpo_rows *rows,
                                    struct mpo_mixture_moments *moments,
                                    double *expectation)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    size_t policies = (size_t)cuda->policy_count;
    size_t row_count = (size_t)rows->row_count;
    cuda->view.row = cuda->device.row;
    cuda->view.log_norm = cuda->device.log_norm;
    cuda->view.mu = cuda->device.mu;
    cuda->view.inverse_temperature = cuda->device.inverse_temperature;
    cuda->view.flags = cuda->flags;
    cuda->view.end_bias = cuda->end_bias;
    cuda->view.policy_count = cuda->policy_count;
    cuda->view.row_count = rows->row_count;
    cuda->view.vocab_size = cuda->vocab_size;
    cuda->view.block_count = cuda->block_count;
    if (row_count == 0)
        return MPO_OK; /* a grid of no rows is no launch */
    memcpy(cuda->host.log_norm, rows->log_norm, policies * row_count * sizeof(double));
    MPO_TRY(send(cuda, cuda->host.mu, policies));
    MPO_TRY(send(cuda, cuda->host.log_norm, policies * row_count));
    MPO_TRY(send_rows(cuda, rows->logits, policies * row_count));
    MPO_TRY(launch_combine(cuda, &cuda->view));
    MPO_TRY(fetch(cuda, cuda->host.moments, row_count));
    MPO_TRY(fetch(cuda, cuda->host.expectation, row_count * policies));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    memcpy(moments, cuda->host.moments, row_count * sizeof *moments);
    memcpy(expectation, cuda->host.expectation, row_count * policies * sizeof *expectation);
cleanup:
    return status;
}

/* ---- draws ---- */

static struct mixture_draw_view draw_view(const struct cuda *cuda, int32_t first,
                                          int32_t count)
{
    struct mixture_draw_view view = {};
    view.row = cuda->device.draw_row + first;
    view.uniform = cuda->device.uniform + first;
    view.token = cuda->device.token + first;
    view.log_proposal = cuda->device.log_proposal + first;
    view.log_policy = cuda->device.log_policy + (size_t)first * (size_t)cuda->policy_count;
    view.count = count;
    return view;
}

static enum mpo_status launch_filtered(const struct cuda *cuda, int32_t count,
                                       const struct mpo_mixture_filter *filter)
{
    enum mpo_status status = MPO_OK;
    struct mixture_filter_view filtered = {};
    filtered.weight = cuda->weight;
    filtered.filter = *filter;
    for (int32_t first = 0; first < count; first += FILTER_SLOTS) {
        int32_t left = count - first;
        int32_t round = left < FILTER_SLOTS ? left : FILTER_SLOTS;
        struct mixture_draw_view draws = draw_view(cuda, first, round);
        dim3 blocks((unsigned)cuda->block_count, (unsigned)round);
        MPO_LAUNCH(mixture_filter_weights, blocks, MIXTURE_THREADS, 0, cuda->stream,
                   cuda->view, cuda->sums, draws, filtered);
        MPO_TRY_CUDA(cudaGetLastError());
        MPO_LAUNCH(mixture_filter_draw, dim3((unsigned)round), MIXTURE_THREADS,
                   MIXTURE_LIST_BYTES(cuda->block_count, 0), cuda->stream, cuda->view,
                   draws, filtered);
        MPO_TRY_CUDA(cudaGetLastError());
    }
cleanup:
    return status;
}

static enum mpo_status launch_draw(const struct cuda *cuda,
                                   const struct mpo_mixture_draws *draws, int32_t count)
{
    enum mpo_status status = MPO_OK;
    struct mixture_draw_view view = draw_view(cuda, 0, count);
    dim3 grid((unsigned)count);
    if (draws->uniform == NULL)
        MPO_LAUNCH(mixture_greedy, grid, MIXTURE_THREADS, 0, cuda->stream, cuda->view,
                   cuda->sums, view);
    else if (mpo_mixture_filter_is_open(draws->filter))
        MPO_LAUNCH(mixture_draw, grid, MIXTURE_THREADS,
                   MIXTURE_LIST_BYTES(cuda->block_count, 0), cuda->stream, cuda->view,
                   cuda->sums, view);
    else
        MPO_TRY(launch_filtered(cuda, count, draws->filter));
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

static enum mpo_status send_draws(struct cuda *cuda, const struct mpo_mixture_draws *draws,
                                  int32_t first, size_t count, bool draw)
{
    enum mpo_status status = MPO_OK;
    memcpy(cuda->host.draw_row, draws->row + first, count * sizeof *draws->row);
    MPO_TRY(send(cuda, cuda->host.draw_row, count));
    if (draw && draws->uniform != NULL) {
        memcpy(cuda->host.uniform, draws->uniform + first, count * sizeof *draws->uniform);
        MPO_TRY(send(cuda, cuda->host.uniform, count));
    }
    if (!draw) {
        memcpy(cuda->host.token, draws->token + first, count * sizeof *draws->token);
        MPO_TRY(send(cuda, cuda->host.token, count));
    }
cleanup:
    return status;
}

/* Draws first..first + count - 1, as many as there is room for. */
static enum mpo_status draw_some(struct cuda *cuda, struct mpo_mixture_draws *draws,
                                 int32_t first, int32_t count, bool draw)
{
    enum mpo_status status = MPO_OK;
    size_t policies = (size_t)cuda->policy_count;
    size_t some = (size_t)count;
    dim3 groups((unsigned)((count + MIXTURE_THREADS - 1) / MIXTURE_THREADS));
    MPO_TRY(send_draws(cuda, draws, first, some, draw));
    if (draw)
        MPO_TRY(launch_draw(cuda, draws, count));
    MPO_LAUNCH(mixture_score, groups, MIXTURE_THREADS, 0, cuda->stream, cuda->view,
               cuda->sums, draw_view(cuda, 0, count));
    MPO_TRY_CUDA(cudaGetLastError());
    MPO_TRY(fetch(cuda, cuda->host.token, some));
    MPO_TRY(fetch(cuda, cuda->host.log_proposal, some));
    MPO_TRY(fetch(cuda, cuda->host.log_policy, some * policies));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    memcpy(draws->token + first, cuda->host.token, some * sizeof *draws->token);
    memcpy(draws->log_proposal + first, cuda->host.log_proposal, some * sizeof(double));
    memcpy(draws->log_policy + (size_t)first * policies, cuda->host.log_policy,
           some * policies * sizeof(double));
cleanup:
    return status;
}

static enum mpo_status cuda_draw(void *self, struct mpo_mixture_draws *draws, bool draw)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    for (int32_t first = 0; first < draws->count; first += cuda->row_capacity) {
        int32_t left = draws->count - first;
        int32_t count = left < cuda->row_capacity ? left : cuda->row_capacity;
        MPO_TRY(draw_some(cuda, draws, first, count, draw));
    }
cleanup:
    return status;
}

const struct mpo_mixture_ops mpo_mixture_cuda_ops = {
    "cuda",       cuda_open, cuda_close, cuda_set, cuda_normalise,
    cuda_combine, cuda_draw, NULL,       NULL,     NULL, /* no slices */
};
