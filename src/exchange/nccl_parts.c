/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ranks make of their slices, to the root and back: messages of NCCL among the kernels
 * of the mixture's stream, so that no host waits between two of them. They go only between
 * the root and ranks with slices, which had rows for each other and so are connected.
 */
#include "nccl_impl.h"

static enum mpo_status gather_parts(struct mpo_exchange *exchange,
                                    const struct mpo_exchange_table *table)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    cudaStream_t stream = table->stream;
    MPO_TRY(mpo_nccl_begin_group(self));
    for (int32_t rank = 1; rank < exchange->size; rank++) {
        size_t bytes = table->start[rank + 1] - table->start[rank];
        if (bytes == 0 || (exchange->rank != 0 && exchange->rank != rank))
            continue;
        if (exchange->rank == 0) {
            MPO_TRY_NCCL(self, ncclRecv((char *)table->memory + table->start[rank], bytes,
                                        ncclInt8, rank, self->comm, stream));
            mpo_exchange_count_received(exchange, 1, bytes);
        } else {
            MPO_TRY_NCCL(self,
                         ncclSend(table->memory, bytes, ncclInt8, 0, self->comm, stream));
            mpo_exchange_count_sent(exchange, 1, bytes);
        }
    }
    MPO_TRY(mpo_nccl_end_group(self));
cleanup:
    return status;
}

static enum mpo_status deal_bytes(struct mpo_exchange *exchange, void *memory, size_t bytes,
                                  void *stream)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    MPO_TRY(mpo_nccl_begin_group(self));
    if (exchange->rank != 0) {
        MPO_TRY_NCCL(self, ncclRecv(memory, bytes, ncclInt8, 0, self->comm, stream));
        mpo_exchange_count_received(exchange, 1, bytes);
    }
    for (int32_t rank = 1; exchange->rank == 0 && rank < exchange->size; rank++) {
        if (mpo_exchange_slice_of(exchange, rank).count == 0)
            continue;
        MPO_TRY_NCCL(self, ncclSend(memory, bytes, ncclInt8, rank, self->comm, stream));
        mpo_exchange_count_sent(exchange, 1, bytes);
    }
    MPO_TRY(mpo_nccl_end_group(self));
cleanup:
    return status;
}

static enum mpo_status await_stream(struct mpo_exchange *exchange, void *stream)
{
    return mpo_nccl_wait(exchange->self, stream);
}

const struct mpo_exchange_device_parts mpo_nccl_parts = {gather_parts, deal_bytes,
                                                         await_stream};
