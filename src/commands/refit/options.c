/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refit's command line, applied to a record.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"
#include "refit_impl.h"

enum mpo_status refit_read(int argc, char *const *argv, struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_command_read_record("refit", argc, argv, &refit->path, &refit->config));
    refit->options = &refit->config->refit;
    MPO_CHECK(*refit->options->plot == '\0' || refit->options->frontier > 0, MPO_ERR_USAGE,
              "--plot: needs --frontier=N, which it draws");
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

/* "a=0.1,b=0.2" into the places of bounds. */
static enum mpo_status read_bounds(struct refit *refit, const char *flag, const char *text,
                                   double *bounds)
{
    enum mpo_status status = MPO_OK;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        size_t name = strcspn(text, "=,");
        char *end = NULL;
        int32_t k = 0;
        while (k < refit->count && (strlen(refit_name(refit, k)) != name ||
                                    strncmp(refit_name(refit, k), text, name) != 0))
            k++;
        MPO_CHECK(name < length && k < refit->count, MPO_ERR_USAGE,
                  "--%s: expected NAME=NUMBER of an objective that is used, found '%.*s'",
                  flag, (int)length, text);
        bounds[k] = strtod(text + name + 1, &end);
        MPO_CHECK(end == text + length && end > text + name + 1 && isfinite(bounds[k]),
                  MPO_ERR_USAGE, "--%s: expected NAME=NUMBER, found '%.*s'", flag,
                  (int)length, text);
        text += length + (text[length] == ',');
    }
cleanup:
    return status;
}

/* F at stored responses is that of weights as exponents. */
static enum mpo_status check_exponents(const struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exponents exponents = {mpo_record_objective_count(refit->record),
                                      mpo_record_policy_count(refit->record), 1.0, NULL};
    double *scale = NULL;
    MPO_NEW(exponents.objective_count, &scale);
    MPO_TRY(mpo_record_read_exponents(refit->record, &exponents.strength, scale));
    exponents.scale = scale;
    MPO_CHECK(
        mpo_exponents_are_weights(&exponents), MPO_ERR_DATA,
        "%s: expected a strength and scales of 1, found the strength %g or a scale that "
        "is not 1, for which refit has no estimate; use mpo fit",
        refit->path, exponents.strength);
cleanup:
    free(scale);
    return status;
}

enum mpo_status refit_apply(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_refit *options = refit->options;
    const struct mpo_numbers *initial = &refit->config->descent.initial;
    MPO_TRY(check_exponents(refit));
    MPO_TRY(choose_objectives(refit));
    MPO_CHECK(initial->count == 0 || initial->count == refit->count, MPO_ERR_USAGE,
              "--descent.initial: expected %d numbers, one per objective, found %d",
              refit->count, initial->count);
    if (*options->min == '\0' && *options->max == '\0')
        goto cleanup;
    MPO_NEW(2 * refit->count, &refit->bounds);
    for (int32_t k = 0; k < refit->count; k++)
        refit->bounds[refit->count + k] = 1.0;
    MPO_TRY(read_bounds(refit, "min", options->min, refit->bounds));
    MPO_TRY(read_bounds(refit, "max", options->max, refit->bounds + refit->count));
cleanup:
    return status;
}
