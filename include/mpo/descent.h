/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Stochastic mirror descent on the simplex.
 *
 *     fixed       eta = c / sqrt(T)     log l <- log l - eta g - logsumexp(...)
 *     decreasing  eta = c / sqrt(t)     the same
 *     adaptive    log l_{t+1} = log l_1 - eta_t sum_{s<=t} omega_s g_s - logsumexp(...)
 *                 eta_t = sqrt( log K / sum_{s<=t} r_s^2 )
 *                 r_s = omega_s (max_k g - min_k g) / 2
 *     output      sum_t omega_t l_t / sum_t omega_t over the l_t at which gradients were
 *                 taken; omega_t = 1 (uniform) or t (linear)
 *     averaged gap   ( sum omega l.g - min_k sum omega g_k ) / sum omega
 *                    >= F(average) - F* in expectation
 *                                                              (src/README.md, Descent)
 * With bounds low <= l <= high every l is projected by KL onto them, which keeps the map's
 * form, and the averaged gap takes its minimum over them:
 *     l = argmin_u KL(u || softmax(...)),   with min_u u . sum omega g in the averaged gap
 *
 * A mirror map is one file and one row of src/registry.def.
 *
 * Source: MPO, ICML 2025 (fixed); Nesterov, Math. Program. 120 (2009) 221-259 (dual
 * averaging); Orabona & Pal, ALT 2015 (scale-free step).
 */
#pragma once

#include <stdint.h>

#include "mpo/choices.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_descent;

struct mpo_descent_spec {
    const char *map; /* e.g. "entropy" */
    enum mpo_step_rule step_rule;
    double step_constant;         /* c, for fixed and decreasing */
    int64_t steps;                /* T */
    int32_t objective_count;      /* K */
    const double *initial;        /* [K] positive, sums to 1; NULL: uniform */
    const double *bounds;         /* [2, K] lower and upper; NULL: none */
    enum mpo_averaging averaging; /* omega */
};

/** The state for resuming bit for bit; arrays are [K] and borrowed. */
struct mpo_descent_state {
    int64_t step;               /* gradients taken */
    double range_squares;       /* sum of r_s^2 */
    double inner_sum;           /* sum of omega_t l_t . g_t */
    const double *dual;         /* log l (fixed, decreasing) or sum of omega g (adaptive) */
    const double *weights_sum;  /* sum of omega_t l_t */
    const double *gradient_sum; /* sum of omega_t g_t */
};

/** Mirror maps in this build, separated by spaces, e.g. "entropy". Local. */
const char *mpo_descent_maps_built(void);

/** Local. @return MPO_ERR_CONFIG for an unknown map or rule, bad initial weights, or bounds
 *  that no weights satisfy. Initial weights outside the bounds are a prior: the first
 *  weights are their projection. */
enum mpo_status mpo_descent_open(const struct mpo_descent_spec *spec,
                                 struct mpo_descent **out);
void mpo_descent_close(struct mpo_descent **descent);

/** l_t, the weights for the next gradient; [K], borrowed. Local. */
const double *mpo_descent_weights(const struct mpo_descent *descent);

/** Take a step with a gradient [K] at the current weights. Local. Allocates nothing.
 *  @return MPO_ERR_DATA when the gradient is not finite, or so large that weights are
 *  not, or would not sum to 1 */
enum mpo_status mpo_descent_step(struct mpo_descent *descent, const double *gradient);

/** eta of the last step; 0 before the first. Local. */
double mpo_descent_step_size(const struct mpo_descent *descent);

/** The output: the average of the weights at which gradients were taken; [K],
 *  borrowed. Local. */
const double *mpo_descent_average(const struct mpo_descent *descent);

/** Averaged gap, nat; NAN before the first step. Local. */
double mpo_descent_averaged_gap(const struct mpo_descent *descent);

/** omega of the t-th gradient, t = 1, 2, ..., and its sum up to it. Local. */
double mpo_descent_omega(enum mpo_averaging averaging, int64_t t);
double mpo_descent_omega_sum(enum mpo_averaging averaging, int64_t t);

/** Check that some weights satisfy the bounds [2, K]. Local.
 *  @return MPO_ERR_CONFIG if none do */
enum mpo_status mpo_descent_check_bounds(const double *bounds, int32_t count);

/** min u . g over the weights u within the bounds (NULL: the simplex), nat. Local. */
double mpo_descent_least(const double *gradient, const double *bounds, int32_t count);

/** Frank-Wolfe gap l . g - min u . g at weights l [K] with gradient g [K], nat; what F loses
 *  at most within the bounds (NULL: on the simplex). Local. */
double mpo_descent_gap(const double *weights, const double *gradient, const double *bounds,
                       int32_t count);

/** The state after the last step; its arrays are borrowed from the descent. Local. */
void mpo_descent_save(const struct mpo_descent *descent, struct mpo_descent_state *out);

/** Continue from a state that a descent of the same specification saved. Local.
 *  @return MPO_ERR_DATA when its weights are not finite or do not sum to 1 */
enum mpo_status mpo_descent_load(struct mpo_descent *descent,
                                 const struct mpo_descent_state *state);

#ifdef __cplusplus
}
#endif
