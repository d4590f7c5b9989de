/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport `self`: one rank hosts all policies. It reads the policies' own memory, so
 * nothing is moved.
 */
#include "exchange_impl.h"

static const char *self_refuses(const struct mpo_exchange_spec *spec,
                                const struct mpo_comm *comm)
{
    (void)spec;
    return mpo_comm_group_size(comm) == 1 ? NULL : "a group has more than one rank";
}

static size_t self_keeps_bytes(const struct mpo_exchange_spec *spec,
                               const struct mpo_comm *comm, int32_t rank)
{
    (void)spec;
    (void)comm;
    (void)rank;
    return 0;
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

static enum mpo_status self_rows(struct mpo_exchange *exchange, const float *const *logits,
                                 const double *log_norm)
{
    (void)exchange;
    (void)logits;
    (void)log_norm;
    return MPO_OK;
}

const struct mpo_exchange_ops mpo_exchange_self_ops = {
    .transport = "self",
    .memory = MPO_EXCHANGE_ANY,
    .refuses = self_refuses,
    .keeps_bytes = self_keeps_bytes,
    .allocate = self_needs_nothing,
    .connect = self_needs_nothing,
    .close = self_close,
    .rows = self_rows,
};
