/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Draws under rules on CUDA (what they mean: mixture/filter.c). Biases change scores first,
 * in the order in which they are given, token by token, so scores keep the CPU's bits. Then
 * the filter, by selection: the weight of
 * the last token that a filter keeps is found by trying keys between 0 and 1, the bits of a
 * double, which are in the order of the doubles. A pass over the row's weights tries three
 * keys and so settles two of 62 bits.
 *
 * Both filters ask for the same thing: the first token, most probable first and of equal
 * ones the lowest, at which a cumulative amount reaches a target. For top_k every token
 * amounts to 1; for top_p to its weight in units of 2^-40 of the largest weight. Amounts
 * are integers, so the order of addition does not matter and the same rows give the same
 * tokens; a token at the edge may differ from the CPU's where the share p falls within some
 * 1e-10 of a partial sum.
 *
 *     filter_scores    4 H V + 8 V written, or 8 V + 8 V of scores      bandwidth
 *                      (every thread reads every bias, from cache)
 *     filter_weights   8 V + 8 V written, from cache
 *     filter_draw      8 V a pass, about 30 passes a filter, from cache
 *     filter_greatest  8 V, from cache
 */
#pragma once

#include "draw_kernels.cuh"

#define MIXTURE_KEYS 3 /* tried in one pass; a warp each adds up what it finds */
#define MIXTURE_UNIT 0x1p40

/* Limits from the width of the sums of amounts and of block numbers. */
#define MIXTURE_VOCAB_MAX (1 << 22)

/** A draw under a rule. */
struct mixture_ruled {
    struct mpo_mixture_filter filter;
    int32_t draw;       /* of the call's draws */
    int32_t first_bias; /* of all biases */
    int32_t bias_count;
};

struct mixture_filter_view {
    const struct mixture_ruled *ruled;   /* [slot] */
    const struct mpo_mixture_bias *bias; /* of all of them */
    double *weight;                      /* [slot, V] scores, then weights of DRAWN ones */
    double *block_top;                   /* [slot, block] */
    double *top;    /* [slot] M; not finite when no token is left, or the row failed */
    bool is_scored; /* weight has the scores of the one draw, from all slices */
};

/** The last token that is kept: its weight as bits, and among equal ones the last index. */
struct mixture_cut {
    uint64_t key;
    int32_t token;
};

static __device__ __forceinline__ uint64_t weight_key(double weight)
{
    return (uint64_t)__double_as_longlong(weight);
}

static __device__ __forceinline__ uint64_t weight_amount(double weight, bool by_mass)
{
    return by_mass ? (uint64_t)(weight * MIXTURE_UNIT + 0.5) : 1u;
}

static __device__ __forceinline__ bool is_kept(const struct mixture_cut *cut, double weight,
                                               int32_t token)
{
    uint64_t key = weight_key(weight);
    return weight > 0.0 && (key > cut->key || (key == cut->key && token <= cut->token));
}

/* The slot of this group's draw, [V]. */
static __device__ __forceinline__ double *slot_of(const struct mixture_view *view,
                                                  const struct mixture_filter_view *filter,
                                                  uint32_t slot)
{
    return filter->weight + (size_t)slot * (size_t)view->vocab_size;
}

/** Grid: (block_count, slots). s(v) with its biases, and the greatest of a block. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_filter_scores(struct mixture_view view, struct mixture_draw_view draws,
                          struct mixture_filter_view filter)
{
    const struct mixture_ruled *ruled = &filter.ruled[blockIdx.y];
    const struct mpo_mixture_bias *bias = filter.bias + ruled->first_bias;
    int32_t block = (int32_t)blockIdx.x;
    int32_t token = first_token(block);
    double *slot = slot_of(&view, &filter, blockIdx.y);
    double score[MIXTURE_TOKENS];
    if (filter.is_scored)
        for (int i = 0; i < MIXTURE_TOKENS; i++)
            score[i] = token + i < view.vocab_size ? slot[token + i] : -INFINITY;
    else
        token_scores(&view, draws.row[ruled->draw], block, NULL, score);
    for (int32_t j = 0; j < ruled->bias_count; j++)
        for (int i = 0; i < MIXTURE_TOKENS; i++)
            if (bias[j].token == token + i)
                score[i] += bias[j].value;
    for (int i = 0; i < MIXTURE_TOKENS; i++)
        if (token + i < view.vocab_size)
            slot[token + i] = score[i];
    double top = group_max(fmax(fmax(score[0], score[1]), fmax(score[2], score[3])));
    if (threadIdx.x == 0)
        filter.block_top[(size_t)blockIdx.y * (size_t)view.block_count + blockIdx.x] = top;
}

/** Grid: (block_count, slots). w(v) = exp((s(v) - M) / T) of a draw that is DRAWN, exactly 0
 *  where the CPU's is. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_filter_weights(struct mixture_view view, struct mixture_draw_view draws,
                           struct mixture_filter_view filter)
{
    const struct mixture_ruled *ruled = &filter.ruled[blockIdx.y];
    const double *block_top =
        filter.block_top + (size_t)blockIdx.y * (size_t)view.block_count;
    int32_t token = first_token((int32_t)blockIdx.x);
    double *slot = slot_of(&view, &filter, blockIdx.y);
    double scale = 1.0 / ruled->filter.temperature;
    double top = -INFINITY;
    for (int32_t block = (int32_t)threadIdx.x; block < view.block_count;
         block += MIXTURE_THREADS)
        top = fmax(top, block_top[block]);
    top = group_max(top);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        filter.top[blockIdx.y] = top;
    if (!is_finite(top) || draws.kind[ruled->draw] != MPO_MIXTURE_DRAWN)
        return;
    for (int i = 0; i < MIXTURE_TOKENS && token + i < view.vocab_size; i++) {
        double exponent = (slot[token + i] - top) * scale;
        slot[token + i] = exponent < -708.0 ? 0.0 : exp(exponent);
    }
}

/* Every thread's totals become the group's: a warp adds up one of them. */
static __device__ void group_totals(uint64_t total[MIXTURE_KEYS])
{
    __shared__ uint64_t part[MIXTURE_KEYS][MIXTURE_THREADS];
    __shared__ uint64_t sum[MIXTURE_KEYS];
    int32_t warp = (int32_t)threadIdx.x / 32;
    int32_t lane = (int32_t)threadIdx.x % 32;
    for (int i = 0; i < MIXTURE_KEYS; i++)
        part[i][threadIdx.x] = total[i];
    __syncthreads();
    if (warp < MIXTURE_KEYS) {
        uint64_t own = 0;
        for (int32_t i = lane; i < MIXTURE_THREADS; i += 32)
            own += part[warp][i];
        own = warp_sum(own);
        if (lane == 0)
            sum[warp] = own;
    }
    __syncthreads();
    for (int i = 0; i < MIXTURE_KEYS; i++)
        total[i] = sum[i];
}

/* The amount of all tokens that a cut keeps. */
static __device__ uint64_t kept_amount(const double *weight, int32_t count,
                                       const struct mixture_cut *cut, bool by_mass)
{
    uint64_t total[MIXTURE_KEYS] = {0};
    for (int32_t v = (int32_t)threadIdx.x; v < count; v += MIXTURE_THREADS)
        if (is_kept(cut, weight[v], v))
            total[0] += weight_amount(weight[v], by_mass);
    group_totals(total);
    return total[0];
}

/* The amounts of the tokens at or above each key. */
static __device__ void amounts_above(const double *weight, int32_t count,
                                     const uint64_t key[MIXTURE_KEYS], bool by_mass,
                                     uint64_t total[MIXTURE_KEYS])
{
    for (int i = 0; i < MIXTURE_KEYS; i++)
        total[i] = 0;
    for (int32_t v = (int32_t)threadIdx.x; v < count; v += MIXTURE_THREADS) {
        uint64_t own = weight_key(weight[v]);
        uint64_t amount = weight_amount(weight[v], by_mass);
        for (int i = 0; i < MIXTURE_KEYS; i++)
            total[i] += own >= key[i] ? amount : 0u;
    }
    group_totals(total);
}

/* Of the tokens of weight cut->key, keep as few of the lowest as amount to `missing`. */
static __device__ void cut_ties(const double *weight, int32_t count, bool by_mass,
                                uint64_t missing, struct mixture_cut *cut)
{
    const struct mixture_cut above = {cut->key + 1, INT32_MAX};
    uint64_t one = weight_amount(__longlong_as_double((long long)cut->key), by_mass);
    uint64_t wanted = kept_amount(weight, count, &above, false) + (missing + one - 1) / one;
    int32_t low = -1;
    int32_t high = count - 1;
    while (high - low > 1) {
        cut->token = low + (high - low) / 2;
        if (kept_amount(weight, count, cut, false) >= wanted)
            high = cut->token;
        else
            low = cut->token;
    }
    cut->token = high;
}

/* The first token in rank order at which the cumulative amount reaches target, which is
 * positive and at most the amount of all tokens. */
static __device__ struct mixture_cut select_cut(const double *weight, int32_t count,
                                                bool by_mass, uint64_t target)
{
    uint64_t low = 1;                    /* amount at or above low  >= target */
    uint64_t high = weight_key(1.0) + 1; /* amount at or above high <  target */
    uint64_t above = 0;                  /* the latter amount */
    while (high - low > 1) {
        uint64_t key[MIXTURE_KEYS];
        uint64_t total[MIXTURE_KEYS];
        uint64_t step = (high - low) / (MIXTURE_KEYS + 1);
        for (int i = 0; i < MIXTURE_KEYS; i++)
            key[i] = low + (step > 0 ? step : 1) * (uint64_t)(i + 1);
        amounts_above(weight, count, key, by_mass, total);
        for (int i = MIXTURE_KEYS - 1; i >= 0; i--)
            if (total[i] < target && key[i] < high) {
                high = key[i];
                above = total[i];
            }
        for (int i = 0; i < MIXTURE_KEYS; i++)
            if (total[i] >= target)
                low = key[i];
    }
    struct mixture_cut cut = {low, INT32_MAX};
    cut_ties(weight, count, by_mass, target - above, &cut);
    return cut;
}

/* The cut of top_k, then that of top_p among what top_k keeps. */
static __device__ struct mixture_cut filter_cut(const double *weight, int32_t count,
                                                const struct mpo_mixture_filter *filter)
{
    struct mixture_cut cut = {0, INT32_MAX};
    for (int stage = 0; stage < 2; stage++) {
        bool by_mass = stage == 1;
        uint64_t amount = kept_amount(weight, count, &cut, by_mass);
        uint64_t target = by_mass ? (uint64_t)ceil(filter->top_p * (double)amount)
                                  : (uint64_t)filter->top_k;
        bool asked = by_mass ? filter->top_p < 1.0 : filter->top_k > 0;
        if (asked && target < amount)
            cut = select_cut(weight, count, by_mass, target > 0 ? target : 1);
    }
    return cut;
}

/* A token drawn from the weights that the filter keeps, in the order of tokens, for all
 * threads; block_weight: [block] shared. */
static __device__ int32_t draw_kept(const struct mixture_view *view,
                                    const struct mixture_draw_view *draws,
                                    const struct mixture_ruled *ruled, const double *weight,
                                    double *block_weight)
{
    struct mixture_cut cut = filter_cut(weight, view->vocab_size, &ruled->filter);
    double min_p = ruled->filter.min_p;
    int32_t lane = (int32_t)threadIdx.x % 32;
    for (int32_t block = (int32_t)threadIdx.x / 32; block < view->block_count;
         block += MIXTURE_WARPS) {
        double sum = 0.0;
        for (int32_t i = lane; i < MPO_ROWS_BLOCK; i += 32) {
            int32_t v = block * MPO_ROWS_BLOCK + i;
            if (v < view->vocab_size && weight[v] >= min_p && is_kept(&cut, weight[v], v))
                sum += weight[v];
        }
        sum = warp_sum(sum);
        if (lane == 0)
            block_weight[block] = sum;
    }
    __syncthreads();
    double target = 0.0;
    for (int32_t block = 0; block < view->block_count; block++)
        target += block_weight[block];
    target *= draws->uniform[ruled->draw];
    struct mixture_place place = group_place(block_weight, view->block_count, target);
    double kept[MIXTURE_TOKENS];
    for (int i = 0; i < MIXTURE_TOKENS; i++) {
        int32_t v = first_token(place.index) + i;
        bool keep =
            v < view->vocab_size && weight[v] >= min_p && is_kept(&cut, weight[v], v);
        kept[i] = keep ? weight[v] : 0.0;
    }
    return invert_block(kept, place.index, target - place.before);
}

/* Of a slot's draw; it is GIVEN from here on. By one thread. */
static __device__ void keep_token(const struct mixture_draw_view *draws, int32_t draw,
                                  int32_t token)
{
    draws->token[draw] = token;
    draws->kind[draw] = MPO_MIXTURE_GIVEN;
}

/** Grid: slots. The token of each draw that is DRAWN under a rule; where no token is left
 *  it stays as if there were no rule. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_filter_draw(struct mixture_view view, struct mixture_draw_view draws,
                        struct mixture_filter_view filter)
{
    MPO_DYNAMIC_SHARED(double, block_weight); /* [block] */
    const struct mixture_ruled *ruled = &filter.ruled[blockIdx.x];
    if (!is_finite(filter.top[blockIdx.x]) || draws.kind[ruled->draw] != MPO_MIXTURE_DRAWN)
        return;
    int32_t token =
        draw_kept(&view, &draws, ruled, slot_of(&view, &filter, blockIdx.x), block_weight);
    if (threadIdx.x == 0)
        keep_token(&draws, ruled->draw, token);
}

/** Grid: slots. The same of each draw that is GREATEST: the lowest with
 *  the greatest score. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_filter_greatest(struct mixture_view view, struct mixture_draw_view draws,
                            struct mixture_filter_view filter)
{
    const struct mixture_ruled *ruled = &filter.ruled[blockIdx.x];
    const double *score = slot_of(&view, &filter, blockIdx.x);
    double top = filter.top[blockIdx.x];
    int32_t best = INT32_MAX;
    if (!is_finite(top) || draws.kind[ruled->draw] != MPO_MIXTURE_GREATEST)
        return;
    for (int32_t v = (int32_t)threadIdx.x; v < view.vocab_size && best == INT32_MAX;
         v += MIXTURE_THREADS)
        if (score[v] == top)
            best = v;
    best = group_lowest(best);
    if (threadIdx.x == 0)
        keep_token(&draws, ruled->draw, best);
}
