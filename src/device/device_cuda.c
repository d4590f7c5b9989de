/*
 * CUDA devices. Launchers differ: some show every rank all devices of the host, some show
 * each rank its own as the only one. The rank on the host chooses among several, and a rank
 * that finds none left for it is refused rather than put on another rank's device.
 */
#include "device_cuda.h"
#include "device_impl.h"

#include <stdio.h>

static enum mpo_status count_visible(int *visible)
{
    enum mpo_status status = MPO_OK;
    *visible = 0; /* without a driver it is left as it was */
    cudaError_t error = cudaGetDeviceCount(visible);
    MPO_CHECK(error == cudaSuccess, MPO_ERR_DEVICE,
              "no CUDA device can be used: %s (%s); see nvidia-smi, or run with "
              "run.device=cpu",
              cudaGetErrorString(error), cudaGetErrorName(error));
    MPO_CHECK(*visible > 0, MPO_ERR_DEVICE,
              "no CUDA device is visible; see CUDA_VISIBLE_DEVICES and nvidia-smi, or run "
              "with run.device=cpu");
cleanup:
    return status;
}

static void format_uuid(const cudaUUID_t *uuid, char *text, size_t bytes)
{
    size_t at = (size_t)snprintf(text, bytes, "GPU");
    for (int i = 0; i < 16; i++) {
        const char *dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
        at += (size_t)snprintf(text + at, bytes - at, "%s%02x", dash,
                               (unsigned char)uuid->bytes[i]);
    }
}

static enum mpo_status cuda_open(int32_t local_rank, struct mpo_device *out)
{
    enum mpo_status status = MPO_OK;
    int visible = 0;
    struct cudaDeviceProp properties;
    MPO_TRY(count_visible(&visible));
    MPO_CHECK(visible == 1 || local_rank < visible, MPO_ERR_DEVICE,
              "rank %d of this host finds %d CUDA devices and none for itself; start at "
              "most %d ranks a host, or run with run.device=cpu",
              local_rank, visible, visible);
    *out = (struct mpo_device){.kind = "cuda", .index = visible == 1 ? 0 : local_rank};
    MPO_TRY_CUDA(cudaSetDevice(out->index));
    MPO_TRY_CUDA(cudaGetDeviceProperties(&properties, out->index));
    MPO_TRY_CUDA(cudaMemGetInfo(&out->free_bytes, &out->total_bytes));
    snprintf(out->name, sizeof out->name, "%.63s", properties.name);
    format_uuid(&properties.uuid, out->uuid, sizeof out->uuid);
cleanup:
    return status;
}

const struct mpo_device_ops mpo_device_cuda_ops = {.kind = "cuda", .open = cuda_open};
