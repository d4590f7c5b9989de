/*
 * Transport `self`: one rank hosts all policies. The root reads the policies' own memory.
 */
#include "exchange_impl.h"

#include <string.h>

static const char *self_refuses(const struct mpo_exchange_spec *spec,
                                const struct mpo_comm *comm)
{
    (void)spec;
    return mpo_comm_group_size(comm) == 1 ? NULL : "a group has more than one rank";
}

static enum mpo_status self_needs_nothing(struct mpo_exchange *exchange)
{
    (void)exchange;
    return MPO_OK;
}

static void self_close(struct mpo_exchange *exchange)
{
    (void)exchange;
}

static enum mpo_status self_rows(struct mpo_exchange *exchange, int32_t row_count,
                                 const float *const *logits, const double *log_norm)
{
    size_t count = (size_t)exchange->local_count * (size_t)row_count;
    memcpy(exchange->all_logits, logits, count * sizeof *logits);
    memcpy(exchange->all_norms, log_norm, count * sizeof *log_norm);
    return MPO_OK;
}

static int32_t self_keeps_policies(const struct mpo_exchange_spec *spec,
                                   const struct mpo_comm *comm)
{
    (void)spec;
    (void)comm;
    return 0;
}

const struct mpo_exchange_ops mpo_exchange_self_ops = {
    .transport = "self",
    .refuses = self_refuses,
    .keeps_policies = self_keeps_policies,
    .take_room = self_needs_nothing,
    .connect = self_needs_nothing,
    .close = self_close,
    .rows = self_rows,
};
