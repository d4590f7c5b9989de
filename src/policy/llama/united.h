/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adapters on their way into one.
 *
 *   unite.c        what there is, and what becomes of it
 *   united_file.c  the file of that
 */
#pragma once

#include <gguf.h>

#include "mpo/policy.h"

#define MPO_UNITED_NAME_BYTES 128

/* One adapter as its file has it. */
struct part {
    const struct mpo_policy_adapter *adapter;
    struct gguf_context *file;
    struct ggml_context *tensors;
    int64_t rank;  /* of the tensor that has the largest */
    int64_t first; /* place of its rank among those of all */
};

/* A tensor that some adapter changes. */
struct target {
    char name[MPO_UNITED_NAME_BYTES];
    int64_t inner; /* of the model's tensor, in memory order */
    int64_t outer;
};

struct united {
    struct part *part; /* [part_count] */
    int32_t part_count;
    struct target *target; /* [target_count] */
    size_t target_count;
    size_t target_capacity;
    int64_t rank; /* of all together */
    struct gguf_context *file;
    struct ggml_context *tensors;
};

/* All local, with the statuses of mpo_policies_unite_adapters. */

/** Write it as a file that does not exist, or is removed again. */
enum mpo_status mpo_united_write(const struct united *united, const char *path);

/** What was written is read back, and is what was meant. */
enum mpo_status mpo_united_check(const struct united *united, const char *path);

/** Write it as a file in memory. @param out  its descriptor */
enum mpo_status mpo_united_write_memory(const struct united *united, int *out);
