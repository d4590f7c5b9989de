/*
 * CUDA's run time over malloc, so that ASan sees the end of every allocation. It is
 * stricter than CUDA: asynchronous work is done only when somebody waits for the stream,
 * memory of the device must be the device's, pinned memory is read when the copy is done
 * and not when it is asked for, and fresh memory is NaN.
 */
#include "cuda_runtime.h"
#include "cudart.h"

#include <stdio.h>
#include <stdlib.h>

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
    std::vector<std::function<void()>> work;
};

namespace
{
std::map<char *, size_t> device_memory;
std::map<char *, size_t> pinned_memory;
int device_count = 1;
int device_now;
size_t memory_bytes = (size_t)16 << 30;
size_t device_used;
int launches_left = -1;
cudaError_t last_error;

bool lies_in(const std::map<char *, size_t> &memory, const void *address, size_t bytes)
{
    char *at = (char *)address;
    auto after = memory.upper_bound(at);
    if (after == memory.begin())
        return false;
    --after;
    return at + bytes <= after->first + after->second;
}

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "hostsim: %s\n", what);
    abort();
}

/* The host must not touch the device's memory: ASan sees it where it is in use. */
void close_device()
{
    for (auto &block : device_memory)
        ASAN_POISON_MEMORY_REGION(block.first, block.second);
}

void open_device()
{
    for (auto &block : device_memory)
        ASAN_UNPOISON_MEMORY_REGION(block.first, block.second);
}

void *take(std::map<char *, size_t> &memory, size_t bytes)
{
    char *fresh = (char *)malloc(bytes > 0 ? bytes : 1);
    memset(fresh, 0xff, bytes);
    memory[fresh] = bytes;
    return fresh;
}

void give_back(std::map<char *, size_t> &memory, void *address)
{
    if (address == nullptr)
        return;
    if (memory.erase((char *)address) == 0)
        die("memory is freed that was not allocated so");
    free(address);
}

void check_copy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    const void *device = kind == cudaMemcpyHostToDevice ? to : from;
    const void *host = kind == cudaMemcpyHostToDevice ? from : to;
    if (!lies_in(device_memory, device, bytes))
        die("a copy's device side is not in the device's memory");
    if (lies_in(device_memory, host, 1))
        die("a copy's host side is in the device's memory");
}
} // namespace

namespace hostsim
{
void enqueue(cudaStream_t stream, const std::function<void()> &work)
{
    stream->work.push_back(work);
}

bool launch_succeeds(dim3 grid, dim3 block, size_t shared_bytes)
{
    if (grid.x == 0 || grid.y == 0 || grid.y > 65535 || block.x == 0 || block.x > 1024)
        die("a launch of an impossible grid");
    if (shared_bytes > (size_t)99 << 10)
        die("a launch with more shared memory than there is");
    if (launches_left-- == 0)
        last_error = cudaErrorLaunchFailure;
    return last_error == cudaSuccess;
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
    size_t pinned = 0;
    for (auto &block : pinned_memory)
        pinned += block.second;
    return device_used + pinned;
}

int cudart_device(void)
{
    return device_now;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    if (device_count < 0)
        return cudaErrorInsufficientDriver;
    *count = device_count;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    device_now = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = device_now;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "simulated device %d", device);
    for (int i = 0; i < 16; i++)
        properties->uuid.bytes[i] = (char)(16 * device + i);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr, int)
{
    *value = 99 << 10; /* the smallest of the devices that mpo is built for */
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = memory_bytes;
    *free_bytes = memory_bytes - device_used;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    if (device_used + bytes > memory_bytes)
        return last_error = cudaErrorMemoryAllocation;
    *memory = take(device_memory, bytes);
    device_used += bytes;
    close_device();
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    auto block = device_memory.find((char *)memory);
    if (block != device_memory.end()) {
        device_used -= block->second;
        ASAN_UNPOISON_MEMORY_REGION(block->first, block->second);
    }
    give_back(device_memory, memory);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    *memory = take(pinned_memory, bytes);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    give_back(pinned_memory, memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    check_copy(to, from, bytes, kind);
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
    if (kind == cudaMemcpyHostToDevice && !lies_in(pinned_memory, from, bytes)) {
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
    *stream = new cudaStream;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    open_device();
    for (auto &work : stream->work)
        work();
    stream->work.clear();
    close_device();
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    }
    return "unknown";
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    }
    return "unknown";
}
}
