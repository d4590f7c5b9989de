/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Where a filter cuts on CUDA: the first token, most probable first and of equal ones the
 * lowest, at which a cumulative amount reaches a target. For top_k every token amounts to 1;
 * for top_p to its weight in units of 2^-40 of the largest weight. Amounts are integers, so
 * their order of addition is of no account and the same rows give the same tokens; a token
 * at the edge may differ from the CPU's where the share p falls within some 1e-10 of a
 * partial sum.
 *
 * The *distance* of a weight is that of its bits from the bits of 1, the largest weight: bits
 * of positive doubles are in their order, so the most probable token has distance 0, and an
 * octave is 2^52 wide. A pass over the row adds amounts up by bins of distances, and the bin
 * in which they reach the target, less what lies beyond the nearest and the farthest token, is
 * where the next pass looks. That one also lists the tokens there, and counts them by
 * stretches of the vocabulary: a list that fits is settled by comparing each with each, and
 * tokens that are all equal by their stretch alone.
 *
 * Passes over the row: 2 as a rule, 3 where more than MIXTURE_LISTED tokens that are not equal
 * share a bin of 1/32 octave; more only where they lie in clusters within clusters, down to the
 * last bits of their weights. Each reads 8 V bytes, from cache, eight loads of a thread at a
 * time.
 *
 * Source: Alabi et al., Fast k-selection algorithms for graphics processing units, ACM J. Exp.
 * Algorithmics 17 (2012), section 4 (radix and bucket selection).
 */
#pragma once

#include "kernels.cuh"

#define MIXTURE_BINS   2048            /* of a pass */
#define MIXTURE_LISTED MIXTURE_THREADS /* tokens */
#define MIXTURE_LOADS  8               /* of a thread, under way together */
#define MIXTURE_UNIT   0x1p40

/* A bin of the first pass is 2^47 wide, and the last one has what is beyond 64 octaves. */
#define MIXTURE_FIRST_SHIFT 47
#define MIXTURE_FARTHEST    0x3ff0000000000000u /* the bits of 1, and the distance of 0 */

/* Limits from the width of the sums of amounts, of block numbers and of stretches. */
#define MIXTURE_VOCAB_MAX (1 << 22)

/** The last token that is kept: its weight as bits, and among equal ones the last index. */
struct mixture_cut {
    uint64_t key;
    int32_t token;
};

/** Distances that are looked at, in bins of 2^shift; the last bin has all the rest. */
struct mixture_range {
    uint64_t first;
    uint64_t last;
    int32_t shift;
};

/** A bin, and the amount of those before it. */
struct mixture_bin {
    int32_t index;
    uint64_t before;
};

/** What one filter takes from: the weights [count] that the cut so far keeps. */
struct mixture_choice {
    const double *weight;
    int32_t count;
    struct mixture_cut cut;
    bool by_mass;
};

/** Shared memory of a search. */
struct mixture_search {
    unsigned long long amount[MIXTURE_BINS];
    uint32_t tied[MIXTURE_BINS]; /* tokens in range, by stretches of the vocabulary */
    unsigned long long nearest;  /* of the tokens in range */
    unsigned long long farthest;
    uint64_t distance[MIXTURE_LISTED]; /* of the first that came */
    int32_t token[MIXTURE_LISTED];
    uint32_t count; /* of tokens in range, listed or not */
    struct mixture_bin found;
    struct mixture_cut cut;
    uint64_t part[MIXTURE_THREADS];
    uint64_t warp_part[MIXTURE_WARPS];
};

static __device__ __forceinline__ uint64_t weight_key(double weight)
{
    return (uint64_t)__double_as_longlong(weight);
}

static __device__ __forceinline__ uint64_t distance_of(double weight)
{
    return MIXTURE_FARTHEST - weight_key(weight);
}

static __device__ __forceinline__ uint64_t weight_amount(double weight, bool by_mass)
{
    return by_mass ? (uint64_t)(weight * MIXTURE_UNIT + 0.5) : 1u;
}

/* Of the tokens at a distance. */
static __device__ __forceinline__ uint64_t distance_amount(uint64_t distance, bool by_mass)
{
    uint64_t key = MIXTURE_FARTHEST - distance;
    return weight_amount(__longlong_as_double((long long)key), by_mass);
}

static __device__ __forceinline__ bool is_kept(const struct mixture_cut *cut, double weight,
                                               int32_t token)
{
    uint64_t key = weight_key(weight);
    return weight > 0.0 && (key > cut->key || (key == cut->key && token <= cut->token));
}

/* ---- passes ---- */

/* visit(weight, token) of this thread's tokens from `first` to before `last`. */
template <class F>
static __device__ __forceinline__ void each_weight(const double *weight, int32_t first,
                                                   int32_t last, F visit)
{
    for (int32_t v = first + (int32_t)threadIdx.x; v < last;
         v += MIXTURE_LOADS * MIXTURE_THREADS) {
        double own[MIXTURE_LOADS];
        for (int i = 0; i < MIXTURE_LOADS; i++)
            own[i] = v + i * MIXTURE_THREADS < last ? weight[v + i * MIXTURE_THREADS] : 0.0;
        MPO_READS(MIXTURE_LOADS);
        for (int i = 0; i < MIXTURE_LOADS; i++)
            visit(own[i], v + i * MIXTURE_THREADS);
    }
}

/* The distances of a range's bin that tokens can have, in bins of their own; after a pass. */
static __device__ struct mixture_range narrow_range(const struct mixture_search *search,
                                                    struct mixture_range range, int32_t bin)
{
    uint64_t first = range.first + ((uint64_t)bin << range.shift);
    uint64_t last = first + ((uint64_t)1 << range.shift) - 1;
    range.first = first > search->nearest ? first : search->nearest;
    if (bin == MIXTURE_BINS - 1 || last > search->farthest)
        range.last = search->farthest;
    else
        range.last = last;
    range.shift = 0;
    while ((range.last - range.first) >> range.shift >= MIXTURE_BINS)
        range.shift++;
    return range;
}

/* Tokens of a stretch are 2^this. */
static __device__ __forceinline__ int32_t stretch_shift(int32_t count)
{
    int32_t shift = 0;
    while ((count - 1) >> shift >= MIXTURE_BINS)
        shift++;
    return shift;
}

static __device__ __forceinline__ uint64_t warp_least(uint64_t value)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        uint64_t other = __shfl_xor_sync(MIXTURE_LANES, value, distance);
        value = other < value ? other : value;
    }
    return value;
}

/* A token in range is listed, and counted where ties are. */
static __device__ void list_token(struct mixture_search *search, uint64_t distance,
                                  int32_t token, int32_t stretch)
{
    uint32_t place = atomicAdd(&search->count, 1u);
    atomicAdd(&search->tied[stretch], 1u);
    if (place < MIXTURE_LISTED) {
        search->distance[place] = distance;
        search->token[place] = token;
    }
}

static __device__ void clear_search(struct mixture_search *search)
{
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < MIXTURE_BINS; i += MIXTURE_THREADS) {
        search->amount[i] = 0;
        search->tied[i] = 0;
    }
    if (threadIdx.x == 0) {
        search->nearest = ~0ull;
        search->farthest = 0;
        search->count = 0;
    }
    __syncthreads();
}

/* A pass: amounts of the range by bins, and with `lists` its tokens. Amounts of 0 are left
 * out, for no cumulative amount reaches a target there. */
static __device__ void search_range(struct mixture_search *search,
                                    const struct mixture_choice *from,
                                    const struct mixture_range *range, bool lists)
{
    const int32_t shift = stretch_shift(from->count);
    uint64_t nearest = ~(uint64_t)0;
    uint64_t farthest = 0;
    int32_t bin = 0; /* neighbours of a thread in the same bin are added up first */
    uint64_t amount = 0;
    clear_search(search);
    each_weight(from->weight, 0, from->count, [&](double weight, int32_t token) {
        uint64_t own = weight_amount(weight, from->by_mass);
        uint64_t distance = distance_of(weight);
        if (!is_kept(&from->cut, weight, token) || own == 0 || distance < range->first ||
            distance > range->last)
            return;
        uint64_t place = (distance - range->first) >> range->shift;
        int32_t its = place < MIXTURE_BINS ? (int32_t)place : MIXTURE_BINS - 1;
        if (its != bin && amount > 0) {
            atomicAdd(&search->amount[bin], (unsigned long long)amount);
            amount = 0;
        }
        bin = its;
        amount += own;
        nearest = distance < nearest ? distance : nearest;
        farthest = distance > farthest ? distance : farthest;
        if (lists)
            list_token(search, distance, token, token >> shift);
    });
    if (amount > 0)
        atomicAdd(&search->amount[bin], (unsigned long long)amount);
    nearest = warp_least(nearest);
    farthest = ~warp_least(~farthest);
    if (threadIdx.x % 32 == 0) {
        atomicMin(&search->nearest, (unsigned long long)nearest);
        atomicMax(&search->farthest, (unsigned long long)farthest);
    }
    __syncthreads();
}

/* ---- bins ---- */

/* The sum of all bins, for all threads, and parts of it for find_bin. */
template <class T>
static __device__ uint64_t sum_bins(struct mixture_search *search, const T *bin)
{
    uint64_t own = 0;
    for (int32_t i = 0; i < MIXTURE_BINS / MIXTURE_THREADS; i++)
        own += bin[(int32_t)threadIdx.x * (MIXTURE_BINS / MIXTURE_THREADS) + i];
    uint64_t sum = warp_sum(own);
    search->part[threadIdx.x] = own;
    if (threadIdx.x % 32 == 0)
        search->warp_part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int32_t warp = 0; warp < MIXTURE_WARPS; warp++)
        sum += search->warp_part[warp];
    return sum;
}

/* The bin in which the sum from the first on reaches the target, which is positive and at
 * most the sum of all, for all threads; after sum_bins. */
template <class T>
static __device__ struct mixture_bin find_bin(struct mixture_search *search, const T *bin,
                                              uint64_t target)
{
    int32_t warp = (int32_t)threadIdx.x / 32;
    struct mixture_bin own = {(int32_t)threadIdx.x * (MIXTURE_BINS / MIXTURE_THREADS), 0};
    for (int32_t i = 0; i < warp; i++)
        own.before += search->warp_part[i];
    for (int32_t i = 32 * warp; i < (int32_t)threadIdx.x; i++)
        own.before += search->part[i];
    if (own.before < target && own.before + search->part[threadIdx.x] >= target) {
        while (own.before + bin[own.index] < target)
            own.before += bin[own.index++];
        search->found = own;
    }
    __syncthreads();
    return search->found;
}

/* ---- the end of a search ---- */

/* The listed token at which the amount of the range reaches the target. */
static __device__ struct mixture_cut cut_listed(struct mixture_search *search, bool by_mass,
                                                uint64_t target)
{
    int32_t place = (int32_t)threadIdx.x;
    int32_t count = (int32_t)search->count;
    if (place < count) {
        uint64_t distance = search->distance[place];
        int32_t token = search->token[place];
        uint64_t before = 0;
        for (int32_t i = 0; i < count; i++)
            if (search->distance[i] < distance ||
                (search->distance[i] == distance && search->token[i] < token))
                before += distance_amount(search->distance[i], by_mass);
        if (before < target && before + distance_amount(distance, by_mass) >= target)
            search->cut = {MIXTURE_FARTHEST - distance, token};
    }
    __syncthreads();
    return search->cut;
}

/* The same where all tokens of the range are at one distance. */
static __device__ struct mixture_cut
cut_tied(struct mixture_search *search, const struct mixture_choice *from, uint64_t target)
{
    const int32_t shift = stretch_shift(from->count);
    const uint64_t distance = search->nearest;
    const uint64_t one = distance_amount(distance, from->by_mass);
    const uint64_t wanted = (target + one - 1) / one;
    sum_bins(search, search->tied);
    struct mixture_bin stretch = find_bin(search, search->tied, wanted);
    int32_t first = stretch.index << shift;
    int32_t last = first + (1 << shift);
    clear_search(search);
    each_weight(from->weight, first, last < from->count ? last : from->count,
                [&](double weight, int32_t token) {
                    if (is_kept(&from->cut, weight, token) &&
                        distance_of(weight) == distance)
                        search->tied[token - first] = 1;
                });
    __syncthreads();
    sum_bins(search, search->tied);
    struct mixture_bin place = find_bin(search, search->tied, wanted - stretch.before);
    return {MIXTURE_FARTHEST - distance, first + place.index};
}

/* The cut of one filter among what the cut so far keeps. */
static __device__ struct mixture_cut select_cut(struct mixture_search *search,
                                                const struct mixture_choice *from,
                                                const struct mpo_mixture_filter *filter)
{
    struct mixture_range range = {0, MIXTURE_FARTHEST, MIXTURE_FIRST_SHIFT};
    search_range(search, from, &range, false);
    uint64_t amount = sum_bins(search, search->amount);
    uint64_t target = from->by_mass ? (uint64_t)ceil(filter->top_p * (double)amount)
                                    : (uint64_t)filter->top_k;
    if (target >= amount)
        return from->cut;
    target = target > 0 ? target : 1;
    for (;;) {
        struct mixture_bin bin = find_bin(search, search->amount, target);
        target -= bin.before;
        range = narrow_range(search, range, bin.index);
        search_range(search, from, &range, true);
        if (search->count <= MIXTURE_LISTED)
            return cut_listed(search, from->by_mass, target);
        if (search->nearest == search->farthest)
            return cut_tied(search, from, target);
        sum_bins(search, search->amount);
    }
}

/* The cut of top_k, then that of top_p among what top_k keeps. */
static __device__ struct mixture_cut filter_cut(struct mixture_search *search,
                                                const double *weight, int32_t count,
                                                const struct mpo_mixture_filter *filter)
{
    struct mixture_choice from = {weight, count, {0, INT32_MAX}, false};
    for (int stage = 0; stage < 2; stage++) {
        from.by_mass = stage == 1;
        if (from.by_mass ? filter->top_p < 1.0 : filter->top_k > 0)
            from.cut = select_cut(search, &from, filter);
    }
    return from.cut;
}
