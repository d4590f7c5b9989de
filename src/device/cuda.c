/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CUDA devices. Some launchers show every rank all devices of the host, others show each
 * rank only its own. Among several devices the rank's number on the host decides; a rank
 * with no device left is refused instead of sharing another rank's device.
 */
#include "device_cuda.h"
#include "device_impl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static enum mpo_status count_visible(int *visible)
{
    enum mpo_status status = MPO_OK;
    *visible = 0; /* without a driver it is unchanged */
    cudaError_t error = cudaGetDeviceCount(visible);
    MPO_CHECK(error == cudaSuccess, MPO_ERR_DEVICE,
              "no CUDA device can be used: %s (%s); see nvidia-smi, or set run.device=cpu",
              cudaGetErrorString(error), cudaGetErrorName(error));
    MPO_CHECK(*visible > 0, MPO_ERR_DEVICE,
              "no CUDA device is visible; see CUDA_VISIBLE_DEVICES and nvidia-smi, or set "
              "run.device=cpu");
cleanup:
    return status;
}

/* Questions of the driver's interface: 0 is success. */
typedef int (*get_device)(int *device, int index);
typedef int (*get_uuid)(cudaUUID_t *uuid, int device);

/* What the driver says of a device: for a part of a GPU (MIG) the part's identifier. The run
 * time's properties do not say whose theirs is, and two parts of one GPU must not look like
 * one device. The run time has loaded the driver's library, with which nothing is linked.
 * @param uuid     as it was where the driver does not answer
 * @param is_part  whether it is a part's */
static void ask_driver(int32_t index, cudaUUID_t *uuid, bool *is_part)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    get_device open_device = NULL;
    get_uuid of_whole = NULL;
    get_uuid of_part = NULL;
    cudaUUID_t whole;
    cudaUUID_t part;
    int device = 0;
    *is_part = false;
    if (driver == NULL)
        return;
    *(void **)&open_device = dlsym(driver, "cuDeviceGet"); /* as POSIX says */
    *(void **)&of_whole = dlsym(driver, "cuDeviceGetUuid");
    *(void **)&of_part = dlsym(driver, "cuDeviceGetUuid_v2");
    if (open_device != NULL && of_whole != NULL && of_part != NULL &&
        open_device(&device, index) == 0 && of_whole(&whole, device) == 0 &&
        of_part(&part, device) == 0) {
        *is_part = memcmp(&whole, &part, sizeof part) != 0;
        *uuid = part;
    }
    dlclose(driver);
}

static void format_uuid(const cudaUUID_t *uuid, bool is_part, char *text, size_t bytes)
{
    size_t at = (size_t)snprintf(text, bytes, "%s", is_part ? "MIG" : "GPU");
    for (int i = 0; i < 16; i++) {
        const char *dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
        at += (size_t)snprintf(text + at, bytes - at, "%s%02x", dash,
                               (unsigned char)uuid->bytes[i]);
    }
}

static enum mpo_status cuda_uuid(int32_t index, char *text, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    struct cudaDeviceProp properties;
    bool is_part = false;
    MPO_TRY_CUDA(cudaGetDeviceProperties(&properties, index));
    ask_driver(index, &properties.uuid, &is_part);
    format_uuid(&properties.uuid, is_part, text, bytes);
cleanup:
    return status;
}

/* Open every device of the run; the last one, on which the rank computes, stays current. */
static enum mpo_status measure_memory(struct mpo_device *run)
{
    enum mpo_status status = MPO_OK;
    run->free_bytes = SIZE_MAX;
    for (int32_t index = run->first; index <= run->index; index++) {
        size_t free_bytes = 0;
        MPO_TRY_CUDA(cudaSetDevice(index));
        MPO_TRY_CUDA(cudaMemGetInfo(&free_bytes, &run->total_bytes));
        if (free_bytes < run->free_bytes)
            run->free_bytes = free_bytes;
    }
cleanup:
    return status;
}

static enum mpo_status cuda_open(int32_t before, int32_t count, struct mpo_device *out)
{
    enum mpo_status status = MPO_OK;
    int visible = 0;
    struct cudaDeviceProp properties;
    MPO_TRY(count_visible(&visible));
    int32_t first = visible == count ? 0 : before;
    MPO_CHECK(first + count <= visible, MPO_ERR_DEVICE,
              "a rank needs %d of its host's CUDA devices and lower ranks use %d, but "
              "there are %d; start fewer ranks per host, lower policies.NAME.devices, or "
              "set run.device=cpu",
              count, before, visible);
    *out = (struct mpo_device){.kind = "cuda", .first = first, .index = first + count - 1};
    MPO_TRY(measure_memory(out));
    MPO_TRY_CUDA(cudaGetDeviceProperties(&properties, out->index));
    snprintf(out->name, sizeof out->name, "%.63s", properties.name);
    MPO_TRY(cuda_uuid(out->index, out->uuid, sizeof out->uuid));
cleanup:
    return status;
}

static enum mpo_status cuda_use(const struct mpo_device *device)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_CUDA(cudaSetDevice(device->index));
cleanup:
    return status;
}

enum mpo_status mpo_device_cuda_take(size_t bytes, const char *what, const char *advice,
                                     void **out)
{
    enum mpo_status status = MPO_OK;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cudaError_t error = cudaSuccess;
    MPO_TRY_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    error = cudaMalloc(out, bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* else the next launch would report it again */
        MPO_FAIL(MPO_ERR_MEMORY,
                 "%s: needs %zu MiB of device memory, but %zu of %zu MiB are free; decode "
                 "fewer rows at once (rollout.unit_prompts, rollout.responses; generate: "
                 "--parallel; evaluate: --responses), or %s",
                 what, (bytes >> 20) + 1, free_bytes >> 20, total_bytes >> 20, advice);
    }
    MPO_TRY_CUDA(error);
cleanup:
    return status;
}

/* CUDA writes 12.4 as 12040. */
static void cuda_library_version(char *text, size_t bytes)
{
    int built = 0;
    int driver = 0;
    size_t at = 0;
    cudaRuntimeGetVersion(&built);
    cudaDriverGetVersion(&driver);
    at = (size_t)snprintf(text, bytes, "%d.%d", built / 1000, built % 1000 / 10);
    if (driver == 0)
        snprintf(text + at, bytes - at, " (no driver)");
    else
        snprintf(text + at, bytes - at, " (driver %d.%d)", driver / 1000,
                 driver % 1000 / 10);
}

const struct mpo_device_ops mpo_device_cuda_ops = {
    .kind = "cuda",
    .library_version = cuda_library_version,
    .open = cuda_open,
    .uuid = cuda_uuid,
    .use = cuda_use,
};
