/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A batch of the same rows from one position to the next, although some have ended.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"

struct mpo_llama_policy;
struct mpo_policy_append;
struct mpo_policy_setup;

struct mpo_llama_steady {
    int32_t *row;  /* [sequence_count] of the last position, in order; NULL: not wanted */
    int32_t count; /* 0: the last feed was none */
};

/** Whether a policy keeps its batches steady: run.device_rows, and not where figures are
 *  invariant, because a token that comes and goes would mix up the order of the cells. */
bool mpo_llama_is_steady(const struct mpo_llama_policy *policy);

enum mpo_status mpo_llama_steady_open(struct mpo_llama_policy *policy);
void mpo_llama_steady_close(struct mpo_llama_policy *policy);

/** Cells that silent rows may take beside the others'; 0 unless steady. */
int32_t mpo_llama_steady_cells(const struct mpo_llama_policy *policy,
                               const struct mpo_policy_setup *setup);

/** Choose the rows of a feed's batch: policy->steady.row, of which those that the feed
 *  leaves out are silent.
 *  @return false: the feed is no position, and goes as it is */
bool mpo_llama_steady_follow(struct mpo_llama_policy *policy,
                             const struct mpo_policy_append *appends, int32_t append_count);
