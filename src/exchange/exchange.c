/*
 * The exchange: argument checks, the choice of a transport and what all transports share.
 *
 * Only the group's root combines and draws, so rows travel one way, to the root, and token
 * ids the other way. That is half the traffic of an all-gather and the same result.
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mpo/memory.h"

/* In the order in which `auto` tries them. */
static const struct mpo_exchange_ops *const transports[] = {
    &mpo_exchange_self_ops,
    &mpo_exchange_shared_ops,
    &mpo_exchange_nodes_ops,
    &mpo_exchange_mpi_ops,
};
#define TRANSPORT_COUNT (sizeof transports / sizeof *transports)

static enum mpo_status choose_transport(const struct mpo_exchange_spec *spec,
                                        const struct mpo_comm *comm,
                                        const struct mpo_exchange_ops **out)
{
    enum mpo_status status = MPO_OK;
    const char *name = spec->transport;
    *out = NULL;
    for (size_t i = 0; i < TRANSPORT_COUNT && *out == NULL; i++) {
        const char *reason = transports[i]->refuses(spec, comm);
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
    *out = (struct mpo_exchange_plan){0};
    MPO_TRY(choose_transport(spec, comm, &ops));
    out->transport = ops->transport;
    out->rank_bytes = mpo_exchange_rows_bytes(spec, ops->keeps_policies(spec, comm));
    mpo_exchange_shared_room(spec, comm, &out->shared_bytes, &out->shared_free_bytes);
    bool could_share = mpo_comm_group_size(comm) > 1 && mpo_comm_group_shares_host(comm);
    if (could_share && ops != &mpo_exchange_shared_ops &&
        strcmp(spec->transport, "auto") == 0)
        out->shared_refuses = mpo_exchange_shared_ops.refuses(spec, comm);
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
    MPO_TRY(choose_transport(spec, comm, &ops));
    MPO_NEW(1, &exchange);
    *out = exchange;
    exchange->spec = *spec;
    exchange->comm = comm;
    mpo_comm_policy_block(comm, mpo_comm_group_rank(comm), &exchange->first_policy,
                          &exchange->local_count);
    if (mpo_comm_group_rank(comm) == 0) {
        size_t count = (size_t)spec->policy_count * (size_t)spec->row_capacity;
        MPO_NEW(count, &exchange->all_logits);
        MPO_NEW(count, &exchange->all_norms);
    }
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
    free((*exchange)->all_norms);
    free((*exchange)->all_logits);
    free(*exchange);
    *exchange = NULL;
}

const char *mpo_exchange_transport(const struct mpo_exchange *exchange)
{
    return exchange->ops->transport;
}

enum mpo_status mpo_exchange_rows(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits, const double *log_norm,
                                  struct mpo_rows *out)
{
    enum mpo_status status = MPO_OK;
    *out = (struct mpo_rows){0};
    MPO_CHECK(row_count >= 0 && row_count <= exchange->spec.row_capacity, MPO_ERR_INTERNAL,
              "an exchange of %d rows, room for %d", row_count,
              exchange->spec.row_capacity);
    MPO_TRY(exchange->ops->rows(exchange, row_count, logits, log_norm));
    if (mpo_comm_group_rank(exchange->comm) == 0)
        *out = (struct mpo_rows){row_count, exchange->all_logits, exchange->all_norms};
cleanup:
    return status;
}

enum mpo_status mpo_exchange_tokens(struct mpo_exchange *exchange, int32_t *tokens,
                                    int32_t count)
{
    return mpo_comm_group_broadcast(exchange->comm, tokens, (size_t)count * sizeof *tokens);
}
