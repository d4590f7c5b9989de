/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Kernels of the exchange between devices, in the dialect of device/cuda_dialect.cuh. All
 * of them copy: neighbours in a warp read and write neighbours in memory, and the memory's
 * bandwidth is the limit; target: 0.8 of it.
 */
#pragma once

#include <stdint.h>

#include "pack.h"
#include "device/cuda_dialect.cuh"

#define EXCHANGE_THREADS 256
#define EXCHANGE_TOKENS  4 /* a thread copies at a time */
#define EXCHANGE_SPAN    (EXCHANGE_THREADS * EXCHANGE_TOKENS)

/* Token i of this thread in a span. */
static __device__ __forceinline__ size_t exchange_token(uint32_t span, int32_t i)
{
    return (size_t)span * EXCHANGE_SPAN + (size_t)(i * EXCHANGE_THREADS) + threadIdx.x;
}

/** Grid: (rows, spans of a slice). Bytes per token: 4 read, 4 written. */
static __global__ void __launch_bounds__(EXCHANGE_THREADS)
    exchange_pack(struct mpo_exchange_pack pack)
{
    const float *from = pack.row[blockIdx.x] + pack.first;
    float *to = (float *)pack.packed + (size_t)blockIdx.x * (size_t)pack.count;
    for (int32_t i = 0; i < EXCHANGE_TOKENS; i++) {
        size_t token = exchange_token(blockIdx.y, i);
        if (token < (size_t)pack.count)
            to[token] = from[token];
    }
}

/** The same for bf16 rows. Bytes per token: 4 read, 2 written. */
static __global__ void __launch_bounds__(EXCHANGE_THREADS)
    exchange_pack_halves(struct mpo_exchange_pack pack)
{
    const float *from = pack.row[blockIdx.x] + pack.first;
    uint16_t *to = (uint16_t *)pack.packed + (size_t)blockIdx.x * (size_t)pack.count;
    for (int32_t i = 0; i < EXCHANGE_TOKENS; i++) {
        size_t token = exchange_token(blockIdx.y, i);
        if (token < (size_t)pack.count)
            to[token] = (uint16_t)(__float_as_uint(from[token]) >> 16);
    }
}

/** Grid: spans. Bytes per token: 2 read, 4 written. */
static __global__ void __launch_bounds__(EXCHANGE_THREADS)
    exchange_unpack_halves(struct mpo_exchange_unpack unpack)
{
    for (int32_t i = 0; i < EXCHANGE_TOKENS; i++) {
        size_t token = exchange_token(blockIdx.x, i);
        if (token < unpack.count)
            unpack.rows[token] = __uint_as_float((uint32_t)unpack.packed[token] << 16);
    }
}
