/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A survey of policies: what they would need, and all that would fail, without their weights.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/policy.h"
#include "mpo/prompts.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Memory needs of one policy where it is hosted. Estimates, close to libllama's own. */
struct mpo_policy_need {
    uint64_t model_file[2]; /* device and inode: policies of a rank share what is equal */
    uint64_t model_bytes;   /* weights, mapped from the file where libllama can */
    uint64_t adapter_bytes;
    uint64_t cache_bytes;   /* of the most tokens that rows hold at once */
    uint64_t work_bytes;    /* logits, and what one decode computes in */
    uint64_t host_bytes;    /* of the host, where it is on devices */
    uint64_t unused_bytes;  /* that it takes and hardly writes to: of limits alone */
    bool has_threads;       /* the engine has threads of its own, thread_count in all */
    int32_t devices;        /* that all but host_bytes is spread over, 0: the host */
    bool keeps_rows;        /* on its device, if it has one and they are wanted there */
    int32_t trained_tokens; /* longest context the model was trained with, 0 for tables */
    int32_t context_tokens; /* cells of the context it would be given, 0 for tables */
    int32_t longest_prompt_tokens;
    int32_t vocab_size; /* as in the file, padding included */
};

/** The result of surveying one policy. Plain data, so that ranks can send it. */
struct mpo_policy_survey {
    int32_t policy;      /* index, 0..H-1 */
    uint64_t vocab_hash; /* 0 when it did not load */
    char sha256[65];     /* of model and adapter, as in struct mpo_policy_info */
    char lora_sha256[65];
    struct mpo_failure load;    /* its files */
    struct mpo_failure prompts; /* its template's and context's */
    struct mpo_policy_need need;
};

/** The result of surveying all policies. */
struct mpo_policies_survey {
    struct mpo_policy_survey *local; /* [local_count] this rank's block, owned */
    int32_t local_count;
    bool all_loaded;    /* on every rank; otherwise vocabularies were not compared */
    int32_t vocab_size; /* V, common; 0 when they were not, or differ */
    struct mpo_failure vocabulary; /* this and the next are those of all ranks, reported */
    struct mpo_failure responses;  /* of those that are given; their length decides */
    struct mpo_remarks remarks;    /* this rank's, and those of the vocabularies */
};

/** What a survey looks at. */
struct mpo_policies_survey_spec {
    struct mpo_policies_spec policies; /* slots are as many as prompts; hash_models reads
                                          all of the files */
    struct mpo_policies_room room;     /* response_tokens: unless responses are given */
    const struct mpo_prompts *prompts; /* NULL on ranks that could not read them: none are
                                          encoded. Every rank needs them where responses are
                                          given */
    bool responses_given;              /* with the prompts */
    /** Called for each policy of this rank that was loaded, while it is there; it may encode
     *  into slot 0 where there are no prompts. NULL: disabled. */
    void (*view)(void *viewer, int32_t policy, struct mpo_policy *handle);
    void *viewer; /* borrowed */
};

/**
 * Do everything that opening, encoding and making room do except loading weights and
 * allocating, and continue after a failure, so that all failures are found.
 *
 * Collective over all ranks. Failures of single policies are in *out, not returned.
 */
enum mpo_status mpo_policies_survey(const struct mpo_policies_survey_spec *spec,
                                    const struct mpo_comm *comm,
                                    struct mpo_policies_survey *out);
void mpo_policies_survey_release(struct mpo_policies_survey *survey);

#ifdef __cplusplus
}
#endif
