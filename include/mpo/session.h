/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A session: everything that is opened before a response can be drawn, in flow order.
 *
 *     configuration -> ranks -> prompts -> policies -> exchange -> mixture ->
 *     decode -> rollout
 *
 * The program's commands open one each; another program opens one to draw responses, or to
 * fit, by itself.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/config.h"
#include "mpo/decode.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "mpo/policy.h"
#include "mpo/prompts.h"
#include "mpo/report.h"
#include "mpo/rollout.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_session;

/** A row machine (mpo/decode.h) for requests that come while it runs, prompts fed in chunks
 *  beside them. */
struct mpo_session_machine {
    int32_t row_capacity;    /* 0: no machine of this kind, and nothing below is set */
    int32_t parked_rows;     /* as in struct mpo_decode_spec */
    int32_t prompt_slots;    /* 1 or more */
    int32_t given_positions; /* as in struct mpo_decode_spec, like those below */
    int32_t prefill_tokens;  /* 1 or more */
    int32_t prefill_step;
    double prefill_stretch;
    int32_t prefill_idle;
    int32_t top_max;
    int32_t bias_max;
    int32_t context_tokens; /* of all rows together, for each policy; 1 or more */
    bool mixes_prompts;     /* as in struct mpo_policies_room */
    int32_t blends; /* with rollout.mixture: adapters: so many policies are hosted, each the
                       model with the adapters of all, which mpo_policy_rescale makes one of
                       a mixture's; 0: those of the configuration, and one such */
    bool shrinks; /* context_tokens is lowered where memory is short, which a note tells */
};

/** Maximum prompts of a unit, and of a rollout. */
#define MPO_SESSION_PROMPTS_MAX 1000000

/** How much is decoded at once: nothing that is set, a machine, or a rollout. What contradicts
 *  itself is refused (MPO_ERR_USAGE), never taken in part. */
struct mpo_session_size {
    struct mpo_session_machine machine; /* then there are no prompts and no rollout, and
                                           nothing below may be set but `advice` */
    int32_t prompts_max;     /* prompts of a rollout at most; 0: a unit for each group */
    int32_t unit_prompts;    /* 1 or more wherever anything else is set */
    int32_t responses;       /* likewise; those given, if they are scored */
    int32_t row_capacity;    /* rows decoded at once, at least `responses`; 0: all of a
                                unit's. Not over MPO_ROW_COUNT_MAX either way */
    const char *prompt;      /* one prompt instead of the file; NULL or "": none */
    const char *const *stop; /* [stop_count] texts that end a response, borrowed */
    int32_t stop_count;      /* 0 where one of the purposes below is set */
    const char *advice;      /* what makes rows fewer or shorter: "lower ..."; a literal */
    bool integrates_ends;    /* rows never end, for mpo_rollout_integrate */
    int64_t try_limit;     /* exact draws, with at most so many tries a response; 0: none */
    bool distinct_prompts; /* a step never asks a prompt twice: prompts_max are needed */
    struct mpo_prompts_spec prompts; /* path NULL: those of the configuration; with a
                                        response_count, for mpo_rollout_score */
};

struct mpo_session_spec {
    /** Whose options need no section name in `flags`, and what messages call the job: a
     *  command that takes a configuration, as "generate"; a literal. NULL: "fit". */
    const char *command;

    /** The configuration, in one of three forms: the path of a file; a text, YAML as in a
     *  file; or one that is open, borrowed until the session is closed. It is the same on
     *  all ranks. */
    const char *config;
    const char *config_text;
    const struct mpo_config *settings;

    /** Where the relative paths of config_text begin; NULL: the working directory. */
    const char *config_folder;

    /** Flags that override a file or a text: "--run.seed=3". Borrowed. */
    const char *const *flags; /* [flag_count] */
    int32_t flag_count;

    /** All zero: as large as a fit of this configuration. */
    struct mpo_session_size size;

    /** The ranks, and what is called when the job fails (mpo_comm_spec). Where a job has
     *  begun already (mpo_comm_begin, mpo_comm_start), it is used, and all three are
     *  NULL. */
    const void *communicator; /* address of an MPI_Comm */
    void (*on_failure)(void *argument, enum mpo_status status, const char *text);
    void *argument; /* borrowed */

    /** Who shows notes, warnings and errors until the session is closed; say NULL: whoever
     *  is set already (mpo_report_to), if any. */
    struct mpo_reporter report;
};

/**
 * Open everything. Failures are agreed on and reported. A process has one session at a time.
 * A model file that ends or stalls its engine is refused only where a guard began before MPI
 * (mpo_policies_guard_begin); otherwise it ends or stalls the process.
 *
 * Collective over all ranks.
 *
 * @param out  NULL after a failure
 * @return MPO_ERR_USAGE when a session is open, for a command that there is not, when not
 *         one configuration is given, fewer flags than flag_count, or a size that contradicts itself; the statuses of
 *         mpo_comm_begin, mpo_config_open, and of whatever is opened
 */
enum mpo_status mpo_session_open(const struct mpo_session_spec *spec,
                                 struct mpo_session **out);

/** Close everything, in reverse order; what was opened on it, as a fit, is closed before.
 *  Collective over all ranks. */
void mpo_session_close(struct mpo_session **session);

/** Its parts, borrowed; a machine has no prompts and no rollout (NULL). Local. */
const struct mpo_config *mpo_session_config(const struct mpo_session *session);
const struct mpo_comm *mpo_session_comm(const struct mpo_session *session);
const struct mpo_prompts *mpo_session_prompts(const struct mpo_session *session);
const struct mpo_policies *mpo_session_policies(const struct mpo_session *session);
struct mpo_exchange *mpo_session_exchange(const struct mpo_session *session);
struct mpo_mixture *mpo_session_mixture(const struct mpo_session *session);
struct mpo_decode *mpo_session_decode(const struct mpo_session *session);
struct mpo_rollout *mpo_session_rollout(const struct mpo_session *session);

/** How far a loop over steps has come. */
struct mpo_session_progress {
    int64_t step; /* the step that begins */
    int64_t done; /* of `total` units */
    int64_t total;
    const char *unit; /* "steps", "prompts" */
};

/**
 * Begin a step of a loop: waits in it have their deadline from here on (the first step of a
 * session has that of the set-up).
 *
 * Collective over all ranks.
 *
 * @return MPO_REQUEUE when this or any other rank was asked to stop: no step begins
 */
enum mpo_status mpo_session_begin_step(struct mpo_session *session,
                                       const struct mpo_session_progress *progress);

/** Ask the loop to stop before its next step, as from a handler of a signal: safe there.
 *  Local; one rank is enough. */
void mpo_session_stop(void);

/** How a loop ended: a stop (MPO_REQUEUE), of which all ranks know, is reported once and
 *  returned; any other failure ends the whole job (mpo_comm_fail), for the ranks are not in
 *  step any more. Collective over all ranks. */
enum mpo_status mpo_session_end_loop(enum mpo_status status);

#ifdef __cplusplus
}
#endif
