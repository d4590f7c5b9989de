/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The interface of a mirror map. A new map is one file and one row of src/registry.def.
 */
#pragma once

#include <stdbool.h>

#include "mpo/descent.h"

struct mpo_descent_map {
    const char *name;
    /** Dual point of weights on the simplex. */
    void (*to_dual)(const double *weights, int32_t count, double *dual);
    /** The same dual point without its free constant, so that it stays bounded. */
    void (*settle)(double *dual, int32_t count);
    /** Weights of a dual point. */
    void (*to_primal)(const double *dual, int32_t count, double *weights);
    /** The same within bounds [2, K], by the map's Bregman projection; the dual point
     *  becomes that of the weights. */
    void (*project)(const double *bounds, int32_t count, double *dual, double *weights);
    /** Bound of the Bregman divergence from the centre to any point of the simplex. */
    double (*radius)(int32_t count);
    /** The norm of a gradient that is dual to the norm in which the map is strongly convex.
     */
    double (*gradient_norm)(const double *gradient, int32_t count);
};

/**
 * The weights within the bounds [2, K] that are nearest to a point in KL(. || point).
 *
 * @param log_point  [K] logarithm of the point, up to a constant; in place: that of the
 *                   weights (a weight that underflows keeps its logarithm)
 * @param weights    [K] out, within the bounds to the last bit
 */
void mpo_descent_project(const double *bounds, int32_t count, double *log_point,
                         double *weights);

#define MPO_MIRROR_MAP(name) extern const struct mpo_descent_map mpo_descent_##name##_map;
#include "registry.def"

/** All maps, ended by NULL. (registry.c) */
extern const struct mpo_descent_map *const mpo_descent_maps[];
