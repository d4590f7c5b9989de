/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a unit does to a policy, in terms of feed and fork: prompts into their first rows,
 * which the other rows of each copy, and tokens onto rows that live.
 */
#pragma once

#include "mpo/policy.h"

struct policy_entry {
    const int64_t *prompt; /* [prompt_count] slots */
    const int32_t *row;    /* [prompt_count, rows_per_prompt] distinct empty rows */
    int32_t prompt_count;
    int32_t rows_per_prompt;
};

/** @param logits  [prompt_count] out
 *  @return MPO_ERR_USAGE when a row lives or a slot is empty, too */
enum mpo_status policy_begin(struct mpo_policy *policy, const struct policy_entry *entry,
                             const float **logits);

struct policy_batch {
    const int32_t *row;         /* [row_count] */
    const int32_t *token_count; /* [row_count] tokens of each, or NULL: one each */
    const int32_t *token;       /* [sum of token_count] */
    int32_t row_count;
    bool every_position; /* logits after every token; otherwise after each row's last */
};

/** @return MPO_ERR_USAGE when a row is empty or gets no token, too */
enum mpo_status policy_extend(struct mpo_policy *policy, const struct policy_batch *batch,
                              const float **logits);
