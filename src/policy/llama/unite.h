/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Several adapters into one file: see struct mpo_policy_ops.
 */
#pragma once

#include "mpo/policy.h"

enum mpo_status mpo_llama_unite(const struct mpo_policy_adapter *adapters, int32_t count,
                                const char *path, int64_t *rank);

/** Files of adapters that are read once, for sums of other scales. */
struct mpo_llama_parts;

/** Local. @param path  [count] borrowed; statuses as mpo_policies_unite_adapters */
enum mpo_status mpo_llama_parts_open(const char *const *path, int32_t count,
                                     struct mpo_llama_parts **out);
void mpo_llama_parts_close(struct mpo_llama_parts **out); /* NULL-safe */

/** The file that mpo_llama_unite makes of those with a scale other than 0, in memory and
 *  whatever their ranks sum to. Local.
 *  @param scale  [count]
 *  @param out    its descriptor, -1: none is left */
enum mpo_status mpo_llama_parts_sum(struct mpo_llama_parts *parts, const double *scale,
                                    int *out);
