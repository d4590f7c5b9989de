/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The estimator: F and its gradient from scored responses, by self-normalised importance
 * sampling with a control variate; and the adaptation of the proposal's end tilt.
 *
 *     log w_j = sum_h mu_h log pi_h(y_j|x) - log q(y_j|x)            (mpo/exponents.h)
 *     F_x     = logsumexp_j(log w_j) - log m
 *     g_x,k   = sum_j softmax(log w)_j s_k(y_j|x) - c C_x,k
 *     C_x,k   = (1/m) sum_j sum_t ( s_k(y_t|s_t) - E_q s_k )                 mean 0 under q
 *     ESS_x   = (sum_j w_j)^2 / (m sum_j w_j^2)
 *
 * for target whole; for target served g is of what is drawn,
 *     g_x,k   = (1/m) sum_j s_k(y_j|x) - c C_x,k                    F and ESS as diagnostics
 *
 *     dg_x,k / dl_h = A / (m - 1) sum_j (s_k(y_j|x) - mean_j) (C_j,h - mean_j)
 *
 * because A C_j,h is the derivative of log q(y_j|x); and for the tilt
 *     e_j     = sum_t ( [y_t ends] - q(end|s_t) )
 *     d       = mean_x sum_j ( softmax(log w)_j - 1/m ) e_j
 *     a <- a + d^2,   b <- b + d / (2 sqrt(a))      from a = 1; where a response has ended
 *                                                              (src/README.md, Estimator)
 * c comes from a regression over the responses of earlier steps only, which keeps g
 * unbiased by C; it is 1 before the fourth step.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/choices.h"
#include "mpo/exponents.h"
#include "mpo/rollout.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_estimator;

struct mpo_estimator_spec {
    int32_t objective_count; /* K: the first K policies */
    int32_t prompts_max;     /* prompts of a step at most */
    int32_t responses_max;   /* m at most */
    double end_bias;         /* b to hold, or NAN: adapt it, from 0 or a loaded one */
    double control;          /* c to hold, or NAN: by regression */
    bool has_scores;         /* responses have a score of their own, in no unit that C has:
                                c is 0 before the fourth step */
    enum mpo_target target;  /* of the gradient; served: with b = 0 as a rule */
    enum mpo_proposal proposal;
    const struct mpo_exponents *exponents; /* borrowed; NULL: mu is the weights */
};

/** The sums for resuming; plain doubles, which the record stores bit for bit, and a rule. */
struct mpo_estimator_state {
    double end_bias;          /* b for the next step */
    double tilt_squares;      /* a */
    bool tilt_is_old;         /* as in records of schema mpo-1.0: b moves in every step, and
                                 d = mean_x sum_j softmax(log w)_j e_j */
    double regression_steps;  /* steps seen */
    double regression_cross;  /* sum over responses of <influence, C_j>, centred over k */
    double regression_square; /* sum over responses of <C_j, C_j>, centred over k */
};

/** The estimate of one step. Arrays are owned by the estimator, valid until the next
 *  step. */
struct mpo_estimate {
    double value;             /* F at the weights, nat */
    double value_jackknife;   /* the same with the jackknife over j, nat */
    double value_error;       /* standard error of value, nat */
    double value_half;        /* F from the first half of the responses to each prompt, nat;
                                 NAN for m = 1 */
    double ess;               /* mean over prompts, in (0, 1] */
    double coefficient;       /* c as used */
    double end_bias;          /* b that the responses were drawn with */
    double truncated;         /* fraction of responses cut at max_tokens */
    double entropy;           /* mean entropy of q per token, nat */
    int64_t tokens;           /* response tokens of this step */
    const double *gradient;   /* [K] as used, nat */
    const double *control;    /* [K] mean over prompts of C_x,k, nat */
    const double *log_policy; /* [K] mean log pi_k(y|x), for whole weighted, nat */
    const double *divergence; /* [K] KL(q || pi_k), nat; NAN: q is the reference */
    const double *slope; /* [K, K] dg_k / dl_h, nat; NULL: unknown, because the target is
                                 whole, or m = 1 */
};

/** Local. */
enum mpo_status mpo_estimator_open(const struct mpo_estimator_spec *spec,
                                   struct mpo_estimator **out);
void mpo_estimator_close(struct mpo_estimator **estimator);

/** The end tilt for the next step's draws, nat. Known on rank zero; broadcast it. Local. */
double mpo_estimator_end_bias(const struct mpo_estimator *estimator);

/**
 * Estimate at weights l, then update regression and tilt with the step.
 *
 * Local. Allocates nothing.
 *
 * @param weights    [K] l, on the simplex
 * @param responses  drawn from the proposal whose log q they carry
 */
enum mpo_status mpo_estimator_step(struct mpo_estimator *estimator, const double *weights,
                                   const struct mpo_responses *responses,
                                   struct mpo_estimate *out);

/**
 * The end tilt with which a fit begins: the b at which KL(pi || q) over the end tokens is
 * least, with the ends integrated out,
 *
 *     sum_x 1/R_x sum_j [ sum_t W_t (1 - sum_{i<=t} q_b(end|s_i)) - w_L sum_{i<=L} q_b(end|s_i) ] = 0
 *
 * in the letters of src/README.md (Ends integrated out), R_x the sum over the rows of a
 * prompt. Monotone in b; found by bisection in [-100, 100]. Where b = 0 is a root to
 * rounding, as between identical policies, it is 0.
 *
 * Local. Allocates N (L + 1) doubles.
 *
 * @param masses  of rows drawn at the exponents of pi; those of a prompt are its responses
 * @param out     b, nat
 */
enum mpo_status mpo_estimator_end_bias_root(const struct mpo_end_masses *masses,
                                            double *out);

/** log Z of each prompt from the same rows, nat: the mean of R over the rows of a prompt, which
 *  is Z without bias. Local. @param out  [prompt_count] */
void mpo_estimator_log_z(const struct mpo_end_masses *masses, double *out);

/** Save the sums / restore them. Local. */
void mpo_estimator_save(const struct mpo_estimator *estimator,
                        struct mpo_estimator_state *out);
void mpo_estimator_load(struct mpo_estimator *estimator,
                        const struct mpo_estimator_state *state);

#ifdef __cplusplus
}
#endif
