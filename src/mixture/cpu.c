/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture on the CPU: the readable truth that other devices are tested against.
 *
 *     s(v) = sum_h mu_h (x_h(v) / T_h - norm_h) + b [v ends],   q(v) = exp(s(v) - log Z)
 *     E_q log pi_h = sum_v q(v) x_h(v) / T_h - norm_h
 *
 * A row is taken block by block of MPO_ROWS_BLOCK tokens, each relative to the block's
 * own maximum, so the logits are read from memory once and no exponent over- or underflows:
 *
 *     per block   M_b = max s,  S_b = sum exp(s - M_b),  X_b,h = sum exp(s - M_b) x_h
 *     the row     mixture/fold.c
 *
 * The inner loops are those of mixture/loops.c; a block's sum has one fixed order, whoever
 * sums it. Each row has its own exponents. Cost a row: 4 H V bytes read, V exp, and where
 * the expectation is wanted H V products.
 */
#include "fold.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "loops.h"
#include "mpo/device.h"
#include "mpo/policy.h"

#define BLOCK MPO_ROWS_BLOCK

struct cpu {
    int32_t policy_count;
    int32_t vocab_size;
    int32_t block_count;
    double *inverse_temperature; /* [H] */
    int32_t *masked;             /* ascending */
    int32_t *end_token;          /* ascending */
    int32_t *masked_start;       /* [block_count + 1] first of each block in masked */
    int32_t *end_start;          /* [block_count + 1] first of each block in end_token */
    struct mpo_rows rows;        /* summed last; borrowed */
    struct mpo_mixture_exponents exponents; /* of those rows; borrowed */
    int32_t first_block;                    /* of the slice that rows holds */
    double *scratch;                        /* [BLOCK] s, then exp(s - M_b) */
};

static void cpu_close(void *pointer)
{
    struct cpu *cpu = pointer;
    if (cpu == NULL)
        return;
    free(cpu->scratch);
    free(cpu->end_start);
    free(cpu->masked_start);
    free(cpu->end_token);
    free(cpu->masked);
    free(cpu->inverse_temperature);
    free(cpu);
}

/* Copy an ascending list of tokens and index it by block. */
static enum mpo_status index_tokens(const int32_t *tokens, int32_t count,
                                    int32_t block_count, int32_t **copy, int32_t **start)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(count, copy);
    MPO_NEW(block_count + 1, start);
    int32_t at = 0;
    for (int32_t block = 0; block <= block_count; block++) {
        while (at < count && tokens[at] < block * BLOCK)
            at++;
        (*start)[block] = at;
    }
    if (count > 0)
        memcpy(*copy, tokens, (size_t)count * sizeof *tokens);
cleanup:
    return status;
}

static enum mpo_status cpu_open(const struct mpo_mixture_spec *spec, void **self)
{
    enum mpo_status status = MPO_OK;
    struct cpu *cpu = NULL;
    int32_t block_count = mpo_rows_block_count(spec->vocab_size);
    MPO_NEW(1, &cpu);
    cpu->policy_count = spec->policy_count;
    cpu->vocab_size = spec->vocab_size;
    cpu->block_count = block_count;
    MPO_NEW(spec->policy_count, &cpu->inverse_temperature);
    for (int32_t h = 0; h < spec->policy_count; h++)
        cpu->inverse_temperature[h] = 1.0 / spec->temperature[h];
    MPO_TRY(index_tokens(spec->masked, spec->masked_count, block_count, &cpu->masked,
                         &cpu->masked_start));
    MPO_TRY(index_tokens(spec->end_token, spec->end_count, block_count, &cpu->end_token,
                         &cpu->end_start));
    MPO_NEW(BLOCK, &cpu->scratch);
cleanup:
    if (status != MPO_OK) {
        cpu_close(cpu);
        cpu = NULL;
    }
    *self = cpu;
    return status;
}

/* ---- rows ---- */

static int32_t block_length(const struct cpu *cpu, int32_t block)
{
    int32_t left = cpu->vocab_size - block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

static double row_log_norm(const struct cpu *cpu, const float *x, double scale)
{
    double top = -INFINITY;
    double sum = 0.0;
    for (int32_t block = 0; block < cpu->block_count; block++) {
        int32_t n = block_length(cpu, block);
        const float *part = x + (size_t)block * BLOCK;
        double block_top = (double)mpo_mixture_max(part, n) * scale;
        double block_sum = mpo_mixture_exp_sum(part, scale, block_top, n);
        if (block_top > top) {
            sum = sum * exp(top - block_top) + block_sum;
            top = block_top;
        } else {
            sum += block_sum * exp(block_top - top);
        }
    }
    bool all_masked = top <= (double)MPO_MASKED_LOGIT * scale;
    return all_masked ? -INFINITY : top + log(sum);
}

static enum mpo_status cpu_normalise(void *self, const struct mpo_mixture_part *part,
                                     const float *const *logits, double *log_norm)
{
    const struct cpu *cpu = self;
    for (int32_t i = 0; i < part->policy_count; i++)
        for (int32_t row = part->first_row[i]; row < part->first_row[i + 1]; row++)
            log_norm[row] = row_log_norm(cpu, logits[row],
                                         cpu->inverse_temperature[part->first_policy + i]);
    return MPO_OK;
}

/* The logits of one block. */
static const float *policy_block(const struct cpu *cpu, int32_t h, int32_t row,
                                 int32_t block)
{
    size_t index = (size_t)h * (size_t)cpu->rows.row_count + (size_t)row;
    return cpu->rows.logits[index] + (size_t)(block - cpu->first_block) * BLOCK;
}

/* s of one block, masked tokens at -inf, end tokens tilted. */
static void block_scores(const struct cpu *cpu, int32_t row, int32_t block, double *s)
{
    int32_t n = block_length(cpu, block);
    int32_t first = block * BLOCK;
    const double *mu = cpu->exponents.mu + (size_t)row * (size_t)cpu->policy_count;
    double constant = 0.0;
    for (int32_t h = 0; h < cpu->policy_count; h++)
        if (mu[h] != 0.0)
            constant -= mu[h] * mpo_mixture_norm(&cpu->rows, h, row);
    for (int32_t i = 0; i < n; i++)
        s[i] = constant;
    for (int32_t h = 0; h < cpu->policy_count; h++)
        if (mu[h] != 0.0)
            mpo_mixture_add_scaled(s, policy_block(cpu, h, row, block),
                                   mu[h] * cpu->inverse_temperature[h], n);
    for (int32_t i = cpu->end_start[block]; i < cpu->end_start[block + 1]; i++)
        s[cpu->end_token[i] - first] += cpu->exponents.end_bias[row];
    for (int32_t i = cpu->masked_start[block]; i < cpu->masked_start[block + 1]; i++)
        s[cpu->masked[i] - first] = -INFINITY;
}

static void sum_block(struct cpu *cpu, int32_t row, int32_t block,
                      struct mpo_mixture_sums *sums)
{
    int32_t n = block_length(cpu, block);
    block_scores(cpu, row, block, cpu->scratch);
    sums->top = mpo_mixture_greatest(cpu->scratch, n);
    if (sums->top == -INFINITY)
        return; /* every token of the block is masked; fold looks no further */
    sums->sum = mpo_mixture_exponentiate(cpu->scratch, sums->top, n);
    sums->end_sum = 0.0;
    for (int32_t i = cpu->end_start[block]; i < cpu->end_start[block + 1]; i++)
        sums->end_sum += cpu->scratch[cpu->end_token[i] - block * BLOCK];
    bool expects = mpo_mixture_expects(&cpu->exponents, row);
    for (int32_t h = 0; h < cpu->policy_count; h++)
        sums->logit_sum[h] = expects && mpo_mixture_takes_part(&cpu->rows, h, row)
                                 ? mpo_mixture_weighted_sum(
                                       cpu->scratch, policy_block(cpu, h, row, block), n)
                                 : NAN;
}

static enum mpo_status cpu_sum(void *self, const struct mpo_rows *rows,
                               const struct mpo_mixture_exponents *exponents,
                               struct mpo_mixture_slice slice, double *table)
{
    struct cpu *cpu = self;
    cpu->rows = *rows;
    cpu->exponents = *exponents;
    cpu->first_block = slice.first_block;
    for (int32_t row = 0; row < rows->row_count; row++)
        for (int32_t block = slice.first_block; block < slice.end_block; block++)
            sum_block(cpu, row, block,
                      mpo_mixture_sums_of(table, cpu->policy_count, rows->row_count,
                                          block - slice.first_block, row));
    return MPO_OK;
}

static enum mpo_status cpu_scores(void *self, int32_t row, int32_t first_block,
                                  int32_t end_block, double *score)
{
    struct cpu *cpu = self;
    for (int32_t block = first_block; block < end_block; block++, score += BLOCK)
        block_scores(cpu, row, block, score);
    return MPO_OK;
}

/* ---- tokens ---- */

/* The token of the block at which the cumulative sum of exp(s - M) exceeds the target.
 * Rounding may leave the target at or beyond the end: then it is the last token with
 * any probability. */
static int32_t invert_block(struct cpu *cpu, const struct mpo_mixture_question *question)
{
    int32_t n = block_length(cpu, question->block);
    double sum = 0.0;
    int32_t last = 0;
    mpo_mixture_exponentiate(cpu->scratch, question->block_top, n);
    for (int32_t i = 0; i < n; i++) {
        if (cpu->scratch[i] == 0.0)
            continue;
        last = i;
        sum += cpu->scratch[i] * question->scale;
        if (sum > question->target)
            break;
    }
    return last;
}

static int32_t greatest_score(const double *s, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (s[i] > s[best])
            best = i;
    return best;
}

static int32_t find_token(struct cpu *cpu, const struct mpo_mixture_question *question)
{
    int32_t block = question->block;
    if (question->kind == MPO_MIXTURE_GIVEN)
        return question->token;
    block_scores(cpu, question->row, block, cpu->scratch);
    return block * BLOCK + (question->kind == MPO_MIXTURE_DRAWN
                                ? invert_block(cpu, question)
                                : greatest_score(cpu->scratch, block_length(cpu, block)));
}

static enum mpo_status cpu_answer(void *self, const struct mpo_mixture_question *question,
                                  int32_t count, double *answers)
{
    struct cpu *cpu = self;
    for (int32_t i = 0; i < count; i++) {
        struct mpo_mixture_answer *answer =
            mpo_mixture_answer_of(answers, cpu->policy_count, i);
        int32_t block = question[i].block;
        int32_t token = find_token(cpu, &question[i]);
        answer->token = token;
        for (int32_t h = 0; h < cpu->policy_count; h++)
            answer->logit[h] = mpo_mixture_takes_part(&cpu->rows, h, question[i].row)
                                   ? (double)policy_block(cpu, h, question[i].row,
                                                          block)[token - block * BLOCK]
                                   : NAN;
    }
    return MPO_OK;
}

const struct mpo_mixture_ops mpo_mixture_cpu_ops = {
    .device = MPO_DEVICE_CPU,
    .open = cpu_open,
    .close = cpu_close,
    .normalise = cpu_normalise,
    .sum = cpu_sum,
    .scores = cpu_scores,
    .answer = cpu_answer,
};
