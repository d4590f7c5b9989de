/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Ends integrated out: what a row that never ends implies for all responses that end inside
 * it.
 *
 * The tokens of such a row come from q without end tokens. At each position t and for each
 * end token e the row carries a *virtual response* y_1 .. y_{t-1} e, and at last the one that
 * is cut. With Z_stay and Z_end the masses of prod_h pi_h^mu_h on the other tokens and on the
 * end tokens,
 *
 *     w_t     = prod_{i<=t} Z_stay(s_i)                          whole mixture, not normalised
 *     W_t,e   = w_{t-1} prod_h pi_h(e|s_t)^mu_h,   W_cut = w_L,   R = sum_t sum_e W_t,e + w_L
 *     u_t     = prod_{i<t} (1 - q(end|s_i))                      probability to reach s_t
 *
 * E R = Z without bias, E sum W f / E R is the mean of f under the whole mixture, and
 * E sum_t u_t f(s_t) is the mean under the token mixture of a sum over positions. So a short
 * mode that is hardly ever drawn counts with its weight at every position. A tilt b of the end
 * tokens changes q(end|s) and so u and f; which tokens a row has, and W, it does not.
 *                                                  (src/README.md, Ends integrated out)
 */
#pragma once

#include <stdint.h>

#include "mpo/mixture.h"

/** The tilt that keeps a row from ending: probability e^-100 times Z_end / Z_stay. Both
 *  masses stay known to full relative precision. */
#define MPO_ENDS_BIAS (-100.0)

/** Sums over the virtual responses of one row; arrays [H] are the caller's. All begin as 0
 *  but log_total, which begins as -INFINITY, and survival, which begins as 1. */
struct mpo_ends {
    int32_t policy_count; /* H */
    double log_weight;    /* log w_t, nat */
    double log_total;     /* log R, nat */
    double survival;      /* u of the next position */
    double length;        /* E_q tokens, an end token included */
    double *drawn;        /* log pi_h of the row's own tokens, nat */
    double *whole;        /* sum W log pi_h / R, nat */
    double *served;       /* sum u_t E_q log pi_h, nat */
    double *divergence;   /* sum u_t KL(q || pi_h)(s_t), nat */
};

/** One position of the row, as its draw reported it; arrays are borrowed. */
struct mpo_ends_position {
    const double *mu;                          /* [H] */
    const struct mpo_mixture_moments *moments; /* under MPO_ENDS_BIAS */
    const double *expectation;                 /* [H] E log pi_h, likewise, nat */
    const double *log_policy;                  /* [H] of the token drawn, nat */
    const double *end_log_policy;              /* [end_count, H] of each end token, nat */
    int32_t end_count;
    double end_bias; /* b of what is served, nat */
};

/** Add the virtual responses that end here, then the token. Local. */
void mpo_ends_add(struct mpo_ends *ends, const struct mpo_ends_position *position);

/** Add the response that is cut after the last position. Local. */
void mpo_ends_cut(struct mpo_ends *ends);
