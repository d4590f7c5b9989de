/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture: argument checks, the choice of a device, and who does what where the ranks
 * of a group have slices of the vocabulary.
 *
 *     combine   every rank  sums of its blocks
 *               root        folds them in order: log Z, moments
 *
 * One rank with whole rows folds its own, or has the device do all of it by the same
 * kernels, so the figures are the same for every cut. Draws are in mixture/draw.c, the most
 * probable tokens in mixture/top.c. The devices' functions fail only where the
 * device does. What can be wrong with the figures (a NaN, a row with no finite logit) is
 * looked for here, once for all devices.
 */
#include "fold.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/device.h"
#include "base/argument.h"
#include "base/memory.h"

/* Slices as the exchange cuts them; without one the whole vocabulary is the only slice. */
static enum mpo_status copy_slices(struct mpo_mixture *mixture,
                                   struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    const int32_t whole[2] = {0, mixture->block_count};
    const int32_t *first_block = exchange != NULL ? mpo_exchange_slices(exchange) : whole;
    mixture->exchange = exchange;
    mixture->rank = exchange != NULL ? mpo_exchange_rank(exchange) : 0;
    mixture->size = exchange != NULL ? mpo_exchange_size(exchange) : 1;
    MPO_NEW(mixture->size + 1, &mixture->part);
    MPO_NEW(mixture->size + 1, &mixture->first_block);
    memcpy(mixture->first_block, first_block,
           (size_t)(mixture->size + 1) * sizeof *first_block);
cleanup:
    return status;
}

static enum mpo_status copy_spec(struct mpo_mixture *mixture,
                                 const struct mpo_mixture_spec *spec)
{
    enum mpo_status status = MPO_OK;
    mixture->policy_count = spec->policy_count;
    mixture->vocab_size = spec->vocab_size;
    mixture->block_count = mpo_rows_block_count(spec->vocab_size);
    mixture->row_capacity = spec->row_capacity;
    mixture->rows_on_device = spec->rows_on_device;
    mixture->bf16_rows = spec->bf16_rows;
    mixture->placed_first = spec->placed_first;
    mixture->end_count = spec->end_count;
    MPO_NEW(spec->policy_count, &mixture->inverse_temperature);
    for (int32_t h = 0; h < spec->policy_count; h++)
        mixture->inverse_temperature[h] = 1.0 / spec->temperature[h];
    MPO_NEW(spec->end_count, &mixture->end_token);
    if (spec->end_count > 0)
        memcpy(mixture->end_token, spec->end_token,
               (size_t)spec->end_count * sizeof *spec->end_token);
    MPO_TRY(copy_slices(mixture, spec->exchange));
cleanup:
    return status;
}

/* Of slices the sums go to and from a device at each position. */
static enum mpo_status take_sums(struct mpo_mixture *mixture, size_t count)
{
    enum mpo_status status = MPO_OK;
    void *memory = NULL;
    if (mixture->ops->take != NULL)
        MPO_TRY(mixture->ops->take(count * sizeof *mixture->sums, &memory));
    else
        MPO_TRY(mpo_memory_take(count, sizeof *mixture->sums, "sums of blocks", &memory));
    mixture->sums = memory;
cleanup:
    return status;
}

static enum mpo_status allocate_buffers(struct mpo_mixture *mixture)
{
    enum mpo_status status = MPO_OK;
    size_t rows = (size_t)mixture->row_capacity;
    size_t blocks = (size_t)mixture->block_count;
    MPO_TRY(
        take_sums(mixture, rows * blocks * MPO_MIXTURE_SUMS_WIDTH(mixture->policy_count)));
    MPO_NEW(mixture->policy_count, &mixture->logit_sum);
    MPO_NEW(rows, &mixture->row_top);
    MPO_NEW(rows, &mixture->row_sum);
    MPO_NEW(rows, &mixture->row_log_z);
    MPO_NEW(rows, &mixture->nobody);
    MPO_NEW(rows, &mixture->kind);
    MPO_NEW(rows, &mixture->draft);
    MPO_NEW(rows, &mixture->question);
    MPO_NEW(rows * MPO_MIXTURE_ANSWER_WIDTH(mixture->policy_count), &mixture->answers);
    MPO_NEW(blocks * MPO_ROWS_BLOCK, &mixture->score);
    MPO_NEW(mixture->vocab_size, &mixture->heap);
    MPO_NEW((size_t)mixture->size * MPO_MIXTURE_TOP_MAX, &mixture->listed);
    MPO_NEW(blocks, &mixture->block_top);
cleanup:
    return status;
}

size_t mpo_mixture_host_bytes(const struct mpo_mixture_spec *spec)
{
    bool rounds_here = spec->bf16_rows && !spec->rows_on_device;
    size_t rows = (size_t)spec->placed_count * (size_t)spec->row_capacity;
    return rounds_here ? rows * (size_t)spec->vocab_size * sizeof(float) : 0;
}

size_t mpo_mixture_device_bytes(const struct mpo_mixture_spec *spec)
{
    const struct mpo_mixture_ops *ops = mpo_registry_mixture(spec->device);
    return ops != NULL && ops->bytes != NULL ? ops->bytes(spec) : 0;
}

/* Tokens in a list are ascending, so that each is there once. */
static enum mpo_status check_tokens(const struct mpo_mixture_spec *spec,
                                    const int32_t *token, int32_t count, const char *what)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(count >= 0 && (count == 0 || token != NULL), MPO_ERR_USAGE,
              "a mixture: expected %s tokens, found %d in a list that is %s", what, count,
              token != NULL ? "there" : "NULL");
    for (int32_t i = 0; i < count; i++)
        MPO_CHECK(token[i] > (i > 0 ? token[i - 1] : -1) && token[i] < spec->vocab_size,
                  MPO_ERR_USAGE,
                  "a mixture: expected %s tokens in ascending order below %d, found %d as "
                  "number %d",
                  what, spec->vocab_size, token[i], i + 1);
cleanup:
    return status;
}

static enum mpo_status check_spec(const struct mpo_mixture_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(spec->policy_count >= 1 && spec->vocab_size >= 1 && spec->row_capacity >= 1,
              MPO_ERR_USAGE,
              "a mixture: expected policy_count, vocab_size and row_capacity of 1 or more, "
              "found %d, %d and %d",
              spec->policy_count, spec->vocab_size, spec->row_capacity);
    for (int32_t h = 0; h < spec->policy_count; h++)
        MPO_CHECK(isfinite(spec->temperature[h]) && spec->temperature[h] > 0.0,
                  MPO_ERR_USAGE,
                  "a mixture: expected temperatures above 0, found %g of policy %d",
                  spec->temperature[h], h);
    MPO_TRY(check_tokens(spec, spec->end_token, spec->end_count, "end"));
    MPO_TRY(check_tokens(spec, spec->masked, spec->masked_count, "masked"));
cleanup:
    return status;
}

enum mpo_status mpo_mixture_open(const struct mpo_mixture_spec *spec,
                                 struct mpo_mixture **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    MPO_ARGUMENTS(spec->device, spec->temperature);
    struct mpo_mixture *mixture = NULL;
    const struct mpo_mixture_ops *ops = mpo_registry_mixture(spec->device);
    MPO_TRY(check_spec(spec));
    MPO_CHECK(ops != NULL, MPO_ERR_DEVICE, "this build has no %s mixture; it has: %s",
              spec->device, mpo_device_built());
    MPO_CHECK(
        !spec->rows_on_device || ops->place != NULL, MPO_ERR_USAGE,
        "a mixture: expected rows_on_device false on the %s, which has no memory of its "
        "own, found true",
        spec->device);
    MPO_CHECK(spec->masked_count < spec->vocab_size, MPO_ERR_DATA,
              "all %d tokens of the vocabulary are masked", spec->vocab_size);
    MPO_NEW(1, &mixture);
    mixture->ops = ops;
    MPO_TRY(copy_spec(mixture, spec));
    MPO_TRY(allocate_buffers(mixture));
    MPO_NEW(mpo_mixture_host_bytes(spec) / sizeof(float), &mixture->rounded);
    MPO_TRY(ops->open(spec, &mixture->self));
cleanup:
    if (status != MPO_OK)
        mpo_mixture_close(&mixture);
    *out = mixture;
    return status;
}

void mpo_mixture_close(struct mpo_mixture **out)
{
    struct mpo_mixture *mixture = out != NULL ? *out : NULL;
    if (mixture == NULL)
        return;
    mixture->ops->close(mixture->self);
    free(mixture->rounded);
    free(mixture->block_top);
    free(mixture->listed);
    free(mixture->heap);
    free(mixture->score);
    free(mixture->answers);
    free(mixture->question);
    free(mixture->draft);
    free(mixture->kind);
    free(mixture->nobody);
    free(mixture->row_log_z);
    free(mixture->row_sum);
    free(mixture->row_top);
    free(mixture->logit_sum);
    if (mixture->ops->give_back != NULL)
        mixture->ops->give_back(mixture->sums);
    else
        free(mixture->sums);
    free(mixture->first_block);
    free(mixture->part);
    free(mixture->end_token);
    free(mixture->inverse_temperature);
    free(mixture);
    *out = NULL;
}

static enum mpo_status check_row_count(const struct mpo_mixture *mixture, int32_t row_count)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(row_count >= 0 && row_count <= mixture->row_capacity, MPO_ERR_USAGE,
              "a mixture: expected row_count 0 to %d, its row_capacity, found %d",
              mixture->row_capacity, row_count);
cleanup:
    return status;
}

enum mpo_status mpo_mixture_place(struct mpo_mixture *mixture, int32_t policy_index,
                                  int32_t row_count, const float **logits)
{
    enum mpo_status status = MPO_OK;
    if (!mixture->rows_on_device)
        return MPO_OK;
    MPO_TRY(check_row_count(mixture, row_count));
    MPO_TRY(mixture->ops->place(mixture->self, policy_index, row_count, logits));
cleanup:
    return status;
}

enum mpo_status mpo_mixture_round(struct mpo_mixture *mixture, int32_t policy_index,
                                  int32_t row_count, const float **logits)
{
    enum mpo_status status = MPO_OK;
    size_t vocab = (size_t)mixture->vocab_size;
    size_t first =
        (size_t)(policy_index - mixture->placed_first) * (size_t)mixture->row_capacity;
    if (!mixture->bf16_rows)
        return MPO_OK;
    MPO_TRY(check_row_count(mixture, row_count));
    mixture->rows.row_count = 0; /* as in normalise */
    if (mixture->rows_on_device)
        return mixture->ops->round(mixture->self, policy_index, row_count, logits);
    for (int32_t row = 0; row < row_count; row++) {
        float *rounded = mixture->rounded + (first + (size_t)row) * vocab;
        mpo_mixture_round_row(logits[row], mixture->vocab_size, rounded);
        logits[row] = rounded;
    }
cleanup:
    return status;
}

/* Called after the work: a failed row is data, and the caller may continue with the others. */
static enum mpo_status check_norms(const struct mpo_mixture_part *part,
                                   const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    const int32_t *first = part->first_row;
    for (int32_t i = 0; i < part->policy_count; i++)
        for (int32_t row = first[i]; row < first[i + 1]; row++)
            MPO_CHECK(isfinite(log_norm[row]), MPO_ERR_DATA,
                      "policy %d: the logits of row %d have no finite normaliser (%g); the "
                      "model or its file is damaged",
                      part->first_policy + i, row - first[i], log_norm[row]);
cleanup:
    return status;
}

enum mpo_status mpo_mixture_normalise_part(struct mpo_mixture *mixture,
                                           const struct mpo_mixture_part *part,
                                           const float *const *logits, double *log_norm)
{
    enum mpo_status status = MPO_OK;
    const int32_t *first = part->first_row;
    for (int32_t i = 0; i < part->policy_count; i++)
        MPO_TRY(check_row_count(mixture, first[i + 1] - first[i]));
    mixture->rows.row_count = 0; /* a device may use the same memory for both */
    if (first[part->policy_count] > 0)
        MPO_TRY(mixture->ops->normalise(mixture->self, part, logits, log_norm));
    MPO_TRY(check_norms(part, log_norm));
cleanup:
    return status;
}

enum mpo_status mpo_mixture_normalise(struct mpo_mixture *mixture, int32_t policy_index,
                                      int32_t row_count, const float *const *logits,
                                      double *log_norm)
{
    const int32_t first_row[2] = {0, row_count};
    const struct mpo_mixture_part part = {policy_index, 1, first_row};
    return mpo_mixture_normalise_part(mixture, &part, logits, log_norm);
}

enum mpo_status mpo_mixture_bring(struct mpo_mixture *mixture, double *table, size_t width)
{
    if (mpo_mixture_root_has_all(mixture))
        return MPO_OK;
    for (int32_t rank = 0; rank <= mixture->size; rank++)
        mixture->part[rank] = (size_t)mixture->first_block[rank] * width;
    return mpo_exchange_parts(mixture->exchange, table, mixture->part);
}

/* ---- combine ---- */

/* Policies may take no part where their exponent is 0; devices rely on it. */
static enum mpo_status find_absent(struct mpo_mixture *mixture)
{
    enum mpo_status status = MPO_OK;
    int32_t rows = mixture->rows.row_count;
    mixture->any_absent = false;
    for (int32_t i = 0; i < mixture->policy_count * rows; i++) {
        if (mixture->rows.logits[i] != NULL)
            continue;
        double mu = mpo_mixture_mu(mixture, i % rows)[i / rows];
        mixture->any_absent = true;
        MPO_CHECK(mu == 0.0, MPO_ERR_USAGE,
                  "policy %d has no logits of row %d, and the exponent %g there", i / rows,
                  i % rows, mu);
    }
cleanup:
    return status;
}

static bool is_finite(const struct mpo_mixture *mixture, int32_t row,
                      const struct mpo_mixture_moments *moments, const double *expectation)
{
    bool expects = mpo_mixture_expects(&mixture->exponents, row);
    bool finite =
        isfinite(moments[row].log_z) && (!expects || isfinite(moments[row].entropy));
    for (int32_t h = 0; expects && h < mixture->policy_count; h++)
        finite = finite && (isfinite(expectation[row * mixture->policy_count + h]) ||
                            !mpo_mixture_takes_part(&mixture->rows, h, row));
    return finite;
}

/* A device's figures of policies that take no part become one and the same NaN. */
static void blank_absent(const struct mpo_mixture *mixture, double *expectation)
{
    for (int32_t row = 0; row < mixture->rows.row_count; row++)
        for (int32_t h = 0; h < mixture->policy_count; h++)
            if (!mpo_mixture_takes_part(&mixture->rows, h, row))
                expectation[row * mixture->policy_count + h] = NAN;
}

/* Mark failed rows for the caller and for draws; the message names the first one. */
static enum mpo_status check_rows(struct mpo_mixture *mixture,
                                  struct mpo_mixture_moments *moments,
                                  const double *expectation)
{
    enum mpo_status status = MPO_OK;
    int32_t failed = -1;
    double log_z = 0.0; /* of the first that failed */
    for (int32_t row = 0; row < mixture->rows.row_count; row++) {
        bool finite = is_finite(mixture, row, moments, expectation);
        if (!finite && failed < 0) {
            failed = row;
            log_z = moments[row].log_z;
        }
        if (!finite && isfinite(moments[row].log_z))
            moments[row].log_z = NAN;
        mixture->row_log_z[row] = moments[row].log_z;
    }
    MPO_CHECK(failed < 0, MPO_ERR_DATA,
              "the mixture of row %d is not finite (log Z %g): a policy gives some token "
              "an infinite logit; every policy needs full support",
              failed, log_z);
cleanup:
    return status;
}

/* The root folds the blocks of all slices into rows. */
static enum mpo_status fold_rows(struct mpo_mixture *mixture,
                                 struct mpo_mixture_moments *moments, double *expectation)
{
    if (mixture->ops->fold != NULL)
        return mixture->ops->fold(mixture->self, mpo_mixture_own_end(mixture),
                                  mixture->sums, moments, expectation);
    for (int32_t row = 0; row < mixture->rows.row_count; row++) {
        size_t at = (size_t)row * (size_t)mixture->policy_count;
        mpo_mixture_fold(mixture, row, &moments[row],
                         expectation != NULL ? expectation + at : NULL);
    }
    return MPO_OK;
}

static enum mpo_status combine_slices(struct mpo_mixture *mixture,
                                      struct mpo_mixture_moments *moments,
                                      double *expectation)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rows *rows = &mixture->rows;
    size_t width = (size_t)rows->row_count * MPO_MIXTURE_SUMS_WIDTH(mixture->policy_count);
    struct mpo_mixture_slice own = {mpo_mixture_own_first(mixture),
                                    mpo_mixture_own_end(mixture)};
    bool stays = mixture->rank == 0 && mixture->ops->fold != NULL;
    if (own.first_block < own.end_block)
        MPO_TRY(mixture->ops->sum(mixture->self, rows, &mixture->exponents, own,
                                  stays ? NULL
                                        : mixture->sums + (size_t)own.first_block * width));
    MPO_TRY(mpo_mixture_bring(mixture, mixture->sums, width));
    if (mixture->rank == 0)
        MPO_TRY(fold_rows(mixture, moments, expectation));
cleanup:
    return status;
}

enum mpo_status mpo_mixture_begin(struct mpo_mixture *mixture, const struct mpo_rows *rows,
                                  const struct mpo_mixture_exponents *exponents,
                                  const double *expectation)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_row_count(mixture, rows->row_count));
    mixture->rows = *rows;
    mixture->exponents = *exponents;
    if (expectation == NULL)
        mixture->exponents.expects = mixture->nobody;
    if (!mpo_mixture_root_has_all(mixture) || mixture->rank == 0)
        MPO_TRY(find_absent(mixture));
cleanup:
    return status;
}

enum mpo_status mpo_mixture_check(struct mpo_mixture *mixture,
                                  struct mpo_mixture_moments *moments, double *expectation)
{
    if (mixture->any_absent && expectation != NULL)
        blank_absent(mixture, expectation);
    return check_rows(mixture, moments, expectation);
}

enum mpo_status mpo_mixture_combine(struct mpo_mixture *mixture,
                                    const struct mpo_rows *rows,
                                    const struct mpo_mixture_exponents *exponents,
                                    struct mpo_mixture_moments *moments,
                                    double *expectation)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_mixture_ops *ops = mixture->ops;
    bool root_has_all = mpo_mixture_root_has_all(mixture);
    MPO_TRY(mpo_mixture_begin(mixture, rows, exponents, expectation));
    if (root_has_all && mixture->rank != 0)
        return MPO_OK;
    if (root_has_all && ops->combine != NULL)
        MPO_TRY(
            ops->combine(mixture->self, rows, &mixture->exponents, moments, expectation));
    else
        MPO_TRY(combine_slices(mixture, moments, expectation));
    if (mixture->rank == 0)
        MPO_TRY(mpo_mixture_check(mixture, moments, expectation));
cleanup:
    return status;
}
