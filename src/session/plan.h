/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What follows from a configuration before anything is opened: for the job that is being
 * opened, for doctor, which looks at one, and for launch, whose job runs elsewhere.
 */
#pragma once

#include "needs.h"
#include "parts.h"

/* ---- a fit ---- */

/** How large a session a fit opens. Local. */
struct mpo_session_size mpo_plan_fit(const struct mpo_config *config);

/** Whether a fit that is new finds its end tilt by a warm-up (end_bias.h), and the host memory
 *  that it takes on each rank: 0 where there is none. Local. */
bool mpo_plan_warms_up(const struct mpo_config *config);
uint64_t mpo_plan_warm_up_bytes(const struct mpo_config *config,
                                const struct mpo_session_size *size, int64_t prompt_count);

/** Refuse flags of fit that contradict each other. Local. */
enum mpo_status mpo_plan_check_fit(const struct mpo_config *config);

/* ---- stages ---- */

/** Whether q is one policy, made of the adapters of all (rollout.mixture). Local. */
bool mpo_plan_blends(const struct mpo_config *config);

/** Policies that are hosted: those of the configuration, and the one of a blend; or, where a
 *  machine has blends, these alone. Local. */
int32_t mpo_plan_policy_count(const struct mpo_config *config,
                              const struct mpo_session_size *size);

/** The first of the hosted policies that is of a blend; as many as are hosted without. Local. */
int32_t mpo_plan_first_blend(const struct mpo_config *config,
                             const struct mpo_session_size *size);

/** Ranks of a group as configured, 0: as many as the policies ask for. Those of a blend share
 *  one model, so each rank hosts all. Local. */
int32_t mpo_plan_ranks_per_group(const struct mpo_config *config);

/** Rows that a rank decodes at once. Local. */
int32_t mpo_plan_rows(const struct mpo_session_size *size);

/** Whether the rows at once are within the limit and hold the responses to a prompt. Local.
 *  @return MPO_ERR_CONFIG */
enum mpo_status mpo_plan_check_rows(const struct mpo_session_size *size);

/** Whether responses are given with the prompts, to be scored. Local. */
bool mpo_plan_has_responses(const struct mpo_session_size *size);

/** Positions of given responses in one step, 0 where none are scored. Local. */
int32_t mpo_plan_given_positions(const struct mpo_config *config,
                                 const struct mpo_session_size *size);

/** How prompts are fed. Local. */
enum mpo_decode_prefill mpo_plan_prefill(const struct mpo_session_size *size);

/** Prompts that policies keep as tokens.
 *  @param prompts  NULL: none were read. Local. */
int32_t mpo_plan_prompt_slots(const struct mpo_session_size *size,
                              const struct mpo_prompts *prompts);

/** Devices that a rank with these policies needs: those of the policy that is spread over
 *  most of them. Local. */
int32_t mpo_plan_devices(const struct mpo_config *config, int32_t first, int32_t count);

/** Whether rows stay in device memory from stage to stage. Local. */
bool mpo_plan_rows_on_device(const struct mpo_session *session);

/** Specifications of the stages, as far as they are known before other stages are
 *  open. Local. */
struct mpo_policies_spec mpo_plan_policies(const struct mpo_session *session);
struct mpo_policies_room mpo_plan_room(const struct mpo_session *session);
struct mpo_policies_survey_spec mpo_plan_survey(const struct mpo_session *session);
struct mpo_mixture_spec mpo_plan_mixture(const struct mpo_session *session,
                                         int32_t vocab_size);
struct mpo_exchange_spec mpo_plan_exchange(const struct mpo_config *config,
                                           const struct mpo_placement *placement,
                                           const struct mpo_session_size *size,
                                           int32_t vocab_size);

/* ---- memory of a rank that runs ---- */

/** Bytes of the host's memory that rows take in the mixture and the exchange, after a
 * survey; `exchange_bytes` is the exchange's figure. Local. */
uint64_t mpo_plan_host_rows(const struct mpo_session *session,
                            const struct mpo_policies_survey *survey,
                            uint64_t exchange_bytes);

/** What the rank puts on its device, after a survey with a common vocabulary; borrows from
 *  session, survey and host. `exchange_bytes` is the exchange's figure. Local. */
struct mpo_needs_device mpo_plan_device(const struct mpo_session *session,
                                        const struct mpo_policies_survey *survey,
                                        const struct mpo_host *host,
                                        uint64_t exchange_bytes);

/* ---- a job that does not run ---- */

/** Ranks on nodes, as many on each. */
struct mpo_plan {
    const struct mpo_config *config;
    struct mpo_session_size size;
    struct mpo_placement placement;
    int32_t rank_count; /* W */
    int32_t ranks_per_node;
    const struct mpo_policies_survey *survey; /* of all policies in this process */
};

/** Devices of the node whose ranks need most; needs no survey. Local. */
int32_t mpo_plan_node_devices(const struct mpo_plan *plan);

/** Host memory of the node whose ranks need most, summed over its ranks: each with weights
 *  of its own, because libllama repacks those of most models for the CPU, and then ranks
 *  share none. An upper bound. Local. */
struct mpo_needs mpo_plan_node_needs(const struct mpo_plan *plan);
