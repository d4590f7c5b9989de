/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launches of the exchange's kernels.
 */
#include "pack.h"

#include "pack_kernels.cuh"
#include "device/device_cuda.h"

static unsigned span_count(size_t count)
{
    return (unsigned)((count + EXCHANGE_SPAN - 1) / EXCHANGE_SPAN);
}

enum mpo_status mpo_exchange_cuda_pack(const struct mpo_exchange_pack *pack,
                                       cudaStream_t stream)
{
    enum mpo_status status = MPO_OK;
    dim3 grid((unsigned)pack->row_count, span_count((size_t)pack->count));
    if (pack->bf16_rows)
        MPO_LAUNCH(exchange_pack_halves, grid, EXCHANGE_THREADS, 0, stream, *pack);
    else
        MPO_LAUNCH(exchange_pack, grid, EXCHANGE_THREADS, 0, stream, *pack);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

enum mpo_status mpo_exchange_cuda_unpack(const struct mpo_exchange_unpack *unpack,
                                         cudaStream_t stream)
{
    enum mpo_status status = MPO_OK;
    MPO_LAUNCH(exchange_unpack_halves, dim3(span_count(unpack->count)), EXCHANGE_THREADS, 0,
               stream, *unpack);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}
