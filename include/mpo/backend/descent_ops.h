/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a mirror map provides: a strictly convex psi on the simplex, through its gradient
 * and the way back. A new map is one file with such a table, and one row of
 * src/registry.def. The readable example is src/descent/entropy.c.
 *
 * With the dual point z = grad psi(l), a step is z <- z - eta g and l is what belongs to z;
 * step rules, averages and the gap are the same for all maps (src/descent/descent.c).
 *
 * All functions are local, allocate nothing and, but for project, cannot fail: count is K >= 1, gradients are
 * finite, weights that come in are positive and sum to 1. Arrays do not overlap unless a
 * function says that it works in place.
 *
 * Source: Beck & Teboulle, Oper. Res. Lett. 31 (2003) 167-175.
 */
#pragma once

#include "mpo/descent.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_descent_map {
    const char *name;

    /** z of weights on the simplex.
     *  @param weights  [K] dimensionless
     *  @param dual     [K] out, in the units of eta g */
    void (*to_dual)(const double *weights, int32_t count, double *dual);

    /** Remove the constant to which a dual point is free, so that it stays bounded over
     *  many steps; the weights that belong to it stay the same. @param dual  [K] in place */
    void (*centre)(double *dual, int32_t count);

    /** Weights of a dual point: on the simplex, up to rounding.
     *  @param weights  [K] out */
    void (*to_primal)(const double *dual, int32_t count, double *weights);

    /**
     * Weights within bounds: the point there with the least Bregman divergence to that of
     * the dual point. Maps of the entropy's kind use mpo_descent_project.
     *
     * @param bounds   [2, K] lower and upper, which some weights keep
     * @param dual     [K] in place: a dual point of these weights
     * @param weights  [K] out, within the bounds to the last bit
     * @return MPO_ERR_DATA when the weights do not sum to 1
     */
    enum mpo_status (*project)(const double *bounds, int32_t count, double *dual,
                               double *weights);

    /** R: upper bound of the Bregman divergence from uniform weights to any point of the
     *  simplex, for the adaptive step eta_t = sqrt(R / sum_s |g_s|^2). */
    double (*radius)(int32_t count);

    /** |g|: the norm that is dual to the one in which psi is strongly convex.
     *  @param gradient  [K] nat */
    double (*gradient_norm)(const double *gradient, int32_t count);
};

/**
 * The weights within bounds that are nearest to a point in KL(. || point). Local. Allocates
 * nothing.
 *
 * @param bounds     [2, K] lower and upper, which some weights keep
 * @param log_point  [K] logarithm of the point, up to a constant; in place: that of the
 *                   weights (one that underflows, or that its bounds force to 0, keeps a
 *                   finite logarithm)
 * @param weights    [K] out, within the bounds to the last bit
 * @return MPO_ERR_DATA when the weights do not sum to 1 within 2e-6
 */
enum mpo_status mpo_descent_project(const double *bounds, int32_t count, double *log_point,
                                    double *weights);

#ifdef __cplusplus
}
#endif
