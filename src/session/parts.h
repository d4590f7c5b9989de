/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The parts of a session, for this folder and for the commands that need them.
 *
 *     session.c      the handle: configuration, ranks, the loop's steps
 *     spec.c         what a caller asks for, before anything is opened
 *     phases.c       what is opened, in order
 *     blend.c        the policy that has the adapters of all
 *     plan.c         what follows from a configuration, for jobs that run and for those that
 *                    do not run yet
 *     needs.c        memory, by what it is for
 *     weights.c      the weights that a command uses
 *     models.c       whether they belong to this job's models
 *     rewards.c      rewards of responses, measured for a command
 *     end_bias.c     the end tilt that exponents ask for
 *     provenance.c   where a record comes from
 *     differences.c  what of it is another now
 */
#pragma once

#include "mpo/mpo.h"
#include "mpo/session.h"

#include "base/memory.h"
#include "base/text.h"
#include "base/timing.h"
#include "device/host.h"

struct mpo_session {
    struct mpo_config *own_config;   /* NULL when it is another's */
    const struct mpo_config *config; /* own_config or borrowed */
    struct mpo_comm *comm;
    struct mpo_placement placement;
    struct mpo_prompts *prompts;
    struct mpo_policies *policies;
    struct mpo_exchange *exchange;
    struct mpo_mixture *mixture;
    struct mpo_decode *decode;
    struct mpo_rollout *rollout;
    struct mpo_policy_spec *policy_specs; /* [H], and those of blends */
    struct mpo_policy_spec *hosted;       /* the first of them that is hosted */
    struct mpo_policy_adapter *adapters;  /* those that specs have beside their first */
    double *temperature;                  /* of those that are hosted */
    /** Of a job that only looks at its policies: what it saw, borrowed. */
    const struct mpo_policies_survey *survey;
    struct mpo_rollout_blend blend;     /* where one policy is drawn from (blend.c) */
    struct mpo_policy_adapter *blended; /* [adapter_count] the adapters of that policy */
    char *blend_names;
    struct mpo_device device;
    struct mpo_timing timing;
    struct mpo_session_size size;
    int64_t prompt_time; /* as templates get it, the same on all ranks */
    int32_t thread_count;
    int32_t prompts_max; /* prompts of a rollout at most */
    const char *command; /* a literal */
    bool has_stepped;
    bool owns_job;                /* begun by this session */
    struct mpo_reporter reporter; /* before this session */
    bool sets_reporter;
};

/** Read the configuration and see that all ranks have the same. Collective over all ranks;
 *  failures are agreed on and reported. */
enum mpo_status mpo_session_configure(const char *command, int argc, char *const *argv,
                                      struct mpo_config **config);

/** A session of which nothing is open yet; the configuration is borrowed. Local. */
enum mpo_status mpo_session_make(const char *command, const struct mpo_config *config,
                                 const struct mpo_session_size *size,
                                 struct mpo_session **out);

/* ---- phases.c, for doctor and launch too; statuses are this rank's own, unless agreed ---- */

/** All of them. Failures are agreed on. Collective over all ranks. */
enum mpo_status mpo_session_open_phases(struct mpo_session *session);

/** What all rollouts of a session have in common; its decode must be open. Local. */
struct mpo_rollout_spec mpo_session_rollout_spec(struct mpo_session *session);

/** The prompts of the file, of the input or of the command line. Local. */
enum mpo_status mpo_session_read_prompts(struct mpo_session *session);

/** Form groups of so many ranks, 0: as many as the policies ask for. Failures are agreed
 *  on. Collective over all ranks. */
enum mpo_status mpo_session_open_groups(struct mpo_session *session,
                                        int32_t ranks_per_group);

/** Form the groups of the configuration. Failures are agreed on. Collective over all ranks. */
enum mpo_status mpo_session_open_ranks(struct mpo_session *session);

/** The policies of the configuration as the policy stage wants them. Local. */
enum mpo_status mpo_session_describe_policies(struct mpo_session *session);

/** The device of this rank, on which all policies can compute; needs their description.
 *  Collective over all ranks. */
enum mpo_status mpo_session_open_device(struct mpo_session *session);

/** Choose the threads of this rank. Collective over all ranks. */
enum mpo_status mpo_session_choose_threads(struct mpo_session *session);
