/*
 * Transport `shared`: ranks of one host publish their rows in an MPI-3 shared window, and
 * the root reads them there. Each row of another rank is copied once; the root's own rows
 * are not copied at all.
 *
 *     window of a rank:  [local policies, row_capacity] doubles,
 *                        then as many rows of V floats
 *
 * One barrier a position says "published". The root's reads are over before it broadcasts
 * the drawn tokens, and nobody publishes again without those, so no second barrier is
 * needed.
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mpo/memory.h"

static const char *shared_refuses(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm)
{
    if (mpo_comm_group_size(comm) == 1)
        return "a group has one rank only";
    if (!mpo_comm_group_shares_host(comm))
        return "the ranks of a group span several hosts";
    return mpo_exchange_window_refuses(spec, comm);
}

static int32_t shared_keeps_policies(const struct mpo_exchange_spec *spec,
                                     const struct mpo_comm *comm)
{
    (void)spec;
    return mpo_exchange_window_policies(comm, mpo_comm_group_rank(comm));
}

static size_t norms_bytes(const struct mpo_exchange *exchange, int32_t local_count)
{
    return (size_t)local_count * (size_t)exchange->spec.row_capacity * sizeof(double);
}

static size_t row_bytes(const struct mpo_exchange *exchange)
{
    return (size_t)exchange->spec.vocab_size * sizeof(float);
}

static enum mpo_status shared_take_room(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exchange_window *window = NULL;
    MPO_NEW(1, &window);
    exchange->self = window;
    MPO_TRY(mpo_exchange_window_take_room(window, mpo_comm_group_mpi(exchange->comm)));
cleanup:
    return status;
}

static enum mpo_status shared_connect(struct mpo_exchange *exchange)
{
    int32_t policies =
        mpo_exchange_window_policies(exchange->comm, mpo_comm_group_rank(exchange->comm));
    return mpo_exchange_window_connect(exchange->self,
                                       mpo_exchange_rows_bytes(&exchange->spec, policies));
}

static void shared_close(struct mpo_exchange *exchange)
{
    if (exchange->self == NULL)
        return;
    mpo_exchange_window_close(exchange->self);
    free(exchange->self);
    exchange->self = NULL;
}

static void publish(struct mpo_exchange *exchange, int32_t row_count,
                    const float *const *logits, const double *log_norm)
{
    struct mpo_exchange_window *self = exchange->self;
    char *own = self->base[mpo_comm_group_rank(exchange->comm)];
    char *rows = own + norms_bytes(exchange, exchange->local_count);
    int32_t count = exchange->local_count * row_count;
    memcpy(own, log_norm, (size_t)count * sizeof *log_norm);
    for (int32_t i = 0; i < count; i++)
        memcpy(rows + (size_t)i * row_bytes(exchange), logits[i], row_bytes(exchange));
}

/* Point the root's table at one rank's published rows. */
static void collect(struct mpo_exchange *exchange, int32_t rank, int32_t row_count)
{
    const struct mpo_exchange_window *self = exchange->self;
    int32_t first = 0;
    int32_t local_count = 0;
    mpo_comm_policy_block(exchange->comm, rank, &first, &local_count);
    const char *rows = self->base[rank] + norms_bytes(exchange, local_count);
    size_t at = (size_t)first * (size_t)row_count;
    size_t count = (size_t)local_count * (size_t)row_count;
    memcpy(exchange->all_norms + at, self->base[rank], count * sizeof(double));
    for (size_t i = 0; i < count; i++)
        exchange->all_logits[at + i] = (const float *)(rows + i * row_bytes(exchange));
}

static enum mpo_status shared_rows(struct mpo_exchange *exchange, int32_t row_count,
                                   const float *const *logits, const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    bool is_root = mpo_comm_group_rank(exchange->comm) == 0;
    if (!is_root)
        publish(exchange, row_count, logits, log_norm);
    MPO_TRY(mpo_exchange_window_meet(exchange->self));
    if (!is_root)
        return MPO_OK;
    size_t own = (size_t)exchange->local_count * (size_t)row_count;
    memcpy(exchange->all_logits, logits, own * sizeof *logits);
    memcpy(exchange->all_norms, log_norm, own * sizeof *log_norm);
    for (int32_t rank = 1; rank < mpo_comm_group_size(exchange->comm); rank++)
        collect(exchange, rank, row_count);
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_shared_ops = {
    .transport = "shared",
    .refuses = shared_refuses,
    .keeps_policies = shared_keeps_policies,
    .take_room = shared_take_room,
    .connect = shared_connect,
    .close = shared_close,
    .rows = shared_rows,
};
