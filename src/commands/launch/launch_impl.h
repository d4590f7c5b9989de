/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The plan of a batch job of fit or serve: where its ranks go, and what each node must provide.
 *
 *   launch.c         configuration, survey, layout
 *   script.c         the script
 */
#pragma once

#include "session/plan.h"

/** Open MPI and the buffers of the record, which a survey without MPI does not see. */
#define LAUNCH_RANK_MB 128
/** doctor's figures may be too low by a fifth, and so may the time of a step. */
#define LAUNCH_MARGIN_PERCENT 25
/** Assumed maximum duration of a step: the signal comes this long before the end. */
#define LAUNCH_SIGNAL_SECONDS 180
/** The same of a server, whose running requests finish in serve.drain seconds. */
#define LAUNCH_DRAIN_SECONDS 120
/** Part of a derived time limit: loading and hashing models. */
#define LAUNCH_SETUP_SECONDS 600

/** Length of a word that is safe for a shell and for sbatch. */
#define LAUNCH_WORD_LETTERS                                                                \
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.,:+@/="

struct launch {
    struct mpo_config *config;
    struct mpo_session *session;
    struct mpo_policies_survey survey;

    /* as `mpo fit`, or `mpo serve`, takes them */
    bool serves;
    struct mpo_config_words words;
    const char *config_path; /* borrowed from words */
    struct mpo_texts flags;  /* owned */

    struct mpo_plan plan; /* where the ranks go */
    int32_t node_count;
    int32_t gpus_per_node;
    int32_t cpus_per_task;
    struct mpo_needs node;  /* sums over the ranks of the node that needs most */
    int64_t limit_seconds;  /* derived; 0: given, or the default */
    int32_t signal_seconds; /* between the signal and the limit */
};

/** Print the script. Local. */
void launch_print(const struct launch *launch);
