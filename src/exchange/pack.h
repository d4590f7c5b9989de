/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Device functions of a transport between devices.
 */
#pragma once

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Pack a slice of scattered rows contiguously:
 *  floats, or the upper 16 bits of each for bf16 rows. */
struct mpo_exchange_pack {
    const float *const *row; /* [row_count] pointers to [V] floats; all in device memory */
    int32_t row_count;       /* >= 1 */
    int32_t first;           /* tokens first .. first + count - 1 */
    int32_t count;           /* >= 1 */
    bool bf16_rows;
    void *packed; /* [row_count, count] out, in device memory */
};

/** Local; complete when the stream reaches it. */
enum mpo_status mpo_exchange_cuda_pack(const struct mpo_exchange_pack *pack,
                                       cudaStream_t stream);

/** Floats of bf16 rows from the upper 16 bits of each. */
struct mpo_exchange_unpack {
    const uint16_t *packed; /* [count] in device memory */
    size_t count;           /* >= 1 */
    float *rows;            /* [count] out, in device memory */
};

/** Local; complete when the stream reaches it. */
enum mpo_status mpo_exchange_cuda_unpack(const struct mpo_exchange_unpack *unpack,
                                         cudaStream_t stream);

#ifdef __cplusplus
}
#endif
