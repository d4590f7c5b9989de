/*
 * The exchange: argument checks, the choice of a transport and a pattern, and what all
 * transports share: the small messages.
 *
 * Only the group's root folds and draws, so figures travel one way, to the root, and token
 * ids the other way. That is half the traffic of an all-gather and the same result.
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mpo/memory.h"
#include "mpo/mixture.h"

/* In the order in which `auto` tries them. */
static const struct mpo_exchange_ops *const transports[] = {
    &mpo_exchange_self_ops,
    &mpo_exchange_shared_ops,
    &mpo_exchange_nodes_ops,
    &mpo_exchange_mpi_ops,
};
#define TRANSPORT_COUNT (sizeof transports / sizeof *transports)

static enum mpo_status check_pattern(const struct mpo_exchange_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(strcmp(spec->pattern, "auto") == 0 ||
                  mpo_exchange_pattern_find(spec->pattern) != NULL,
              MPO_ERR_CONFIG, "exchange.pattern is '%s', expected auto, gather or alltoall",
              spec->pattern);
    MPO_CHECK(!spec->whole_rows || strcmp(spec->pattern, "alltoall") != 0, MPO_ERR_CONFIG,
              "exchange.pattern is alltoall, but the mixture of this device takes whole "
              "rows only; use auto");
cleanup:
    return status;
}

/* The first transport that is asked for and can serve the group; settled is the spec with
 * the pattern that auto takes on it. */
static enum mpo_status choose(const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm,
                              struct mpo_exchange_spec *settled,
                              const struct mpo_exchange_ops **out)
{
    enum mpo_status status = MPO_OK;
    const char *name = spec->transport;
    *out = NULL;
    MPO_TRY(check_pattern(spec));
    for (size_t i = 0; i < TRANSPORT_COUNT && *out == NULL; i++) {
        *settled = *spec;
        if (strcmp(spec->pattern, "auto") == 0)
            settled->pattern =
                transports[i]->gathers_only
                    ? "gather"
                    : mpo_exchange_pattern_auto(spec, mpo_comm_group_size(comm));
        const char *reason = transports[i]->refuses(settled, comm);
        bool named = strcmp(name, transports[i]->transport) == 0;
        MPO_CHECK(!named || reason == NULL, MPO_ERR_CONFIG,
                  "exchange.transport is %s, but %s; use auto", name, reason);
        if (named || (strcmp(name, "auto") == 0 && reason == NULL))
            *out = transports[i];
    }
    MPO_CHECK(*out != NULL, MPO_ERR_CONFIG,
              "exchange.transport is '%s', expected auto, self, shared, nodes or mpi",
              name);
cleanup:
    return status;
}

const char *mpo_exchange_transport_built(int32_t index)
{
    return (size_t)index < TRANSPORT_COUNT ? transports[index]->transport : NULL;
}

size_t mpo_exchange_rows_bytes(const struct mpo_exchange_spec *spec, int32_t policy_count)
{
    size_t row_bytes = (size_t)spec->vocab_size * sizeof(float) + sizeof(double);
    return (size_t)policy_count * (size_t)spec->row_capacity * row_bytes;
}

enum mpo_status mpo_exchange_survey(const struct mpo_exchange_spec *spec,
                                    const struct mpo_comm *comm,
                                    struct mpo_exchange_plan *out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_exchange_ops *ops = NULL;
    struct mpo_exchange_spec settled;
    *out = (struct mpo_exchange_plan){0};
    MPO_TRY(choose(spec, comm, &settled, &ops));
    out->transport = ops->transport;
    out->pattern = settled.pattern;
    out->rank_bytes = ops->keeps_bytes(&settled, comm);
    mpo_exchange_shared_room(&settled, comm, &out->shared_bytes, &out->shared_free_bytes);
    bool could_share = mpo_comm_group_size(comm) > 1 && mpo_comm_group_shares_host(comm);
    if (could_share && ops != &mpo_exchange_shared_ops &&
        strcmp(spec->transport, "auto") == 0)
        out->shared_refuses = mpo_exchange_shared_ops.refuses(&settled, comm);
cleanup:
    return status;
}

/* Room for slices, which every rank knows of every rank, and for tables of rows. */
static enum mpo_status take_common_room(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_exchange_spec *spec = &exchange->spec;
    const struct mpo_exchange_pattern *pattern = mpo_exchange_pattern_find(spec->pattern);
    int32_t block_count = mpo_mixture_block_count(spec->vocab_size);
    MPO_NEW(exchange->size + 1, &exchange->first_block);
    for (int32_t rank = 0; rank <= exchange->size; rank++)
        exchange->first_block[rank] =
            pattern->first_block(block_count, rank, exchange->size);
    MPO_NEW(exchange->size, &exchange->parts);
    if (mpo_exchange_slice_of(exchange, exchange->rank).count > 0) {
        size_t count = (size_t)spec->policy_count * (size_t)spec->row_capacity;
        MPO_NEW(count, &exchange->logits);
        MPO_NEW(count, &exchange->log_norm);
    }
cleanup:
    return status;
}

/* Everything that may fail on one rank alone, before ranks wait for each other. */
static enum mpo_status take_room(const struct mpo_exchange_spec *spec,
                                 const struct mpo_comm *comm, struct mpo_exchange **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exchange *exchange = NULL;
    const struct mpo_exchange_ops *ops = NULL;
    struct mpo_exchange_spec settled;
    MPO_TRY(choose(spec, comm, &settled, &ops));
    MPO_NEW(1, &exchange);
    *out = exchange;
    exchange->spec = settled;
    exchange->comm = comm;
    exchange->size = mpo_comm_group_size(comm);
    exchange->rank = mpo_comm_group_rank(comm);
    mpo_comm_policy_block(comm, exchange->rank, &exchange->first_policy,
                          &exchange->local_count);
    MPO_TRY(take_common_room(exchange));
    exchange->ops = ops;
    MPO_TRY(ops->take_room(exchange));
cleanup:
    return status;
}

enum mpo_status mpo_exchange_open(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm, struct mpo_exchange **out)
{
    *out = NULL;
    enum mpo_status status = mpo_comm_agree(take_room(spec, comm, out));
    if (status == MPO_OK)
        status = mpo_comm_agree((*out)->ops->connect(*out));
    if (status != MPO_OK)
        mpo_exchange_close(out);
    return status;
}

void mpo_exchange_close(struct mpo_exchange **exchange)
{
    if (*exchange == NULL)
        return;
    if ((*exchange)->ops != NULL)
        (*exchange)->ops->close(*exchange);
    free((*exchange)->log_norm);
    free((*exchange)->logits);
    free((*exchange)->parts);
    free((*exchange)->first_block);
    free(*exchange);
    *exchange = NULL;
}

const char *mpo_exchange_transport(const struct mpo_exchange *exchange)
{
    return exchange->ops->transport;
}

const char *mpo_exchange_pattern(const struct mpo_exchange *exchange)
{
    return exchange->spec.pattern;
}

const int32_t *mpo_exchange_slices(const struct mpo_exchange *exchange)
{
    return exchange->first_block;
}

int32_t mpo_exchange_size(const struct mpo_exchange *exchange)
{
    return exchange->size;
}

int32_t mpo_exchange_rank(const struct mpo_exchange *exchange)
{
    return exchange->rank;
}

struct mpo_exchange_traffic mpo_exchange_traffic(const struct mpo_exchange *exchange)
{
    return exchange->traffic;
}

void mpo_exchange_count_sent(struct mpo_exchange *exchange, int32_t messages, size_t bytes)
{
    exchange->traffic.sent_messages += messages;
    exchange->traffic.sent_bytes += (int64_t)bytes;
}

void mpo_exchange_count_received(struct mpo_exchange *exchange, int32_t messages,
                                 size_t bytes)
{
    exchange->traffic.received_messages += messages;
    exchange->traffic.received_bytes += (int64_t)bytes;
}

/* This rank's slice of its own rows is read where the policies left it. */
static void place_own(struct mpo_exchange *exchange, struct mpo_slice slice,
                      int32_t row_count, const float *const *logits, const double *log_norm)
{
    size_t at = (size_t)exchange->first_policy * (size_t)row_count;
    size_t count = (size_t)exchange->local_count * (size_t)row_count;
    memcpy(exchange->log_norm + at, log_norm, count * sizeof *log_norm);
    for (size_t i = 0; i < count; i++)
        exchange->logits[at + i] = logits[i] + slice.first;
}

enum mpo_status mpo_exchange_rows(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits, const double *log_norm,
                                  struct mpo_rows *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, exchange->rank);
    *out = (struct mpo_rows){0};
    MPO_CHECK(row_count >= 0 && row_count <= exchange->spec.row_capacity, MPO_ERR_INTERNAL,
              "an exchange of %d rows, room for %d", row_count,
              exchange->spec.row_capacity);
    if (slice.count > 0) {
        place_own(exchange, slice, row_count, logits, log_norm);
        *out = (struct mpo_rows){row_count, exchange->logits, exchange->log_norm};
    }
    MPO_TRY(exchange->ops->rows(exchange, row_count, logits, log_norm));
cleanup:
    return status;
}

enum mpo_status mpo_exchange_parts(struct mpo_exchange *exchange, double *table,
                                   const size_t *start)
{
    enum mpo_status status = MPO_OK;
    int posted = 0;
    for (int32_t rank = 1; rank < exchange->size; rank++) {
        int count = (int)(start[rank + 1] - start[rank]);
        MPI_Request *request = &exchange->parts[posted];
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
        MPO_TRY(mpo_comm_wait(exchange->parts, posted));
cleanup:
    return status;
}

enum mpo_status mpo_exchange_share(struct mpo_exchange *exchange, void *data, size_t bytes)
{
    if (exchange->size > 1 && bytes > 0 && exchange->rank == 0)
        mpo_exchange_count_sent(exchange, 1, bytes);
    else if (exchange->size > 1 && bytes > 0)
        mpo_exchange_count_received(exchange, 1, bytes);
    return mpo_comm_group_broadcast(exchange->comm, data, bytes);
}

enum mpo_status mpo_exchange_tokens(struct mpo_exchange *exchange, int32_t *tokens,
                                    int32_t count)
{
    return mpo_exchange_share(exchange, tokens, (size_t)count * sizeof *tokens);
}
