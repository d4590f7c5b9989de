/* SPDX-License-Identifier: Apache-2.0 */
#include "exchange_case.h"

#include <string.h>

#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "runner.h"

bool exchange_case_serves(const char *transport, int32_t group_size)
{
    struct mpo_comm *comm = NULL;
    assert_ok(mpo_placement_open_comm(group_size, group_size, &comm));
    bool shares = mpo_comm_group_shares_host(comm);
    bool has_neighbours = false;
    for (int32_t rank = 0; rank < group_size; rank++)
        has_neighbours = has_neighbours || mpo_comm_group_leader(comm, rank) != rank;
    double yes = strcmp(transport, "shared") == 0  ? shares
                 : strcmp(transport, "nodes") == 0 ? has_neighbours
                                                   : true;
    assert_ok(mpo_comm_min(comm, &yes, 1));
    mpo_comm_close(&comm);
    return yes > 0.0;
}

int32_t exchange_case_tokens(const struct mpo_exchange *exchange, int32_t rank,
                             int32_t vocab_size)
{
    const int32_t *first = mpo_exchange_slices(exchange);
    int32_t count = (first[rank + 1] - first[rank]) * MPO_ROWS_BLOCK;
    int32_t left = vocab_size - first[rank] * MPO_ROWS_BLOCK;
    return count < left ? count : left > 0 ? left : 0;
}

struct exchange_case_host exchange_case_host_of(const struct mpo_exchange *exchange,
                                                const struct mpo_comm *comm, int32_t leader,
                                                int32_t vocab_size)
{
    struct exchange_case_host host = {0};
    for (int32_t rank = leader; rank < mpo_comm_group_size(comm); rank++) {
        int32_t first = 0;
        int32_t count = 0;
        if (mpo_comm_group_leader(comm, rank) != leader)
            continue;
        mpo_placement_block(mpo_exchange_placement(exchange), rank, &first, &count);
        host.policies += count;
        host.tokens += exchange_case_tokens(exchange, rank, vocab_size);
    }
    return host;
}
