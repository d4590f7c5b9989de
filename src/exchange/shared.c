/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport `shared`: ranks of one host publish their rows in an MPI-3 shared window, and
 * the others read their slices there, in place. Each row is copied once, except the slice
 * that its own rank reduces: the root of a gather copies nothing.
 *
 *     window of a rank:  [local policies, row_capacity] doubles, as many as it has rows
 *                        used, then as many rows of V floats
 *
 * One barrier a position says "published". All reads are over when the root has what every
 * rank made of its slice, so before the message that ends the position, and no rank
 * publishes again without that one: no second barrier is needed.
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static const char *shared_refuses(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm)
{
    if (mpo_comm_group_size(comm) == 1)
        return "a group has one rank only";
    if (!mpo_comm_group_shares_host(comm))
        return "the ranks of a group span several hosts";
    return mpo_exchange_window_refuses(&mpo_exchange_shared_ops, spec, comm);
}

static size_t norms_bytes(const struct mpo_exchange *exchange, int32_t local_count)
{
    return (size_t)local_count * (size_t)exchange->spec.row_capacity * sizeof(double);
}

static size_t row_bytes(const struct mpo_exchange *exchange)
{
    return (size_t)exchange->spec.vocab_size * sizeof(float);
}

/* The rank's own rows if another rank reads them; with gather the root's rows
 * are read in place. */
static size_t shared_keeps_bytes(const struct mpo_exchange_spec *spec,
                                 const struct mpo_comm *comm, int32_t rank)
{
    struct mpo_slice slice = mpo_exchange_slice(spec, rank, mpo_comm_group_size(comm));
    int32_t first = 0;
    int32_t own = 0;
    mpo_placement_block(&spec->placement, rank, &first, &own);
    return mpo_exchange_rows_bytes(spec, slice.count == spec->vocab_size ? 0 : own);
}

static enum mpo_status shared_allocate(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exchange_window *window = NULL;
    MPO_NEW(1, &window);
    exchange->self = window;
    MPO_TRY(mpo_exchange_window_allocate(window, mpo_comm_group_mpi(exchange->comm)));
cleanup:
    return status;
}

static enum mpo_status shared_connect(struct mpo_exchange *exchange)
{
    return mpo_exchange_window_connect(
        exchange->self,
        shared_keeps_bytes(&exchange->spec, exchange->comm, exchange->rank));
}

static void shared_close(struct mpo_exchange *exchange)
{
    if (exchange->self == NULL)
        return;
    mpo_exchange_window_close(exchange->self);
    free(exchange->self);
    exchange->self = NULL;
}

/* Copy what other ranks may read: all of a row but this rank's own slice. */
static void publish_rows(struct mpo_exchange *exchange, const float *const *logits,
                         const double *log_norm)
{
    struct mpo_exchange_window *self = exchange->self;
    char *own = self->base[exchange->rank];
    char *rows = own + norms_bytes(exchange, exchange->local_count);
    size_t count = (size_t)mpo_exchange_rows_of(exchange, exchange->rank);
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, exchange->rank);
    size_t before = (size_t)slice.first;
    size_t behind = before + (size_t)slice.count;
    size_t end = (size_t)exchange->spec.vocab_size;
    memcpy(own, log_norm, count * sizeof *log_norm);
    for (size_t i = 0; i < count; i++) {
        float *row = (float *)(rows + i * row_bytes(exchange));
        memcpy(row, logits[i], before * sizeof *row);
        memcpy(row + behind, logits[i] + behind, (end - behind) * sizeof *row);
    }
    mpo_exchange_count_sent(exchange, 0,
                            count * (sizeof *log_norm + row_bytes(exchange) -
                                     (size_t)slice.count * sizeof(float)));
}

/* Point this rank's table at its slice of another's published rows. */
static void point_at_published(struct mpo_exchange *exchange, int32_t rank)
{
    const struct mpo_exchange_window *self = exchange->self;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, exchange->rank);
    int32_t first = 0;
    int32_t local_count = 0;
    mpo_placement_block(&exchange->spec.placement, rank, &first, &local_count);
    const char *rows = self->base[rank] + norms_bytes(exchange, local_count);
    size_t at = (size_t)exchange->first_row[rank];
    size_t count = (size_t)mpo_exchange_rows_of(exchange, rank);
    memcpy(exchange->log_norm + at, self->base[rank], count * sizeof(double));
    for (size_t i = 0; i < count; i++)
        exchange->logits[at + i] =
            (const float *)(rows + i * row_bytes(exchange)) + slice.first;
    mpo_exchange_count_received(
        exchange, 0, count * (sizeof(double) + (size_t)slice.count * sizeof(float)));
}

static enum mpo_status shared_rows(struct mpo_exchange *exchange,
                                   const float *const *logits, const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct mpo_slice own = mpo_exchange_slice_of(exchange, exchange->rank);
    if (own.count < exchange->spec.vocab_size)
        publish_rows(exchange, logits, log_norm);
    MPO_TRY(mpo_exchange_window_meet(exchange->self));
    for (int32_t rank = 0; own.count > 0 && rank < exchange->size; rank++)
        if (rank != exchange->rank)
            point_at_published(exchange, rank);
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_shared_ops = {
    .transport = "shared",
    .in_window = true,
    .refuses = shared_refuses,
    .keeps_bytes = shared_keeps_bytes,
    .allocate = shared_allocate,
    .connect = shared_connect,
    .close = shared_close,
    .rows = shared_rows,
};
