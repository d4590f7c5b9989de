/* SPDX-License-Identifier: Apache-2.0 */
/**
 * CUDA's errors as statuses, and device memory, for the few files that call CUDA.
 */
#pragma once

#include <cuda_runtime_api.h>

#include "mpo/status.h"

/** Raise unless a call of CUDA's runtime, or the
 *  launch before cudaGetLastError, succeeds. */
#define MPO_TRY_CUDA(call)                                                                 \
    do {                                                                                   \
        cudaError_t cuda_error = (call);                                                   \
        if (cuda_error != cudaSuccess)                                                     \
            MPO_FAIL(MPO_ERR_DEVICE, "CUDA answered \"%s\" (%s) to %s",                    \
                     cudaGetErrorString(cuda_error), cudaGetErrorName(cuda_error), #call); \
    } while (0)

#ifdef __cplusplus
extern "C" {
#endif

/** Allocate memory of the current device; release with cudaFree. Local.
 *  @param what its purpose, e.g. "the mixture of 8 rows"
 *  @param advice an alternative, e.g. "set run.device to cpu"
 *  @return MPO_ERR_MEMORY with what is free; MPO_ERR_DEVICE when the device fails */
enum mpo_status mpo_device_cuda_take(size_t bytes, const char *what, const char *advice,
                                     void **out);

#ifdef __cplusplus
}
#endif
