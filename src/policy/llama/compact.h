/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What keeps the cells of a policy's rows in the order of their tokens, where its figures are
 * to be invariant (verbs.c). All local.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/status.h"

struct mpo_llama_policy;

/** A policy's part of it; zero where its figures are not invariant. */
struct mpo_llama_order {
    bool *is_left; /* [sequence_count] empty, but its cells are not freed yet */
    int32_t left_count;
    bool is_broken; /* cells were freed: the next token would go between older ones */
    uint8_t *image; /* [image_bytes] of the cells, while they move */
    size_t image_bytes;
};

enum mpo_status mpo_llama_order_open(struct mpo_llama_policy *policy);
void mpo_llama_order_close(struct mpo_llama_policy *policy);

/** All rows are empty, and so is the cache. */
void mpo_llama_order_clear(struct mpo_llama_policy *policy);

/** A row that has tokens is empty from here on; its cells are freed later. */
void mpo_llama_order_leave(struct mpo_llama_policy *policy, int32_t row);

/** Cells were freed below others. */
void mpo_llama_order_break(struct mpo_llama_policy *policy);

/** Free the cells of rows that were left. @return whether there were any */
bool mpo_llama_order_release(struct mpo_llama_policy *policy);

/** Move the cells together, each in its place among the others, if some were freed.
 *  @return MPO_ERR_MEMORY without room for a copy of them */
enum mpo_status mpo_llama_order_restore(struct mpo_llama_policy *policy);
