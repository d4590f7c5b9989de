/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The estimator's inside: the regression of the control variate and the end tilt's step.
 */
#pragma once

#include <stdbool.h>

#include "mpo/estimator.h"

/** Regression of the gradient on the control variate over earlier steps. */
struct mpo_control {
    double fixed; /* the coefficient to hold, NAN: by regression */
    double early; /* the coefficient before there is a regression */
    double steps;
    double cross;
    double square;
};

/** c for the next step. */
double mpo_control_coefficient(const struct mpo_control *control);

/**
 * Add one response: its influence on the gradient of its prompt, and its control, each
 * relative to the prompt's mean. Both are centred over k, because a constant does not
 * matter on the simplex.
 *
 * @param influence  [K] m softmax(log w)_j (log pi_k(y_j|x) - g_x,k), nat
 * @param value      [K] C_j,k - C_x,k, nat
 */
void mpo_control_observe(struct mpo_control *control, const double *influence,
                         const double *value, int32_t objective_count);

/** End a step: its observations count from now on. */
void mpo_control_end_step(struct mpo_control *control);

/** The end tilt b and its accumulator a. */
struct mpo_tilt {
    bool adapt;
    bool is_old; /* by the rule of schema mpo-1.0 */
    double end_bias;
    double squares;
};

/** What the responses of a step contribute to the end tilt; sums over j, means over
 *  prompts. */
struct mpo_tilt_pull {
    double weighted; /* sum_j softmax(log w)_j e_j,  e_j = sum_t [y_t ends] - q(end|s_t) */
    double plain;    /* (1/m) sum_j e_j, of mean zero under q */
    bool has_ended;  /* a response with weight has ended */
};

/** a <- a + d^2, b <- b + d / (2 sqrt(a)) with d = weighted - plain, where one has ended;
 *  by the old rule always, with d = weighted. */
void mpo_tilt_step(struct mpo_tilt *tilt, const struct mpo_tilt_pull *pull);
