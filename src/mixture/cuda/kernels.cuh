/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Kernels of the mixture on CUDA: mixture/cpu.c in parallel, with the same formulas, the
 * same blocks of MPO_ROWS_BLOCK tokens and the same order of blocks.
 *
 *     per block   M_b = max s,  S_b = sum exp(s - M_b),  X_b,h = sum exp(s - M_b) x_h
 *     the row     M = max M_b,  Z = sum_b S_b exp(M_b - M),  log Z = M + log Z
 *
 * One group of 256 threads takes a block of tokens, four neighbours per thread, read in one
 * 16-byte load where the row is aligned. All sums are in double. Scores s(v) are formed in
 * the CPU's order and compiled without fused multiply-add, so they have the CPU's bits:
 * greedy choices are the CPU's, and figures differ only by the order of additions inside a
 * block and by the last bit of exp. Nothing is added atomically, so the same rows give the
 * same bytes again.
 *
 * A row is read once: combine keeps its block of all H policies in shared memory. Bytes
 * from device memory, a row of V tokens, and what limits the kernel on a data-centre chip:
 *
 *     combine_blocks   4 H V + V/1024 (24 + 8 H)     bandwidth; target 80 % of it
 *                      (+ V of flags once for all rows, then from cache)
 *     combine_rows     V/1024 (32 + 8 H)             latency, one group a row
 *
 * A slice of whole blocks is a row to these kernels: its view begins with the slice's first
 * block, flags and all.
 *
 * combine_blocks with one policy is a policy's own normaliser (4 V bytes). Every row has its
 * own exponents; where its expectations are not wanted, the H V products of the sums of
 * logits are saved, and logits whose exponent is 0 are not read. Consumer chips
 * do double arithmetic at 1/64 of their speed: there exp, some 25 operations a token and
 * row, is the limit and not memory.
 */
#pragma once

#include <stdint.h>

#include "mpo/policy.h"
#include "mixture/mixture_impl.h"
#include "device/cuda_dialect.cuh"

#define MIXTURE_THREADS 256
#define MIXTURE_WARPS   (MIXTURE_THREADS / 32)
#define MIXTURE_TOKENS  (MPO_ROWS_BLOCK / MIXTURE_THREADS) /* of a thread */
#define MIXTURE_LANES   0xffffffffu

static_assert(MIXTURE_TOKENS == 4, "a thread's tokens are one 16-byte load");

/* Properties of a token besides its logits. */
#define MIXTURE_MASKED 1u
#define MIXTURE_ENDS   2u

/** The rows of one call, or slices of them. Device pointers throughout. */
struct mixture_view {
    const float *const *row;           /* [H, B] pointers to [V] */
    const double *log_norm;            /* [H, B] nat; NULL: all 0 */
    const double *mu;                  /* [B, H]; NULL: all 1 */
    const double *end_bias;            /* [B] nat; NULL: all 0 */
    const uint8_t *expects;            /* [B] rows with expectations; NULL: none */
    const double *inverse_temperature; /* [H] */
    const uint8_t *flags;              /* [V]; NULL: all 0 */
    int32_t policy_count;              /* H */
    int32_t row_count;                 /* B */
    int32_t vocab_size;                /* V */
    int32_t block_count;
};

/** Results of combine for the draws and for the host. */
struct mixture_sums {
    double *table;                       /* [block, B] of enum mpo_mixture_figure */
    double *block_weight;                /* [B, block] S_b exp(M_b - M) */
    double *row_max;                     /* [B] M */
    double *row_sum;                     /* [B] sum of block_weight in order */
    struct mpo_mixture_moments *moments; /* [B] */
    double *expectation;                 /* [B, H] */
};

/** A thread's four logits of a policy, and later its share of that policy's sum. */
union mixture_slot {
    float4 logit;
    double sum;
};

/** Dynamic shared memory of mixture_combine_blocks and of the kernels that list blocks. */
#define MIXTURE_SLOT_BYTES(policy_count)                                                   \
    ((size_t)((policy_count) + 2) * MIXTURE_THREADS * sizeof(union mixture_slot))
#define MIXTURE_LIST_BYTES(block_count, policy_count)                                      \
    ((size_t)((block_count) + (policy_count) + 3) * sizeof(double))

/* ---- reductions ---- */

static __device__ __forceinline__ double warp_max(double value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value = fmax(value, __shfl_xor_sync(MIXTURE_LANES, value, distance));
    return value;
}

/* A butterfly: every lane ends with the same bits. */
template <class T> static __device__ __forceinline__ T warp_sum(T value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(MIXTURE_LANES, value, distance);
    return value;
}

static __device__ double group_max(double value)
{
    __shared__ double part[MIXTURE_WARPS];
    value = warp_max(value);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = value;
    __syncthreads();
    value = part[0];
    for (int i = 1; i < MIXTURE_WARPS; i++)
        value = fmax(value, part[i]);
    return value;
}

/* The lowest of the threads' candidates; INT32_MAX: none. */
static __device__ int32_t group_lowest(int32_t candidate)
{
    __shared__ int32_t lowest;
    if (threadIdx.x == 0)
        lowest = INT32_MAX;
    __syncthreads();
    atomicMin(&lowest, candidate);
    __syncthreads();
    int32_t found = lowest;
    __syncthreads();
    return found;
}

/* ---- scores ---- */

/* This thread's first token of a block. */
static __device__ __forceinline__ int32_t first_token(int32_t block)
{
    return block * MPO_ROWS_BLOCK + (int32_t)threadIdx.x * MIXTURE_TOKENS;
}

/* Four logits from a token on, 0 beyond the vocabulary. */
static __device__ __forceinline__ float4 load_logits(const float *row, int32_t token,
                                                     int32_t vocab_size)
{
    if (token + MIXTURE_TOKENS <= vocab_size &&
        (uintptr_t)(row + token) % sizeof(float4) == 0)
        return *reinterpret_cast<const float4 *>(row + token);
    float4 logit = {0.0f, 0.0f, 0.0f, 0.0f};
    if (token < vocab_size)
        logit.x = row[token];
    if (token + 1 < vocab_size)
        logit.y = row[token + 1];
    if (token + 2 < vocab_size)
        logit.z = row[token + 2];
    if (token + 3 < vocab_size)
        logit.w = row[token + 3];
    return logit;
}

static __device__ __forceinline__ const float *policy_row(const struct mixture_view *view,
                                                          int32_t h, int32_t row)
{
    return view->row[(size_t)h * (size_t)view->row_count + (size_t)row];
}

static __device__ __forceinline__ double policy_norm(const struct mixture_view *view,
                                                     int32_t h, int32_t row)
{
    if (view->log_norm == NULL)
        return 0.0;
    return view->log_norm[(size_t)h * (size_t)view->row_count + (size_t)row];
}

static __device__ __forceinline__ double policy_mu(const struct mixture_view *view,
                                                   int32_t h, int32_t row)
{
    return view->mu == NULL
               ? 1.0
               : view->mu[(size_t)row * (size_t)view->policy_count + (size_t)h];
}

static __device__ __forceinline__ double row_end_bias(const struct mixture_view *view,
                                                      int32_t row)
{
    return view->end_bias == NULL ? 0.0 : view->end_bias[row];
}

static __device__ __forceinline__ bool row_expects(const struct mixture_view *view,
                                                   int32_t row)
{
    return view->expects != NULL && view->expects[row] != 0;
}

static __device__ __forceinline__ bool is_finite(double value)
{
    return fabs(value) < INFINITY;
}

/* The figures of a block of a row, by enum mpo_mixture_figure. */
static __device__ __forceinline__ double *block_figures(const struct mixture_view *view,
                                                        const struct mixture_sums *sums,
                                                        int32_t row, int32_t block)
{
    size_t index = (size_t)block * (size_t)view->row_count + (size_t)row;
    return sums->table + index * MPO_MIXTURE_SUMS_WIDTH(view->policy_count);
}

/* The flags of a token; beyond the vocabulary all is masked. */
static __device__ __forceinline__ uint32_t token_flags(const struct mixture_view *view,
                                                       int32_t token)
{
    if (token >= view->vocab_size)
        return MIXTURE_MASKED;
    return view->flags == NULL ? 0u : view->flags[token];
}

/* A token's logit as on the CPU. In rows that were never on the host, masked tokens have
 * the model's values, possibly NaN or inf, which a weight of 0 does not remove. */
static __device__ __forceinline__ float known_logit(float logit, uint32_t flags)
{
    return flags & MIXTURE_MASKED ? MPO_MASKED_LOGIT : logit;
}

/* s of this thread's tokens, -inf where masked. Logits go to slot[h, thread] too
 * when it is given. */
static __device__ __forceinline__ void token_scores(const struct mixture_view *view,
                                                    int32_t row, int32_t block,
                                                    union mixture_slot *slot,
                                                    double score[MIXTURE_TOKENS])
{
    int32_t token = first_token(block);
    double constant = 0.0;
    for (int32_t h = 0; h < view->policy_count; h++)
        if (policy_mu(view, h, row) != 0.0)
            constant -= policy_mu(view, h, row) * policy_norm(view, h, row);
    for (int i = 0; i < MIXTURE_TOKENS; i++)
        score[i] = constant;
    for (int32_t h = 0; h < view->policy_count; h++) {
        double mu = policy_mu(view, h, row);
        if (mu == 0.0 && slot == NULL)
            continue;
        float4 logit = load_logits(policy_row(view, h, row), token, view->vocab_size);
        if (slot != NULL)
            slot[h * MIXTURE_THREADS + (int32_t)threadIdx.x].logit = logit;
        if (mu == 0.0)
            continue;
        double scale = mu * view->inverse_temperature[h];
        score[0] += scale * (double)logit.x;
        score[1] += scale * (double)logit.y;
        score[2] += scale * (double)logit.z;
        score[3] += scale * (double)logit.w;
    }
    for (int i = 0; i < MIXTURE_TOKENS; i++) {
        uint32_t flags = token_flags(view, token + i);
        if (flags & MIXTURE_ENDS)
            score[i] += row_end_bias(view, row);
        if (flags & MIXTURE_MASKED)
            score[i] = -INFINITY;
    }
}

/* ---- combine ---- */

/* exp(s - top) of each score, exactly 0 for -inf whatever top is. */
static __device__ __forceinline__ void exponentiate_scores(double score[MIXTURE_TOKENS],
                                                           double top)
{
    for (int i = 0; i < MIXTURE_TOKENS; i++)
        score[i] = score[i] == -INFINITY ? 0.0 : exp(score[i] - top);
}

/* The sums over the group of all quantities in slot[quantity, thread]: one
 * warp per quantity. */
static __device__ void reduce_slots(const union mixture_slot *slot, int32_t quantity_count,
                                    double *total)
{
    int32_t lane = (int32_t)threadIdx.x % 32;
    for (int32_t quantity = (int32_t)threadIdx.x / 32; quantity < quantity_count;
         quantity += MIXTURE_WARPS) {
        double sum = 0.0;
        for (int32_t i = lane; i < MIXTURE_THREADS; i += 32)
            sum += slot[quantity * MIXTURE_THREADS + i].sum;
        sum = warp_sum(sum);
        if (lane == 0)
            total[quantity] = sum;
    }
}

/** Grid: (block_count, rows). M_b, S_b, the end tokens' sum and, where expected, X_b,h of
 *  one block. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_combine_blocks(struct mixture_view view, struct mixture_sums sums)
{
    MPO_DYNAMIC_SHARED(union mixture_slot, slot); /* [2 + H, thread] */
    int32_t block = (int32_t)blockIdx.x;
    int32_t row = (int32_t)blockIdx.y;
    int32_t thread = (int32_t)threadIdx.x;
    bool expects = row_expects(&view, row);
    union mixture_slot *logits = slot + 2 * MIXTURE_THREADS;
    double weight[MIXTURE_TOKENS];
    uint32_t flags[MIXTURE_TOKENS];
    for (int i = 0; i < MIXTURE_TOKENS; i++)
        flags[i] = token_flags(&view, first_token(block) + i);
    token_scores(&view, row, block, expects ? logits : NULL, weight);
    double top = group_max(fmax(fmax(weight[0], weight[1]), fmax(weight[2], weight[3])));
    exponentiate_scores(weight, top);
    for (int32_t h = 0; expects && h < view.policy_count; h++) {
        union mixture_slot *own = &logits[h * MIXTURE_THREADS + thread];
        float4 logit = own->logit;
        own->sum = weight[0] * (double)known_logit(logit.x, flags[0]) +
                   weight[1] * (double)known_logit(logit.y, flags[1]) +
                   weight[2] * (double)known_logit(logit.z, flags[2]) +
                   weight[3] * (double)known_logit(logit.w, flags[3]);
    }
    double end_sum = 0.0;
    for (int i = 0; i < MIXTURE_TOKENS; i++)
        if (flags[i] & MIXTURE_ENDS)
            end_sum += weight[i];
    slot[thread].sum = weight[0] + weight[1] + weight[2] + weight[3];
    slot[MIXTURE_THREADS + thread].sum = end_sum;
    __syncthreads();
    double *figures = block_figures(&view, &sums, row, block);
    reduce_slots(slot, expects ? view.policy_count + 2 : 2, figures + MPO_MIXTURE_SUM);
    for (int32_t h = thread; !expects && h < view.policy_count; h += MIXTURE_THREADS)
        figures[MPO_MIXTURE_LOGIT_SUM + h] = NAN;
    if (thread == 0)
        figures[MPO_MIXTURE_TOP] = top;
}

/* The row's figures from total[figure], the sums over its blocks relative to top. */
static __device__ void finish_row(const struct mixture_view *view,
                                  const struct mixture_sums *sums, int32_t row, double top,
                                  const double *total)
{
    double sum = total[MPO_MIXTURE_SUM];
    double log_z = top + log(sum);
    double end_probability = total[MPO_MIXTURE_END_SUM] / sum;
    bool expects = row_expects(view, row);
    double entropy = expects ? log_z - row_end_bias(view, row) * end_probability : NAN;
    double *expectation = sums->expectation + (size_t)row * (size_t)view->policy_count;
    for (int32_t h = 0; h < view->policy_count; h++) {
        expectation[h] = NAN;
        if (!expects)
            continue;
        expectation[h] =
            total[MPO_MIXTURE_LOGIT_SUM + h] / sum * view->inverse_temperature[h] -
            policy_norm(view, h, row);
        if (policy_mu(view, h, row) != 0.0) /* else it may be NaN */
            entropy -= policy_mu(view, h, row) * expectation[h];
    }
    sums->row_max[row] = top;
    sums->row_sum[row] = sum;
    sums->moments[row].log_z = log_z;
    sums->moments[row].entropy = entropy;
    sums->moments[row].end_probability = end_probability;
}

/** Grid: rows. Adds the blocks of a row in order, one thread per figure. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_combine_rows(struct mixture_view view, struct mixture_sums sums)
{
    MPO_DYNAMIC_SHARED(double, scale); /* [block], then the totals [3 + H] */
    int32_t row = (int32_t)blockIdx.x;
    int32_t thread = (int32_t)threadIdx.x;
    int32_t block_count = view.block_count;
    double *total = scale + block_count;
    double *block_weight = sums.block_weight + (size_t)row * (size_t)block_count;
    double top = -INFINITY;
    for (int32_t block = thread; block < block_count; block += MIXTURE_THREADS)
        top = fmax(top, block_figures(&view, &sums, row, block)[MPO_MIXTURE_TOP]);
    top = group_max(top);
    for (int32_t block = thread; block < block_count; block += MIXTURE_THREADS) {
        const double *figures = block_figures(&view, &sums, row, block);
        scale[block] = exp(figures[MPO_MIXTURE_TOP] - top);
        block_weight[block] = figures[MPO_MIXTURE_SUM] * scale[block];
    }
    __syncthreads();
    int32_t stride = view.row_count * (int32_t)MPO_MIXTURE_SUMS_WIDTH(view.policy_count);
    int32_t end_figure = MPO_MIXTURE_LOGIT_SUM;
    end_figure += row_expects(&view, row) ? view.policy_count : 0;
    for (int32_t figure = MPO_MIXTURE_SUM + thread; figure < end_figure;
         figure += MIXTURE_THREADS) {
        const double *own = block_figures(&view, &sums, row, 0) + figure;
        double sum = 0.0;
        for (int32_t block = 0; block < block_count; block++)
            sum += own[block * stride] * scale[block];
        total[figure] = sum;
    }
    __syncthreads();
    if (thread == 0)
        finish_row(&view, &sums, row, top, total);
}
