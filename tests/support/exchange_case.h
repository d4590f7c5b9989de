/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What tests of the exchange share.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct mpo_comm;
struct mpo_exchange;

/** Whether a transport that carries rows in the host's memory can serve all groups of so
 *  many ranks, more than one, as they lie on hosts. Collective over all ranks. */
bool exchange_case_serves(const char *transport, int32_t group_size);

/** Tokens of a rank's slice. Local. */
int32_t exchange_case_tokens(const struct mpo_exchange *exchange, int32_t rank,
                             int32_t vocab_size);

/** What ranks of a group on one host have together. */
struct exchange_case_host {
    int32_t policies;
    int32_t tokens; /* of their slices */
};

/** The host whose first rank of the group is `leader`. Local. */
struct exchange_case_host exchange_case_host_of(const struct mpo_exchange *exchange,
                                                const struct mpo_comm *comm, int32_t leader,
                                                int32_t vocab_size);
