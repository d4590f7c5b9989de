/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Memory of the mixture on a CUDA device and copies to it; see mixture/cuda/cuda.cu, which is
 * the only file that includes this one.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "filter_kernels.cuh"
#include "device/device_cuda.h"

/* Draws under rules made at a time; each needs 8 V bytes. */
#define FILTER_SLOTS 32

/* Small arrays of a call, with the same offsets on both sides. Arrays are adjacent that are
 * sent together, from scale or row to token, and those that come back together, from
 * token to log_policy or from moments to answers. */
struct mailbox {
    double *inverse_temperature;           /* [H + 1] and then 1 */
    struct mixture_ruled *ruled;           /* [FILTER_SLOTS] */
    struct mpo_mixture_bias *bias;         /* [V] of all of them */
    double *scale;                         /* [H, B] 1/T of rows that are normalised */
    const float **row;                     /* [H, B] */
    double *log_norm;                      /* [H, B] */
    double *mu;                            /* [B, H] */
    double *end_bias;                      /* [B] */
    uint8_t *expects;                      /* [B] */
    int32_t *draw_row;                     /* [B] */
    enum mpo_mixture_kind *kind;           /* [B] */
    double *uniform;                       /* [B] */
    int32_t *token;                        /* [B] */
    struct mpo_mixture_moments *moments;   /* [H, B] of rows that are normalised, or [B] */
    double *expectation;                   /* [B, H] */
    double *log_proposal;                  /* [B] */
    double *log_policy;                    /* [B, H] */
    struct mpo_mixture_question *question; /* [B] about slices */
    double *answers; /* [H, B, MPO_MIXTURE_ANSWER_WIDTH(H)] of ranks, at most H */
};

struct cuda {
    int32_t policy_count;
    int32_t vocab_size;
    int32_t block_count;
    int32_t row_capacity;
    bool rows_on_device;
    size_t row_stride; /* floats from a copied row to the next; keeps rows aligned */
    cudaStream_t stream;
    char *host_memory;   /* pinned */
    char *device_memory; /* the other mailbox */
    struct mailbox host;
    struct mailbox device;
    struct mixture_sums sums;
    uint8_t *flags; /* [V] */
    int32_t placed_first;
    float *copied;   /* [H, B, row_stride]; on the device: [placed, B, ...] */
    size_t *counted; /* NULL, or a counter: sizes are added up instead of allocated */
    double *weight;  /* [FILTER_SLOTS, V] */
    double *slot_block_top;   /* [FILTER_SLOTS, block] */
    double *slot_top;         /* [FILTER_SLOTS] */
    struct mixture_view view; /* of the rows combined last, or of slices of them */
    int32_t first_block;      /* of the slices */
};

static void cuda_close(void *pointer)
{
    struct cuda *cuda = (struct cuda *)pointer;
    if (cuda == NULL)
        return;
    cudaFree(cuda->copied);
    cudaFree(cuda->slot_top);
    cudaFree(cuda->slot_block_top);
    cudaFree(cuda->weight);
    cudaFree(cuda->flags);
    cudaFree(cuda->sums.row_sum);
    cudaFree(cuda->sums.row_max);
    cudaFree(cuda->sums.block_weight);
    cudaFree(cuda->sums.table);
    cudaFree(cuda->device_memory);
    cudaFreeHost(cuda->host_memory);
    if (cuda->stream != NULL)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
}

/* ---- memory ---- */

/* Device memory; one allocation per array, so that a memory checker sees
 * where each ends. */
template <class T>
static enum mpo_status reserve_array(const struct cuda *cuda, const char *what,
                                     size_t count, T **out)
{
    char full[128] = "";
    if (cuda->counted != NULL) {
        *cuda->counted += count * sizeof(T);
        return MPO_OK;
    }
    snprintf(full, sizeof full, "the mixture of %d rows of %d policies (%s)",
             cuda->row_capacity, cuda->policy_count, what);
    return mpo_device_cuda_take(count * sizeof(T), full, "set run.device to cpu",
                                (void **)out);
}

/* Place an array of the mailbox at base, which may not exist yet; returns its end. */
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
    size_t end = lay_out(base, 0, policies + 1, &box->inverse_temperature);
    end = lay_out(base, end, FILTER_SLOTS, &box->ruled);
    end = lay_out(base, end, (size_t)cuda->vocab_size, &box->bias);
    end = lay_out(base, end, policies * rows, &box->scale);
    end = lay_out(base, end, policies * rows, &box->row);
    end = lay_out(base, end, policies * rows, &box->log_norm);
    end = lay_out(base, end, policies * rows, &box->mu);
    end = lay_out(base, end, rows, &box->end_bias);
    end = lay_out(base, end, rows, &box->expects);
    end = lay_out(base, end, rows, &box->draw_row);
    end = lay_out(base, end, rows, &box->kind);
    end = lay_out(base, end, rows, &box->uniform);
    end = lay_out(base, end, rows, &box->token);
    end = lay_out(base, end, policies * rows, &box->moments);
    end = lay_out(base, end, rows * policies, &box->expectation);
    end = lay_out(base, end, rows, &box->log_proposal);
    end = lay_out(base, end, rows * policies, &box->log_policy);
    end = lay_out(base, end, rows, &box->question);
    return lay_out(base, end,
                   policies * rows * MPO_MIXTURE_ANSWER_WIDTH(cuda->policy_count),
                   &box->answers);
}

/* Doubles for a block of all rows: combined ones, or those that are normalised. */
static size_t sums_of_rows(const struct cuda *cuda, size_t rows, size_t alone)
{
    size_t combined = rows * MPO_MIXTURE_SUMS_WIDTH(cuda->policy_count);
    size_t apart = alone * MPO_MIXTURE_SUMS_WIDTH(1);
    return combined > apart ? combined : apart;
}

static enum mpo_status reserve_all(struct cuda *cuda, size_t box_bytes,
                                   size_t copied_policies)
{
    enum mpo_status status = MPO_OK;
    size_t rows = (size_t)cuda->row_capacity;
    size_t alone = rows * (size_t)cuda->policy_count; /* to be normalised at once */
    size_t vocab = (size_t)cuda->vocab_size;
    size_t blocks = (size_t)cuda->block_count;
    MPO_TRY(reserve_array(cuda, "its mailbox", box_bytes, &cuda->device_memory));
    MPO_TRY(reserve_array(cuda, "block sums", blocks * sums_of_rows(cuda, rows, alone),
                          &cuda->sums.table));
    MPO_TRY(reserve_array(cuda, "block sums", blocks * alone, &cuda->sums.block_weight));
    MPO_TRY(reserve_array(cuda, "row sums", alone, &cuda->sums.row_max));
    MPO_TRY(reserve_array(cuda, "row sums", alone, &cuda->sums.row_sum));
    MPO_TRY(reserve_array(cuda, "the vocabulary", vocab, &cuda->flags));
    MPO_TRY(reserve_array(cuda, "filtered draws", FILTER_SLOTS * vocab, &cuda->weight));
    MPO_TRY(reserve_array(cuda, "filtered draws", FILTER_SLOTS * (size_t)cuda->block_count,
                          &cuda->slot_block_top));
    MPO_TRY(reserve_array(cuda, "filtered draws", FILTER_SLOTS, &cuda->slot_top));
    MPO_TRY(reserve_array(cuda, "rows of logits", copied_policies * rows * cuda->row_stride,
                          &cuda->copied));
cleanup:
    return status;
}

static void set_sizes(struct cuda *cuda, const struct mpo_mixture_spec *spec)
{
    cuda->policy_count = spec->policy_count;
    cuda->vocab_size = spec->vocab_size;
    cuda->block_count = (spec->vocab_size + MPO_ROWS_BLOCK - 1) / MPO_ROWS_BLOCK;
    cuda->row_capacity = spec->row_capacity;
    cuda->rows_on_device = spec->rows_on_device;
    cuda->row_stride =
        ((size_t)spec->vocab_size + MIXTURE_TOKENS - 1) / MIXTURE_TOKENS * MIXTURE_TOKENS;
}

static size_t copied_policies(const struct mpo_mixture_spec *spec)
{
    return (size_t)(spec->rows_on_device ? spec->placed_count : spec->policy_count);
}

static enum mpo_status allocate_memory(struct cuda *cuda, size_t copied_policies)
{
    enum mpo_status status = MPO_OK;
    size_t box_bytes = lay_out_mailbox(cuda, NULL, &cuda->host);
    MPO_TRY_CUDA(cudaMallocHost((void **)&cuda->host_memory, box_bytes));
    MPO_TRY(reserve_all(cuda, box_bytes, copied_policies));
    lay_out_mailbox(cuda, cuda->host_memory, &cuda->host);
    lay_out_mailbox(cuda, cuda->device_memory, &cuda->device);
    cuda->sums.moments = cuda->device.moments;
    cuda->sums.expectation = cuda->device.expectation;
cleanup:
    return status;
}

/* Pinned. */
static enum mpo_status cuda_take(size_t bytes, void **out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_CUDA(cudaMallocHost(out, bytes));
cleanup:
    return status;
}

static void cuda_give_back(void *memory)
{
    cudaFreeHost(memory);
}

static size_t cuda_bytes(const struct mpo_mixture_spec *spec)
{
    size_t bytes = 0;
    struct cuda cuda = {};
    set_sizes(&cuda, spec);
    cuda.counted = &bytes;
    reserve_all(&cuda, lay_out_mailbox(&cuda, NULL, &cuda.host), copied_policies(spec));
    return bytes;
}

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
    MPO_CHECK(
        wanted + static_bytes <= limit, MPO_ERR_DEVICE,
        "this device mixes at most %d policies, but there are %d; set run.device to cpu",
        (limit - static_bytes) / (int)MIXTURE_SLOT_BYTES(-1) - 2, cuda->policy_count);
    MPO_TRY_CUDA(cudaFuncSetAttribute(mixture_combine_blocks,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, wanted));
cleanup:
    return status;
}

/* ---- copies ---- */

/* Send count elements of the host's mailbox to the same place on the device. */
template <class T>
static enum mpo_status send_array(struct cuda *cuda, const T *from, size_t count)
{
    enum mpo_status status = MPO_OK;
    size_t offset = (size_t)((const char *)from - cuda->host_memory);
    MPO_TRY_CUDA(cudaMemcpyAsync(cuda->device_memory + offset, from, count * sizeof(T),
                                 cudaMemcpyHostToDevice, cuda->stream));
cleanup:
    return status;
}

/* Send all between two places of the host's mailbox. */
template <class T, class U>
static enum mpo_status send_span(struct cuda *cuda, const T *from, const U *to)
{
    const char *first = reinterpret_cast<const char *>(from);
    return send_array(cuda, first, (size_t)(reinterpret_cast<const char *>(to) - first));
}

/* The reverse copy. The elements are valid after waiting for the stream. */
template <class T>
static enum mpo_status fetch_array(struct cuda *cuda, T *to, size_t count)
{
    enum mpo_status status = MPO_OK;
    size_t offset = (size_t)((char *)to - cuda->host_memory);
    MPO_TRY_CUDA(cudaMemcpyAsync(to, cuda->device_memory + offset, count * sizeof(T),
                                 cudaMemcpyDeviceToHost, cuda->stream));
cleanup:
    return status;
}

/* Fetch all between two places of the mailbox. */
template <class T, class U>
static enum mpo_status fetch_span(struct cuda *cuda, T *from, const U *to)
{
    char *first = reinterpret_cast<char *>(from);
    return fetch_array(cuda, first, (size_t)(reinterpret_cast<const char *>(to) - first));
}

/* Rows of the host, or slices of them, and where copies of them go. */
struct mixture_batch {
    const float *const *logits; /* [count] NULL: none, and nothing is copied */
    size_t count;
    int32_t token_count; /* of each */
    size_t first_place;  /* of cuda->copied; the others follow */
};

/* Copy the rows to their places; placed says where they are then. */
static enum mpo_status copy_rows(struct cuda *cuda, const struct mixture_batch *batch,
                                 const float **placed)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < batch->count; i++) {
        float *copy = cuda->copied + (batch->first_place + i) * cuda->row_stride;
        const float *from = batch->logits[i];
        placed[i] = from != NULL ? copy : NULL;
        if (from != NULL)
            MPO_TRY_CUDA(cudaMemcpyAsync(copy, from,
                                         (size_t)batch->token_count * sizeof *copy,
                                         cudaMemcpyHostToDevice, cuda->stream));
    }
cleanup:
    return status;
}

/* The rows' addresses on the device, for it to be sent, copying rows that are on the host.
 * Where there is none, kernels may read any numbers: the exponent is 0, and figures of the
 * policy are not used. */
static enum mpo_status list_rows(struct cuda *cuda, const float *const *logits,
                                 size_t count, int32_t token_count)
{
    enum mpo_status status = MPO_OK;
    const struct mixture_batch batch = {logits, count, token_count, 0};
    if (cuda->rows_on_device)
        memcpy(cuda->host.row, logits, count * sizeof *logits);
    else
        MPO_TRY(copy_rows(cuda, &batch, cuda->host.row));
    for (size_t i = 0; i < count; i++)
        if (cuda->host.row[i] == NULL)
            cuda->host.row[i] = (const float *)cuda->weight;
cleanup:
    return status;
}

static enum mpo_status send_rows(struct cuda *cuda, const float *const *logits,
                                 size_t count, int32_t token_count)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(list_rows(cuda, logits, count, token_count));
    MPO_TRY(send_array(cuda, cuda->host.row, count));
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

/* ---- views ---- */

static struct mixture_view slice_view(const struct cuda *cuda, int32_t row_count,
                                      int32_t first_block, int32_t end_block)
{
    struct mixture_view view = {};
    int32_t first = first_block * MPO_ROWS_BLOCK;
    int32_t end = end_block * MPO_ROWS_BLOCK;
    view.row = cuda->device.row;
    view.log_norm = cuda->device.log_norm;
    view.mu = cuda->device.mu;
    view.end_bias = cuda->device.end_bias;
    view.expects = cuda->device.expects;
    view.inverse_temperature = cuda->device.inverse_temperature;
    view.flags = cuda->flags + first;
    view.policy_count = cuda->policy_count;
    view.row_count = row_count;
    view.vocab_size = (end < cuda->vocab_size ? end : cuda->vocab_size) - first;
    view.block_count = end_block - first_block;
    return view;
}

/* The rows combined last, as if all of them were here. */
static struct mixture_view whole_view(const struct cuda *cuda)
{
    return slice_view(cuda, cuda->view.row_count, 0, cuda->block_count);
}
