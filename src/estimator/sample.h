/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What scored responses to one prompt say at any weights: the one place where log w, F, g,
 * the effective sample size, the jackknife, KL and the choice of best-of-m are computed.
 *
 *     log w_j = sum_h mu_h log pi_h(y_j|x) - log q_j(y_j|x)
 *     F_x     = logsumexp_j(log w_j) - log m
 *     g_x,k   = sum_j softmax(log w)_j s_k(y_j|x)                 before the control variate
 *     C_x,k   = (1/m) sum_j sum_t ( s_k(y_t|s_t) - E_q s_k )
 *     ESS_x   = (sum_j w_j)^2 / (m sum_j w_j^2)               (src/README.md, Estimator)
 *
 * and, of what the responses were drawn from,
 *
 *     KL(q || pi_k) = (1/m) sum_j sum_t ( E_q log q - E_q log pi_k )(s_t)       each term >= 0
 *
 * Each response may come from a proposal of its own, as those of a record do. The jackknife
 * over j takes the bias of order 1/m out of the logarithm and of the ratio. Nothing here
 * learns from the responses: the estimator (mpo/estimator.h) does that.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/choices.h"
#include "mpo/exponents.h"
#include "mpo/rollout.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Scored responses to one prompt; arrays borrowed. */
struct mpo_sample {
    int32_t count;              /* m */
    int32_t policy_count;       /* H: columns of log_policy and control */
    const double *log_proposal; /* [m] log q_j(y_j|x), nat */
    const double *log_policy;   /* [m, H] log pi_h(y_j|x), nat */
    const double *control;      /* [m, H] sum_t log pi_h - E_q log pi_h, nat; NULL: none */
    const double *entropy;      /* [m] sum_t -E_q log q, nat; NULL: none */
    const double *log_weight;   /* [m] log w_j as it is, nat; NULL: from the exponents */
    const double *score;        /* [m, score_count] s_k as it is; NULL: from log_policy */
    int32_t score_count;        /* K; 0 without a score */
};

/** At which weights, and how. */
struct mpo_sample_query {
    int32_t exponent_count;  /* columns that log w takes, <= H */
    const double *exponent;  /* [exponent_count] mu */
    int32_t objective_count; /* K: columns of gradient and control, <= H */
    bool jackknife;          /* the gradient too */
    enum mpo_target target;  /* of the gradient: whole weighs responses by softmax(log w),
                                served takes their plain mean */
    const struct mpo_exponents *scores; /* s_k; NULL: log pi_k */
};

struct mpo_sample_figures {
    double value;           /* F_x, nat */
    double value_jackknife; /* F_x with the jackknife; equal to value for m = 1, nat */
    double value_error;     /* standard error of F_x by the jackknife; NAN for m = 1, nat */
    double ess;             /* ESS_x, in (0, 1] */
    /* the caller's room, filled */
    double *log_weight; /* [m] log w, nat */
    double *share;      /* [m] part of each in the gradient: softmax(log w), served: 1/m */
    double *gradient;   /* [K] g_x without the control variate, nat; NULL: not wanted */
    double *log_policy; /* [K] the same of log pi_k, nat; NULL: not wanted */
    double *control;    /* [K] C_x, nat; 0 where the sample has none; NULL: not wanted */
    double *divergence; /* [K] KL(q || pi_k) of x, nat; needs control and entropy of the
                           sample; NULL: not wanted */
};

/** Responses first .. first + count - 1 of a step, which must be to one prompt; those to
 *  prompt slot p are p m .. p m + m - 1. Local. */
struct mpo_sample mpo_sample_of_step(const struct mpo_responses *responses, int32_t first,
                                     int32_t count);

/** Rows of a step whose ends are integrated out, of one prompt: R_j in the place of w_j, and
 *  means under the whole mixture in the place of log pi. Local. */
struct mpo_sample mpo_sample_of_integrals(const struct mpo_integrals *integrals,
                                          int32_t first, int32_t count);

/** log w_j, nat. Local. */
double mpo_sample_log_weight(const struct mpo_sample *sample, const double *exponent,
                             int32_t exponent_count, int32_t index);

/** s_k of response j: as the sample has it, else from log_policy, nat. Local. */
double mpo_sample_score(const struct mpo_sample *sample,
                        const struct mpo_sample_query *query, int32_t j, int32_t k);

/** The same of the sample's control, nat. Local. */
double mpo_sample_control(const struct mpo_sample *sample,
                          const struct mpo_sample_query *query, int32_t j, int32_t k);

/** All figures of one prompt. Local. Allocates nothing. Cost m (H + K). */
void mpo_sample_estimate(const struct mpo_sample *sample,
                         const struct mpo_sample_query *query,
                         struct mpo_sample_figures *out);

/**
 * KL(pi_l || pi_k) = l . g - F - g_k of every k, from means over prompts. Local.
 *
 * @param weights   [K] l, on the simplex
 * @param gradient  [K] g, nat
 * @param value     F, nat
 * @param out       [K] nat
 */
void mpo_sample_divergence(const double *weights, const double *gradient, double value,
                           int32_t objective_count, double *out);

/** Effective responses below which importance weights tell nothing. */
#define MPO_SAMPLE_EFFECTIVE_MIN 4.0

/** Whether anything is known from importance weights of which so many, of m, are effective
 *  (m ESS): at least 4, or three quarters of a few. Kish's figure cannot fall below 1, so
 *  nothing is from a single one. Local. */
bool mpo_sample_is_known(double effective, double count);

/** Whether drawn responses may certify F. For target served nothing leads draws to the short
 *  modes of whole responses: F of them can be wrong by tens of nat at an ESS of 1. Local. */
bool mpo_sample_may_certify(enum mpo_target target);

#define MPO_SAMPLE_REASON_BYTES 96

/** Why F, and what follows from importance weights, is unknown; "" where it is known. The one
 *  rule of fit, inspect and refit. Local.
 *
 *  @param effective  of the responses to a prompt (m ESS), on average
 *  @param count      m
 *  @param text       [MPO_SAMPLE_REASON_BYTES] out */
const char *mpo_sample_why_unknown(enum mpo_target target, double effective, double count,
                                   char *text);

/** Best of m: the response that a uniform number in [0, 1) picks, each with the probability
 *  of its share [count]. As m grows it is a draw from pi_l. Local. */
int32_t mpo_sample_pick(const double *share, int32_t count, double uniform);

#ifdef __cplusplus
}
#endif
