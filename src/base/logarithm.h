/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Sums of numbers that leave the range of doubles, by their logarithms.
 */
#pragma once

#include <math.h>

/** log(e^a + e^b). */
static inline double mpo_log_add(double a, double b)
{
    double top = fmax(a, b);
    if (top == -INFINITY)
        return top;
    return top + log1p(exp(fmin(a, b) - top));
}
