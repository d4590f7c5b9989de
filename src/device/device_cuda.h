/**
 * CUDA's errors as statuses, for the few files that call CUDA.
 */
#pragma once

#include <cuda_runtime_api.h>

#include "mpo/status.h"

/** Raise unless a call of CUDA's runtime, or the launch before cudaGetLastError, succeeds.
 */
#define MPO_TRY_CUDA(call)                                                                 \
    do {                                                                                   \
        cudaError_t cuda_error = (call);                                                   \
        if (cuda_error != cudaSuccess)                                                     \
            MPO_FAIL(MPO_ERR_DEVICE, "CUDA answered \"%s\" (%s) to %s",                    \
                     cudaGetErrorString(cuda_error), cudaGetErrorName(cuda_error), #call); \
    } while (0)
