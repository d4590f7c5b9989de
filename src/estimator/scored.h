/**
 * What scored responses to one prompt say at any weights, with nothing learnt from them.
 *
 *     log w_j = sum_k l_k log pi_k(y_j|x) - log q_j(y_j|x)
 *     F_x     = logsumexp_j(log w_j) - log m
 *     g_x,k   = sum_j softmax(log w)_j log pi_k(y_j|x) - c C_x,k
 *
 * Each response may come from a proposal of its own, as those of a record do. The jackknife
 * over j takes the bias of order 1/m out of the logarithm and of the ratio.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Responses to one prompt; arrays borrowed. */
struct mpo_scored {
    int32_t count;              /* m */
    int32_t policy_count;       /* H: columns of log_policy and control */
    const double *log_proposal; /* [m] nat */
    const double *log_policy;   /* [m, H] nat */
    const double *control;      /* [m, H] nat; NULL: none */
};

/** At which weights, and how. */
struct mpo_scored_query {
    int32_t objective_count; /* K: the first K policies */
    const double *weights;   /* [K] */
    double coefficient;      /* c, independent of these responses */
    bool jackknife;          /* the gradient too */
    double *work;            /* [m] scratch */
};

struct mpo_scored_answer {
    double value;           /* F_x, nat */
    double value_jackknife; /* F_x with the jackknife; equal to value for m = 1, nat */
    double ess;             /* in (0, 1] */
    double *gradient;       /* [K] out, nat; the caller's */
};

/** Local. Allocates nothing. Cost m K. */
void mpo_scored_estimate(const struct mpo_scored *scored,
                         const struct mpo_scored_query *query,
                         struct mpo_scored_answer *out);

#ifdef __cplusplus
}
#endif
