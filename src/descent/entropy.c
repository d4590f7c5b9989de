/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entropy map: psi(l) = sum_k l_k log l_k. The dual point is log l up to a constant,
 * the way back is a softmax, and the step is multiplicative (exponentiated gradient).
 *
 * The dual norm of a gradient is half its range: on the simplex a constant
 * in k does nothing.
 *
 * Source: Beck & Teboulle, Oper. Res. Lett. 31 (2003) 167-175.
 */
#include "descent_impl.h"

#include <math.h>

static void entropy_to_dual(const double *weights, int32_t count, double *dual)
{
    for (int32_t k = 0; k < count; k++)
        dual[k] = log(weights[k]);
}

static double greatest_of(const double *values, int32_t count)
{
    double top = values[0];
    for (int32_t k = 1; k < count; k++)
        top = values[k] > top ? values[k] : top;
    return top;
}

/* log l stays a logarithm of weights even where the weight itself underflows. */
static void entropy_centre(double *dual, int32_t count)
{
    double top = greatest_of(dual, count);
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++)
        sum += exp(dual[k] - top);
    for (int32_t k = 0; k < count; k++)
        dual[k] -= top + log(sum);
}

static void entropy_to_primal(const double *dual, int32_t count, double *weights)
{
    double top = greatest_of(dual, count);
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++)
        sum += exp(dual[k] - top);
    for (int32_t k = 0; k < count; k++)
        weights[k] = exp(dual[k] - top) / sum;
}

static double entropy_radius(int32_t count)
{
    return log(count);
}

static double entropy_gradient_norm(const double *gradient, int32_t count)
{
    double low = gradient[0];
    double high = gradient[0];
    for (int32_t k = 1; k < count; k++) {
        low = gradient[k] < low ? gradient[k] : low;
        high = gradient[k] > high ? gradient[k] : high;
    }
    return 0.5 * (high - low);
}

const struct mpo_descent_map mpo_descent_entropy_map = {
    .name = "entropy",
    .to_dual = entropy_to_dual,
    .centre = entropy_centre,
    .to_primal = entropy_to_primal,
    .project = mpo_descent_project,
    .radius = entropy_radius,
    .gradient_norm = entropy_gradient_norm,
};
