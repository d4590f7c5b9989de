/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stochastic mirror descent: step rules, the averages and the averaged gap.
 *
 * fixed and decreasing move the dual point by -eta g. adaptive is dual averaging: the point
 * is the start minus eta_t times the sum of all gradients, with an eta_t that the gradients
 * themselves set, so it has no constant and does not depend on the scale of F.
 */
#include "descent_impl.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/simplex.h"

struct mpo_descent {
    const struct mpo_descent_map *map;
    enum mpo_step_rule rule;
    enum mpo_averaging averaging;
    double step_constant;
    int64_t steps;
    int32_t count; /* K */
    int64_t step;  /* gradients taken */
    double step_size;
    double range_squares;
    double inner_sum;
    double *bounds;       /* [2, K] lower and upper, NULL: none */
    double *start;        /* [K] dual point of the initial weights */
    double *dual;         /* [K] dual point, or the sum of gradients (adaptive) */
    double *point;        /* [K] scratch: the dual point to go to */
    double *weights;      /* [K] */
    double *weights_sum;  /* [K] */
    double *gradient_sum; /* [K] */
    double *average;      /* [K] */
};

static enum mpo_status choose_rule(const struct mpo_descent_spec *spec,
                                   struct mpo_descent *descent)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; mpo_descent_maps[i] != NULL; i++)
        if (strcmp(mpo_descent_maps[i]->name, spec->map) == 0)
            descent->map = mpo_descent_maps[i];
    MPO_CHECK(descent->map != NULL, MPO_ERR_CONFIG,
              "descent.map is '%s', but this build has: %s", spec->map,
              mpo_descent_maps_built());
    MPO_CHECK(mpo_step_rule_name(spec->step_rule) != NULL, MPO_ERR_CONFIG,
              "descent.step_rule: expected %s, found number %d", mpo_step_rule_choices(),
              (int)spec->step_rule);
    MPO_CHECK(mpo_averaging_name(spec->averaging) != NULL, MPO_ERR_CONFIG,
              "descent.average: expected %s, found number %d", mpo_averaging_choices(),
              (int)spec->averaging);
    MPO_CHECK(spec->step_rule == MPO_STEP_RULE_ADAPTIVE ||
                  (isfinite(spec->step_constant) && spec->step_constant > 0.0),
              MPO_ERR_CONFIG, "descent.step_constant: expected one above 0, found %g",
              spec->step_constant);
    descent->rule = spec->step_rule;
    descent->averaging = spec->averaging;
cleanup:
    return status;
}

/* The weights that belong to the present dual state and step size. */
static enum mpo_status normalise_weights(struct mpo_descent *descent)
{
    enum mpo_status status = MPO_OK;
    bool is_adaptive = descent->rule == MPO_STEP_RULE_ADAPTIVE;
    for (int32_t k = 0; k < descent->count; k++)
        descent->point[k] = is_adaptive
                                ? descent->start[k] - descent->step_size * descent->dual[k]
                                : descent->dual[k];
    if (descent->bounds == NULL)
        descent->map->to_primal(descent->point, descent->count, descent->weights);
    else
        MPO_TRY(descent->map->project(descent->bounds, descent->count, descent->point,
                                      descent->weights));
    for (int32_t k = 0; k < descent->count; k++)
        MPO_CHECK(
            isfinite(descent->weights[k]), MPO_ERR_DATA,
            "step %lld: the weight of objective %d is %g, because gradients times the "
            "step size %g are too large for a double",
            (long long)descent->step, k + 1, descent->weights[k], descent->step_size);
cleanup:
    return status;
}

static enum mpo_status set_initial(struct mpo_descent *descent, const double *initial)
{
    enum mpo_status status = MPO_OK;
    double sum = 0.0;
    for (int32_t k = 0; k < descent->count; k++) {
        descent->weights[k] = initial != NULL ? initial[k] : 1.0 / descent->count;
        MPO_CHECK(descent->weights[k] > 0.0, MPO_ERR_CONFIG,
                  "descent.initial: weight %d is %g, expected one above 0", k + 1,
                  descent->weights[k]);
        sum += descent->weights[k];
    }
    MPO_CHECK(mpo_sums_to_one(sum), MPO_ERR_CONFIG,
              "descent.initial sums to %.9g, expected 1", sum);
    for (int32_t k = 0; k < descent->count; k++)
        descent->weights[k] /= sum;
    descent->map->to_dual(descent->weights, descent->count, descent->start);
    if (descent->rule != MPO_STEP_RULE_ADAPTIVE)
        memcpy(descent->dual, descent->start, (size_t)descent->count * sizeof(double));
    if (descent->bounds != NULL)
        MPO_TRY(normalise_weights(descent));
cleanup:
    return status;
}

enum mpo_status mpo_descent_open(const struct mpo_descent_spec *spec,
                                 struct mpo_descent **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    MPO_ARGUMENTS(spec->map);
    struct mpo_descent *descent = NULL;
    MPO_CHECK(
        spec->objective_count >= 1 && spec->steps >= 1, MPO_ERR_USAGE,
        "a descent: expected objective_count and steps of 1 or more, found %d and %lld",
        spec->objective_count, (long long)spec->steps);
    MPO_NEW(1, &descent);
    descent->count = spec->objective_count;
    descent->steps = spec->steps;
    descent->step_constant = spec->step_constant;
    MPO_TRY(choose_rule(spec, descent));
    MPO_NEW(spec->objective_count, &descent->start);
    MPO_NEW(spec->objective_count, &descent->dual);
    MPO_NEW(spec->objective_count, &descent->point);
    MPO_NEW(spec->objective_count, &descent->weights);
    MPO_NEW(spec->objective_count, &descent->weights_sum);
    MPO_NEW(spec->objective_count, &descent->gradient_sum);
    MPO_NEW(spec->objective_count, &descent->average);
    if (spec->bounds != NULL) {
        MPO_TRY(mpo_descent_check_bounds(spec->bounds, spec->objective_count));
        MPO_NEW(2 * spec->objective_count, &descent->bounds);
        memcpy(descent->bounds, spec->bounds, 2 * (size_t)descent->count * sizeof(double));
    }
    MPO_TRY(set_initial(descent, spec->initial));
    memcpy(descent->average, descent->weights, (size_t)descent->count * sizeof(double));
cleanup:
    if (status != MPO_OK)
        mpo_descent_close(&descent);
    *out = descent;
    return status;
}

void mpo_descent_close(struct mpo_descent **out)
{
    struct mpo_descent *descent = out != NULL ? *out : NULL;
    if (descent == NULL)
        return;
    free(descent->average);
    free(descent->gradient_sum);
    free(descent->weights_sum);
    free(descent->weights);
    free(descent->point);
    free(descent->dual);
    free(descent->start);
    free(descent->bounds);
    free(descent);
    *out = NULL;
}

const double *mpo_descent_weights(const struct mpo_descent *descent)
{
    return descent->weights;
}

double mpo_descent_omega(enum mpo_averaging averaging, int64_t t)
{
    return averaging == MPO_AVERAGING_LINEAR ? (double)t : 1.0;
}

double mpo_descent_omega_sum(enum mpo_averaging averaging, int64_t t)
{
    double taken = (double)t;
    return averaging == MPO_AVERAGING_LINEAR ? 0.5 * taken * (taken + 1.0) : taken;
}

/* eta of a rule after `descent->step` gradients, the present one included. */
static double choose_step_size(const struct mpo_descent *descent)
{
    if (descent->rule == MPO_STEP_RULE_FIXED)
        return descent->step_constant / sqrt((double)descent->steps);
    if (descent->rule == MPO_STEP_RULE_DECREASING)
        return descent->step_constant / sqrt((double)descent->step);
    double radius = descent->map->radius(descent->count);
    return descent->range_squares > 0.0 ? sqrt(radius / descent->range_squares) : 0.0;
}

static void average_weights(struct mpo_descent *descent)
{
    double omega_sum = mpo_descent_omega_sum(descent->averaging, descent->step);
    for (int32_t k = 0; k < descent->count; k++)
        descent->average[k] = descent->weights_sum[k] / omega_sum;
}

/* Add the gradient at the present weights to every running sum. */
static void add_to_sums(struct mpo_descent *descent, const double *gradient)
{
    descent->step++;
    double omega = mpo_descent_omega(descent->averaging, descent->step);
    double norm = omega * descent->map->gradient_norm(gradient, descent->count);
    descent->range_squares += norm * norm;
    for (int32_t k = 0; k < descent->count; k++) {
        descent->inner_sum += omega * descent->weights[k] * gradient[k];
        descent->weights_sum[k] += omega * descent->weights[k];
        descent->gradient_sum[k] += omega * gradient[k];
    }
    average_weights(descent);
}

static enum mpo_status move_weights(struct mpo_descent *descent, const double *gradient)
{
    enum mpo_status status = MPO_OK;
    bool is_adaptive = descent->rule == MPO_STEP_RULE_ADAPTIVE;
    descent->step_size = choose_step_size(descent);
    /* Mirror descent continues from the projected point. It is projected here, not when it
     * was computed, so that a dual state that was saved and loaded follows the same path. */
    if (descent->bounds != NULL && !is_adaptive)
        MPO_TRY(descent->map->project(descent->bounds, descent->count, descent->dual,
                                      descent->weights));
    double pace = is_adaptive ? mpo_descent_omega(descent->averaging, descent->step)
                              : -descent->step_size;
    for (int32_t k = 0; k < descent->count; k++)
        descent->dual[k] += pace * gradient[k];
    if (!is_adaptive)
        descent->map->centre(descent->dual, descent->count);
    MPO_TRY(normalise_weights(descent));
cleanup:
    return status;
}

enum mpo_status mpo_descent_step(struct mpo_descent *descent, const double *gradient)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(descent, gradient);
    for (int32_t k = 0; k < descent->count; k++)
        MPO_CHECK(isfinite(gradient[k]), MPO_ERR_DATA,
                  "step %lld: the gradient of objective %d is %g", (long long)descent->step,
                  k + 1, gradient[k]);
    add_to_sums(descent, gradient);
    MPO_TRY(move_weights(descent, gradient));
cleanup:
    return status;
}

double mpo_descent_step_size(const struct mpo_descent *descent)
{
    return descent->step_size;
}

const double *mpo_descent_average(const struct mpo_descent *descent)
{
    return descent->average;
}

double mpo_descent_averaged_gap(const struct mpo_descent *descent)
{
    if (descent->step == 0)
        return NAN;
    double least =
        mpo_descent_least(descent->gradient_sum, descent->bounds, descent->count);
    return (descent->inner_sum - least) /
           mpo_descent_omega_sum(descent->averaging, descent->step);
}

void mpo_descent_save(const struct mpo_descent *descent, struct mpo_descent_state *out)
{
    *out = (struct mpo_descent_state){
        .step = descent->step,
        .range_squares = descent->range_squares,
        .inner_sum = descent->inner_sum,
        .dual = descent->dual,
        .weights_sum = descent->weights_sum,
        .gradient_sum = descent->gradient_sum,
    };
}

enum mpo_status mpo_descent_load(struct mpo_descent *descent,
                                 const struct mpo_descent_state *state)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(descent, state);
    size_t bytes = (size_t)descent->count * sizeof(double);
    descent->step = state->step;
    descent->range_squares = state->range_squares;
    descent->inner_sum = state->inner_sum;
    memcpy(descent->dual, state->dual, bytes);
    memcpy(descent->weights_sum, state->weights_sum, bytes);
    memcpy(descent->gradient_sum, state->gradient_sum, bytes);
    if (state->step == 0)
        goto cleanup;
    descent->step_size = choose_step_size(descent);
    average_weights(descent);
    MPO_TRY(normalise_weights(descent));
cleanup:
    return status;
}
