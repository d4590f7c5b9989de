/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A refit: the request, the stored responses by prompt, and the result.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "mpo/mpo.h"

#include "commands/report/log.h"
#include "base/memory.h"
#include "estimator/sample.h"
#include "estimator/sample.h"

/** F and related figures at some weights; [K] arrays owned by the refit. */
struct refit_point {
    double value;       /* jackknifed */
    double ess;         /* mean over prompts, of the responses */
    double effective;   /* mean over prompts: responses that count */
    bool is_exact;      /* value is, whatever the responses say */
    double *weights;    /* [K] */
    double *log_policy; /* [H] mean log pi_h under the whole mixture */
    double *gradient;   /* [K] mean s_k, log pi_k where the exponents are the weights */
    double *divergence; /* [K] KL(pi_l || pi_k), nat */
};

struct refit {
    struct mpo_config *config;
    const struct mpo_config_refit *options; /* in config */
    const char *path;                       /* of the record, borrowed from argv */
    struct mpo_record *record;
    struct mpo_record_scores scores;
    int32_t count;                  /* K: objectives used */
    int32_t *objective;             /* [K] their indices in the record */
    double *scale;                  /* [K] of the exponents */
    struct mpo_exponents exponents; /* of the objectives used; H = K, or K + 1 with the
                                       reference where it has an exponent */
    double *mu;                     /* [H] */
    double *log_policy;             /* [R, H] by prompt */
    double *log_proposal;           /* [R] by prompt */
    struct mpo_sample *prompt;      /* [prompt_count] */
    int32_t prompt_count;
    double *bounds;            /* [2, K] or NULL */
    double *work;              /* [2, R] */
    double *prompt_mean;       /* [H] */
    double gap;                /* Frank-Wolfe gap of the output */
    struct refit_point result; /* at the output */
    struct refit_point stored; /* at the record's weights, when all objectives are used */
};

/** Read the command line, except what depends on the record's objectives. */
enum mpo_status refit_read(int argc, char *const *argv, struct refit *refit);

/** Read the objectives and bounds named by the options. */
enum mpo_status refit_apply(struct refit *refit);

/** Smallest rewards [K] of --floor; NAN where there is none. */
enum mpo_status refit_read_floors(const struct refit *refit, double *floors);

/** The places of `count` responses in the order of their prompts, and within one as they
 *  are; *order is the caller's. */
enum mpo_status refit_order_by_prompt(const int64_t *prompt, int64_t count,
                                      int64_t **order);

/** The whole of refit --rewards (rewards.c): the objectives are known. */
enum mpo_status refit_by_rewards(struct refit *refit);

/** F, gradient and ESS at point->weights from the stored responses. Local. */
void refit_estimate(struct refit *refit, struct refit_point *point);

/** State what is known of F whatever the responses say: it is 0 with all exponents on one objective,
 *  and at most 0 where no exponent is negative. After refit_estimate of the same point. Local. */
void refit_state_known_value(const struct refit *refit, struct refit_point *point);

/** Why F at a point is unknown (mpo_sample_why_unknown), and with it the gap and divergences;
 *  "" where it is known. Local. @param text  [MPO_SAMPLE_REASON_BYTES] out */
const char *refit_why_unknown(const struct refit *refit, const struct refit_point *point,
                              char *text);

/** Whether the responses support these weights. */
bool refit_supports(const struct refit *refit, const struct refit_point *point);

const char *refit_name(const struct refit *refit, int32_t k);

/** The result on standard output, and as JSON into options->output. */
enum mpo_status refit_report(const struct refit *refit);

/** The grid as TSV or JSON on standard output, and as a plot. */
enum mpo_status refit_frontier(struct refit *refit);
