/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refit's command line, applied to a record.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"
#include "refit_impl.h"

#define FLOOR "floor"

#define POINTS_MAX 1000000 /* of a frontier */

enum mpo_status refit_read(int argc, char *const *argv, struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_command_read_record("refit", argc, argv, &refit->path, &refit->config));
    refit->options = &refit->config->refit;
    MPO_CHECK(*refit->options->plot == '\0' || refit->options->frontier > 0, MPO_ERR_USAGE,
              "--plot: needs --frontier=N, which it draws");
    bool has_rewards = *refit->options->rewards != '\0';
    MPO_CHECK(
        !has_rewards || (*refit->options->objectives == '\0' &&
                         *refit->options->output == '\0' && refit->options->frontier == 0),
        MPO_ERR_USAGE,
        "--rewards: takes all objectives and has no frontier; leave out --objectives, "
        "--frontier and --output (--json prints the result)");
    MPO_CHECK(has_rewards || (*refit->options->floor == '\0' &&
                              refit->options->goal == MPO_GOAL_MAXMIN),
              MPO_ERR_USAGE, "--goal, --floor: expected --rewards with them, found none");
cleanup:
    return status;
}

/* ---- names of objectives ---- */

const char *refit_name(const struct refit *refit, int32_t k)
{
    return mpo_record_objective(refit->record, refit->objective[k]);
}

static enum mpo_status add_objective(struct refit *refit, const char *name, size_t length)
{
    enum mpo_status status = MPO_OK;
    int32_t found = -1;
    for (int32_t k = 0; k < mpo_record_objective_count(refit->record); k++) {
        const char *other = mpo_record_objective(refit->record, k);
        if (strlen(other) == length && strncmp(other, name, length) == 0)
            found = k;
    }
    MPO_CHECK(found >= 0, MPO_ERR_USAGE,
              "--objectives: expected objectives of %s, found '%.*s'", refit->path,
              (int)length, name);
    for (int32_t k = 0; k < refit->count; k++)
        MPO_CHECK(refit->objective[k] != found, MPO_ERR_USAGE,
                  "--objectives: expected each objective once, found '%.*s' twice",
                  (int)length, name);
    refit->objective[refit->count++] = found;
cleanup:
    return status;
}

static enum mpo_status choose_objectives(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const char *name = refit->options->objectives;
    int32_t all = mpo_record_objective_count(refit->record);
    MPO_NEW(all, &refit->objective);
    for (int32_t k = 0; *name == '\0' && k < all; k++)
        refit->objective[refit->count++] = k;
    while (*name != '\0') {
        size_t length = strcspn(name, ",");
        MPO_TRY(add_objective(refit, name, length));
        name += length + (name[length] == ',');
    }
cleanup:
    return status;
}

/* ---- bounds ---- */

/* The objective that is used and has this name; -1: none. */
static int32_t find_objective(const struct refit *refit, const char *name, size_t length)
{
    for (int32_t k = 0; k < refit->count; k++)
        if (strlen(refit_name(refit, k)) == length &&
            strncmp(refit_name(refit, k), name, length) == 0)
            return k;
    return -1;
}

/* A reward may be any number, a bound is a weight. */
static bool is_in_range(const char *flag, double number)
{
    bool is_reward = strcmp(flag, FLOOR) == 0;
    return isfinite(number) && (is_reward || (number >= 0.0 && number <= 1.0));
}

/* One "NAME=NUMBER" of a flag. */
static enum mpo_status read_bound(const struct refit *refit, const char *flag,
                                  const char *text, bool *is_given, double *bounds)
{
    enum mpo_status status = MPO_OK;
    size_t length = strcspn(text, ",");
    size_t name = strcspn(text, "=,");
    int32_t k = find_objective(refit, text, name);
    int32_t count = 0;
    char number[64] = "";
    MPO_CHECK(name < length && k >= 0, MPO_ERR_USAGE,
              "--%s: expected NAME=NUMBER of an objective that is used, found '%.*s'", flag,
              (int)length, text);
    MPO_CHECK(!is_given[k], MPO_ERR_USAGE,
              "--%s: expected each objective once, found '%.*s' twice", flag, (int)name,
              text);
    is_given[k] = true;
    snprintf(number, sizeof number, "%.*s", (int)(length - name - 1), text + name + 1);
    bool is_number = length - name - 1 < sizeof number &&
                     mpo_config_parse_numbers(number, &bounds[k], 1, &count) == MPO_OK;
    MPO_CHECK(is_number && is_in_range(flag, bounds[k]), MPO_ERR_USAGE,
              "--%s: expected NAME=NUMBER with a number%s, found '%.*s'", flag,
              strcmp(flag, FLOOR) == 0 ? "" : " from 0 to 1", (int)length, text);
cleanup:
    return status;
}

/* "a=0.1,b=0.2" into the places of bounds. */
static enum mpo_status read_bounds(const struct refit *refit, const char *flag,
                                   const char *text, double *bounds)
{
    enum mpo_status status = MPO_OK;
    bool *is_given = NULL; /* [K] */
    MPO_NEW(refit->count, &is_given);
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        MPO_TRY(read_bound(refit, flag, text, is_given, bounds));
        text += length + (text[length] == ',');
    }
cleanup:
    free(is_given);
    return status;
}

enum mpo_status refit_read_floors(const struct refit *refit, double *floors)
{
    for (int32_t k = 0; k < refit->count; k++)
        floors[k] = NAN;
    return read_bounds(refit, FLOOR, refit->options->floor, floors);
}

static enum mpo_status choose_bounds(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_refit *options = refit->options;
    int32_t count = refit->count;
    if (*options->min == '\0' && *options->max == '\0')
        return MPO_OK;
    MPO_NEW(2 * count, &refit->bounds);
    for (int32_t k = 0; k < count; k++)
        refit->bounds[count + k] = 1.0;
    MPO_TRY(read_bounds(refit, "min", options->min, refit->bounds));
    MPO_TRY(read_bounds(refit, "max", options->max, refit->bounds + count));
    for (int32_t k = 0; k < count; k++)
        MPO_CHECK(
            refit->bounds[k] <= refit->bounds[count + k] && refit->bounds[count + k] > 0.0,
            MPO_ERR_CONFIG,
            "--min, --max: expected min to be at most max, and max above 0, found min "
            "%g and max %g for '%s'",
            refit->bounds[k], refit->bounds[count + k], refit_name(refit, k));
    MPO_TRY(mpo_descent_check_bounds(refit->bounds, count));
cleanup:
    return status;
}

/* ---- the grid ---- */

/* Ways to deal N parts to K objectives: N + K - 1 over K - 1. */
static enum mpo_status check_grid(const struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    int64_t divisions = refit->options->frontier;
    int64_t points = 1;
    for (int32_t k = 1; k < refit->count && points <= POINTS_MAX; k++)
        points = points * (divisions + k) / k;
    MPO_CHECK(divisions == 0 || points <= POINTS_MAX, MPO_ERR_USAGE,
              "--frontier=%lld: expected a grid of at most %d points, found more with %d "
              "objectives; give fewer divisions, or fewer --objectives",
              (long long)divisions, POINTS_MAX, refit->count);
cleanup:
    return status;
}

/* Strength and scales of the record, for the objectives that are used; the reference joins
 * them where it has an exponent. */
static enum mpo_status choose_exponents(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    int32_t all = mpo_record_objective_count(refit->record);
    double *scale = NULL; /* [all] */
    double strength = 1.0;
    MPO_NEW(all, &scale);
    MPO_NEW(refit->count, &refit->scale);
    MPO_TRY(mpo_record_read_exponents(refit->record, &strength, scale));
    if (!isnan(refit->options->strength))
        strength = refit->options->strength;
    for (int32_t k = 0; k < refit->count; k++)
        refit->scale[k] = scale[refit->objective[k]];
    refit->exponents =
        (struct mpo_exponents){refit->count, refit->count, strength, refit->scale};
    if (mpo_exponents_are_weights(&refit->exponents))
        goto cleanup;
    MPO_CHECK(
        mpo_record_policy_count(refit->record) > all, MPO_ERR_DATA,
        "%s: a strength or scale that is not 1 needs one policy with role: reference, "
        "found none in the record (strength %g)",
        refit->path, strength);
    refit->exponents.policy_count++;
cleanup:
    free(scale);
    return status;
}

/* The average of the record, unless a flag says otherwise; one of schema mpo-1.0 names none
 * and is uniform. */
static void choose_average(const struct refit *refit)
{
    const char *average = mpo_record_attribute(refit->record, "average");
    if (mpo_config_is_written(refit->config, "descent.average"))
        return;
    refit->config->descent.average =
        strcmp(average, mpo_averaging_name(MPO_AVERAGING_LINEAR)) == 0
            ? MPO_AVERAGING_LINEAR
            : MPO_AVERAGING_UNIFORM;
}

enum mpo_status refit_apply(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_numbers *initial = &refit->config->descent.initial;
    choose_average(refit);
    MPO_TRY(choose_objectives(refit));
    MPO_TRY(choose_exponents(refit));
    MPO_CHECK(initial->count == 0 || initial->count == refit->count, MPO_ERR_USAGE,
              "--descent.initial: expected %d numbers, one per objective, found %d",
              refit->count, initial->count);
    MPO_TRY(choose_bounds(refit));
    MPO_TRY(check_grid(refit));
cleanup:
    return status;
}
