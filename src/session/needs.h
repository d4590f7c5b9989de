/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Memory that a job needs, from a survey of its policies: what doctor compares with what
 * is free, and what a batch job has to request.
 */
#pragma once

#include <stdbool.h>

#include "mpo/device.h"
#include "device/host.h"
#include "mpo/policy.h"
#include "mpo/survey.h"

/** Host memory that one rank needs, by purpose. Plain data. */
struct mpo_needs {
    uint64_t program_bytes; /* the process as a survey leaves it: code,
                               vocabularies, prompts, adapters */
    uint64_t weights_bytes; /* a model that several policies name counts once */
    uint64_t cache_bytes;
    uint64_t work_bytes;     /* logits, what a decode computes in, and a warm-up */
    uint64_t exchange_bytes; /* rows of other ranks, or of this one for others, and the
                                rounded ones */
};

/** Needs of a rank that hosts these policies; `exchange_bytes` is the exchange's figure
 *  with that of rounded rows.
 *  Local; right after mpo_policies_survey, because it looks at this process. */
struct mpo_needs mpo_needs_of_rank(const struct mpo_policy_survey *policies,
                                   int32_t policy_count, const struct mpo_host *host,
                                   uint64_t exchange_bytes);

/** Add up, member by member. */
void mpo_needs_add(struct mpo_needs *sum, const struct mpo_needs *more);

/** The sum of all members. */
uint64_t mpo_needs_total(const struct mpo_needs *needs);

/** What the process has yet to allocate. */
uint64_t mpo_needs_to_take(const struct mpo_needs *needs);

/** Weights on the host of these policies when each model file is in memory once:
 *  what ranks of one host share where libllama maps the file, as it does unless it
 *  repacks the weights. */
uint64_t mpo_needs_weights_once(const struct mpo_policy_survey *policies,
                                int32_t policy_count);

/** A device and what a rank will put there. */
struct mpo_needs_device {
    const struct mpo_device *device;
    const char *host;                         /* its name, for messages */
    const struct mpo_policy_survey *policies; /* [policy_count] of the rank */
    const struct mpo_policy_spec *specs;      /* [H] */
    int32_t policy_count;
    uint64_t rows_bytes;    /* the mixture's and the exchange's */
    uint64_t library_bytes; /* mpo_needs_of_libraries */
    const char *advice;     /* what makes rows fewer or shorter: "lower ..." */
};

/** What CUDA, cuBLAS and libllama take of a device once they compute there, and NCCL once it
 *  connects ranks: none of it is taken yet when free memory is measured. Local.
 *  @param connects  the group's rows travel from device to device */
uint64_t mpo_needs_of_libraries(const struct mpo_policy_survey *policies,
                                int32_t policy_count, bool connects);

/** Bytes of the device's memory. Local. */
uint64_t mpo_needs_of_device(const struct mpo_needs_device *device);

/** @return MPO_ERR_MEMORY, with what to change, when it needs more than is free. Local. */
enum mpo_status mpo_needs_check_device(const struct mpo_needs_device *device);
