/*
 * The coefficient of the control variate.
 *
 * With C of mean zero under the proposal, g - c C is unbiased for every c that does not
 * depend on the same responses, and its variance is least at c = cov(g, C) / var(C). The
 * covariances are pooled over k and over the prompts of all earlier steps.
 *
 * Source: Owen, Monte Carlo theory, methods and examples (2013), section 8.9.
 */
#include "estimator_impl.h"

#include <math.h>
#include <stdlib.h>

#include "mpo/memory.h"

/* With fewer steps the regression is noise; 1 is right where the weights are even. */
#define REGRESSION_STEPS_MIN 3.0

enum mpo_status mpo_control_open(int32_t objective_count, double fixed,
                                 struct mpo_control *control)
{
    enum mpo_status status = MPO_OK;
    *control = (struct mpo_control){.objective_count = objective_count, .fixed = fixed};
    MPO_NEW(objective_count, &control->gradient_sum);
    MPO_NEW(objective_count, &control->control_sum);
cleanup:
    return status;
}

void mpo_control_close(struct mpo_control *control)
{
    free(control->control_sum);
    free(control->gradient_sum);
    *control = (struct mpo_control){0};
}

double mpo_control_coefficient(const struct mpo_control *control)
{
    if (!isnan(control->fixed))
        return control->fixed;
    if (control->steps < REGRESSION_STEPS_MIN)
        return 1.0;
    double cross = control->cross;
    double square = control->square;
    for (int32_t k = 0; k < control->objective_count; k++) {
        cross -= control->gradient_sum[k] * control->control_sum[k] / control->count;
        square -= control->control_sum[k] * control->control_sum[k] / control->count;
    }
    return square > 0.0 ? cross / square : 1.0;
}

static double mean_of(const double *values, int32_t count)
{
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++)
        sum += values[k];
    return sum / count;
}

void mpo_control_observe(struct mpo_control *control, const double *gradient,
                         const double *value)
{
    double gradient_mean = mean_of(gradient, control->objective_count);
    double value_mean = mean_of(value, control->objective_count);
    for (int32_t k = 0; k < control->objective_count; k++) {
        double g = gradient[k] - gradient_mean;
        double c = value[k] - value_mean;
        control->gradient_sum[k] += g;
        control->control_sum[k] += c;
        control->cross += g * c;
        control->square += c * c;
    }
    control->count += 1.0;
}

void mpo_control_end_step(struct mpo_control *control)
{
    control->steps += 1.0;
}
