/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounds per objective: the box-constrained simplex, low_k <= l_k <= high_k, sum l = 1.
 *
 * The point of it that is nearest to p in KL(. || p) is l_k = clip(p_k e^-t, low_k, high_k)
 * with the t that makes the sum 1: the mirror map's own step, so the descent keeps its form
 * and its bounds of theory. The sum falls with t, from sum high to sum low, and is smooth
 * between the 2 K values of t at which a weight meets a bound. The values next to the
 * solution are found by looking at those between the two nearest so far: a few log K in a
 * random order, all of them in the worst. Between them t has a closed form.
 *
 * A linear function is least on the box by filling the cheapest weights first.
 *
 * Source: Herbster & Warmuth, JMLR 1 (2001) 281-309 (projections by relative entropy);
 * Krichene, Krichene & Bayen, CDC 2015 (Bregman projections onto the simplex).
 */
#include "descent_impl.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/argument.h"
#include "base/simplex.h"

/* A sum farther from 1 than this comes from a point so far out that its logarithms have
 * few digits after the point. */
#define ROUNDING_MAX 1e-9

enum mpo_status mpo_descent_check_bounds(const double *bounds, int32_t count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(bounds);
    double low = 0.0;
    double high = 0.0;
    for (int32_t k = 0; k < count; k++) {
        MPO_CHECK(bounds[k] >= 0.0 && bounds[k] <= bounds[count + k] &&
                      bounds[count + k] > 0.0,
                  MPO_ERR_CONFIG,
                  "objective %d: expected 0 <= min <= max and max above 0, found min %g "
                  "and max %g",
                  k + 1, bounds[k], bounds[count + k]);
        low += bounds[k];
        high += bounds[count + k];
    }
    MPO_CHECK(low <= 1.0 + MPO_SUM_TOLERANCE, MPO_ERR_CONFIG,
              "the minima of the weights sum to %g, expected at most 1", low);
    MPO_CHECK(high >= 1.0 - MPO_SUM_TOLERANCE, MPO_ERR_CONFIG,
              "the maxima of the weights sum to %g, expected at least 1", high);
cleanup:
    return status;
}

/* The t at which weight k meets its lower (index k) or upper bound (index K + k); a weight with
 * no lower bound never meets it. */
static double meeting_point(const double *log_point, const double *bounds, int32_t count,
                            int32_t index)
{
    return log_point[index % count] - log(bounds[index]);
}

static double sum_at(const double *log_point, const double *bounds, int32_t count, double t)
{
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++)
        sum += fmin(fmax(exp(log_point[k] - t), bounds[k]), bounds[count + k]);
    return sum;
}

/* Solution of the projection: l_k = clip(p_k e^-t, low_k, high_k). */
struct shift {
    double t;
    bool is_endless; /* t stands for infinity: weights between their bounds go to low */
};

/* The meetings around the solution; none on a side: infinite. */
static void enclose_shift(const double *log_point, const double *bounds, int32_t count,
                          double *below, double *above)
{
    *below = -INFINITY;
    *above = INFINITY;
    for (int32_t i = 0; i < 2 * count; i++) {
        double t = meeting_point(log_point, bounds, count, i);
        if (t <= *below || t >= *above)
            continue;
        if (sum_at(log_point, bounds, count, t) >= 1.0)
            *below = fmax(*below, t);
        else
            *above = fmin(*above, t);
    }
}

/* The t of the solution: the two meetings around it, then the closed form between them. */
static struct shift solve_shift(const double *log_point, const double *bounds,
                                int32_t count)
{
    double below = 0.0;
    double above = 0.0;
    double fixed = 0.0;
    double top = -INFINITY;
    double free = 0.0;
    enclose_shift(log_point, bounds, count, &below, &above);
    /* A weight is free where its meetings lie outside; its upper one comes first. */
    for (int32_t k = 0; k < count; k++) {
        if (meeting_point(log_point, bounds, count, count + k) >= above)
            fixed += bounds[count + k];
        else if (meeting_point(log_point, bounds, count, k) <= below)
            fixed += bounds[k];
        else
            top = fmax(top, log_point[k]);
    }
    for (int32_t k = 0; k < count; k++)
        if (meeting_point(log_point, bounds, count, count + k) < above &&
            meeting_point(log_point, bounds, count, k) > below)
            free += exp(log_point[k] - top);
    if (!(free > 0.0))
        return (struct shift){.t = isfinite(below) ? below : above};
    /* The others leave nothing: the larger t, where free weights vanish. Without a meeting
     * there they have no lower bound, and t would be infinite; a finite one keeps their
     * logarithms finite. */
    if (!(fixed < 1.0))
        return (struct shift){.t = isfinite(above) ? above : below,
                              .is_endless = !isfinite(above)};
    double t = top + log(free) - log(1.0 - fixed);
    return (struct shift){.t = fmin(fmax(t, below), above)};
}

/* Weights of a shifted point, within the bounds; returns their sum. */
static double clip_weights(const double *log_point, bool is_endless, const double *bounds,
                           int32_t count, double *weights)
{
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++) {
        weights[k] = fmin(exp(log_point[k]), bounds[count + k]);
        if (weights[k] <= bounds[k] || (is_endless && !(bounds[k] > 0.0)))
            weights[k] = bounds[k];
        sum += weights[k];
    }
    return sum;
}

enum mpo_status mpo_descent_project(const double *bounds, int32_t count, double *log_point,
                                    double *weights)
{
    enum mpo_status status = MPO_OK;
    double sum = 0.0;
    /* Logarithms of 1e12 have 4 digits after the point, and so has t. After the shift those
     * that decide are near 0, and a second shift has all its digits. */
    for (int32_t round = 0; round < 2 && !(fabs(sum - 1.0) <= ROUNDING_MAX); round++) {
        struct shift shift = solve_shift(log_point, bounds, count);
        for (int32_t k = 0; k < count; k++)
            log_point[k] -= shift.t;
        sum = clip_weights(log_point, shift.is_endless, bounds, count, weights);
    }
    for (int32_t k = 0; k < count; k++) {
        bool is_low = weights[k] <= bounds[k];
        if (is_low ? bounds[k] > 0.0 : weights[k] >= bounds[count + k])
            log_point[k] = log(weights[k]);
    }
    /* Bounds themselves may sum to 1 up to the tolerance only. */
    MPO_CHECK(fabs(sum - 1.0) <= 2.0 * MPO_SUM_TOLERANCE, MPO_ERR_DATA,
              "the projection on the bounds of %d weights gave the sum %.9g, expected 1: "
              "gradients times the step size are too large for a double",
              count, sum);
cleanup:
    return status;
}

double mpo_descent_least(const double *gradient, const double *bounds, int32_t count)
{
    double least = gradient[0];
    if (bounds == NULL) {
        for (int32_t k = 1; k < count; k++)
            least = gradient[k] < least ? gradient[k] : least;
        return least;
    }
    double left = 1.0;
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++) {
        left -= bounds[k];
        sum += bounds[k] * gradient[k];
    }
    /* The next cheapest, by (gradient, index), after the last one filled. */
    int32_t last = -1;
    for (int32_t filled = 0; filled < count && left > 0.0; filled++) {
        int32_t next = -1;
        for (int32_t k = 0; k < count; k++) {
            bool is_done = last >= 0 && (gradient[k] < gradient[last] ||
                                         (gradient[k] <= gradient[last] && k <= last));
            if (!is_done && (next < 0 || gradient[k] < gradient[next]))
                next = k;
        }
        double room = fmin(left, bounds[count + next] - bounds[next]);
        sum += room * gradient[next];
        left -= room;
        last = next;
    }
    return sum;
}

double mpo_descent_gap(const double *weights, const double *gradient, const double *bounds,
                       int32_t count)
{
    double inner = 0.0;
    for (int32_t k = 0; k < count; k++)
        inner += weights[k] * gradient[k];
    return inner - mpo_descent_least(gradient, bounds, count);
}
