/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The context of a row machine, as much as memory has room for.
 */
#pragma once

#include "plan.h"

/** Bytes that the exchange takes on this rank; 0 where it cannot be opened, which opening it
 *  reports. Collective over the ranks of a group. */
uint64_t mpo_context_exchange_bytes(const struct mpo_session *session, int32_t vocab_size);

/**
 * Lower session->size.machine.context_tokens, if the machine says that it may be, to what the
 * hosts and devices of all ranks have room for; MPO_CONTEXT_ROW_LEAST a row are left. Rank zero
 * notes it in a line.
 *
 *     c' = c min over hosts and devices of (free - other) / cache         caches are linear in c
 *
 * Collective over all ranks, after a survey that found all policies.
 *
 * @param has_changed  out: the survey's figures are no longer those of this context
 */
enum mpo_status mpo_context_fit(struct mpo_session *session,
                                const struct mpo_policies_survey *survey,
                                bool *has_changed);

/** Tokens of a row that are taken however short memory is. */
#define MPO_CONTEXT_ROW_LEAST 128
