/**
 * A batch job of fit before it is one: where its ranks go, and what a node has to give.
 *
 *   launch.c         configuration, survey, layout
 *   script.c         the script
 */
#pragma once

#include "session/plan.h"

/** Open MPI and the buffers of the record, which a survey without MPI does not see. */
#define LAUNCH_RANK_MB 128
/** Figures of doctor can be too low by a fifth, and so can the time of a step. */
#define LAUNCH_MARGIN_PERCENT 25
/** What a step takes at most, where nothing is known: the signal comes so long before the
 * end. */
#define LAUNCH_SIGNAL_SECONDS 180
/** Of a time limit that is derived: loading and hashing models. */
#define LAUNCH_SETUP_SECONDS 600

/** Of a word that neither a shell nor sbatch takes for anything else. */
#define LAUNCH_WORD_LETTERS                                                                \
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.,:+@/="

struct launch {
    struct mpo_config *config;
    struct mpo_session *session;
    struct mpo_policies_survey survey;

    /* as `mpo fit` takes them */
    const char *config_path; /* borrowed from argv */
    char **flag;             /* [flag_count] owned */
    int flag_count;

    struct mpo_plan plan; /* where the ranks go */
    int32_t node_count;
    int32_t gpus_per_node;
    int32_t cpus_per_task;
    struct mpo_needs node;  /* sums of the ranks of the neediest node */
    int64_t limit_seconds;  /* derived; 0: it was given or is the default */
    int32_t signal_seconds; /* between the signal and the limit */
};

/** Print the script. Local. */
void launch_print(const struct launch *launch);
