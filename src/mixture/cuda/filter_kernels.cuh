/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Draws under rules on CUDA (what they mean: mixture/filter.c). Biases change scores first,
 * in the order in which they are given, token by token, so scores keep the CPU's bits. Then
 * the filter: where it cuts is found by selection (mixture/cuda/select_kernels.cuh), and the
 * draw inverts the sums of what is left, block by block.
 *
 *     filter_scores    4 H V + 8 V written, or 8 V + 8 V of scores      bandwidth
 *                      (every thread reads every bias, from cache)
 *     filter_weights   8 V + 8 V written, from cache
 *     filter_draw      8 V a pass, from cache; 1 pass, and 2 or 3 more a filter
 *     filter_greatest  8 V, from cache
 */
#pragma once

#include "draw_kernels.cuh"
#include "select_kernels.cuh"

/** Dynamic shared memory of mixture_filter_draw: the search, then the blocks' weights. */
#define MIXTURE_FILTER_BYTES(block_count)                                                  \
    (sizeof(struct mixture_search) > MIXTURE_LIST_BYTES(block_count, 0)                    \
         ? sizeof(struct mixture_search)                                                   \
         : MIXTURE_LIST_BYTES(block_count, 0))

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

/* A warp's sum of the weights of a block that are kept. */
static __device__ double sum_kept(const double *weight, int32_t count, int32_t block,
                                  const struct mixture_cut *cut, double min_p)
{
    double sum = 0.0;
    for (int32_t v = block * MPO_ROWS_BLOCK + (int32_t)threadIdx.x % 32;
         v < (block + 1) * MPO_ROWS_BLOCK && v < count; v += MIXTURE_LOADS * 32) {
        double own[MIXTURE_LOADS];
        for (int i = 0; i < MIXTURE_LOADS; i++)
            own[i] = v + i * 32 < count ? weight[v + i * 32] : 0.0;
        MPO_READS(MIXTURE_LOADS);
        for (int i = 0; i < MIXTURE_LOADS; i++)
            if (own[i] >= min_p && is_kept(cut, own[i], v + i * 32))
                sum += own[i];
    }
    return warp_sum(sum);
}

/* A token drawn from the weights that the filter keeps, in the order of tokens, for all
 * threads; shared: of MIXTURE_FILTER_BYTES. */
static __device__ int32_t draw_kept(const struct mixture_view *view,
                                    const struct mixture_draw_view *draws,
                                    const struct mixture_ruled *ruled, const double *weight,
                                    double *shared)
{
    struct mixture_cut cut = filter_cut(reinterpret_cast<struct mixture_search *>(shared),
                                        weight, view->vocab_size, &ruled->filter);
    double min_p = ruled->filter.min_p;
    double *block_weight = shared; /* [block] */
    __syncthreads();
    for (int32_t block = (int32_t)threadIdx.x / 32; block < view->block_count;
         block += MIXTURE_WARPS) {
        double sum = sum_kept(weight, view->vocab_size, block, &cut, min_p);
        if (threadIdx.x % 32 == 0)
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
    MPO_DYNAMIC_SHARED(double, shared);
    const struct mixture_ruled *ruled = &filter.ruled[blockIdx.x];
    if (!is_finite(filter.top[blockIdx.x]) || draws.kind[ruled->draw] != MPO_MIXTURE_DRAWN)
        return;
    int32_t token =
        draw_kept(&view, &draws, ruled, slot_of(&view, &filter, blockIdx.x), shared);
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
