/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Macros that let the same kernels be compiled by nvcc for a device and by a host
 * compiler for tests, where tests/support/hostsim/cuda_runtime.h replaces CUDA's header and
 * defines them itself.
 *
 * Kernels use only what both support: no cub, no cooperative groups, no inline PTX.
 */
#pragma once

#include <cuda_runtime.h>

#ifndef MPO_LAUNCH

/** Launch kernel(...) on a stream; a failure shows in cudaGetLastError. */
#define MPO_LAUNCH(kernel, grid, threads, shared_bytes, stream, ...)                       \
    kernel<<<(grid), (threads), (shared_bytes), (stream)>>>(__VA_ARGS__)

/** The launch's dynamic shared memory as an array. */
#define MPO_DYNAMIC_SHARED(type, name)                                                     \
    extern __shared__ __align__(16) unsigned char name##_bytes[];                          \
    type *name = reinterpret_cast<type *>(name##_bytes)

/** Tell a simulated device, which counts them, that this thread reads `count` values of a
 *  row that other threads read their own of. */
#define MPO_READS(count) (void)0

#endif
