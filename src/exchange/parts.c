/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small messages beside rows: what ranks make of their slices to the root, and what it makes
 * of that to all. By MPI for all transports; some also have messages between devices.
 */
#include "exchange_impl.h"

enum mpo_status mpo_exchange_parts(struct mpo_exchange *exchange, double *table,
                                   const size_t *start)
{
    enum mpo_status status = MPO_OK;
    int posted = 0;
    for (int32_t rank = 1; rank < exchange->size; rank++) {
        int count = (int)(start[rank + 1] - start[rank]);
        MPI_Request *request = &exchange->common->parts[posted];
        double *part = table + start[rank];
        if (count == 0 || (exchange->rank != 0 && exchange->rank != rank))
            continue;
        posted++;
        if (exchange->rank == 0) {
            MPO_TRY_MPI(MPI_Irecv(part, count, MPI_DOUBLE, rank, MPO_EXCHANGE_TAG_PART,
                                  mpo_comm_group_mpi(exchange->comm), request));
            mpo_exchange_count_received(exchange, 1, (size_t)count * sizeof *part);
        } else {
            MPO_TRY_MPI(MPI_Isend(part, count, MPI_DOUBLE, 0, MPO_EXCHANGE_TAG_PART,
                                  mpo_comm_group_mpi(exchange->comm), request));
            mpo_exchange_count_sent(exchange, 1, (size_t)count * sizeof *part);
        }
    }
    if (posted > 0)
        MPO_TRY(mpo_comm_wait(exchange->common->parts, posted));
cleanup:
    return status;
}

enum mpo_status mpo_exchange_broadcast(struct mpo_exchange *exchange, void *data,
                                       size_t bytes)
{
    if (exchange->size > 1 && bytes > 0 && exchange->rank == 0)
        mpo_exchange_count_sent(exchange, 1, bytes);
    else if (exchange->size > 1 && bytes > 0)
        mpo_exchange_count_received(exchange, 1, bytes);
    return mpo_comm_group_broadcast(exchange->comm, data, bytes);
}

bool mpo_exchange_has_device_parts(const struct mpo_exchange *exchange)
{
    return exchange->common->ops->parts != NULL &&
           mpo_exchange_slice_of(exchange, 0).count < exchange->spec.vocab_size;
}

enum mpo_status mpo_exchange_device_gather(struct mpo_exchange *exchange,
                                           const struct mpo_exchange_table *table)
{
    return exchange->common->ops->parts->gather(exchange, table);
}

enum mpo_status mpo_exchange_device_deal(struct mpo_exchange *exchange, void *memory,
                                         size_t bytes, void *stream)
{
    return exchange->common->ops->parts->deal(exchange, memory, bytes, stream);
}

enum mpo_status mpo_exchange_device_wait(struct mpo_exchange *exchange, void *stream)
{
    return exchange->common->ops->parts->wait(exchange, stream);
}
