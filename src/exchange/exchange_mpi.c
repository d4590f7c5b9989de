/*
 * Transport `mpi`: a rank's slice of every row is one message from the policies' own memory
 * to that rank's buffer, so no row is packed first; one small message from each rank to
 * each carries the normalisers.
 */
#include "exchange_impl.h"

#include <stdlib.h>

#include "mpo/memory.h"

struct messages {
    float *rows;           /* [H - own, row_capacity, slice] on ranks with a slice */
    MPI_Request *requests; /* as many as messages of one position */
    int posted;
};

static const char *mpi_refuses(const struct mpo_exchange_spec *spec,
                               const struct mpo_comm *comm)
{
    (void)spec;
    return mpo_comm_group_size(comm) > 1 ? NULL : "a group has one rank only";
}

/* The rank's slices of other ranks' rows. */
static size_t mpi_keeps_bytes(const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm, int32_t rank)
{
    struct mpo_slice slice = mpo_exchange_slice(spec, rank, mpo_comm_group_size(comm));
    int32_t first = 0;
    int32_t own = 0;
    mpo_comm_policy_block(comm, rank, &first, &own);
    return (size_t)(spec->policy_count - own) * (size_t)spec->row_capacity *
           (size_t)slice.count * sizeof(float);
}

static enum mpo_status mpi_take_room(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = NULL;
    size_t capacity = (size_t)exchange->spec.row_capacity;
    size_t own = (size_t)exchange->local_count * capacity;
    size_t others = (size_t)exchange->spec.policy_count * capacity - own;
    size_t peers = (size_t)exchange->size - 1;
    MPO_NEW(1, &self);
    exchange->self = self;
    MPO_NEW(others + own * peers + 2 * peers, &self->requests);
    size_t row_bytes = mpi_keeps_bytes(&exchange->spec, exchange->comm, exchange->rank);
    MPO_NEW(row_bytes / sizeof(float), &self->rows);
cleanup:
    return status;
}

/* Messages need no introduction. */
static enum mpo_status mpi_connect(struct mpo_exchange *exchange)
{
    (void)exchange;
    return MPO_OK;
}

static void mpi_close(struct mpo_exchange *exchange)
{
    struct messages *self = exchange->self;
    if (self == NULL)
        return;
    free(self->rows);
    free(self->requests);
    free(self);
    exchange->self = NULL;
}

/* Post the receives of this rank's slice of the rows of another, into *room and on. */
static enum mpo_status receive(struct mpo_exchange *exchange, int32_t rank,
                               int32_t row_count, float **room)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, exchange->rank);
    MPI_Comm group = mpo_comm_group_mpi(exchange->comm);
    int32_t first = 0;
    int32_t local_count = 0;
    mpo_comm_policy_block(exchange->comm, rank, &first, &local_count);
    size_t at = (size_t)first * (size_t)row_count;
    int32_t count = local_count * row_count;
    for (int32_t i = 0; i < count; i++, *room += slice.count) {
        exchange->logits[at + (size_t)i] = *room;
        MPO_TRY_MPI(MPI_Irecv(*room, slice.count, MPI_FLOAT, rank, MPO_EXCHANGE_TAG_ROW,
                              group, &self->requests[self->posted++]));
        mpo_exchange_count_received(exchange, 1, (size_t)slice.count * sizeof(float));
    }
cleanup:
    return status;
}

/* Post the sends of another rank's slice of this one's rows. */
static enum mpo_status send(struct mpo_exchange *exchange, int32_t rank, int32_t row_count,
                            const float *const *logits)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, rank);
    MPI_Comm group = mpo_comm_group_mpi(exchange->comm);
    int32_t count = exchange->local_count * row_count;
    for (int32_t i = 0; i < count; i++) {
        MPO_TRY_MPI(MPI_Isend(logits[i] + slice.first, slice.count, MPI_FLOAT, rank,
                              MPO_EXCHANGE_TAG_ROW, group,
                              &self->requests[self->posted++]));
        mpo_exchange_count_sent(exchange, 1, (size_t)slice.count * sizeof(float));
    }
cleanup:
    return status;
}

static bool has_slice(const struct mpo_exchange *exchange, int32_t rank)
{
    return mpo_exchange_slice_of(exchange, rank).count > 0;
}

static enum mpo_status mpi_post(struct mpo_exchange *exchange, int32_t row_count,
                                const float *const *logits)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    float *room = self->rows;
    self->posted = 0;
    for (int32_t rank = 0; rank < exchange->size; rank++)
        if (rank != exchange->rank && has_slice(exchange, exchange->rank))
            MPO_TRY(receive(exchange, rank, row_count, &room));
    for (int32_t rank = 0; rank < exchange->size; rank++)
        if (rank != exchange->rank && has_slice(exchange, rank))
            MPO_TRY(send(exchange, rank, row_count, logits));
cleanup:
    return status;
}

static enum mpo_status mpi_rows(struct mpo_exchange *exchange, int32_t row_count,
                                const float *const *logits, const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    (void)logits;
    MPO_TRY(mpo_exchange_post_norms(exchange, row_count, log_norm, self->requests,
                                    &self->posted));
    MPO_TRY(mpo_comm_wait(self->requests, self->posted));
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_mpi_ops = {
    .transport = "mpi",
    .refuses = mpi_refuses,
    .keeps_bytes = mpi_keeps_bytes,
    .take_room = mpi_take_room,
    .connect = mpi_connect,
    .close = mpi_close,
    .post = mpi_post,
    .rows = mpi_rows,
};
