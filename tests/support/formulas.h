/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The estimator's figures of one prompt by their formulas, written out a second time.
 *
 *     log w_j = sum_k l_k log pi_k(y_j|x) - log q(y_j|x)          (src/README.md, Estimator)
 */
#pragma once

#include "mpo/rollout.h"

enum { FORMULAS_OBJECTIVE_MAX = 4, FORMULAS_RESPONSE_MAX = 8 };

struct formulas {
    double value;           /* F_x */
    double jackknife;       /* the same with the jackknife over j */
    double jackknife_error; /* its standard error */
    double ess;
    double direction;                     /* sum_j softmax(log w)_j e_j of the end tilt */
    double surprise;                      /* mean of e_j */
    double weight[FORMULAS_RESPONSE_MAX]; /* softmax(log w)_j */
    double log_policy[FORMULAS_OBJECTIVE_MAX]; /* sum_j softmax(log w)_j log pi_k(y_j|x) */
    double control[FORMULAS_OBJECTIVE_MAX];    /* C_x,k */
};

/** Evaluate prompt slot `slot` at weights [objective_count]; the log w must be moderate. */
void formulas_evaluate(const struct mpo_responses *responses, int32_t slot,
                       const double *weights, int32_t objective_count,
                       struct formulas *out);
