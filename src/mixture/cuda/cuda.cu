/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture on a CUDA device: memory, launches and copies. What the kernels compute and
 * what it costs is written in mixture/cuda/kernels.cuh.
 *
 * Rows stay on the device where the exchange carries them there; those of policies that
 * compute on the host are placed there once. Where the exchange works on the host they are
 * copied in each call, of a slice only the slice. Host rows are pageable, so the driver
 * moves them through its own pinned buffers, and another set here would only add a copy.
 * The same holds for scores of slices; their sums have a pinned table. Everything else that is copied is small and
 * in a mailbox, with the same layout in pinned host memory and on the device.
 *
 * With slices, the other ranks' block sums go to the root's device, which folds them and asks
 * about draws with the kernels for whole rows; so both patterns end in the same bits. Where
 * the exchange goes from device to device, questions and answers do so too, along the stream;
 * else, and where draws have rules, through the hosts.
 *
 * A normaliser is log Z of the mixture of one policy with exponent 1, so normalise and
 * combine are the same two kernels. Rows of several policies are normalised in one call: 1/T
 * of each row is in the exponent's place, and the temperature is 1.
 */
#include "mixture/mixture_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/policy.h"
#include "draws.cuh"
#include "round_kernels.cuh"
#include "slice_kernels.cuh"

static enum mpo_status cuda_open(const struct mpo_mixture_spec *spec, void **self)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = NULL;
    MPO_CHECK(spec->vocab_size <= MIXTURE_VOCAB_MAX, MPO_ERR_DATA,
              "a vocabulary of %d tokens; the cuda mixture takes at most %d",
              spec->vocab_size, MIXTURE_VOCAB_MAX);
    MPO_NEW(1, &cuda);
    set_sizes(cuda, spec);
    MPO_TRY(reserve_shared(cuda));
    MPO_TRY_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    cuda->placed_first = spec->placed_first;
    MPO_TRY(allocate_memory(cuda, copied_policies(spec)));
    MPO_TRY(send_tokens(cuda, spec));
    for (int32_t h = 0; h < spec->policy_count; h++)
        cuda->host.inverse_temperature[h] = 1.0 / spec->temperature[h];
    cuda->host.inverse_temperature[spec->policy_count] = 1.0;
    MPO_TRY(
        send_array(cuda, cuda->host.inverse_temperature, (size_t)spec->policy_count + 1));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
cleanup:
    if (status != MPO_OK) {
        cuda_close(cuda);
        cuda = NULL;
    }
    *self = cuda;
    return status;
}

/* ---- rows ---- */

static enum mpo_status cuda_place(void *self, int32_t policy_index, int32_t row_count,
                                  const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    size_t first = (size_t)(policy_index - cuda->placed_first) * (size_t)cuda->row_capacity;
    const struct mixture_batch batch = {logits, (size_t)row_count, cuda->vocab_size, first};
    MPO_TRY(copy_rows(cuda, &batch, logits));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream)); /* other streams read them next */
cleanup:
    return status;
}

static enum mpo_status cuda_round(void *self, int32_t policy_index, int32_t row_count,
                                  const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    size_t first = (size_t)(policy_index - cuda->placed_first) * (size_t)cuda->row_capacity;
    dim3 blocks((unsigned)cuda->block_count, (unsigned)row_count);
    struct mixture_round_view view = {};
    view.row = cuda->device.row;
    view.rounded = cuda->copied + first * cuda->row_stride;
    view.stride = cuda->row_stride;
    view.flags = cuda->flags;
    view.block_top = cuda->sums.block_weight;
    view.vocab_size = cuda->vocab_size;
    view.block_count = cuda->block_count;
    MPO_TRY(send_rows(cuda, logits, (size_t)row_count, cuda->vocab_size));
    MPO_LAUNCH(mixture_round_tops, blocks, MIXTURE_THREADS, 0, cuda->stream, view);
    MPO_TRY_CUDA(cudaGetLastError());
    MPO_LAUNCH(mixture_round_rows, blocks, MIXTURE_THREADS, 0, cuda->stream, view);
    MPO_TRY_CUDA(cudaGetLastError());
    for (int32_t row = 0; row < row_count; row++)
        logits[row] = view.rounded + (size_t)row * cuda->row_stride;
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream)); /* other streams read them next */
cleanup:
    return status;
}

static enum mpo_status launch_blocks(const struct cuda *cuda,
                                     const struct mixture_view *view)
{
    enum mpo_status status = MPO_OK;
    dim3 blocks((unsigned)view->block_count, (unsigned)view->row_count);
    MPO_LAUNCH(mixture_combine_blocks, blocks, MIXTURE_THREADS,
               MIXTURE_SLOT_BYTES(view->policy_count), cuda->stream, *view, cuda->sums);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

static enum mpo_status launch_rows(const struct cuda *cuda, const struct mixture_view *view)
{
    enum mpo_status status = MPO_OK;
    MPO_LAUNCH(mixture_combine_rows, dim3((unsigned)view->row_count), MIXTURE_THREADS,
               MIXTURE_LIST_BYTES(view->block_count, view->policy_count), cuda->stream,
               *view, cuda->sums);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

static struct mixture_view view_of_part(const struct cuda *cuda,
                                        const struct mpo_mixture_part *part)
{
    struct mixture_view alone = {};
    alone.row = cuda->device.row;
    alone.mu = cuda->device.scale;
    alone.inverse_temperature = cuda->device.inverse_temperature + cuda->policy_count;
    alone.flags = cuda->flags; /* rows that were never on the host are not masked */
    alone.policy_count = 1;
    alone.row_count = part->first_row[part->policy_count];
    alone.vocab_size = cuda->vocab_size;
    alone.block_count = cuda->block_count;
    return alone;
}

static enum mpo_status cuda_normalise(void *self, const struct mpo_mixture_part *part,
                                      const float *const *logits, double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    const struct mixture_view alone = view_of_part(cuda, part);
    size_t row_count = (size_t)alone.row_count;
    double *scale = cuda->host.scale;
    for (int32_t i = 0; i < part->policy_count; i++)
        for (int32_t row = part->first_row[i]; row < part->first_row[i + 1]; row++)
            scale[row] = cuda->host.inverse_temperature[part->first_policy + i];
    MPO_TRY(list_rows(cuda, logits, row_count, cuda->vocab_size));
    MPO_TRY(send_span(cuda, scale, cuda->host.row + row_count));
    MPO_TRY(launch_blocks(cuda, &alone));
    MPO_TRY(launch_rows(cuda, &alone));
    MPO_TRY(fetch_array(cuda, cuda->host.moments, row_count));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    for (size_t row = 0; row < row_count; row++) {
        double log_z = cuda->host.moments[row].log_z;
        bool all_masked = log_z <= (double)MPO_MASKED_LOGIT * scale[row];
        log_norm[row] = all_masked ? -INFINITY : log_z;
    }
cleanup:
    return status;
}

/* Put rows that are combined, or slices of them, into the mailbox. */
static enum mpo_status note_combined(struct cuda *cuda, const struct mpo_rows *rows,
                                     const struct mpo_mixture_exponents *exponents,
                                     struct mpo_mixture_slice slice)
{
    enum mpo_status status = MPO_OK;
    size_t row_count = (size_t)rows->row_count;
    size_t count = (size_t)cuda->policy_count * row_count;
    cuda->view = slice_view(cuda, rows->row_count, slice.first_block, slice.end_block);
    cuda->first_block = slice.first_block;
    memcpy(cuda->host.log_norm, rows->log_norm, count * sizeof(double));
    memcpy(cuda->host.mu, exponents->mu, count * sizeof(double));
    memcpy(cuda->host.end_bias, exponents->end_bias, row_count * sizeof(double));
    for (size_t row = 0; row < row_count; row++)
        cuda->host.expects[row] = mpo_mixture_expects(exponents, (int32_t)row);
    MPO_TRY(list_rows(cuda, rows->logits, count, cuda->view.vocab_size));
cleanup:
    return status;
}

/* Sum the blocks of a slice, or of whole rows. */
static enum mpo_status sum_blocks(struct cuda *cuda, const struct mpo_rows *rows,
                                  const struct mpo_mixture_exponents *exponents,
                                  struct mpo_mixture_slice slice)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(note_combined(cuda, rows, exponents, slice));
    if (rows->row_count == 0)
        return MPO_OK; /* an empty grid must not be launched */
    MPO_TRY(send_span(cuda, cuda->host.row, cuda->host.expects + rows->row_count));
    MPO_TRY(launch_blocks(cuda, &cuda->view));
cleanup:
    return status;
}

/* The figures of the rows combined last, which have come to the mailbox. */
static void take_figures(const struct cuda *cuda, struct mpo_mixture_moments *moments,
                         double *expectation)
{
    size_t row_count = (size_t)cuda->view.row_count;
    size_t count = row_count * (size_t)cuda->policy_count;
    memcpy(moments, cuda->host.moments, row_count * sizeof *moments);
    if (expectation != NULL)
        memcpy(expectation, cuda->host.expectation, count * sizeof *expectation);
}

/* Fold the sums of all blocks into rows. */
static enum mpo_status fold_blocks(struct cuda *cuda, struct mpo_mixture_moments *moments,
                                   double *expectation)
{
    enum mpo_status status = MPO_OK;
    const struct mixture_view whole = whole_view(cuda);
    size_t count = (size_t)whole.row_count * (size_t)whole.policy_count;
    if (count == 0)
        return MPO_OK;
    MPO_TRY(launch_rows(cuda, &whole));
    MPO_TRY(fetch_span(cuda, cuda->host.moments, cuda->host.expectation + count));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    take_figures(cuda, moments, expectation);
cleanup:
    return status;
}

static struct mpo_mixture_slice whole_slice(const struct cuda *cuda)
{
    struct mpo_mixture_slice slice = {0, cuda->block_count};
    return slice;
}

static enum mpo_status cuda_combine(void *self, const struct mpo_rows *rows,
                                    const struct mpo_mixture_exponents *exponents,
                                    struct mpo_mixture_moments *moments,
                                    double *expectation)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    MPO_TRY(sum_blocks(cuda, rows, exponents, whole_slice(cuda)));
    MPO_TRY(fold_blocks(cuda, moments, expectation));
cleanup:
    return status;
}

/* One copy there, the kernels, one copy back and one wait, of which each takes longer than a
 * kernel for a few rows. */
static enum mpo_status cuda_combine_and_draw(void *self, const struct mpo_rows *rows,
                                             const struct mpo_mixture_exponents *exponents,
                                             const struct mpo_mixture_results *results,
                                             struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    MPO_TRY(note_combined(cuda, rows, exponents, whole_slice(cuda)));
    MPO_TRY(send_span(cuda, cuda->host.row, note_draws(cuda, draws)));
    MPO_TRY(launch_blocks(cuda, &cuda->view));
    MPO_TRY(launch_rows(cuda, &cuda->view));
    MPO_TRY(launch_draws(cuda, draws));
    MPO_TRY(fetch_draws(cuda, draws));
    take_figures(cuda, results->moments, results->expectation);
cleanup:
    return status;
}

/* Doubles of the sums of some blocks of all rows. */
static size_t sums_count(const struct cuda *cuda, int32_t block_count)
{
    return (size_t)block_count * (size_t)cuda->view.row_count *
           MPO_MIXTURE_SUMS_WIDTH(cuda->policy_count);
}

static enum mpo_status cuda_sum(void *self, const struct mpo_rows *rows,
                                const struct mpo_mixture_exponents *exponents,
                                struct mpo_mixture_slice slice, double *table)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    MPO_TRY(sum_blocks(cuda, rows, exponents, slice));
    if (table == NULL || rows->row_count == 0)
        return MPO_OK; /* the device works while the root waits for the others */
    MPO_TRY_CUDA(cudaMemcpyAsync(table, cuda->sums.table,
                                 sums_count(cuda, slice.end_block - slice.first_block) *
                                     sizeof *table,
                                 cudaMemcpyDeviceToHost, cuda->stream));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
cleanup:
    return status;
}

static enum mpo_status cuda_fold(void *self, int32_t end_block, const double *table,
                                 struct mpo_mixture_moments *moments, double *expectation)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    size_t own = sums_count(cuda, end_block);
    size_t others = sums_count(cuda, cuda->block_count) - own;
    if (others > 0)
        MPO_TRY_CUDA(cudaMemcpyAsync(cuda->sums.table + own, table + own,
                                     others * sizeof *table, cudaMemcpyHostToDevice,
                                     cuda->stream));
    MPO_TRY(fold_blocks(cuda, moments, expectation));
cleanup:
    return status;
}

/* ---- slices ---- */

static enum mpo_status cuda_scores(void *self, int32_t row, int32_t first_block,
                                   int32_t end_block, double *score)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    const struct mixture_view view =
        slice_view(cuda, cuda->view.row_count, first_block, end_block);
    MPO_LAUNCH(mixture_scores, dim3((unsigned)view.block_count), MIXTURE_THREADS, 0,
               cuda->stream, view, row, cuda->weight);
    MPO_TRY_CUDA(cudaGetLastError());
    MPO_TRY_CUDA(cudaMemcpyAsync(score, cuda->weight,
                                 (size_t)view.vocab_size * sizeof *score,
                                 cudaMemcpyDeviceToHost, cuda->stream));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
cleanup:
    return status;
}

static enum mpo_status launch_ask(struct cuda *cuda, int32_t count)
{
    enum mpo_status status = MPO_OK;
    MPO_LAUNCH(mixture_ask, dim3((unsigned)count), MIXTURE_THREADS,
               MIXTURE_LIST_BYTES(cuda->block_count, 0), cuda->stream, whole_view(cuda),
               cuda->sums, draw_view(cuda, count), cuda->device.question);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

static enum mpo_status cuda_ask(void *self, const struct mpo_mixture_draws *draws,
                                struct mpo_mixture_question *question)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    size_t count = (size_t)draws->count;
    MPO_TRY(send_draws(cuda, draws));
    MPO_TRY(launch_ask(cuda, draws->count));
    MPO_TRY(fetch_array(cuda, cuda->host.question, count));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    memcpy(question, cuda->host.question, count * sizeof *question);
cleanup:
    return status;
}

static enum mpo_status launch_answers(struct cuda *cuda, int32_t count)
{
    enum mpo_status status = MPO_OK;
    MPO_LAUNCH(mixture_answer, dim3((unsigned)count), MIXTURE_THREADS, 0, cuda->stream,
               cuda->view, cuda->first_block, cuda->device.question, cuda->device.answers);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

static enum mpo_status cuda_answer(void *self, const struct mpo_mixture_question *question,
                                   int32_t count, double *answers)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    size_t some = (size_t)count;
    size_t figures = some * MPO_MIXTURE_ANSWER_WIDTH(cuda->policy_count);
    memcpy(cuda->host.question, question, some * sizeof *question);
    MPO_TRY(send_array(cuda, cuda->host.question, some));
    MPO_TRY(launch_answers(cuda, count));
    MPO_TRY(fetch_array(cuda, cuda->host.answers, figures));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    memcpy(answers, cuda->host.answers, figures * sizeof *answers);
cleanup:
    return status;
}

/* Bring the block sums of all slices to the root. */
static enum mpo_status gather_sums(const struct cuda *cuda,
                                   const struct mpo_mixture_team *team)
{
    const struct mpo_exchange_table table = {cuda->sums.table, team->part, cuda->stream};
    for (int32_t rank = 0; rank <= team->size; rank++)
        team->part[rank] = sums_count(cuda, team->first_block[rank]) * sizeof(double);
    return mpo_exchange_device_gather(team->exchange, &table);
}

/* Bring each slice's answers to all questions to the root. */
static enum mpo_status gather_answers(const struct cuda *cuda,
                                      const struct mpo_mixture_team *team)
{
    const struct mpo_exchange_table table = {cuda->device.answers, team->part,
                                             cuda->stream};
    size_t bytes = (size_t)team->draws->count *
                   MPO_MIXTURE_ANSWER_WIDTH(cuda->policy_count) * sizeof(double);
    team->part[0] = 0;
    for (int32_t rank = 0; rank < team->size; rank++)
        team->part[rank + 1] =
            team->part[rank] +
            (team->first_block[rank] < team->first_block[rank + 1] ? bytes : 0);
    return mpo_exchange_device_gather(team->exchange, &table);
}

/* Of each draw the answer of the rank that has its block. */
static void take_answers(const struct cuda *cuda, const struct mpo_mixture_team *team)
{
    size_t width = MPO_MIXTURE_ANSWER_WIDTH(cuda->policy_count);
    for (int32_t i = 0; i < team->draws->count; i++) {
        int32_t rank = 0;
        team->question[i] = cuda->host.question[i];
        while (team->first_block[rank + 1] <= team->question[i].block)
            rank++;
        memcpy(team->answers + (size_t)i * width,
               cuda->host.answers + team->part[rank] / sizeof(double) + (size_t)i * width,
               width * sizeof(double));
    }
}

/* At the root: one copy there, the kernels, one copy back and one wait. */
static enum mpo_status
cuda_combine_and_draw_slices(void *self, const struct mpo_rows *rows,
                             const struct mpo_mixture_exponents *exponents,
                             const struct mpo_mixture_team *team)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    bool is_root = team->rank == 0;
    int32_t count = team->draws->count;
    struct mpo_mixture_slice own = {team->first_block[team->rank],
                                    team->first_block[team->rank + 1]};
    MPO_TRY(note_combined(cuda, rows, exponents, own));
    if (is_root)
        MPO_TRY(send_span(cuda, cuda->host.row, note_draws(cuda, team->draws)));
    else
        MPO_TRY(send_span(cuda, cuda->host.row, cuda->host.expects + rows->row_count));
    MPO_TRY(launch_blocks(cuda, &cuda->view));
    MPO_TRY(gather_sums(cuda, team));
    if (is_root) {
        const struct mixture_view whole = whole_view(cuda);
        MPO_TRY(launch_rows(cuda, &whole));
        MPO_TRY(launch_ask(cuda, count));
    }
    MPO_TRY(mpo_exchange_device_deal(team->exchange, cuda->device.question,
                                     (size_t)count * sizeof *team->question, cuda->stream));
    MPO_TRY(launch_answers(cuda, count));
    MPO_TRY(gather_answers(cuda, team));
    if (is_root)
        MPO_TRY(fetch_span(cuda, cuda->host.moments,
                           (char *)cuda->host.answers + team->part[team->size]));
    MPO_TRY(mpo_exchange_device_wait(team->exchange, cuda->stream));
    if (is_root) {
        take_figures(cuda, team->results->moments, team->results->expectation);
        take_answers(cuda, team);
    }
cleanup:
    return status;
}

static enum mpo_status cuda_rule(void *self, const struct mpo_mixture_draws *draws,
                                 int32_t draw, const double *score)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    struct mixture_round round = {};
    const struct mpo_mixture_draws one = one_draw(draws, draw);
    draws->token[draw] = -1; /* kept if no token is left */
    MPO_TRY(send_draws(cuda, &one));
    MPO_TRY_CUDA(cudaMemcpyAsync(cuda->weight, score,
                                 (size_t)cuda->vocab_size * sizeof *score,
                                 cudaMemcpyHostToDevice, cuda->stream));
    add_rule(cuda, draws->rule[draw], 0, &round);
    MPO_TRY(launch_round(cuda, 1, &round, true));
    MPO_TRY(fetch_array(cuda, cuda->host.token, 1));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    draws->token[draw] = cuda->host.token[0];
cleanup:
    return status;
}

const struct mpo_mixture_ops mpo_mixture_cuda_ops = {
    "cuda",         cuda_open,      cuda_close,  cuda_bytes,
    cuda_take,      cuda_give_back, cuda_place,  cuda_round,
    cuda_normalise, cuda_combine,   cuda_draw,   cuda_combine_and_draw,
    cuda_sum,       cuda_scores,    cuda_answer, cuda_combine_and_draw_slices,
    cuda_fold,      cuda_ask,       cuda_rule,
};
