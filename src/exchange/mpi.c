/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport `mpi`: a rank's slice of every row is one message from the policies' own memory
 * to that rank's buffer, so no row is packed; one small message per pair of ranks carries
 * the normalisers.
 *
 * For bf16 rows a message has the upper 16 bits of every float, whose lower bits are 0:
 * they are packed before sending (6 bytes read and written per token and receiver) and
 * unpacked when all have arrived (6 bytes again).
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct messages {
    float *rows;           /* [H - own, row_capacity, slice] on ranks with a slice */
    uint16_t *halves;      /* bf16 rows: the same, as they come */
    uint16_t *packed;      /* bf16 rows: [receivers, own, row_capacity, their slice] */
    size_t received;       /* tokens that come in this position */
    MPI_Request *requests; /* as many as messages of one position */
    int posted;
};

static const char *mpi_refuses(const struct mpo_exchange_spec *spec,
                               const struct mpo_comm *comm)
{
    (void)spec;
    return mpo_comm_group_size(comm) > 1 ? NULL : "a group has one rank only";
}

static size_t mpi_keeps_bytes(const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm, int32_t rank)
{
    struct mpo_exchange_tokens tokens =
        mpo_exchange_count_tokens(spec, comm, rank, spec->row_capacity);
    size_t halves = spec->bf16_rows ? tokens.received + tokens.sent : 0;
    return tokens.received * sizeof(float) + halves * sizeof(uint16_t);
}

static enum mpo_status mpi_allocate(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = NULL;
    size_t capacity = (size_t)exchange->spec.row_capacity;
    size_t own = (size_t)exchange->local_count * capacity;
    size_t others = (size_t)exchange->spec.placement.policy_count * capacity - own;
    size_t peers = (size_t)exchange->size - 1;
    struct mpo_exchange_tokens tokens = mpo_exchange_count_tokens(
        &exchange->spec, exchange->comm, exchange->rank, exchange->spec.row_capacity);
    MPO_NEW(1, &self);
    exchange->self = self;
    size_t messages = others + own * peers + 2 * peers;
    MPO_NEW(messages, &self->requests);
    for (size_t i = 0; i < messages; i++)
        self->requests[i] = MPI_REQUEST_NULL;
    MPO_NEW(tokens.received, &self->rows);
    if (exchange->spec.bf16_rows) {
        MPO_NEW(tokens.received, &self->halves);
        MPO_NEW(tokens.sent, &self->packed);
    }
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
    if (mpo_comm_is_over(
            mpo_comm_group_mpi(exchange->comm))) /* maybe between posting and waiting */
        mpo_comm_cancel(self->requests, self->posted);
    free(self->packed);
    free(self->halves);
    free(self->rows);
    free(self->requests);
    free(self);
    exchange->self = NULL;
}

/* ---- bf16 rows ---- */

static void pack_row(const float *restrict row, int32_t count, uint16_t *restrict packed)
{
    for (int32_t i = 0; i < count; i++) {
        uint32_t bits = 0;
        memcpy(&bits, &row[i], sizeof bits);
        packed[i] = (uint16_t)(bits >> 16);
    }
}

static void unpack_rows(const uint16_t *restrict packed, size_t count, float *restrict row)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)packed[i] << 16;
        memcpy(&row[i], &bits, sizeof bits);
    }
}

/* ---- rows ---- */

static MPI_Datatype token_type(const struct mpo_exchange *exchange)
{
    return exchange->spec.bf16_rows ? MPI_UINT16_T : MPI_FLOAT;
}

/* Post the receives of this rank's slice of the rows of another, after what others send. */
static enum mpo_status post_receives(struct mpo_exchange *exchange, int32_t rank)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, exchange->rank);
    MPI_Comm group = mpo_comm_group_mpi(exchange->comm);
    size_t token_bytes = mpo_exchange_token_bytes(&exchange->spec);
    for (int32_t i = exchange->first_row[rank]; i < exchange->first_row[rank + 1]; i++) {
        float *row = self->rows + self->received;
        void *to = exchange->spec.bf16_rows ? (void *)(self->halves + self->received) : row;
        exchange->logits[i] = row;
        self->received += (size_t)slice.count;
        MPO_TRY_MPI(MPI_Irecv(to, slice.count, token_type(exchange), rank,
                              MPO_EXCHANGE_TAG_ROW, group,
                              &self->requests[self->posted++]));
        mpo_exchange_count_received(exchange, 1, (size_t)slice.count * token_bytes);
    }
cleanup:
    return status;
}

/* Post the sends of another rank's slice of this one's rows; bf16 rows are packed at
 * *packed and on. */
static enum mpo_status post_sends(struct mpo_exchange *exchange, int32_t rank,
                                  const float *const *logits, uint16_t **packed)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, rank);
    MPI_Comm group = mpo_comm_group_mpi(exchange->comm);
    int32_t count = mpo_exchange_rows_of(exchange, exchange->rank);
    size_t token_bytes = mpo_exchange_token_bytes(&exchange->spec);
    for (int32_t i = 0; i < count; i++) {
        const void *from = logits[i] + slice.first;
        if (exchange->spec.bf16_rows) {
            pack_row(from, slice.count, *packed);
            from = *packed;
            *packed += slice.count;
        }
        MPO_TRY_MPI(MPI_Isend(from, slice.count, token_type(exchange), rank,
                              MPO_EXCHANGE_TAG_ROW, group,
                              &self->requests[self->posted++]));
        mpo_exchange_count_sent(exchange, 1, (size_t)slice.count * token_bytes);
    }
cleanup:
    return status;
}

static bool has_slice(const struct mpo_exchange *exchange, int32_t rank)
{
    return mpo_exchange_slice_of(exchange, rank).count > 0;
}

static enum mpo_status mpi_post(struct mpo_exchange *exchange, const float *const *logits)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    uint16_t *packed = self->packed;
    self->received = 0;
    self->posted = 0;
    for (int32_t rank = 0; rank < exchange->size; rank++)
        if (rank != exchange->rank && has_slice(exchange, exchange->rank))
            MPO_TRY(post_receives(exchange, rank));
    for (int32_t rank = 0; rank < exchange->size; rank++)
        if (rank != exchange->rank && has_slice(exchange, rank))
            MPO_TRY(post_sends(exchange, rank, logits, &packed));
cleanup:
    return status;
}

static enum mpo_status mpi_rows(struct mpo_exchange *exchange, const float *const *logits,
                                const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct messages *self = exchange->self;
    (void)logits;
    MPO_TRY(mpo_exchange_post_norms(exchange, log_norm, self->requests, &self->posted));
    MPO_TRY(mpo_comm_wait(self->requests, self->posted));
    if (exchange->spec.bf16_rows)
        unpack_rows(self->halves, self->received, self->rows);
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_mpi_ops = {
    .transport = "mpi",
    .refuses = mpi_refuses,
    .keeps_bytes = mpi_keeps_bytes,
    .allocate = mpi_allocate,
    .connect = mpi_connect,
    .close = mpi_close,
    .post = mpi_post,
    .rows = mpi_rows,
};
