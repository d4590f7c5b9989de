/**
 * The estimator's inside: the regression of the control variate and the end tilt's step.
 */
#pragma once

#include <stdbool.h>

#include "mpo/estimator.h"

/** Regression of the gradient on the control variate over earlier steps, centred over k
 *  because the simplex does not see a constant. */
struct mpo_control {
    int32_t objective_count;
    double fixed; /* the coefficient to hold, NAN: by regression */
    double steps;
    double count;
    double cross;
    double square;
    double *gradient_sum; /* [K] */
    double *control_sum;  /* [K] */
};

enum mpo_status mpo_control_open(int32_t objective_count, double fixed,
                                 struct mpo_control *control);
void mpo_control_close(struct mpo_control *control);

/** c for the next step. */
double mpo_control_coefficient(const struct mpo_control *control);

/** Take in one prompt's gradient before the control variate [K], and its control [K]. */
void mpo_control_observe(struct mpo_control *control, const double *gradient,
                         const double *value);

/** A step is over: what it observed counts from now on. */
void mpo_control_end_step(struct mpo_control *control);

/** The end tilt b and its accumulator a. */
struct mpo_tilt {
    bool adapt;
    double end_bias;
    double squares;
};

/** b <- b + d / (2 sqrt(a + d^2)) */
void mpo_tilt_step(struct mpo_tilt *tilt, double direction);
