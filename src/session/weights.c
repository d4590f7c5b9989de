/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights, given or fitted before, and the exponents that they become.
 *
 * Only rank zero reads a record, because other ranks may not see its file system.
 */
#include "weights.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "differences.h"
#include "models.h"

#include "base/simplex.h"
#include "mpo/report.h"

/* Exponents and what makes them, in one piece of memory that begins with mu. */
struct recipe {
    struct mpo_exponents exponents;
    double *mu;       /* [H] */
    double *weights;  /* [K] */
    double *scale;    /* [K] of the exponents */
    double *strength; /* [1] the same as that of the exponents, to be sent */
    double *mixture;  /* [1] enum mpo_mixing */
};

/* ---- a record ---- */

static enum mpo_status check_objectives(const struct mpo_config *config,
                                        const struct mpo_record *record, const char *path)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(mpo_record_step_count(record) > 0, MPO_ERR_DATA,
              "%s: expected a step, found none yet", path);
    MPO_CHECK(mpo_record_objective_count(record) == config->objective_count, MPO_ERR_DATA,
              "%s: expected %d objectives as in the configuration, found %d", path,
              config->objective_count, mpo_record_objective_count(record));
    for (int32_t k = 0; k < config->objective_count; k++)
        MPO_CHECK(strcmp(mpo_record_objective(record, k), config->policies[k].name) == 0,
                  MPO_ERR_DATA,
                  "%s: expected '%s' as objective %d as in the configuration, found '%s'",
                  path, config->policies[k].name, k + 1, mpo_record_objective(record, k));
cleanup:
    return status;
}

/* The row of a step by its number, which need not begin at 0. */
static enum mpo_status find_step(struct mpo_record *record, const char *path,
                                 int64_t wanted, int64_t *row)
{
    enum mpo_status status = MPO_OK;
    double *step = NULL;
    int64_t count = mpo_record_step_count(record);
    *row = count - 1;
    if (wanted == MPO_AUTO_INTEGER)
        return MPO_OK;
    MPO_NEW(count, &step);
    MPO_TRY(mpo_record_read(record, "step", 0, count, step));
    while (*row >= 0 && (int64_t)step[*row] != wanted)
        (*row)--;
    MPO_CHECK(*row >= 0, MPO_ERR_USAGE, "%s: expected a step from %lld to %lld, found %lld",
              path, (long long)step[0], (long long)step[count - 1], (long long)wanted);
cleanup:
    free(step);
    return status;
}

/* Reject the weights of a damaged record. */
static enum mpo_status check_simplex(const char *path, const double *weights, int32_t count)
{
    enum mpo_status status = MPO_OK;
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++) {
        MPO_CHECK(isfinite(weights[k]) && weights[k] >= 0.0, MPO_ERR_DATA,
                  "%s: expected weights of at least 0, found %g as number %d", path,
                  weights[k], k + 1);
        sum += weights[k];
    }
    MPO_CHECK(mpo_sums_to_one(sum), MPO_ERR_DATA,
              "%s: expected weights that sum to 1, found a sum of %g", path, sum);
cleanup:
    return status;
}

/* The weights of a record become exponents by its own strength and scales, whatever the
 * configuration says. */
static void warn_of_recipe(const struct mpo_config *config,
                           const struct mpo_weights_choice *choice,
                           const struct mpo_exponents *recorded)
{
    bool has_strength =
        isnan(choice->strength) && mpo_config_is_written(config, "rollout.strength");
    bool has_scales = mpo_config_is_written(config, "policies.scale");
    if (has_strength && config->rollout.strength != recorded->strength)
        mpo_report(MPO_REPORT_WARNING,
                   "rollout.strength is %g, but %s was fitted with %g, which is used; give "
                   "--strength=%g for the other",
                   config->rollout.strength, choice->text, recorded->strength,
                   config->rollout.strength);
    for (int32_t k = 0; has_scales && k < config->objective_count; k++)
        if (config->policies[k].scale != recorded->scale[k])
            mpo_report(MPO_REPORT_WARNING,
                       "policies.%s.scale is %g, but %s was fitted with %g, which is used; "
                       "fit again with the other, or give the weights as numbers",
                       config->policies[k].name, config->policies[k].scale, choice->text,
                       recorded->scale[k]);
}

/* Weights balance what they were found for: the other mixture is another distribution. One of
 * logits needs nothing that one of adapters has not. */
static enum mpo_status check_mixture(const struct mpo_config *config,
                                     const struct mpo_weights_choice *choice,
                                     enum mpo_mixing fitted)
{
    enum mpo_status status = MPO_OK;
    bool has_both = choice->any_mixture && config->rollout.mixture == MPO_MIXING_ADAPTERS;
    MPO_CHECK(fitted == config->rollout.mixture || has_both, MPO_ERR_DATA,
              "%s: fitted with rollout.mixture: %s, but the configuration has %s; give "
              "--rollout.mixture=%s, or the weights as numbers",
              choice->text, mpo_mixing_name(fitted),
              mpo_mixing_name(config->rollout.mixture), mpo_mixing_name(fitted));
cleanup:
    return status;
}

static enum mpo_status read_record(const struct mpo_config *config,
                                   const struct mpo_weights_choice *choice,
                                   struct recipe *recipe, struct mpo_models *models)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    const char *path = choice->text;
    const char *series = choice->iterate == MPO_ITERATE_LAST ? "weights" : "average";
    enum mpo_mixing mixture = config->rollout.mixture;
    int64_t row = 0;
    MPO_TRY(mpo_record_open(path, &record));
    MPO_TRY(check_objectives(config, record, path));
    MPO_TRY(find_step(record, path, choice->step, &row));
    MPO_TRY(mpo_record_read(record, series, row, 1, recipe->weights));
    MPO_TRY(check_simplex(path, recipe->weights, config->objective_count));
    MPO_TRY(mpo_record_read_exponents(record, &recipe->exponents.strength, recipe->scale));
    warn_of_recipe(config, choice, &recipe->exponents);
    MPO_TRY(mpo_models_read(config, record, models));
    MPO_TRY(mpo_differences_warn(config, record, path, &mixture));
    MPO_TRY(check_mixture(config, choice, mixture));
    *recipe->mixture = mixture;
cleanup:
    mpo_record_close(&record);
    return status;
}

enum mpo_status mpo_weights_check_models(const struct mpo_session *session,
                                         const char *path)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    struct mpo_models models = {.path = path,
                                .remedy = "restore that one, or start a new record"};
    if (mpo_comm_rank(session->comm) == 0)
        status = mpo_record_open(path, &record);
    if (status == MPO_OK && record != NULL)
        status = mpo_models_read(session->config, record, &models);
    mpo_record_close(&record);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_models_compare(session, &models));
cleanup:
    free(models.rank);
    return status;
}

/* ---- numbers and names ---- */

static enum mpo_status parse_weights(const struct mpo_config *config,
                                     const struct mpo_weights_choice *choice,
                                     double *weights)
{
    enum mpo_status status = MPO_OK;
    const char *text = choice->text;
    double sum = 0.0;
    int32_t count = 0;
    MPO_TRY(mpo_config_parse_numbers(text, weights, config->objective_count, &count));
    MPO_CHECK(count == config->objective_count, MPO_ERR_USAGE,
              "%s: expected %d numbers, one per objective, found %d", choice->flag,
              config->objective_count, count);
    for (int32_t k = 0; k < count; k++) {
        MPO_CHECK(fabs(weights[k]) <= MPO_EXPONENT_MAX, MPO_ERR_USAGE,
                  "%s: expected numbers from %g to %g, found %g as number %d", choice->flag,
                  -MPO_EXPONENT_MAX, MPO_EXPONENT_MAX, weights[k], k + 1);
        MPO_CHECK(choice->allow_any || weights[k] >= 0.0, MPO_ERR_USAGE,
                  "%s: expected numbers of at least 0, found %g as number %d; "
                  "--allow-any-weights accepts it",
                  choice->flag, weights[k], k + 1);
        sum += weights[k];
    }
    if (choice->allow_any)
        goto cleanup;
    MPO_CHECK(mpo_sums_to_one(sum), MPO_ERR_USAGE,
              "%s: expected a sum of 1, found %.9g; --allow-any-weights accepts it",
              choice->flag, sum);
    for (int32_t k = 0; k < count; k++)
        weights[k] /= sum;
cleanup:
    return status;
}

static int32_t policy_of_name(const struct mpo_config *config, const char *name)
{
    for (int32_t h = 0; h < config->policy_count; h++)
        if (strcmp(name, config->policies[h].name) == 0)
            return h;
    return -1;
}

static bool looks_like_numbers(const char *text)
{
    return text[strspn(text, "0123456789.,+-eE ")] == '\0';
}

bool mpo_weights_are_of_a_record(const struct mpo_config *config, const char *text)
{
    return policy_of_name(config, text) < 0 && strcmp(text, "uniform") != 0 &&
           !looks_like_numbers(text);
}

/* A word that is no policy is taken for a file, so both are named where there is none. */
static enum mpo_status check_file(const struct mpo_config *config,
                                  const struct mpo_weights_choice *choice)
{
    const char *text = choice->text;
    enum mpo_status status = MPO_OK;
    char names[512] = "";
    size_t length = 0;
    if (access(text, F_OK) == 0 || errno != ENOENT)
        return MPO_OK;
    for (int32_t h = 0; h < config->policy_count && length < sizeof names; h++)
        length += (size_t)snprintf(names + length, sizeof names - length, "%s%s",
                                   h > 0 ? ", " : "", config->policies[h].name);
    MPO_FAIL(MPO_ERR_INPUT,
             "%s %s: there is no such record, and no policy of this name; expected a "
             "record, numbers, uniform, or one of the policies %s",
             choice->flag, text, names);
cleanup:
    return status;
}

/* Flags that make exponents of weights, where there are none. */
static void warn_of_exponents(const struct mpo_config *config, const char *text)
{
    const char *const keys[] = {"rollout.strength", "policies.scale"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys && mpo_comm_job_rank() == 0; i++)
        if (mpo_config_is_flagged(config, keys[i]))
            mpo_report(MPO_REPORT_WARNING,
                       "%s has no effect here: --weights=%s are exponents as they are",
                       keys[i], text);
}

enum mpo_status mpo_weights_check_choices(const struct mpo_config *config,
                                          const struct mpo_weights_choice *choice,
                                          int32_t count)
{
    enum mpo_status status = MPO_OK;
    const char *text = choice->text;
    bool has_record = false;
    bool has_numbers = false;
    bool has_weights = false; /* on the simplex, which a strength makes exponents of */
    for (int32_t i = 0; i < count; i++) {
        bool is_policy = policy_of_name(config, choice[i].text) >= 0;
        bool is_numbers = !is_policy && looks_like_numbers(choice[i].text);
        has_record |= mpo_weights_are_of_a_record(config, choice[i].text);
        has_numbers |= is_numbers;
        has_weights |= !is_policy && !(is_numbers && choice->allow_any);
    }
    MPO_CHECK(has_record || choice->step == MPO_AUTO_INTEGER, MPO_ERR_USAGE,
              "--step=%lld: expected --weights=RECORD, which has steps, found --weights=%s",
              (long long)choice->step, text);
    MPO_CHECK(has_record || choice->iterate == MPO_ITERATE_AVERAGE, MPO_ERR_USAGE,
              "--iterate=last: expected --weights=RECORD, which has iterates, found "
              "--weights=%s",
              text);
    MPO_CHECK(has_numbers || !choice->allow_any, MPO_ERR_USAGE,
              "--allow-any-weights: expected weights as numbers, found --weights=%s; leave "
              "it out",
              text);
    MPO_CHECK(has_weights || isnan(choice->strength), MPO_ERR_USAGE,
              "--strength=%g: expected weights that it makes exponents of, found "
              "--weights=%s, which %s; leave it out, or give weights with sum 1",
              choice->strength, text,
              choice->allow_any ? "--allow-any-weights takes as exponents as they are"
                                : "is that policy itself");
    if (!has_weights)
        warn_of_exponents(config, text);
cleanup:
    return status;
}

static size_t recipe_length(const struct mpo_config *config)
{
    return (size_t)config->policy_count + 2 * (size_t)config->objective_count + 2;
}

/* As configured, unless a record says otherwise. */
static enum mpo_status open_recipe(const struct mpo_config *config, struct recipe *recipe)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(recipe_length(config), &recipe->mu);
    recipe->weights = recipe->mu + config->policy_count;
    recipe->scale = recipe->weights + config->objective_count;
    recipe->strength = recipe->scale + config->objective_count;
    recipe->mixture = recipe->strength + 1;
    *recipe->mixture = config->rollout.mixture;
    for (int32_t k = 0; k < config->objective_count; k++)
        recipe->scale[k] = config->policies[k].scale;
    recipe->exponents =
        (struct mpo_exponents){config->objective_count, config->policy_count,
                               config->rollout.strength, recipe->scale};
cleanup:
    return status;
}

static enum mpo_status check_recipe(const struct mpo_config *config,
                                    const struct mpo_weights_choice *choice,
                                    const struct recipe *recipe)
{
    enum mpo_status status = MPO_OK;
    if (mpo_exponents_are_weights(&recipe->exponents))
        return MPO_OK;
    MPO_CHECK(config->objective_count < config->policy_count, MPO_ERR_CONFIG,
              "%s %s: a strength or scale that is not 1 needs one policy with role "
              "reference, found none; add the model that the policies were trained from",
              choice->flag, choice->text);
cleanup:
    return status;
}

/* Exponents as given: of one policy, or any numbers. */
static enum mpo_status copy_exponents(const struct mpo_config *config,
                                      const struct mpo_weights_choice *choice,
                                      int32_t policy, struct recipe *recipe)
{
    enum mpo_status status = MPO_OK;
    recipe->exponents.strength = 1.0;
    if (policy >= 0)
        recipe->mu[policy] = 1.0;
    else
        MPO_TRY(parse_weights(config, choice, recipe->mu));
    memcpy(recipe->weights, recipe->mu,
           (size_t)config->objective_count * sizeof *recipe->mu);
cleanup:
    return status;
}

/* Weights on the simplex become exponents; others are exponents already. */
static enum mpo_status find_exponents(const struct mpo_config *config,
                                      const struct mpo_weights_choice *choice,
                                      struct recipe *recipe, struct mpo_models *models)
{
    enum mpo_status status = MPO_OK;
    int32_t policy = policy_of_name(config, choice->text);
    bool is_numbers = looks_like_numbers(choice->text);
    if (policy >= 0 || (is_numbers && choice->allow_any)) {
        MPO_TRY(copy_exponents(config, choice, policy, recipe));
        goto cleanup;
    }
    if (strcmp(choice->text, "uniform") == 0)
        for (int32_t k = 0; k < config->objective_count; k++)
            recipe->weights[k] = 1.0 / config->objective_count;
    else if (is_numbers)
        MPO_TRY(parse_weights(config, choice, recipe->weights));
    else {
        MPO_TRY(check_file(config, choice));
        MPO_TRY(read_record(config, choice, recipe, models));
    }
    if (!isnan(choice->strength))
        recipe->exponents.strength = choice->strength;
    MPO_TRY(check_recipe(config, choice, recipe));
    mpo_exponents_of(&recipe->exponents, recipe->weights, recipe->mu);
cleanup:
    *recipe->strength = recipe->exponents.strength;
    return status;
}

/* What a record or a number is refused for says which option named it. */
static enum mpo_status name_option(const struct mpo_weights_choice *choice,
                                   enum mpo_status status)
{
    if (status == MPO_OK || strncmp(mpo_error_text(), "--", 2) == 0)
        return status;
    return mpo_error_raise(status, __FILE__, __LINE__, "%s: %s%s", choice->flag,
                           mpo_error_text(),
                           status == MPO_ERR_INPUT
                               ? "; expected a record, numbers, uniform, or a policy's name"
                               : "");
}

enum mpo_status mpo_weights_open_recipe(const struct mpo_session *session,
                                        const struct mpo_weights_choice *choice,
                                        struct mpo_weights_recipe *made, double **out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = session->config;
    struct mpo_models models = {.path = choice->text,
                                .remedy = "fit again, or give the weights as numbers"};
    struct recipe recipe = {0};
    status = open_recipe(config, &recipe);
    if (status == MPO_OK && mpo_comm_rank(session->comm) == 0)
        status = name_option(choice, find_exponents(config, choice, &recipe, &models));
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_comm_broadcast(session->comm, recipe.mu,
                               recipe_length(config) * sizeof *recipe.mu, 0));
    if (mpo_weights_are_of_a_record(config, choice->text))
        MPO_TRY(mpo_models_compare(session, &models));
    *made = (struct mpo_weights_recipe){
        *recipe.strength, (enum mpo_mixing) * recipe.mixture, recipe.scale, recipe.weights};
    *out = recipe.mu;
    recipe.mu = NULL;
cleanup:
    free(models.rank);
    free(recipe.mu);
    return status;
}

enum mpo_status mpo_weights_open(const struct mpo_session *session,
                                 const struct mpo_weights_choice *choice, double **out)
{
    struct mpo_weights_recipe recipe = {0};
    return mpo_weights_open_recipe(session, choice, &recipe, out);
}

/* ---- the end tilt ---- */

/* Another strength than the record's makes another mixture, of which its tilt says nothing. */
static enum mpo_status is_of_other_strength(const struct mpo_config *config,
                                            const struct mpo_record *record,
                                            double strength, bool *is_other)
{
    enum mpo_status status = MPO_OK;
    double recorded = 1.0;
    double *scale = NULL;
    MPO_NEW(config->objective_count, &scale);
    MPO_TRY(mpo_record_read_exponents(record, &recorded, scale));
    *is_other = !isnan(strength) && strength != recorded;
cleanup:
    free(scale);
    return status;
}

/* Of a served fit it is what rollout.end_bias set, else 0. */
static enum mpo_status read_end_bias(const struct mpo_config *config,
                                     const struct mpo_weights_choice *choice, double *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    bool is_other = false;
    int64_t row = 0;
    const char *series = choice->step == MPO_AUTO_INTEGER ? "state/end_bias" : "end_bias";
    MPO_TRY(mpo_record_open(choice->text, &record));
    MPO_TRY(is_of_other_strength(config, record, choice->strength, &is_other));
    if (is_other)
        goto cleanup;
    MPO_TRY(find_step(record, choice->text, choice->step, &row));
    MPO_TRY(mpo_record_read(record, series, row, 1, out));
    MPO_CHECK(isfinite(*out), MPO_ERR_DATA,
              "%s: expected a finite %s, found %g in row %lld", choice->text, series, *out,
              (long long)row);
cleanup:
    mpo_record_close(&record);
    return status;
}

enum mpo_status mpo_weights_end_bias(const struct mpo_session *session,
                                     const struct mpo_weights_choice *choice, double given,
                                     double *out)
{
    enum mpo_status status = MPO_OK;
    *out = isnan(given) ? 0.0 : given;
    if (!isnan(given) || !mpo_weights_are_of_a_record(session->config, choice->text))
        return MPO_OK;
    if (mpo_comm_rank(session->comm) == 0)
        status = name_option(choice, read_end_bias(session->config, choice, out));
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_comm_broadcast(session->comm, out, sizeof *out, 0));
cleanup:
    return status;
}
