/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a rank sends and gets at one position, by formula: of every transport and pattern.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct mpo_comm;
struct mpo_exchange;
struct mpo_exchange_traffic;

/** Rows that are combined, a draw of each, and tokens that the root broadcasts. */
struct exchange_position {
    const struct mpo_exchange *exchange;
    const struct mpo_comm *comm;
    int32_t policy_count;
    int32_t row_count;
    int32_t vocab_size;
    bool bf16_rows;
    const bool *absent; /* [H, B] rows that are left out; NULL: none */
};

/** Add what this rank sends and gets. Local.
 *  @param token  [row_count] that were drawn */
void exchange_position_add(const struct exchange_position *self, const int32_t *token,
                           struct mpo_exchange_traffic *sum);
