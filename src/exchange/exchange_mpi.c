/*
 * Transport `mpi`: every row is one message from the policies' own memory to the root's
 * buffer, so no row is packed first; one small message a rank carries the normalisers.
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mpo/comm_mpi.h"
#include "mpo/memory.h"

enum message_tag { TAG_ROW = 1, TAG_NORM = 2 };

struct messages {
    float *rows;           /* [H - root's own, row_capacity, V] at the root */
    MPI_Request *requests; /* as many as messages of one position */
};

static const char *mpi_refuses(const struct mpo_exchange_spec *spec,
                               const struct mpo_comm *comm)
{
    (void)spec;
    return mpo_comm_group_size(comm) > 1 ? NULL : "a group has one rank only";
}

/* The root keeps the rows of the other ranks. */
static int32_t mpi_keeps_policies(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm)
{
    int32_t first = 0;
    int32_t own = 0;
    mpo_comm_policy_block(comm, 0, &first, &own);
    return mpo_comm_group_rank(comm) == 0 ? spec->policy_count - own : 0;
}

static enum mpo_status mpi_take_room(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = NULL;
    bool is_root = mpo_comm_group_rank(exchange->comm) == 0;
    int32_t policies = is_root ? exchange->spec.policy_count - exchange->local_count
                               : exchange->local_count;
    size_t rows = (size_t)policies * (size_t)exchange->spec.row_capacity;
    MPO_NEW(1, &self);
    exchange->self = self;
    MPO_NEW(rows + (size_t)mpo_comm_group_size(exchange->comm), &self->requests);
    if (is_root)
        MPO_NEW(rows * (size_t)exchange->spec.vocab_size, &self->rows);
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

/* Post the receives of one rank's rows; *posted counts requests. */
static enum mpo_status receive(struct mpo_exchange *exchange, int32_t rank,
                               int32_t row_count, int32_t *posted)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    MPI_Comm group = mpo_comm_group_mpi(exchange->comm);
    int vocab_size = exchange->spec.vocab_size;
    int32_t first = 0;
    int32_t local_count = 0;
    mpo_comm_policy_block(exchange->comm, rank, &first, &local_count);
    size_t at = (size_t)first * (size_t)row_count;
    size_t own = (size_t)exchange->local_count * (size_t)row_count;
    MPO_TRY_MPI(MPI_Irecv(exchange->all_norms + at, local_count * row_count, MPI_DOUBLE,
                          rank, TAG_NORM, group, &self->requests[(*posted)++]));
    for (size_t i = at; i < at + (size_t)local_count * (size_t)row_count; i++) {
        float *row = self->rows + (i - own) * (size_t)vocab_size;
        exchange->all_logits[i] = row;
        MPO_TRY_MPI(MPI_Irecv(row, vocab_size, MPI_FLOAT, rank, TAG_ROW, group,
                              &self->requests[(*posted)++]));
    }
cleanup:
    return status;
}

static enum mpo_status mpi_rows(struct mpo_exchange *exchange, int32_t row_count,
                                const float *const *logits, const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    MPI_Comm group = mpo_comm_group_mpi(exchange->comm);
    int32_t own = exchange->local_count * row_count;
    int32_t posted = 0;
    if (mpo_comm_group_rank(exchange->comm) == 0) {
        memcpy(exchange->all_logits, logits, (size_t)own * sizeof *logits);
        memcpy(exchange->all_norms, log_norm, (size_t)own * sizeof *log_norm);
        for (int32_t rank = 1; rank < mpo_comm_group_size(exchange->comm); rank++)
            MPO_TRY(receive(exchange, rank, row_count, &posted));
    } else {
        MPO_TRY_MPI(MPI_Isend(log_norm, own, MPI_DOUBLE, 0, TAG_NORM, group,
                              &self->requests[posted++]));
        for (int32_t i = 0; i < own; i++)
            MPO_TRY_MPI(MPI_Isend(logits[i], exchange->spec.vocab_size, MPI_FLOAT, 0,
                                  TAG_ROW, group, &self->requests[posted++]));
    }
    MPO_TRY(mpo_comm_wait(self->requests, posted));
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_mpi_ops = {
    .transport = "mpi",
    .refuses = mpi_refuses,
    .keeps_policies = mpi_keeps_policies,
    .take_room = mpi_take_room,
    .connect = mpi_connect,
    .close = mpi_close,
    .rows = mpi_rows,
};
