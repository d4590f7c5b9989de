/* SPDX-License-Identifier: Apache-2.0 */
/**
 * CUDA kernels compiled by a host compiler and run thread by thread, for tests.
 *
 * Every CUDA thread is a fiber. The groups of a grid run one after another in a random
 * order, and within a group the threads that can go on are taken in a random order up to
 * their next barrier or warp operation; HOSTSIM_SEED chooses the order. Dynamic shared
 * memory starts as NaN and is as long as the launch says, 48 KB at most unless the kernel
 * asked for more. A barrier that some threads miss,
 * threads at different barriers, and a shuffle from a lane that takes no part end the
 * program with the kernel's name and the line.
 *
 * The same test built three ways checks three things: plain, the values under many
 * schedules; with ASan and UBSan, every access (as compute-sanitizer's memcheck does); with
 * TSan, whose fibers these are, races within a group (as racecheck does). What none of this
 * shows: a device's own instructions, its speed, and races between groups.
 *
 * Only what mpo's kernels use is here.
 */
#pragma once

#include "cuda_runtime_api.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>

struct uint3 {
    unsigned x;
    unsigned y;
    unsigned z;
};

struct dim3 : uint3 {
    dim3(unsigned x_count = 1, unsigned y_count = 1, unsigned z_count = 1)
        : uint3{x_count, y_count, z_count}
    {
    }
};

struct alignas(16) float4 {
    float x;
    float y;
    float z;
    float w;
};

namespace hostsim
{
enum warp_operation { WARP_SHUFFLE };

extern dim3 block_size;
extern dim3 block_place;
extern char *dynamic_shared;

/** Place of the running thread in its block. */
uint3 thread_place();

void barrier(int line);

/** Meet all lanes of the mask at the same operation;
 *  returns the value that the lane `source` brought. */
uint64_t warp_meet(warp_operation operation, uint32_t mask, uint64_t value, int source);

/** Run a grid of blocks now. */
void run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
              const std::function<void()> &body);

/** Put work into the stream: it is done when somebody waits for the stream
 *  or asks after it. */
void enqueue(cudaStream_t stream, const std::function<void()> &work);

struct launch_shape {
    dim3 grid;
    dim3 block;
    size_t shared_bytes;
};

/** Next launch's outcome, for cudaGetLastError. @return false: do not run it */
bool launch_succeeds(const void *kernel, const launch_shape &shape, cudaStream_t stream);

/** Of MPO_READS; counted for cudart_take_reads. */
void note_reads(int count);

/** Let a kernel have so much dynamic shared memory, where it would have 48 KB. */
cudaError_t set_dynamic_most(const void *kernel, int bytes);

template <class T> T shuffle_xor(uint32_t mask, T value, int distance)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    int lane = (int)(thread_place().x % 32);
    bits = warp_meet(WARP_SHUFFLE, mask, bits, lane ^ distance);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class... Parameters, class... Arguments>
void launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            size_t shared_bytes, cudaStream_t stream, Arguments... arguments)
{
    if (!launch_succeeds((const void *)kernel, {grid, block, shared_bytes}, stream))
        return;
    enqueue(stream, [=] {
        run_grid(name, grid, block, shared_bytes, [=] { kernel(arguments...); });
    });
}
} // namespace hostsim

#define MPO_LAUNCH(kernel, grid, threads, shared_bytes, stream, ...)                       \
    hostsim::launch(#kernel, kernel, (grid), (threads), (shared_bytes), (stream),          \
                    __VA_ARGS__)
#define MPO_READS(count) hostsim::note_reads(count)
#define MPO_DYNAMIC_SHARED(type, name)                                                     \
    type *name = reinterpret_cast<type *>(hostsim::dynamic_shared)

/* Groups run one at a time, so one copy of a group's variables is enough. */
#define __shared__ static
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define threadIdx       (hostsim::thread_place())
#define blockIdx        (hostsim::block_place)
#define blockDim        (hostsim::block_size)
#define __syncthreads() hostsim::barrier(__LINE__)
#define __shfl_xor_sync(mask, value, distance)                                             \
    hostsim::shuffle_xor((mask), (value), (distance))

/* Where replaces(old, value) holds, value takes its place. */
template <class T, class F> static inline T hostsim_replace(T *address, T value, F replaces)
{
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (replaces(old, value) &&
           !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
        continue;
    return old;
}

template <class T> static inline T atomicMin(T *address, T value)
{
    return hostsim_replace(address, value, [](T old, T fresh) { return old > fresh; });
}

template <class T> static inline T atomicMax(T *address, T value)
{
    return hostsim_replace(address, value, [](T old, T fresh) { return old < fresh; });
}

template <class T> static inline T atomicAdd(T *address, T value)
{
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

static inline uint32_t __float_as_uint(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __uint_as_float(uint32_t bits)
{
    float value = 0.0f;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline long long __double_as_longlong(double value)
{
    long long bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double __longlong_as_double(long long bits)
{
    double value = 0.0;
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute,
                                 int value)
{
    return hostsim::set_dynamic_most((const void *)kernel, value);
}
