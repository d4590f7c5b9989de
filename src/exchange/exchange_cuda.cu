/*
 * Launches of the exchange's kernels.
 */
#include "exchange_cuda.h"

#include "exchange_kernels.cuh"
#include "../device/device_cuda.h"

enum mpo_status mpo_exchange_cuda_pack(const struct mpo_exchange_pack *pack,
                                       cudaStream_t stream)
{
    enum mpo_status status = MPO_OK;
    const int32_t span = EXCHANGE_THREADS * EXCHANGE_TOKENS;
    dim3 grid((unsigned)pack->row_count, (unsigned)((pack->count + span - 1) / span));
    MPO_LAUNCH(exchange_pack, grid, EXCHANGE_THREADS, 0, stream, *pack);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}
