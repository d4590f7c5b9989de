/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A cache for each row, where libllama's attention would go through the cells of all.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"

struct mpo_llama_policy;
struct mpo_policy_append;
struct mpo_policy_setup;

struct mpo_llama_split {
    bool is_on;
    int32_t *append; /* [sequence_count] what a row gets, -1: it is silent */
    int32_t first;   /* row of the last batch of positions */
    int32_t count;   /* rows of it; 0: the last feed was none */
};

/** Whether each row has a cache: run.kv, where rows are fed one token at a time after their
 *  prompts. On the CPU with files in F32 alone: a lone token of others is attended to by
 *  several threads, which add up in another order, and has no company in its cache. */
bool mpo_llama_is_split(const struct mpo_llama_policy *policy,
                        const struct mpo_policy_setup *setup);

/** Cells of a row. */
int32_t mpo_llama_split_cells(const struct mpo_policy_setup *setup);

enum mpo_status mpo_llama_split_open(struct mpo_llama_policy *policy);
void mpo_llama_split_close(struct mpo_llama_policy *policy);

/** As feed of struct mpo_policy_ops.
 *  @return MPO_ERR_INTERNAL when more than the last logits of a row are wanted */
enum mpo_status mpo_llama_split_feed(struct mpo_llama_policy *policy,
                                     const struct mpo_policy_append *appends,
                                     int32_t append_count);
