/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coefficient of the control variate.
 *
 * Because C has mean zero under the proposal, g - c C is unbiased for every c that does not
 * depend on the same responses; its variance is least at c = cov(g, C) / var(C). g_x is a
 * ratio of means, so its covariance is that of its influence function
 *
 *     I_j,k = m softmax(log w)_j ( log pi_k(y_j|x) - g_x,k )
 *
 * over the responses to one prompt. There are many responses per step, so the regression
 * settles after a few steps; differences between prompts do not enter.
 *
 * Source: Owen, Monte Carlo theory, methods and examples (2013), sections 8.9 (control
 * variates by regression) and 9.2 (the delta method for self-normalised weights).
 */
#include "estimator_impl.h"

#include <math.h>

/* With fewer steps the regression is noise; 1 is right for log-probabilities where the
 * weights are even, and nothing is known about scores that a program measured. */
#define REGRESSION_STEPS_MIN 3.0

double mpo_control_coefficient(const struct mpo_control *control)
{
    if (!isnan(control->fixed))
        return control->fixed;
    if (control->steps < REGRESSION_STEPS_MIN || !(control->square > 0.0))
        return control->early;
    return control->cross / control->square;
}

static double mean_of(const double *values, int32_t count)
{
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++)
        sum += values[k];
    return sum / count;
}

void mpo_control_observe(struct mpo_control *control, const double *influence,
                         const double *value, int32_t objective_count)
{
    double influence_mean = mean_of(influence, objective_count);
    double value_mean = mean_of(value, objective_count);
    for (int32_t k = 0; k < objective_count; k++) {
        double c = value[k] - value_mean;
        control->cross += (influence[k] - influence_mean) * c;
        control->square += c * c;
    }
}

void mpo_control_end_step(struct mpo_control *control)
{
    control->steps += 1.0;
}
