/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport `nodes`: a group that spans hosts, several ranks on each. Ranks write their
 * rows into a shared window of their host, cut by the hosts that will read them. The first
 * rank of a host sends each other host its part as one message, so that the number of
 * messages grows with hosts, not policies. It receives theirs into the window, where all
 * ranks of its host read their slices in place.
 *
 *     window of host a                             window of host b
 *       table   rows of a's policies                 table   rows of b's policies
 *               rows of b's    <-- 1 message --      outbox for a
 *       outbox for b           --- 1 message -->     table   rows of a's policies
 *
 *     table, outbox:  a record for each row: the reading host's tokens, which are the
 *                     slices of its ranks in order, as floats, and one double
 *
 * Records are packed for the rows of the present position, so that a message is contiguous and a row is copied
 * once, except the slice that its own rank reduces. With gather only the root's host reads:
 * it has no outbox, and the others have no table.
 *
 * One barrier of a host's ranks a position says "written", and a second one "received". The
 * second is only for hosts on which others than the first rank read, so none with a gather.
 * Windows may be written again after the message that ends the position, which the root
 * sends when all ranks have read: no more barriers are needed.
 *
 * Source: Hoefler et al., Computing 95 (2013) 1121-1136 (MPI + MPI: shared memory inside a
 * node, messages between nodes).
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The position of a rank among those of its host and in the window of this rank's host. */
struct place {
    struct mpo_slice slice;
    int32_t offset; /* tokens of its host's slices before its own */
    int32_t before; /* rows of its host's ranks before its own, in this position */
    int32_t record; /* records in the table before its own, in this position */
};

struct host {
    int32_t policies; /* of its ranks */
    int32_t rows;     /* of its ranks in this position */
    int32_t tokens;   /* of their slices; 0: nothing is read there */
    size_t start;     /* of its outbox in the window, or of the table */
    MPI_Datatype record;
};

struct nodes {
    struct mpo_exchange_window window;
    size_t window_bytes;
    struct place *place;   /* [P] */
    struct host *host;     /* [P] at the first rank of each */
    MPI_Request *requests; /* [2 P] of the first rank of a host, with those of the others */
    bool relays;           /* others on this host read what its first rank receives */
};

/* ---- layout ---- */

static bool is_first(const struct mpo_comm *comm, int32_t rank)
{
    return mpo_comm_group_leader(comm, rank) == rank;
}

static int32_t policies_of(const struct mpo_exchange_spec *spec, int32_t rank)
{
    int32_t first = 0;
    int32_t count = 0;
    mpo_placement_block(&spec->placement, rank, &first, &count);
    return count;
}

static struct host host_of(const struct mpo_exchange_spec *spec,
                           const struct mpo_comm *comm, int32_t leader)
{
    struct host host = {.record = MPI_DATATYPE_NULL};
    int32_t size = mpo_comm_group_size(comm);
    for (int32_t rank = leader; rank < size; rank++) {
        if (mpo_comm_group_leader(comm, rank) != leader)
            continue;
        host.policies += policies_of(spec, rank);
        host.tokens += mpo_exchange_slice(spec, rank, size).count;
    }
    return host;
}

static size_t record_bytes(const struct host *host)
{
    return (size_t)host->tokens * sizeof(float) + sizeof(double);
}

static size_t records_bytes(const struct mpo_exchange_spec *spec, const struct host *host,
                            int32_t policies)
{
    size_t count = (size_t)policies * (size_t)spec->row_capacity;
    return host->tokens > 0 ? count * record_bytes(host) : 0;
}

/* Policies that a rank writes for a host: its own, if another rank reads them there. */
static int32_t policies_for(const struct mpo_exchange_spec *spec,
                            const struct mpo_comm *comm, int32_t rank, int32_t leader,
                            const struct host *host)
{
    bool is_own = mpo_comm_group_leader(comm, rank) == leader;
    int32_t size = mpo_comm_group_size(comm);
    int32_t own = is_own ? mpo_exchange_slice(spec, rank, size).count : 0;
    return host->tokens > own ? policies_of(spec, rank) : 0;
}

static const char *nodes_refuses(const struct mpo_exchange_spec *spec,
                                 const struct mpo_comm *comm)
{
    int32_t hosts = 0;
    if (mpo_comm_group_size(comm) == 1)
        return "a group has one rank only";
    for (int32_t rank = 0; rank < mpo_comm_group_size(comm); rank++)
        hosts += is_first(comm, rank);
    if (hosts == mpo_comm_group_size(comm))
        return "each rank of a group is alone on its host";
    return mpo_exchange_window_refuses(&mpo_exchange_nodes_ops, spec, comm);
}

/* What a rank writes; on the first rank of a host also what other hosts send. */
static size_t nodes_keeps_bytes(const struct mpo_exchange_spec *spec,
                                const struct mpo_comm *comm, int32_t rank)
{
    size_t bytes = 0;
    for (int32_t leader = 0; leader < mpo_comm_group_size(comm); leader++) {
        if (!is_first(comm, leader))
            continue;
        struct host host = host_of(spec, comm, leader);
        bytes += records_bytes(spec, &host, policies_for(spec, comm, rank, leader, &host));
        if (rank == leader)
            bytes +=
                records_bytes(spec, &host, spec->placement.policy_count - host.policies);
    }
    return bytes;
}

/* The same on all ranks. */
static void assign_places(struct mpo_exchange *exchange)
{
    struct nodes *self = exchange->self;
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        struct place *place = &self->place[rank];
        struct host *host = &self->host[mpo_comm_group_leader(exchange->comm, rank)];
        place->slice = mpo_exchange_slice_of(exchange, rank);
        place->offset = host->tokens;
        host->tokens += place->slice.count;
        host->policies += policies_of(&exchange->spec, rank);
    }
}

/* Policies in the table: those that this host's ranks write, and those of other hosts. */
static int32_t table_policies(const struct mpo_exchange *exchange)
{
    const struct nodes *self = exchange->self;
    int32_t own = mpo_comm_group_leader(exchange->comm, exchange->rank);
    int32_t count = exchange->spec.placement.policy_count - self->host[own].policies;
    for (int32_t rank = own; rank < exchange->size; rank++)
        if (mpo_comm_group_leader(exchange->comm, rank) == own)
            count +=
                policies_for(&exchange->spec, exchange->comm, rank, own, &self->host[own]);
    return count;
}

/* The table, then an outbox for each other host. */
static void lay_out_window(struct mpo_exchange *exchange)
{
    struct nodes *self = exchange->self;
    int32_t own = mpo_comm_group_leader(exchange->comm, exchange->rank);
    self->window_bytes =
        records_bytes(&exchange->spec, &self->host[own], table_policies(exchange));
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        if (rank == own || !is_first(exchange->comm, rank))
            continue;
        self->host[rank].start = self->window_bytes;
        self->window_bytes +=
            records_bytes(&exchange->spec, &self->host[rank], self->host[own].policies);
    }
    self->relays = self->host[own].policies < exchange->spec.placement.policy_count &&
                   self->host[own].tokens > self->place[own].slice.count;
}

/* ---- life ---- */

static enum mpo_status nodes_allocate(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct nodes *self = NULL;
    MPO_NEW(1, &self);
    exchange->self = self;
    MPO_TRY(mpo_exchange_window_allocate(&self->window, mpo_comm_host_mpi(exchange->comm)));
    MPO_NEW(exchange->size, &self->place);
    MPO_NEW(2 * exchange->size, &self->requests);
    MPO_NEW(exchange->size, &self->host);
    for (int32_t rank = 0; rank < exchange->size; rank++)
        self->host[rank].record = MPI_DATATYPE_NULL;
    assign_places(exchange);
    lay_out_window(exchange);
cleanup:
    return status;
}

/* The first rank of a host allocates the whole window, the others a part of zero bytes. */
static enum mpo_status nodes_connect(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct nodes *self = exchange->self;
    bool has_window = is_first(exchange->comm, exchange->rank);
    MPO_TRY(
        mpo_exchange_window_connect(&self->window, has_window ? self->window_bytes : 0));
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        struct host *host = &self->host[rank];
        if (host->tokens == 0)
            continue;
        MPO_TRY_MPI(MPI_Type_contiguous((int)record_bytes(host), MPI_BYTE, &host->record));
        MPO_TRY_MPI(MPI_Type_commit(&host->record));
    }
cleanup:
    return status;
}

static void nodes_close(struct mpo_exchange *exchange)
{
    struct nodes *self = exchange->self;
    if (self == NULL)
        return;
    for (int32_t rank = 0; self->host != NULL && rank < exchange->size; rank++)
        if (self->host[rank].record != MPI_DATATYPE_NULL)
            MPI_Type_free(&self->host[rank].record);
    mpo_exchange_window_close(&self->window);
    free(self->host);
    free(self->requests);
    free(self->place);
    free(self);
    exchange->self = NULL;
}

/* ---- one position ---- */

static void count_rows(struct mpo_exchange *exchange)
{
    struct nodes *self = exchange->self;
    for (int32_t rank = 0; rank < exchange->size; rank++)
        self->host[rank].rows = 0;
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        struct host *host = &self->host[mpo_comm_group_leader(exchange->comm, rank)];
        self->place[rank].before = host->rows;
        host->rows += mpo_exchange_rows_of(exchange, rank);
    }
}

/* In the table first the rows of this host's ranks, then those of one other host after
 * another. */
static void lay_out_table(struct mpo_exchange *exchange)
{
    struct nodes *self = exchange->self;
    const struct mpo_comm *comm = exchange->comm;
    int32_t own = mpo_comm_group_leader(comm, exchange->rank);
    int32_t record = 0;
    for (int32_t rank = own; rank < exchange->size; rank++) {
        if (mpo_comm_group_leader(comm, rank) != own)
            continue;
        self->place[rank].record = record;
        if (policies_for(&exchange->spec, comm, rank, own, &self->host[own]) > 0)
            record += mpo_exchange_rows_of(exchange, rank);
    }
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        int32_t leader = mpo_comm_group_leader(comm, rank);
        if (leader == own)
            continue;
        if (leader == rank) {
            self->place[rank].record = record;
            record += self->host[rank].rows;
        }
        self->place[rank].record = self->place[leader].record + self->place[rank].before;
    }
}

/* The records of a host's outbox, or of the table, from one on. */
static char *records_of(const struct nodes *self, const struct host *host, int32_t record)
{
    return self->window.base[0] + host->start + (size_t)record * record_bytes(host);
}

/* Where this rank writes its rows for a host. */
static char *own_records(const struct mpo_exchange *exchange, int32_t leader)
{
    const struct nodes *self = exchange->self;
    const struct place *place = &self->place[exchange->rank];
    bool is_own = mpo_comm_group_leader(exchange->comm, exchange->rank) == leader;
    return records_of(self, &self->host[leader], is_own ? place->record : place->before);
}

static void write_norms(struct mpo_exchange *exchange, int32_t leader,
                        const double *log_norm)
{
    const struct nodes *self = exchange->self;
    size_t bytes = record_bytes(&self->host[leader]);
    char *norm = own_records(exchange, leader) + bytes - sizeof *log_norm;
    int32_t count = mpo_exchange_rows_of(exchange, exchange->rank);
    for (int32_t i = 0; i < count; i++, norm += bytes)
        memcpy(norm, &log_norm[i], sizeof *log_norm);
    mpo_exchange_count_sent(exchange, 0, (size_t)count * sizeof *log_norm);
}

static void write_slice(struct mpo_exchange *exchange, int32_t rank,
                        const float *const *logits)
{
    const struct nodes *self = exchange->self;
    const struct place *place = &self->place[rank];
    int32_t leader = mpo_comm_group_leader(exchange->comm, rank);
    size_t bytes = record_bytes(&self->host[leader]);
    size_t slice_bytes = (size_t)place->slice.count * sizeof(float);
    char *slice = own_records(exchange, leader) + (size_t)place->offset * sizeof(float);
    int32_t count = mpo_exchange_rows_of(exchange, exchange->rank);
    for (int32_t i = 0; i < count; i++, slice += bytes)
        memcpy(slice, logits[i] + place->slice.first, slice_bytes);
    mpo_exchange_count_sent(exchange, 0, (size_t)count * slice_bytes);
}

static void publish_rows(struct mpo_exchange *exchange, const float *const *logits,
                         const double *log_norm)
{
    const struct nodes *self = exchange->self;
    const struct mpo_comm *comm = exchange->comm;
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        if (is_first(comm, rank) && policies_for(&exchange->spec, comm, exchange->rank,
                                                 rank, &self->host[rank]) > 0)
            write_norms(exchange, rank, log_norm);
        if (rank != exchange->rank && self->place[rank].slice.count > 0)
            write_slice(exchange, rank, logits);
    }
}

/* First rank of a host on which rows are read: a message from each other host. */
static enum mpo_status post_receives(struct mpo_exchange *exchange, int *posted)
{
    enum mpo_status status = MPO_OK;
    const struct nodes *self = exchange->self;
    const struct host *own = &self->host[exchange->rank];
    for (int32_t rank = 0; own->tokens > 0 && rank < exchange->size; rank++) {
        if (rank == exchange->rank || !is_first(exchange->comm, rank))
            continue;
        int32_t count = self->host[rank].rows;
        char *records = records_of(self, own, self->place[rank].record);
        if (count == 0)
            continue;
        MPO_TRY_MPI(MPI_Irecv(records, count, own->record, rank, MPO_EXCHANGE_TAG_HOST,
                              mpo_comm_group_mpi(exchange->comm),
                              &self->requests[(*posted)++]));
        mpo_exchange_count_received(exchange, 1, (size_t)count * record_bytes(own));
    }
cleanup:
    return status;
}

/* First rank of a host: a message to each other host on which rows are read. */
static enum mpo_status post_sends(struct mpo_exchange *exchange, int *posted)
{
    enum mpo_status status = MPO_OK;
    const struct nodes *self = exchange->self;
    int32_t count = self->host[exchange->rank].rows;
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        const struct host *host = &self->host[rank];
        if (rank == exchange->rank || host->tokens == 0 || count == 0)
            continue;
        MPO_TRY_MPI(MPI_Isend(records_of(self, host, 0), count, host->record, rank,
                              MPO_EXCHANGE_TAG_HOST, mpo_comm_group_mpi(exchange->comm),
                              &self->requests[(*posted)++]));
        mpo_exchange_count_sent(exchange, 1, (size_t)count * record_bytes(host));
    }
cleanup:
    return status;
}

/* Point this rank's table at its slice of another's records. What this rank received was
 * counted then. */
static void point_at_records(struct mpo_exchange *exchange, int32_t rank)
{
    const struct nodes *self = exchange->self;
    const struct place *own = &self->place[exchange->rank];
    int32_t leader = mpo_comm_group_leader(exchange->comm, exchange->rank);
    bool is_received =
        leader == exchange->rank && mpo_comm_group_leader(exchange->comm, rank) != leader;
    const struct host *host = &self->host[leader];
    size_t bytes = record_bytes(host);
    size_t slice_at = (size_t)own->offset * sizeof(float);
    const char *record = records_of(self, host, self->place[rank].record);
    for (int32_t i = exchange->first_row[rank]; i < exchange->first_row[rank + 1];
         i++, record += bytes) {
        exchange->logits[i] = (const float *)(record + slice_at);
        memcpy(&exchange->log_norm[i], record + bytes - sizeof(double), sizeof(double));
    }
    if (!is_received)
        mpo_exchange_count_received(
            exchange, 0,
            (size_t)mpo_exchange_rows_of(exchange, rank) *
                ((size_t)own->slice.count * sizeof(float) + sizeof(double)));
}

static enum mpo_status nodes_rows(struct mpo_exchange *exchange, const float *const *logits,
                                  const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct nodes *self = exchange->self;
    bool speaks = is_first(exchange->comm, exchange->rank);
    bool reads = self->place[exchange->rank].slice.count > 0;
    int posted = 0;
    count_rows(exchange);
    lay_out_table(exchange);
    if (speaks)
        MPO_TRY(post_receives(exchange, &posted));
    publish_rows(exchange, logits, log_norm);
    MPO_TRY(mpo_exchange_window_meet(&self->window));
    if (speaks)
        MPO_TRY(post_sends(exchange, &posted));
    MPO_TRY(mpo_comm_wait(self->requests, posted));
    if (self->relays)
        MPO_TRY(mpo_exchange_window_meet(&self->window));
    for (int32_t rank = 0; reads && rank < exchange->size; rank++)
        if (rank != exchange->rank)
            point_at_records(exchange, rank);
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_nodes_ops = {
    .transport = "nodes",
    .in_window = true,
    .refuses = nodes_refuses,
    .keeps_bytes = nodes_keeps_bytes,
    .allocate = nodes_allocate,
    .connect = nodes_connect,
    .close = nodes_close,
    .rows = nodes_rows,
};
