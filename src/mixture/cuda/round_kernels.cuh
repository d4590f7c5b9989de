/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Rounding of rows to bf16 on CUDA: mixture/round.c in parallel, to the same bits. A
 * maximum has no order, a difference of two floats is the same everywhere, and the rest is
 * whole numbers. Masked tokens are MPO_MASKED_LOGIT here too, whatever the model left
 * there: they are not in the maximum, and no NaN of theirs is in the rounded row. Bytes
 * from and to device memory, a row of V tokens:
 *
 *     round_tops    4 V                          bandwidth; target 80 % of it
 *     round_rows    8 V + V/1024 (8 V/1024)      the same; reads come from the cache where
 * the call's rows fit into it, and block maxima do
 *                   (+ V of flags once for all rows, then from cache, of both)
 */
#pragma once

#include "kernels.cuh"

/** The rows of one call. Device pointers throughout. */
struct mixture_round_view {
    const float *const *row; /* [B] pointers to [V] */
    float *rounded;          /* [B, stride]; may be where the rows are */
    size_t stride;
    const uint8_t *flags; /* [V] */
    double *block_top;    /* [B, block] */
    int32_t vocab_size;
    int32_t block_count;
};

/* Token i of this thread in this group's block: neighbours in a warp are neighbours in
 * memory at whatever address the row is. */
static __device__ __forceinline__ int32_t strided_token(int32_t i)
{
    return (int32_t)blockIdx.x * MPO_ROWS_BLOCK + i * MIXTURE_THREADS +
           (int32_t)threadIdx.x;
}

/* A token's logit; the token is one of the vocabulary's. */
static __device__ __forceinline__ float logit_of(const struct mixture_round_view *view,
                                                 const float *row, int32_t token)
{
    return known_logit(row[token], view->flags[token]);
}

/** Grid: (block_count, rows). The greatest logit of a block, NaNs aside. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_round_tops(struct mixture_round_view view)
{
    const float *row = view.row[blockIdx.y];
    float top = -INFINITY;
    for (int32_t i = 0; i < MIXTURE_TOKENS; i++)
        if (strided_token(i) < view.vocab_size)
            top = fmaxf(top, logit_of(&view, row, strided_token(i)));
    double group_top = group_max((double)top);
    if (threadIdx.x == 0)
        view.block_top[(size_t)blockIdx.y * (size_t)view.block_count + blockIdx.x] =
            group_top;
}

/* To 8 significant bits, ties to even. */
static __device__ __forceinline__ float to_bf16(float value)
{
    uint32_t bits = __float_as_uint(value);
    bits += 0x7fffu + (bits >> 16 & 1u);
    return __uint_as_float(value != value ? 0x7fc00000u : bits & 0xffff0000u);
}

/** Grid: (block_count, rows). Each token less the row's greatest, rounded. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_round_rows(struct mixture_round_view view)
{
    const float *row = view.row[blockIdx.y];
    float *rounded = view.rounded + (size_t)blockIdx.y * view.stride;
    const double *block_top =
        view.block_top + (size_t)blockIdx.y * (size_t)view.block_count;
    double top = -INFINITY;
    for (int32_t block = (int32_t)threadIdx.x; block < view.block_count;
         block += MIXTURE_THREADS)
        top = fmax(top, block_top[block]);
    top = group_max(top);
    float taken = top > (double)MPO_MASKED_LOGIT ? (float)top + 0.0f : 0.0f;
    for (int32_t i = 0; i < MIXTURE_TOKENS; i++)
        if (strided_token(i) < view.vocab_size)
            rounded[strided_token(i)] =
                to_bf16(logit_of(&view, row, strided_token(i)) - taken);
}
