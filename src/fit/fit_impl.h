/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A fit's parts.
 *
 *     fit.c      the flow of a step
 *     summary.c  what the steps amount to, and whether that is enough
 *     entry.c    what the record gets of a step
 *     resume.c   continuing where a record ends
 *     state.c    how far the run of a record has come
 *     rewards.c  rewards that a program measures
 */
#pragma once

#include "mpo/fit.h"
#include "mpo/record.h"

#include "session/rewards.h"

/** Rewards of a fit; arrays are rank zero's. */
struct mpo_fit_rewards {
    bool is_used; /* there is a program */
    struct mpo_session_rewards measured;
    struct mpo_record_rewards record; /* the scale, and where the record has it from */
    const char **policy;              /* [K] names */
    double *score;                    /* [N, K] rewards of the step on the scale */
    double *numbers;                  /* [7, K] owner of what follows and of the scale's */
    double *mean;                     /* [K] of the step */
    double *sum;                      /* [K] of omega mean over the steps */
    double *average;                  /* [K] their mean */
};

struct mpo_fit {
    struct mpo_fit_spec spec;
    struct mpo_session *session;
    const struct mpo_config *config;
    int32_t objective_count; /* K */
    int32_t policy_count;    /* H */
    struct mpo_exponents exponents;
    struct mpo_fit_rewards rewards;
    double *scale;           /* [K] of the exponents */
    int64_t *prompt;         /* [prompts_per_step] */
    double *proposal;        /* [H + 2]: mu, end bias, 1 to continue or 0 to stop */
    int64_t first_step;      /* steps in the record when this process started */
    int64_t step;            /* the next one */
    bool resumes;            /* such a record exists */
    bool warms_up;           /* the end tilt adapts, and has not begun */
    char *last_program;      /* rewards.command of the record's last step, rank zero's */
    enum mpo_status failure; /* of a step, else MPO_OK */
    bool is_finished;        /* its record is closed */

    /* rank zero only */
    struct mpo_estimator *estimator;
    struct mpo_descent *descent;
    struct mpo_record_writer *record;
    double *weights;          /* [K] l_t of the current step */
    double *divergence_sum;   /* [K] of omega KL over the steps, nat */
    double *divergence;       /* [K] their mean, nat */
    double *bounds;           /* [2, K] or NULL */
    double *average_gradient; /* [K] g at the average, by this step's responses, nat */
    double *window;           /* [window_capacity, K] of the last steps, in turn */
    int64_t window_capacity;
    double *without;                /* [window_capacity] imbalance without one step, nat */
    double *work;                   /* [2, K] */
    struct mpo_session_texts texts; /* of all responses of the step */

    struct mpo_timing total; /* this rank, all steps */
    struct mpo_fit_summary summary;
    double started;
};

/** A step that was taken, for the record. */
struct mpo_fit_entry {
    int64_t step;
    const struct mpo_responses *responses;
    const struct mpo_estimate *estimate;
    const struct mpo_timing *slowest; /* of each stage, over ranks */
};

/** Room for rewards, where there is a program. Local. */
enum mpo_status mpo_fit_rewards_allocate(struct mpo_fit *fit);
void mpo_fit_rewards_close(struct mpo_fit *fit);

/** Start the program and, unless a record has it, measure the scale. Nothing without a
 *  program. Failures are agreed on. Collective over all ranks. @return MPO_REQUEUE when a
 *  stop was asked for; the statuses of mpo_rewards_measure and mpo_rewards_settle_scale */
enum mpo_status mpo_fit_rewards_begin(struct mpo_fit *fit);

/** Measure a step's responses, which get scores where the descent balances rewards. All
 *  ranks call it; rank zero alone waits. @return the statuses of mpo_rewards_measure */
enum mpo_status mpo_fit_rewards_measure(struct mpo_fit *fit, int64_t step,
                                        struct mpo_responses *responses);

/** Add the step's means to those of the summary. Rank zero only. */
void mpo_fit_rewards_add(struct mpo_fit *fit, double omega, double omega_sum);

/** Append the step to the record. Rank zero only. @return MPO_ERR_IO; MPO_ERR_MEMORY */
enum mpo_status mpo_fit_record(struct mpo_fit *fit, const struct mpo_fit_entry *entry);

/** Resume: compare the record with this job, load the optimiser's state and the summary,
 *  set first_step. Without a record nothing changes. Rank zero only. @return MPO_ERR_CONFIG
 *  when the configuration is another (the text shows the difference); MPO_ERR_DATA when
 *  models or prompts are */
enum mpo_status mpo_fit_resume(struct mpo_fit *fit);

/** Open the record to append, and note there what has changed. Collective over all ranks. */
enum mpo_status mpo_fit_continue(struct mpo_fit *fit);

/** Averaged gap of F (target whole) or averaged imbalance, nat. Rank zero only. */
double mpo_fit_averaged_gap(const struct mpo_fit *fit);

/** Room for average_gradient and its window. Rank zero only. @return MPO_ERR_MEMORY */
enum mpo_status mpo_fit_window_open(struct mpo_fit *fit);

/** average_gradient = g + (dg/dl) (average - l) after a step of the descent; NAN where the
 *  estimate has no slope. Rank zero only. */
void mpo_fit_move_gradient(struct mpo_fit *fit, const struct mpo_estimate *estimate);

/** Add a step and its average_gradient to the summary; after the last one, derive what depends on
 *  it. Rank zero only. */
void mpo_fit_summary_add(struct mpo_fit *fit, const struct mpo_estimate *estimate);
void mpo_fit_summary_settle(struct mpo_fit *fit);
