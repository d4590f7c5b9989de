/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights that serve a goal.
 *
 * The smallest of several rewards has kinks, at which it falls along every axis and may yet
 * rise between them; so directions are drawn. A step multiplies the weights, is taken where
 * the goal rises, and gets shorter when no direction raises it. Draws are counted, so the
 * same input gives the same weights. K is small and a prediction costs R (H + K): a search
 * over all directions is a matter of a second.
 */
#include "reweigh.h"

#include <math.h>
#include <string.h>

#include "mpo/backend/descent_ops.h"

#define RADIUS_FIRST 0.5 /* of the logarithms of weights */
#define RADIUS_LAST  5e-4
#define DIRECTIONS   12 /* for each objective */
#define TRIALS_MAX   20000
#define SEED         1

/* Of a point that misses a floor or has no product: below all others, and rising to them. */
#define MISSED (-1e6)

bool reweigh_misses(const struct reweigh_point *point)
{
    return point->goal < 0.5 * MISSED;
}

bool reweigh_trusts(const struct reweigh *reweigh, const struct reweigh_point *point)
{
    return point->ess >= reweigh->floor_share &&
           point->effective >= MPO_SAMPLE_EFFECTIVE_MIN;
}

static double smallest_reward(const struct reweigh *reweigh,
                              const struct reweigh_point *point)
{
    double least = INFINITY;
    for (int32_t k = 0; k < reweigh->objective_count; k++)
        least = fmin(least, reweigh_normalise(reweigh, k, point->mean[k]));
    return least;
}

static double log_product(const struct reweigh *reweigh, const struct reweigh_point *point)
{
    double sum = 0.0;
    double least = smallest_reward(reweigh, point);
    if (!(least > 0.0))
        return MISSED + least;
    for (int32_t k = 0; k < reweigh->objective_count; k++)
        sum += log(reweigh_normalise(reweigh, k, point->mean[k]));
    return sum;
}

/* The mean of the objectives without a floor; where one alone has none, as it is. */
static double free_mean(const struct reweigh *reweigh, const struct reweigh_point *point)
{
    double missed = 0.0;
    double sum = 0.0;
    double raw = 0.0;
    int32_t free_count = 0;
    for (int32_t k = 0; k < reweigh->objective_count; k++) {
        if (!isnan(reweigh->floor[k])) {
            missed = fmax(missed, reweigh->floor[k] - point->mean[k]);
            continue;
        }
        sum += reweigh_normalise(reweigh, k, point->mean[k]);
        raw = point->mean[k];
        free_count++;
    }
    if (missed > 0.0)
        return MISSED - missed;
    return free_count == 1 ? raw : free_count > 0 ? sum / free_count : 0.0;
}

double reweigh_goal(const struct reweigh *reweigh, enum mpo_goal goal,
                    const struct reweigh_point *point)
{
    if (goal == MPO_GOAL_CONSTRAINT)
        return free_mean(reweigh, point);
    return goal == MPO_GOAL_NASH ? log_product(reweigh, point)
                                 : smallest_reward(reweigh, point);
}

/* Weights at a random distance, projected on the bounds: where those fix a weight, draws as
 * they are would all be outside. False where that has no result. */
static bool draw_near(const struct reweigh *reweigh, const double *from, double radius,
                      uint64_t trial, double *to)
{
    double sum = 0.0;
    double *log_point = reweigh->work; /* a prediction's, which comes after */
    for (int32_t k = 0; k < reweigh->objective_count; k++) {
        struct mpo_rng_counter counter = {.step = trial, .prompt = (uint64_t)k};
        double uniform = mpo_rng_uniform(SEED, MPO_RNG_BOOTSTRAP, counter);
        to[k] = fmax(from[k], 1e-6) * exp(radius * (2.0 * uniform - 1.0));
        sum += to[k];
    }
    for (int32_t k = 0; k < reweigh->objective_count; k++) {
        to[k] /= sum;
        log_point[k] = log(to[k]);
    }
    return reweigh->bounds == NULL ||
           mpo_descent_project(reweigh->bounds, reweigh->objective_count, log_point, to) ==
               MPO_OK;
}

static void copy_point(const struct reweigh *reweigh, const struct reweigh_point *trial,
                       struct reweigh_point *out)
{
    size_t bytes = (size_t)reweigh->objective_count * sizeof(double);
    memcpy(out->weights, trial->weights, bytes);
    memcpy(out->mean, trial->mean, bytes);
    memcpy(out->error, trial->error, bytes);
    out->ess = trial->ess;
    out->effective = trial->effective;
    out->goal = trial->goal;
}

void reweigh_search(struct reweigh *reweigh, enum mpo_goal goal,
                    struct reweigh_point *start, struct reweigh_point *trial)
{
    double radius = RADIUS_FIRST;
    uint64_t count = 0;
    while (radius > RADIUS_LAST && count < TRIALS_MAX) {
        bool has_risen = false;
        for (int32_t d = 0; d < DIRECTIONS * reweigh->objective_count; d++) {
            if (!draw_near(reweigh, start->weights, radius, count++, trial->weights))
                continue;
            reweigh_predict(reweigh, trial);
            trial->goal = reweigh_goal(reweigh, goal, trial);
            if (!reweigh_trusts(reweigh, trial) || !(trial->goal > start->goal))
                continue;
            copy_point(reweigh, trial, start);
            has_risen = true;
        }
        if (!has_risen)
            radius *= 0.5;
    }
}
