/**
 * Kernels of the exchange between devices, in the dialect of device/cuda_dialect.cuh.
 */
#pragma once

#include <stdint.h>

#include "exchange_cuda.h"
#include "../device/cuda_dialect.cuh"

#define EXCHANGE_THREADS 256
#define EXCHANGE_TOKENS  4 /* a thread copies at a time */

/** Grid: (rows, spans of EXCHANGE_THREADS * EXCHANGE_TOKENS tokens). Neighbours in a warp
 *  read and write neighbours in memory. Bytes a token: 4 read, 4 written; target: 0.8 of
 *  the memory's bandwidth. */
static __global__ void __launch_bounds__(EXCHANGE_THREADS)
    exchange_pack(struct mpo_exchange_pack pack)
{
    const float *from = pack.row[blockIdx.x] + pack.first;
    float *to = pack.packed + (size_t)blockIdx.x * (size_t)pack.count;
    int32_t begin = (int32_t)blockIdx.y * EXCHANGE_THREADS * EXCHANGE_TOKENS;
    for (int32_t i = 0; i < EXCHANGE_TOKENS; i++) {
        int32_t token = begin + i * EXCHANGE_THREADS + (int32_t)threadIdx.x;
        if (token < pack.count)
            to[token] = from[token];
    }
}
