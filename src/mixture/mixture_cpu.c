/*
 * The mixture on the CPU: the readable truth that other devices are tested against.
 *
 *     s(v) = sum_h mu_h (x_h(v) / T_h - norm_h) + b [v ends],   q(v) = exp(s(v) - log Z)
 *     E_q log pi_h = sum_v q(v) x_h(v) / T_h - norm_h
 *
 * A row is taken block by block of MPO_MIXTURE_BLOCK tokens, each relative to the block's
 * own maximum, so the logits are read from memory once and no exponent over- or underflows:
 *
 *     per block   M_b = max s,  S_b = sum exp(s - M_b),  X_b,h = sum exp(s - M_b) x_h
 *     the row     M = max M_b,  Z = sum_b S_b exp(M_b - M),  log Z = M + log Z
 *
 * The inner loops are written for vector code; a block's sum has one fixed order on one
 * kind of machine, and blocks are added in order. Cost a row: 4 H V bytes read, V exp.
 */
#include "mixture_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/memory.h"
#include "mpo/policy.h"
#include "simd_exp.h"

#define BLOCK MPO_MIXTURE_BLOCK

struct cpu {
    int32_t policy_count;
    int32_t vocab_size;
    int32_t block_count;
    double *inverse_temperature; /* [H] */
    int32_t *masked;             /* ascending */
    int32_t *end_token;          /* ascending */
    int32_t *masked_start;       /* [block_count + 1] first of each block in masked */
    int32_t *end_start;          /* [block_count + 1] first of each block in end_token */
    double *mu;                  /* [H] */
    double end_bias;
    struct mpo_rows rows; /* combined last; borrowed */
    double *block_max;    /* [row_capacity, block_count] M_b */
    double *block_sum;    /* [row_capacity, block_count] S_b */
    double *row_max;      /* [row_capacity] M */
    double *row_sum;      /* [row_capacity] Z relative to M */
    double *row_log_z;    /* [row_capacity] */
    double *scratch;      /* [BLOCK] s, then exp(s - M_b) */
    double *logit_sum;    /* [H] X_b,h of one block */
    double *weight;       /* [V] of one row, for a filtered draw */
    int32_t *heap;        /* [V] */
};

static void cpu_close(void *pointer)
{
    struct cpu *cpu = pointer;
    if (cpu == NULL)
        return;
    free(cpu->heap);
    free(cpu->weight);
    free(cpu->logit_sum);
    free(cpu->scratch);
    free(cpu->row_log_z);
    free(cpu->row_sum);
    free(cpu->row_max);
    free(cpu->block_sum);
    free(cpu->block_max);
    free(cpu->mu);
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
    int32_t block_count = (spec->vocab_size + BLOCK - 1) / BLOCK;
    MPO_CHECK(!spec->rows_on_device, MPO_ERR_INTERNAL,
              "rows in a device's memory for a mixture on the cpu");
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
    MPO_NEW(spec->policy_count, &cpu->mu);
    MPO_NEW((size_t)spec->row_capacity * (size_t)block_count, &cpu->block_max);
    MPO_NEW((size_t)spec->row_capacity * (size_t)block_count, &cpu->block_sum);
    MPO_NEW(spec->row_capacity, &cpu->row_max);
    MPO_NEW(spec->row_capacity, &cpu->row_sum);
    MPO_NEW(spec->row_capacity, &cpu->row_log_z);
    MPO_NEW(BLOCK, &cpu->scratch);
    MPO_NEW(spec->policy_count, &cpu->logit_sum);
    MPO_NEW(spec->vocab_size, &cpu->weight);
    MPO_NEW(spec->vocab_size, &cpu->heap);
cleanup:
    if (status != MPO_OK) {
        cpu_close(cpu);
        cpu = NULL;
    }
    *self = cpu;
    return status;
}

static void cpu_set(void *self, const double *mu, double end_bias)
{
    struct cpu *cpu = self;
    memcpy(cpu->mu, mu, (size_t)cpu->policy_count * sizeof *mu);
    cpu->end_bias = end_bias;
}

/* ---- loops over one block; n <= BLOCK ---- */

MPO_SIMD_CLONES
static double scaled_max(const float *restrict x, double scale, int32_t n)
{
    float top = -INFINITY;
#pragma omp simd reduction(max : top)
    for (int32_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return (double)top * scale;
}

MPO_SIMD_CLONES
static double scaled_exp_sum(const float *restrict x, double scale, double top, int32_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < n; i++)
        sum += mpo_simd_exp((double)x[i] * scale - top);
    return sum;
}

MPO_SIMD_CLONES
static void add_scaled(double *restrict s, const float *restrict x, double scale, int32_t n)
{
#pragma omp simd
    for (int32_t i = 0; i < n; i++)
        s[i] += scale * (double)x[i];
}

MPO_SIMD_CLONES
static double block_maximum(const double *restrict s, int32_t n)
{
    double top = -INFINITY;
#pragma omp simd reduction(max : top)
    for (int32_t i = 0; i < n; i++)
        top = s[i] > top ? s[i] : top;
    return top;
}

/* s becomes exp(s - top); returns its sum. */
MPO_SIMD_CLONES
static double exponentiate(double *restrict s, double top, int32_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < n; i++) {
        s[i] = mpo_simd_exp(s[i] - top);
        sum += s[i];
    }
    return sum;
}

MPO_SIMD_CLONES
static double weighted_sum(const double *restrict e, const float *restrict x, int32_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < n; i++)
        sum += e[i] * (double)x[i];
    return sum;
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
        double block_top = scaled_max(part, scale, n);
        double block_sum = scaled_exp_sum(part, scale, block_top, n);
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

static enum mpo_status cpu_normalise(void *self, int32_t policy_index, int32_t row_count,
                                     const float *const *logits, double *log_norm)
{
    const struct cpu *cpu = self;
    for (int32_t row = 0; row < row_count; row++)
        log_norm[row] =
            row_log_norm(cpu, logits[row], cpu->inverse_temperature[policy_index]);
    return MPO_OK;
}

static const float *policy_row(const struct cpu *cpu, int32_t h, int32_t row)
{
    return cpu->rows.logits[(size_t)h * (size_t)cpu->rows.row_count + (size_t)row];
}

static double policy_norm(const struct cpu *cpu, int32_t h, int32_t row)
{
    return cpu->rows.log_norm[(size_t)h * (size_t)cpu->rows.row_count + (size_t)row];
}

/* s of one block into scratch, masked tokens at -inf, end tokens tilted. */
static void block_scores(struct cpu *cpu, int32_t row, int32_t block)
{
    int32_t n = block_length(cpu, block);
    int32_t first = block * BLOCK;
    double constant = 0.0;
    for (int32_t h = 0; h < cpu->policy_count; h++)
        constant -= cpu->mu[h] * policy_norm(cpu, h, row);
    for (int32_t i = 0; i < n; i++)
        cpu->scratch[i] = constant;
    for (int32_t h = 0; h < cpu->policy_count; h++)
        if (cpu->mu[h] != 0.0)
            add_scaled(cpu->scratch, policy_row(cpu, h, row) + first,
                       cpu->mu[h] * cpu->inverse_temperature[h], n);
    for (int32_t i = cpu->end_start[block]; i < cpu->end_start[block + 1]; i++)
        cpu->scratch[cpu->end_token[i] - first] += cpu->end_bias;
    for (int32_t i = cpu->masked_start[block]; i < cpu->masked_start[block + 1]; i++)
        cpu->scratch[cpu->masked[i] - first] = -INFINITY;
}

/* Sums of one row while its blocks are combined, relative to the running maximum. */
struct row_sums {
    double top;
    double sum;
    double end_sum;
};

static void combine_block(struct cpu *cpu, int32_t row, int32_t block,
                          struct row_sums *sums, double *logit_sum)
{
    int32_t n = block_length(cpu, block);
    int32_t first = block * BLOCK;
    size_t at = (size_t)row * (size_t)cpu->block_count + (size_t)block;
    block_scores(cpu, row, block);
    double block_top = block_maximum(cpu->scratch, n);
    cpu->block_max[at] = block_top;
    cpu->block_sum[at] = 0.0;
    if (block_top == -INFINITY)
        return; /* every token of the block is masked */
    double block_sum = exponentiate(cpu->scratch, block_top, n);
    cpu->block_sum[at] = block_sum;
    double top = block_top > sums->top ? block_top : sums->top;
    double old_scale = exp(sums->top - top);
    double new_scale = exp(block_top - top);
    double end_sum = 0.0;
    for (int32_t i = cpu->end_start[block]; i < cpu->end_start[block + 1]; i++)
        end_sum += cpu->scratch[cpu->end_token[i] - first];
    sums->top = top;
    sums->sum = sums->sum * old_scale + block_sum * new_scale;
    sums->end_sum = sums->end_sum * old_scale + end_sum * new_scale;
    for (int32_t h = 0; h < cpu->policy_count; h++)
        logit_sum[h] =
            logit_sum[h] * old_scale +
            weighted_sum(cpu->scratch, policy_row(cpu, h, row) + first, n) * new_scale;
}

static void combine_row(struct cpu *cpu, int32_t row, struct mpo_mixture_moments *moments,
                        double *expectation)
{
    struct row_sums sums = {.top = -INFINITY};
    memset(cpu->logit_sum, 0, (size_t)cpu->policy_count * sizeof *cpu->logit_sum);
    for (int32_t block = 0; block < cpu->block_count; block++)
        combine_block(cpu, row, block, &sums, cpu->logit_sum);
    cpu->row_max[row] = sums.top;
    cpu->row_log_z[row] = sums.top + log(sums.sum);
    /* The draw adds the same products in the same order, so it ends at this very sum. */
    cpu->row_sum[row] = 0.0;
    for (int32_t block = 0; block < cpu->block_count; block++) {
        size_t at = (size_t)row * (size_t)cpu->block_count + (size_t)block;
        cpu->row_sum[row] += cpu->block_sum[at] * exp(cpu->block_max[at] - sums.top);
    }
    double end_probability = sums.end_sum / sums.sum;
    double entropy = cpu->row_log_z[row] - cpu->end_bias * end_probability;
    for (int32_t h = 0; h < cpu->policy_count; h++) {
        expectation[h] = cpu->logit_sum[h] / sums.sum * cpu->inverse_temperature[h] -
                         policy_norm(cpu, h, row);
        entropy -= cpu->mu[h] * expectation[h];
    }
    *moments = (struct mpo_mixture_moments){cpu->row_log_z[row], entropy, end_probability};
}

static enum mpo_status cpu_combine(void *self, const struct mpo_rows *rows,
                                   struct mpo_mixture_moments *moments, double *expectation)
{
    struct cpu *cpu = self;
    cpu->rows = *rows;
    for (int32_t row = 0; row < rows->row_count; row++)
        combine_row(cpu, row, &moments[row],
                    expectation + (size_t)row * (size_t)cpu->policy_count);
    return MPO_OK;
}

/* ---- draws ---- */

/* The token of one block at which the cumulative sum of exp(s - M) exceeds target. Rounding
 * may leave target at or beyond the end: then it is the last token with any probability. */
static int32_t invert_block(struct cpu *cpu, int32_t row, int32_t block, double target)
{
    int32_t n = block_length(cpu, block);
    size_t at = (size_t)row * (size_t)cpu->block_count + (size_t)block;
    double scale = exp(cpu->block_max[at] - cpu->row_max[row]);
    double sum = 0.0;
    int32_t last = 0;
    block_scores(cpu, row, block);
    exponentiate(cpu->scratch, cpu->block_max[at], n);
    for (int32_t i = 0; i < n; i++) {
        if (cpu->scratch[i] == 0.0)
            continue;
        last = i;
        sum += cpu->scratch[i] * scale;
        if (sum > target)
            break;
    }
    return block * BLOCK + last;
}

static int32_t draw_token(struct cpu *cpu, int32_t row, double uniform)
{
    double target = uniform * cpu->row_sum[row];
    double sum = 0.0;
    double before = 0.0;
    int32_t chosen = 0;
    for (int32_t block = 0; block < cpu->block_count; block++) {
        size_t at = (size_t)row * (size_t)cpu->block_count + (size_t)block;
        if (cpu->block_sum[at] == 0.0)
            continue;
        chosen = block;
        before = sum;
        sum += cpu->block_sum[at] * exp(cpu->block_max[at] - cpu->row_max[row]);
        if (sum > target)
            break;
    }
    return invert_block(cpu, row, chosen, target - before);
}

static int32_t draw_filtered(struct cpu *cpu, int32_t row,
                             const struct mpo_mixture_filter *filter, double uniform)
{
    for (int32_t block = 0; block < cpu->block_count; block++) {
        double *weight = cpu->weight + (size_t)block * BLOCK;
        block_scores(cpu, row, block);
        for (int32_t i = 0; i < block_length(cpu, block); i++)
            weight[i] = cpu->scratch[i] - cpu->row_max[row];
    }
    return mpo_mixture_filter_draw(filter, uniform, cpu->weight, cpu->heap,
                                   cpu->vocab_size);
}

static int32_t greedy_token(struct cpu *cpu, int32_t row)
{
    int32_t best_block = 0;
    const double *block_max = cpu->block_max + (size_t)row * (size_t)cpu->block_count;
    for (int32_t block = 1; block < cpu->block_count; block++)
        if (block_max[block] > block_max[best_block])
            best_block = block;
    block_scores(cpu, row, best_block);
    int32_t best = 0;
    for (int32_t i = 1; i < block_length(cpu, best_block); i++)
        if (cpu->scratch[i] > cpu->scratch[best])
            best = i;
    return best_block * BLOCK + best;
}

static bool is_end_token(const struct cpu *cpu, int32_t token)
{
    int32_t block = token / BLOCK;
    for (int32_t i = cpu->end_start[block]; i < cpu->end_start[block + 1]; i++)
        if (cpu->end_token[i] == token)
            return true;
    return false;
}

/* log pi_h(token) of every policy; returns s(token) - log Z. */
static double score_token(const struct cpu *cpu, int32_t row, int32_t token,
                          double *log_policy)
{
    double score = is_end_token(cpu, token) ? cpu->end_bias : 0.0;
    for (int32_t h = 0; h < cpu->policy_count; h++) {
        log_policy[h] =
            (double)policy_row(cpu, h, row)[token] * cpu->inverse_temperature[h] -
            policy_norm(cpu, h, row);
        score += cpu->mu[h] * log_policy[h];
    }
    return score - cpu->row_log_z[row];
}

static enum mpo_status cpu_draw(void *self, struct mpo_mixture_draws *draws, bool draw)
{
    struct cpu *cpu = self;
    for (int32_t i = 0; i < draws->count; i++) {
        int32_t row = draws->row[i];
        if (draw && draws->uniform == NULL)
            draws->token[i] = greedy_token(cpu, row);
        else if (draw && mpo_mixture_filter_is_open(draws->filter))
            draws->token[i] = draw_token(cpu, row, draws->uniform[i]);
        else if (draw)
            draws->token[i] = draw_filtered(cpu, row, draws->filter, draws->uniform[i]);
        draws->log_proposal[i] =
            score_token(cpu, row, draws->token[i],
                        draws->log_policy + (size_t)i * (size_t)cpu->policy_count);
    }
    return MPO_OK;
}

const struct mpo_mixture_ops mpo_mixture_cpu_ops = {
    .device = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .set = cpu_set,
    .normalise = cpu_normalise,
    .combine = cpu_combine,
    .draw = cpu_draw,
};
