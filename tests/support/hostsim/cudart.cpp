/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CUDA's run time over malloc, so that ASan sees the end of every allocation. It is
 * stricter than CUDA: asynchronous work is done only when somebody waits for the stream or
 * asks after it, memory of the device must be the device's, pinned memory is read when the
 * copy is done and not when it is asked for, a kernel's stream must be the current
 * device's, and fresh memory is NaN.
 *
 * A call that fails fails as a device that is lost does: so does every later one. Memory is
 * given back all the same, so that what a program forgets then is seen too.
 *
 * Settings of a whole program, from its environment:
 *     HOSTSIM_DEVICES=n      devices that are found; -1: there is no driver
 *     HOSTSIM_FIRST=n        the first of them is the host's device n
 *     HOSTSIM_MEMORY=bytes   of each device
 *     HOSTSIM_FAIL=[rank:]n  the n-th call of the process fails, of that rank alone;
 *                            questions after a stream are not counted
 */
#include "cuda_runtime.h"
#include "calls.h"
#include "cudart.h"
#include "streams.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <deque>
#include <map>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)   ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

struct cudaStream {
    int device;
    std::deque<std::function<bool()>> work;
};

namespace
{
struct block {
    size_t bytes;
    int device; /* -1: the host's */
};

struct memory : std::map<char *, block> {
    size_t used(int device) const
    {
        size_t bytes = 0;
        for (auto &one : *this)
            bytes += one.second.device == device ? one.second.bytes : 0;
        return bytes;
    }
};

memory device_memory;
memory pinned_memory;
int device_count = 1;
int first_device;
int device_now;
size_t memory_bytes = (size_t)16 << 30;
int launches_left = -1;
long calls_left = -1;
cudaError_t last_error;
cudaError_t lost; /* what every call answers once one has failed */

struct program {
    program()
    {
        const char *devices = getenv("HOSTSIM_DEVICES");
        const char *first = getenv("HOSTSIM_FIRST");
        const char *bytes = getenv("HOSTSIM_MEMORY");
        const char *fail = getenv("HOSTSIM_FAIL");
        if (devices != nullptr)
            device_count = atoi(devices);
        if (first != nullptr)
            first_device = atoi(first);
        if (bytes != nullptr)
            memory_bytes = strtoull(bytes, nullptr, 10);
        if (fail != nullptr)
            calls_left = hostsim::fault_of_rank(&fail) ? atol(fail) - 1 : -1;
    }
    ~program()
    {
        if (cudart_allocated() > 0)
            fprintf(stderr, "hostsim: %zu bytes were never freed\n", cudart_allocated());
    }
} whole_program;

/* Of a group, on the smallest devices that mpo is built for: registers, of which a thread may
 * take 255, and shared memory, of which a kernel has 48 KB less its own unless it asked. */
const unsigned REGISTERS = 65536;
const unsigned REGISTERS_MOST = 255;
const size_t SHARED_MOST = (size_t)99 << 10;
const size_t STATIC_MOST = 2080; /* of all kernels: tests/gpu/kernel_budget.tsv */
const size_t DYNAMIC_USUAL = ((size_t)48 << 10) - STATIC_MOST;

std::map<const void *, size_t> dynamic_most; /* what kernels asked for */

/* The block of a range of addresses, NULL when it is not within one. */
const block *find(const memory &memory, const void *address, size_t bytes)
{
    char *at = (char *)address;
    auto after = memory.upper_bound(at);
    if (after == memory.begin())
        return nullptr;
    --after;
    return at + bytes <= after->first + after->second.bytes ? &after->second : nullptr;
}

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "hostsim: %s\n", what);
    abort();
}

/* Every call that can fail begins here. */
cudaError_t begin_call()
{
    if (calls_left-- == 0) {
        fprintf(stderr, "hostsim: this call of CUDA fails, and all after it\n");
        lost = cudaErrorLaunchFailure;
    }
    return lost;
}

/* The host must not touch the device's memory: ASan sees it where it is in use. */
void close_device()
{
    for (auto &block : device_memory)
        ASAN_POISON_MEMORY_REGION(block.first, block.second.bytes);
}

void open_device()
{
    for (auto &block : device_memory)
        ASAN_UNPOISON_MEMORY_REGION(block.first, block.second.bytes);
}

/* CUDA's own alignment. */
const size_t ALIGNMENT = 256;

void *take(memory &memory, size_t bytes, int device)
{
    void *fresh = nullptr;
    if (posix_memalign(&fresh, ALIGNMENT, bytes > 0 ? bytes : 1) != 0)
        die("the host has no memory for a device's");
    memset(fresh, 0xff, bytes);
    memory[(char *)fresh] = block{bytes, device};
    return fresh;
}

void give_back(memory &memory, void *address)
{
    if (address == nullptr)
        return;
    auto block = memory.find((char *)address);
    if (block == memory.end())
        die("memory is freed that was not allocated so");
    ASAN_UNPOISON_MEMORY_REGION(block->first, block->second.bytes);
    memory.erase(block);
    free(address);
}

void check_copy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    const void *device = kind == cudaMemcpyHostToDevice ? to : from;
    const void *host = kind == cudaMemcpyHostToDevice ? from : to;
    if (find(device_memory, device, bytes) == nullptr)
        die("a copy's device side is not in the device's memory");
    if (kind == cudaMemcpyDeviceToDevice && find(device_memory, to, bytes) == nullptr)
        die("a copy's target is not in the device's memory");
    if (kind != cudaMemcpyDeviceToDevice && find(device_memory, host, 1) != nullptr)
        die("a copy's host side is in the device's memory");
}

/* The first piece of work of a stream, if it can be done. */
void advance(cudaStream_t stream)
{
    open_device();
    if (stream->work.front()())
        stream->work.pop_front();
    close_device();
}
} // namespace

namespace hostsim
{
bool fault_of_rank(const char **text)
{
    const char *colon = strchr(*text, ':');
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    int wanted = atoi(*text);
    if (colon == nullptr)
        return true;
    *text = colon + 1;
    return wanted == (rank != nullptr ? atoi(rank) : 0);
}

void enqueue_until(cudaStream_t stream, const std::function<bool()> &work)
{
    stream->work.push_back(work);
}

void enqueue(cudaStream_t stream, const std::function<void()> &work)
{
    enqueue_until(stream, [=] {
        work();
        return true;
    });
}

int physical(int device)
{
    return first_device + device;
}

int device_of(cudaStream_t stream)
{
    return stream->device;
}

int device_of(const void *address, size_t bytes)
{
    const block *found = find(device_memory, address, bytes);
    return found != nullptr ? found->device : -1;
}

bool launch_succeeds(const void *kernel, const launch_shape &shape, cudaStream_t stream)
{
    const dim3 &grid = shape.grid;
    const dim3 &block = shape.block;
    unsigned threads = block.x * block.y * block.z;
    auto asked = dynamic_most.find(kernel);
    if (grid.x == 0 || grid.x > INT32_MAX || grid.y == 0 || grid.y > 65535 || grid.z == 0 ||
        grid.z > 65535 || threads == 0 || threads > 1024 || block.z > 64)
        die("a launch of an impossible grid");
    if (threads * REGISTERS_MOST > REGISTERS)
        die("a launch of so many threads needs a kernel with a limit of registers");
    if (shape.shared_bytes > (asked != dynamic_most.end() ? asked->second : DYNAMIC_USUAL))
        die("a launch with more shared memory than its kernel may have");
    if (stream->device != device_now)
        die("a launch on a stream of another device");
    hostsim::calls.launches++;
    if (begin_call() != cudaSuccess)
        last_error = lost;
    if (launches_left-- == 0)
        last_error = cudaErrorLaunchFailure;
    return last_error == cudaSuccess;
}

cudaError_t set_dynamic_most(const void *kernel, int bytes)
{
    if (begin_call() != cudaSuccess)
        return lost;
    if (bytes < 0 || (size_t)bytes > SHARED_MOST)
        return last_error = cudaErrorInvalidValue;
    dynamic_most[kernel] = (size_t)bytes;
    return cudaSuccess;
}
} // namespace hostsim

extern "C" {

void cudart_set_devices(int count)
{
    device_count = count;
}

void cudart_set_memory(size_t bytes)
{
    memory_bytes = bytes;
}

void cudart_fail_launch_after(int launches)
{
    launches_left = launches;
}

size_t cudart_allocated(void)
{
    size_t bytes = pinned_memory.used(-1);
    for (auto &block : device_memory)
        bytes += block.second.bytes;
    return bytes;
}

bool cudart_is_pinned(const void *address, size_t bytes)
{
    return find(pinned_memory, address, bytes) != nullptr;
}

int cudart_device(void)
{
    return device_now;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = device_count < 0 ? 0 : 13000;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    if (begin_call() != cudaSuccess)
        return lost;
    if (device_count < 0)
        return cudaErrorInsufficientDriver;
    *count = device_count;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (begin_call() != cudaSuccess)
        return lost;
    if (device < 0 || device >= device_count)
        return last_error = cudaErrorInvalidDevice;
    device_now = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = device_now;
    return begin_call();
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    const char *host = getenv("MPO_TEST_HOST"); /* tests/support/host.sh */
    int number = hostsim::physical(device);
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "simulated device %d", number);
    for (int i = 0; i < 16; i++)
        properties->uuid.bytes[i] = (char)(16 * number + i);
    if (host != nullptr)
        strncpy(properties->uuid.bytes, host, 8); /* no two hosts have one device */
    return begin_call();
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr, int)
{
    *value = (int)SHARED_MOST;
    return begin_call();
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = memory_bytes;
    *free_bytes = memory_bytes - device_memory.used(device_now);
    return begin_call();
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    if (begin_call() != cudaSuccess)
        return last_error = lost;
    if (device_memory.used(device_now) + bytes > memory_bytes)
        return last_error = cudaErrorMemoryAllocation;
    *memory = take(device_memory, bytes, device_now);
    close_device();
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    give_back(device_memory, memory);
    return begin_call();
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    if (begin_call() != cudaSuccess)
        return last_error = lost;
    *memory = take(pinned_memory, bytes, -1);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    give_back(pinned_memory, memory);
    return begin_call();
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    check_copy(to, from, bytes, kind);
    if (begin_call() != cudaSuccess)
        return lost;
    open_device();
    memcpy(to, from, bytes);
    close_device();
    return cudaSuccess;
}

/* Pageable memory of the host may change once the call is back; pinned memory may not. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            enum cudaMemcpyKind kind, cudaStream_t stream)
{
    check_copy(to, from, bytes, kind);
    hostsim::calls.copies++;
    if (begin_call() != cudaSuccess)
        return lost;
    if (kind == cudaMemcpyHostToDevice && find(pinned_memory, from, bytes) == nullptr) {
        auto copy = std::make_shared<std::vector<char>>((const char *)from,
                                                        (const char *)from + bytes);
        hostsim::enqueue(stream, [=] { memcpy(to, copy->data(), bytes); });
    } else {
        hostsim::enqueue(stream, [=] { memcpy(to, from, bytes); });
    }
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    if (begin_call() != cudaSuccess)
        return lost;
    *stream = new cudaStream{device_now, {}};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    delete stream;
    return begin_call();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    hostsim::calls.waits++;
    if (begin_call() != cudaSuccess)
        return lost;
    while (!stream->work.empty())
        advance(stream);
    return cudaSuccess;
}

/* One piece of work a question, so that a caller who asks once only is found out. How often
 * one asks is chance, so it is not counted. */
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    if (lost != cudaSuccess)
        return lost;
    if (!stream->work.empty()) {
        advance(stream);
        return cudaErrorNotReady;
    }
    hostsim::calls.waits++;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = lost;
    return error;
}
}
