/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Fair shares of clients: work that was done for each, counted. Whose count is smallest is next.
 *
 * A prompt token counts 1 and a drawn token 2; a client that comes back begins at the smallest
 * count of those who are here. (Virtual token counter: Sheng et al., Fairness in serving large
 * language models, OSDI 2024, whose bound of twice the largest request holds.)
 *
 * All calls are local.
 */
#pragma once

#include <stdint.h>

#include "mpo/status.h"

struct mpo_shares;

enum mpo_status mpo_shares_open(int32_t client_count, struct mpo_shares **out);
void mpo_shares_close(struct mpo_shares **shares); /* NULL-safe */

/** Something of a client, 0 .. client_count - 1, is here; it leaves as often as it comes. */
void mpo_shares_come(struct mpo_shares *shares, int32_t client);
void mpo_shares_leave(struct mpo_shares *shares, int32_t client);

/** Count work that was done for a client. */
void mpo_shares_charge(struct mpo_shares *shares, int32_t client, int64_t prompt_tokens,
                       int64_t drawn_tokens);

int64_t mpo_shares_count(const struct mpo_shares *shares, int32_t client);
