/*
 * Transport `nodes`: a group that spans hosts, several ranks on each. Ranks publish their
 * rows in a shared window of their host; from each host but the root's, its first rank
 * sends the window as one message, so that messages grow with hosts and not with policies;
 * on the root's host rows are read in place.
 *
 *     host a   rank 0 (root)   rank 1 -> window ------------------> read in place
 *     host b   rank 2 -> window <- rank 3;   window -- 1 message --> inbox of the root
 *
 *     window of a host, inbox:  [published policies, B] records of V floats and one double
 *
 * Records are packed for the present B, so that a window is contiguous without a copy. They
 * may be written again after the tokens of the position, which the root sends when it has
 * read all rows: no second barrier is needed.
 *
 * Source: Hoefler et al., Computing 95 (2013) 1121-1136 (MPI + MPI: shared memory inside a
 * node, messages between nodes).
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mpo/memory.h"

/* Where a rank's rows go. */
struct place {
    int32_t slot;      /* published policies of its host before its own */
    int32_t published; /* of a leader: policies in the window of its host */
    int32_t inbox;     /* of a leader: policies in the inbox before its own */
};

struct nodes {
    struct mpo_exchange_window window;
    struct place *place;   /* [P] */
    char *inbox;           /* at the root */
    MPI_Request *requests; /* [P] one a host at the root */
    MPI_Datatype record;
};

static bool is_root(const struct mpo_exchange *exchange)
{
    return mpo_comm_group_rank(exchange->comm) == 0;
}

/* A rank that sends the window of a host which is not the root's. */
static bool is_sender(const struct mpo_comm *comm, int32_t rank)
{
    return rank != 0 && mpo_comm_group_leader(comm, rank) == rank;
}

static const char *nodes_refuses(const struct mpo_exchange_spec *spec,
                                 const struct mpo_comm *comm)
{
    int32_t hosts = 0;
    if (mpo_comm_group_size(comm) == 1)
        return "a group has one rank only";
    for (int32_t rank = 0; rank < mpo_comm_group_size(comm); rank++)
        hosts += mpo_comm_group_leader(comm, rank) == rank;
    if (mpo_exchange_slice(spec, 0, mpo_comm_group_size(comm)).count < spec->vocab_size)
        return "it brings rows to the root alone, and exchange.pattern is alltoall";
    if (hosts == mpo_comm_group_size(comm))
        return "each rank of a group is alone on its host";
    return mpo_exchange_window_refuses(spec, comm);
}

/* Rows of other hosts at the root, and a rank's own in its window. */
static int32_t nodes_keeps_policies(const struct mpo_exchange_spec *spec,
                                    const struct mpo_comm *comm)
{
    int32_t policies = mpo_exchange_window_policies(spec, comm, mpo_comm_group_rank(comm));
    for (int32_t rank = 1;
         mpo_comm_group_rank(comm) == 0 && rank < mpo_comm_group_size(comm); rank++)
        if (mpo_comm_group_leader(comm, rank) != 0)
            policies += mpo_exchange_window_policies(spec, comm, rank);
    return policies;
}

static size_t nodes_keeps_bytes(const struct mpo_exchange_spec *spec,
                                const struct mpo_comm *comm)
{
    return mpo_exchange_rows_bytes(spec, nodes_keeps_policies(spec, comm));
}

/* The same table on every rank. */
static void assign_places(const struct mpo_exchange_spec *spec, const struct mpo_comm *comm,
                          struct place *place)
{
    int32_t inbox = 0;
    for (int32_t rank = 1; rank < mpo_comm_group_size(comm); rank++) {
        struct place *leader = &place[mpo_comm_group_leader(comm, rank)];
        place[rank].slot = leader->published;
        leader->published += mpo_exchange_window_policies(spec, comm, rank);
    }
    for (int32_t rank = 1; rank < mpo_comm_group_size(comm); rank++) {
        place[rank].inbox = inbox;
        if (is_sender(comm, rank))
            inbox += place[rank].published;
    }
}

static enum mpo_status nodes_take_room(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = exchange->comm;
    struct nodes *self = NULL;
    MPO_NEW(1, &self);
    exchange->self = self;
    self->record = MPI_DATATYPE_NULL;
    MPO_TRY(mpo_exchange_window_take_room(&self->window, mpo_comm_host_mpi(comm)));
    MPO_NEW(mpo_comm_group_size(comm), &self->place);
    MPO_NEW(mpo_comm_group_size(comm), &self->requests);
    assign_places(&exchange->spec, comm, self->place);
    if (is_root(exchange))
        MPO_NEW(nodes_keeps_bytes(&exchange->spec, comm), &self->inbox);
cleanup:
    return status;
}

static size_t record_bytes(const struct mpo_exchange *exchange)
{
    return (size_t)exchange->spec.vocab_size * sizeof(float) + sizeof(double);
}

/* The first rank of a host has all of its window, the others a part of no bytes. */
static enum mpo_status nodes_connect(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct nodes *self = exchange->self;
    int32_t published = self->place[mpo_comm_group_rank(exchange->comm)].published;
    MPO_TRY(mpo_exchange_window_connect(
        &self->window, mpo_exchange_rows_bytes(&exchange->spec, published)));
    MPO_TRY_MPI(MPI_Type_contiguous((int)record_bytes(exchange), MPI_BYTE, &self->record));
    MPO_TRY_MPI(MPI_Type_commit(&self->record));
cleanup:
    return status;
}

static void nodes_close(struct mpo_exchange *exchange)
{
    struct nodes *self = exchange->self;
    if (self == NULL)
        return;
    if (self->record != MPI_DATATYPE_NULL)
        MPI_Type_free(&self->record);
    mpo_exchange_window_close(&self->window);
    free(self->inbox);
    free(self->requests);
    free(self->place);
    free(self);
    exchange->self = NULL;
}

static void publish(struct mpo_exchange *exchange, int32_t row_count,
                    const float *const *logits, const double *log_norm)
{
    struct nodes *self = exchange->self;
    size_t bytes = record_bytes(exchange);
    size_t row_bytes = bytes - sizeof *log_norm;
    int32_t slot = self->place[mpo_comm_group_rank(exchange->comm)].slot;
    char *record = self->window.base[0] + (size_t)slot * (size_t)row_count * bytes;
    for (int32_t i = 0; i < exchange->local_count * row_count; i++, record += bytes) {
        memcpy(record, logits[i], row_bytes);
        memcpy(record + row_bytes, &log_norm[i], sizeof log_norm[i]);
        mpo_exchange_count_sent(exchange, 0, bytes);
    }
}

/* Root: one message from each other host. */
static enum mpo_status receive(struct mpo_exchange *exchange, int32_t row_count,
                               int *posted)
{
    enum mpo_status status = MPO_OK;
    struct nodes *self = exchange->self;
    for (int32_t rank = 1; rank < mpo_comm_group_size(exchange->comm); rank++) {
        const struct place *place = &self->place[rank];
        if (!is_sender(exchange->comm, rank))
            continue;
        size_t at = (size_t)place->inbox * (size_t)row_count * record_bytes(exchange);
        MPO_TRY_MPI(MPI_Irecv(self->inbox + at, place->published * row_count, self->record,
                              rank, MPO_EXCHANGE_TAG_HOST,
                              mpo_comm_group_mpi(exchange->comm),
                              &self->requests[(*posted)++]));
        mpo_exchange_count_received(exchange, 1, 0);
    }
cleanup:
    return status;
}

/* Point the root's table at one rank's records. */
static void collect(struct mpo_exchange *exchange, int32_t rank, int32_t row_count)
{
    const struct nodes *self = exchange->self;
    int32_t leader = mpo_comm_group_leader(exchange->comm, rank);
    int32_t slot = self->place[rank].slot + self->place[leader].inbox;
    size_t bytes = record_bytes(exchange);
    const char *record = leader == 0 ? self->window.base[0] : self->inbox;
    int32_t first = 0;
    int32_t local_count = 0;
    mpo_comm_policy_block(exchange->comm, rank, &first, &local_count);
    record += (size_t)slot * (size_t)row_count * bytes;
    size_t end = (size_t)(first + local_count) * (size_t)row_count;
    for (size_t i = (size_t)first * (size_t)row_count; i < end; i++, record += bytes) {
        exchange->logits[i] = (const float *)record;
        memcpy(&exchange->log_norm[i], record + bytes - sizeof(double), sizeof(double));
        mpo_exchange_count_received(exchange, 0, bytes);
    }
}

static enum mpo_status nodes_rows(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits, const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct nodes *self = exchange->self;
    int32_t rank = mpo_comm_group_rank(exchange->comm);
    int posted = 0;
    if (is_root(exchange))
        MPO_TRY(receive(exchange, row_count, &posted));
    else
        publish(exchange, row_count, logits, log_norm);
    MPO_TRY(mpo_exchange_window_meet(&self->window));
    if (is_sender(exchange->comm, rank)) {
        size_t count = (size_t)self->place[rank].published * (size_t)row_count;
        mpo_exchange_count_sent(exchange, 1, count * record_bytes(exchange));
        MPO_TRY_MPI(MPI_Isend(self->window.base[0], self->place[rank].published * row_count,
                              self->record, 0, MPO_EXCHANGE_TAG_HOST,
                              mpo_comm_group_mpi(exchange->comm),
                              &self->requests[posted++]));
    }
    MPO_TRY(mpo_comm_wait(self->requests, posted));
    if (!is_root(exchange))
        return MPO_OK;
    for (int32_t other = 1; other < mpo_comm_group_size(exchange->comm); other++)
        collect(exchange, other, row_count);
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_nodes_ops = {
    .transport = "nodes",
    .gathers_only = true,
    .refuses = nodes_refuses,
    .keeps_bytes = nodes_keeps_bytes,
    .take_room = nodes_take_room,
    .connect = nodes_connect,
    .close = nodes_close,
    .rows = nodes_rows,
};
