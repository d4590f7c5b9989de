/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A fit: mirror descent on the weights, one step at a time, with its record.
 *
 *     mpo_fit_open -> mpo_fit_step, mpo_fit_step, ... -> mpo_fit_finish -> mpo_fit_close
 *
 * Every rank draws; rank zero estimates, descends and records. What is fitted, and into
 * which record, is in the session's configuration: descent, rollout, record and fit.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/estimator.h"
#include "mpo/rollout.h"
#include "mpo/session.h"
#include "mpo/status.h"
#include "mpo/timing.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_fit;

/** Steps without which a served fit does not stop by itself. */
#define MPO_FIT_STOP_STEPS 32

#define MPO_FIT_REASON_BYTES 96

/** Sums over the steps that the record has, those of earlier processes included. */
struct mpo_fit_summary {
    int64_t steps;
    int64_t tokens;
    double ess_sum;
    double truncated_sum;
    double value_mean;       /* F, nat */
    double value_square_sum; /* of deviations from the mean (Welford) */
    double last_gap;         /* the averaged gap, or imbalance, nat */
    double imbalance;        /* target served: at the average, from the last quarter of the
                                steps, nat; NAN: unknown */
    double imbalance_error;  /* its standard error, nat; NAN: from one step */
    double halving_mean; /* F less F of half of the responses, of this process's steps */
    double halving_square_sum;
    int64_t halved_steps;
    char value_unknown[MPO_FIT_REASON_BYTES]; /* why F, and for target whole the averaged
                                                 gap, is unknown; "": they are known */
    bool stopped_on_gap;   /* descent.stop_gap is reached: there are no more steps */
    int64_t tokens_before; /* by earlier processes of a resumed run */
    double elapsed_before; /* seconds, likewise */
};

struct mpo_fit_spec {
    /** Opened with the size of a fit, which is the default; borrowed. */
    struct mpo_session *session;

    /** How the program was called, for the record's provenance; borrowed. NULL: unknown. */
    const char *command_line;

    /** Called on rank zero after each step, when it is in the record. NULL: disabled. */
    void (*monitor)(void *argument, const struct mpo_fit *fit,
                    const struct mpo_estimate *estimate);

    /** Called on every rank before the responses of a step are drawn; may set report and
     *  reporter of the rollout's step. NULL: disabled. */
    void (*prepare)(void *argument, struct mpo_rollout_step *draw);
    void *argument; /* borrowed */
};

/**
 * What a record of schema mpo-1.0 was made with, where the configuration leaves it to
 * defaults that came later: it goes on with estimator.target: whole and descent.average:
 * uniform. Nothing without fit.resume, or with another record. Before mpo_fit_open.
 *
 * Collective over all ranks.
 *
 * @param config  the session's settings
 */
enum mpo_status mpo_fit_adopt(const struct mpo_session *session, struct mpo_config *config);

struct mpo_record;

/** What the run of a record was to do, as its configuration says. */
struct mpo_fit_plan {
    int64_t steps;       /* descent.steps; 0: not known */
    double stop_gap;     /* nat */
    double responses;    /* rollout.responses; NAN: not known */
    const char *mixture; /* rollout.mixture, as mpo_mixing_name; NULL: not known */
};

/** Local. @param path  what messages call the record */
enum mpo_status mpo_fit_read_plan(const struct mpo_record *record, const char *path,
                                  struct mpo_fit_plan *out);

/** Why F of a record is unknown with this mean ESS of its steps; "" where it is known. Local.
 *  @param text  [MPO_FIT_REASON_BYTES] out */
const char *mpo_fit_why_unknown(const struct mpo_record *record,
                                const struct mpo_fit_plan *plan, double ess, char *text);

/** "finished", "extended" (closed after a resume with more steps than its configuration has,
 *  so it does not tell whether all are there), "stopped" (closed before the last step of its
 *  configuration), "being written" or "left by a crash". Local. */
const char *mpo_fit_state(struct mpo_record *record, const struct mpo_fit_plan *plan);

/**
 * Whether mpo_fit_open can continue the record, as far as that is known without models: their
 * hashes and the state are looked at there. Rank zero only, after mpo_fit_adopt.
 *
 * @param steps  out; steps of the record, -1: there is none
 * @return MPO_ERR_CONFIG, MPO_ERR_DATA, MPO_ERR_IO as mpo_fit_open
 */
enum mpo_status mpo_fit_check_record(const struct mpo_session *session, int64_t *steps);

/**
 * Open the optimiser and the record: a new one, or with fit.resume the one that is there, as
 * if it had never been interrupted. Failures are agreed on and reported.
 *
 * Collective over all ranks.
 *
 * @param out  NULL after a failure
 * @return MPO_ERR_USAGE when the session's size is not that of a fit; MPO_ERR_CONFIG,
 *         MPO_ERR_DATA when the record to resume is of another configuration, of other
 *         models or prompts; the statuses of mpo_record_create
 */
enum mpo_status mpo_fit_open(const struct mpo_fit_spec *spec, struct mpo_fit **out);

/** Close; a record that is not finished is left as whole as it is. Local. */
void mpo_fit_close(struct mpo_fit **fit);

/**
 * Take a step: draw, estimate, descend, record.
 *
 * Collective over all ranks. A failure closes the record and ends the job (mpo_comm_fail).
 *
 * @param more  out; whether there may be another step
 * @return MPO_REQUEUE when a stop was asked for (mpo_session_stop): no step was taken, and
 *         mpo_fit_finish is next
 */
enum mpo_status mpo_fit_step(struct mpo_fit *fit, bool *more);

/** Close the record after the last step. Failures are agreed on and reported. Collective
 *  over all ranks. @return MPO_ERR_IO; what mpo_fit_step returned, after a step that failed */
enum mpo_status mpo_fit_finish(struct mpo_fit *fit);

/** Steps that the record had when it was opened. Local. */
int64_t mpo_fit_first_step(const struct mpo_fit *fit);

/** Whether it continues a record. Local. */
bool mpo_fit_resumes(const struct mpo_fit *fit);

/** Seconds since it was opened. Local. */
double mpo_fit_elapsed(const struct mpo_fit *fit);

/** Seconds of this rank in each stage, all steps of this process. Local. */
const struct mpo_timing *mpo_fit_timing(const struct mpo_fit *fit);

/** The sums so far, the output (the running average) and the weights at which the last
 *  gradient was taken, both [K]; borrowed, valid until the next step. Rank zero only. */
const struct mpo_fit_summary *mpo_fit_summary(const struct mpo_fit *fit);
const double *mpo_fit_average(const struct mpo_fit *fit);
const double *mpo_fit_weights(const struct mpo_fit *fit);

/** KL(q || pi_k) of what was drawn from, [K] nat: the mean over steps with the weights of
 *  the average; NAN where a step did not say. Borrowed, valid until the next step. Rank zero
 *  only. */
const double *mpo_fit_divergence(const struct mpo_fit *fit);

/** Mean rewards as the program has them; arrays borrowed, valid until the next step. */
struct mpo_fit_reward_figures {
    bool is_objective;     /* the descent balances them */
    const double *zero;    /* [K] reward that counts as 0; NAN: unknown */
    const double *one;     /* [K] reward that counts as 1; NAN: unknown */
    const double *last;    /* [K] of the last step */
    const double *average; /* [K] mean over steps with the weights of the average */
};

/** The rewards of the steps so far. Rank zero only. @return false without a reward program */
bool mpo_fit_read_rewards(const struct mpo_fit *fit, struct mpo_fit_reward_figures *out);

/** Standard error of the mean of F over steps, from their scatter, nat; NAN for one step. It
 *  includes the differences between prompts, which the error of a step with one prompt does
 *  not. Local. */
double mpo_fit_value_error(const struct mpo_fit_summary *summary);

/** The least exponent that any weights give: below 0 where the strength takes more from the
 *  reference than there is. Local. */
double mpo_fit_least_exponent(const struct mpo_fit *fit);

/** Standard error of halving_mean, nat; NAN for one step. Local. */
double mpo_fit_halving_error(const struct mpo_fit_summary *summary);

#ifdef __cplusplus
}
#endif
