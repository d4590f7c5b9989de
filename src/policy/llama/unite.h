/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Several adapters into one file: see struct mpo_policy_ops.
 */
#pragma once

#include "mpo/policy.h"

enum mpo_status mpo_llama_unite(const struct mpo_policy_adapter *adapters, int32_t count,
                                const char *path, int64_t *rank);
