/**
 * What tests of the exchange share.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct mpo_exchange;

/** Whether a transport that carries rows in the host's memory can serve all groups of so
 *  many ranks, more than one, as they lie on hosts. Collective over all ranks. */
bool exchange_case_serves(const char *transport, int32_t group_size);

/** Tokens of a rank's slice. Local. */
int32_t exchange_case_tokens(const struct mpo_exchange *exchange, int32_t rank,
                             int32_t vocab_size);
