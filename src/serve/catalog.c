/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of models, from the configuration and the records that it names.
 *
 * Weights are opened by the calls that generate uses, on all ranks together, so that records
 * get the same checks; the text of serve.presets is the same on all ranks and is taken apart
 * by each. What a model needs is copied into one piece of memory of its own.
 *
 * With rollout.mixture: adapters models of the same text are one hosted policy, which gets its
 * scales here, before the first request.
 */
#include "models.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/simplex.h"
#include "session/blend.h"
#include "session/plan.h"
#include "session/weights.h"

#define NAME_BYTES_MAX 256
#define RECORD_MODELS  3 /* average, last, untilted */
#define PLAIN          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

/* A model that is to be made. */
struct wanted {
    char name[NAME_BYTES_MAX + 8];
    const char *text; /* as --weights takes it */
    const char *flag; /* that it came from; a literal */
    enum mpo_iterate iterate;
    bool is_untilted;
    int32_t blend; /* the policy that it is, of a blend */
};

struct making {
    const struct mpo_session *session;
    const struct mpo_config *config;
    struct mpo_serve_catalog *catalog;
    char *presets;         /* copy of the option, cut at its separators */
    struct wanted *wanted; /* [count] */
    int32_t count;
    int32_t capacity;
    int32_t blend_count; /* 0: logits are mixed */
};

/* ---- names ---- */

static enum mpo_status add_wanted(struct making *making, const struct wanted *wanted)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < making->count; i++)
        MPO_CHECK(strcmp(making->wanted[i].name, wanted->name) != 0, MPO_ERR_USAGE,
                  "%s: expected another name than '%s', which a model has already",
                  wanted->flag, wanted->name);
    MPO_CHECK(making->count < making->capacity, MPO_ERR_INTERNAL, "more than %d models",
              making->capacity);
    making->wanted[making->count++] = *wanted;
cleanup:
    return status;
}

/* serve.name stands in URLs and headers. */
static enum mpo_status want_second_name(struct making *making)
{
    enum mpo_status status = MPO_OK;
    const char *name = making->config->serve.name;
    struct wanted wanted = {.text = making->config->serve.weights, .flag = "--name"};
    if (name[0] == '\0')
        return MPO_OK;
    MPO_CHECK(
        strlen(name) <= NAME_BYTES_MAX && strspn(name, PLAIN "/:") == strlen(name),
        MPO_ERR_USAGE,
        "--name: expected at most %d letters, digits and characters of '_.-/:', found "
        "'%.80s'",
        NAME_BYTES_MAX, name);
    snprintf(wanted.name, sizeof wanted.name, "%s", name);
    MPO_TRY(add_wanted(making, &wanted));
cleanup:
    return status;
}

static enum mpo_status want_record(struct making *making, const char *text)
{
    enum mpo_status status = MPO_OK;
    const struct wanted models[RECORD_MODELS] = {
        {"mpo:average", text, "--weights", MPO_ITERATE_AVERAGE, false, 0},
        {"mpo:last", text, "--weights", MPO_ITERATE_LAST, false, 0},
        {"mpo:untilted", text, "--weights", MPO_ITERATE_AVERAGE, true, 0},
    };
    if (!mpo_weights_are_of_a_record(making->config, text))
        return MPO_OK;
    for (int32_t i = 0; i < RECORD_MODELS; i++)
        if (models[i].iterate == MPO_ITERATE_AVERAGE || !mpo_plan_blends(making->config))
            MPO_TRY(add_wanted(making, &models[i])); /* a blend more costs a cache */
cleanup:
    return status;
}

/* "even=uniform;kind=0.8,0.2;old=other.h5" */
static enum mpo_status want_presets(struct making *making)
{
    enum mpo_status status = MPO_OK;
    char *rest = NULL;
    for (char *entry = strtok_r(making->presets, ";", &rest); entry != NULL;
         entry = strtok_r(NULL, ";", &rest)) {
        struct wanted wanted = {.flag = "--presets"};
        char *equals = strchr(entry, '=');
        size_t bytes = equals != NULL ? (size_t)(equals - entry) : 0;
        MPO_CHECK(
            bytes > 0 && equals[1] != '\0', MPO_ERR_USAGE,
            "--presets: expected NAME=WEIGHTS, separated by semicolons, found '%.80s'",
            entry);
        MPO_CHECK(bytes < NAME_BYTES_MAX && strspn(entry, PLAIN) == bytes, MPO_ERR_USAGE,
                  "--presets: expected a name of letters, digits and characters of '_.-', "
                  "found '%.*s'",
                  (int)(bytes < 80 ? bytes : 80), entry);
        wanted.text = equals + 1;
        snprintf(wanted.name, sizeof wanted.name, "mpo:%.*s", (int)bytes, entry);
        MPO_TRY(add_wanted(making, &wanted));
    }
cleanup:
    return status;
}

static int32_t count_presets(const char *text)
{
    int32_t count = 1;
    for (; *text != '\0'; text++)
        count += *text == ';';
    return count;
}

/* Weights of one text are the same. */
static void number_blends(struct making *making)
{
    for (int32_t i = 0; i < making->count && mpo_plan_blends(making->config); i++) {
        int32_t same = 0;
        while (strcmp(making->wanted[same].text, making->wanted[i].text) != 0)
            same++;
        making->wanted[i].blend =
            same < i ? making->wanted[same].blend : making->blend_count++;
    }
}

/* Local, and the same on all ranks. */
static enum mpo_status list_wanted(struct making *making)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_serve *options = &making->config->serve;
    struct wanted first = {.name = "mpo", .text = options->weights, .flag = "--weights"};
    MPO_TRY(mpo_memory_copy_text(options->presets, &making->presets));
    making->capacity = 2 + RECORD_MODELS + count_presets(options->presets);
    MPO_NEW(making->capacity, &making->wanted);
    MPO_TRY(add_wanted(making, &first));
    MPO_TRY(want_second_name(making));
    MPO_TRY(want_record(making, options->weights));
    MPO_TRY(want_presets(making));
    number_blends(making);
cleanup:
    return status;
}

/* A list that cannot be is refused when it is opened. */
int32_t mpo_serve_models_blends(const struct mpo_config *config)
{
    struct making making = {.config = config};
    bool is_listed = list_wanted(&making) == MPO_OK;
    free(making.wanted);
    free(making.presets);
    return is_listed || !mpo_plan_blends(config) ? making.blend_count : 1;
}

/* ---- weights ---- */

static bool is_policy(const struct mpo_config *config, const char *text)
{
    for (int32_t h = 0; h < config->policy_count; h++)
        if (strcmp(text, config->policies[h].name) == 0)
            return true;
    return false;
}

/* Numbers off the simplex are exponents; others are weights with or without the permission
 * for any. */
static bool is_on_simplex(const struct mpo_config *config, const char *text)
{
    double *value = calloc((size_t)config->objective_count, sizeof *value);
    int32_t count = 0;
    double sum = 0.0;
    bool is_on =
        value != NULL &&
        mpo_config_parse_numbers(text, value, config->objective_count, &count) == MPO_OK;
    for (int32_t k = 0; k < count && is_on; k++) {
        is_on = value[k] >= 0.0;
        sum += value[k];
    }
    free(value);
    return is_on && mpo_sums_to_one(sum);
}

/* Exponents of the hosted policies; of a blend its own policy alone, which is given mu. */
static enum mpo_status set_exponents(const struct making *making,
                                     const struct wanted *wanted, const double *mu,
                                     double *out)
{
    if (making->blend_count == 0) {
        memcpy(out, mu, (size_t)making->config->policy_count * sizeof *mu);
        return MPO_OK;
    }
    out[wanted->blend] = 1.0;
    return mpo_session_set_blend(making->session, wanted->blend, mu);
}

/* The model's memory: mu [H], weights [K], scale [K]. */
static enum mpo_status fill_model(const struct making *making, const struct wanted *wanted,
                                  const double *mu, const struct mpo_weights_recipe *recipe,
                                  struct mpo_serve_model *model)
{
    enum mpo_status status = MPO_OK;
    const size_t policies = (size_t)making->catalog->policy_count;
    const size_t objectives = (size_t)making->config->objective_count;
    double *numbers = NULL;
    MPO_NEW(policies + 2 * objectives, &numbers);
    model->mu = numbers;
    model->policy = -1;
    model->strength = recipe->strength;
    memcpy(numbers + policies, recipe->weights, objectives * sizeof *mu);
    memcpy(numbers + policies + objectives, recipe->scale, objectives * sizeof *mu);
    model->weights = numbers + policies;
    model->scale = numbers + policies + objectives;
    MPO_TRY(set_exponents(making, wanted, mu, numbers));
cleanup:
    return status;
}

/* Collective over all ranks. */
static enum mpo_status open_model(const struct making *making, const struct wanted *wanted)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = making->config;
    struct mpo_serve_model *model = &making->catalog->model[making->catalog->model_count];
    struct mpo_weights_recipe recipe = {0};
    double *mu = NULL;
    bool is_record = mpo_weights_are_of_a_record(config, wanted->text);
    bool is_alone = is_policy(config, wanted->text);
    bool is_numbers = !is_record && !is_alone && strcmp(wanted->text, "uniform") != 0;
    struct mpo_weights_choice choice = {
        .text = wanted->text,
        .iterate = wanted->iterate,
        .step = MPO_AUTO_INTEGER,
        .allow_any = config->serve.allow_any_weights && is_numbers &&
                     !is_on_simplex(config, wanted->text),
        .strength = NAN,
        .flag = wanted->flag,
    };
    MPO_TRY(mpo_weights_open_recipe(making->session, &choice, &recipe, &mu));
    MPO_TRY(mpo_weights_end_bias(making->session, &choice, wanted->is_untilted ? 0.0 : NAN,
                                 &model->end_bias));
    model->as_given = is_alone || choice.allow_any;
    status = fill_model(making, wanted, mu, &recipe, model);
    if (status == MPO_OK)
        status = mpo_memory_copy_text(wanted->name, &model->name);
    making->catalog->model_count++;
    MPO_TRY(mpo_comm_agree(status));
cleanup:
    free(mu);
    return status;
}

static enum mpo_status add_policies(const struct making *making)
{
    enum mpo_status status = MPO_OK;
    struct mpo_serve_catalog *catalog = making->catalog;
    char name[NAME_BYTES_MAX];
    for (int32_t h = 0; h < catalog->policy_count; h++) {
        struct mpo_serve_model *model = &catalog->model[catalog->model_count++];
        double *mu = NULL;
        MPO_NEW(catalog->policy_count, &mu);
        mu[h] = 1.0;
        *model = (struct mpo_serve_model){.mu = mu, .strength = 1.0, .policy = h};
        snprintf(name, sizeof name, "policy/%s", catalog->policy_name[h]);
        MPO_TRY(mpo_memory_copy_text(name, &model->name));
    }
cleanup:
    return status;
}

/* A hosted policy is called as the first model that is it. */
static enum mpo_status name_blends(const struct making *making)
{
    enum mpo_status status = MPO_OK;
    const char **name = NULL;
    MPO_NEW(making->blend_count, &name);
    making->catalog->blend_name = name;
    for (int32_t i = making->count - 1; i >= 0; i--)
        name[making->wanted[i].blend] = making->catalog->model[i].name;
cleanup:
    return status;
}

/* ---- the rest of the catalog ---- */

static enum mpo_status describe_policies(const struct making *making)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = making->config;
    struct mpo_serve_catalog *catalog = making->catalog;
    const char **name = NULL;
    double *scale = NULL;
    bool *has_system = NULL;
    MPO_NEW(config->policy_count, &name);
    catalog->policy_name = name;
    MPO_NEW(config->objective_count, &scale);
    catalog->scale = scale;
    MPO_NEW(config->policy_count, &has_system);
    catalog->has_system = has_system;
    for (int32_t h = 0; h < config->policy_count; h++) {
        name[h] = config->policies[h].name;
        has_system[h] = config->policies[h].system[0] != '\0';
    }
    for (int32_t k = 0; k < config->objective_count; k++)
        scale[k] = config->policies[k].scale;
cleanup:
    return status;
}

static enum mpo_status describe_session(const struct making *making)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policies *policies = mpo_session_policies(making->session);
    const struct mpo_config *config = making->config;
    struct mpo_serve_catalog *catalog = making->catalog;
    *catalog = (struct mpo_serve_catalog){
        .policies = policies,
        .objective_count = config->objective_count,
        .policy_count =
            making->blend_count > 0 ? making->blend_count : config->policy_count,
        .has_reference = config->policy_count > config->objective_count,
        .allow_any_weights = config->serve.allow_any_weights,
        .refuses_unknown = config->serve.unknown_fields == MPO_UNKNOWN_FIELDS_REFUSE,
        .allows_isolated = config->serve.isolated,
        .strength = config->rollout.strength,
        .vocab_size = policies != NULL ? mpo_policies_vocab_size(policies) : 0,
        .max_tokens = (int32_t)config->serve.max_tokens,
        .created = (int64_t)time(NULL),
    };
    MPO_TRY(describe_policies(making));
    MPO_NEW(making->count + config->policy_count, &catalog->model);
cleanup:
    return status;
}

enum mpo_status mpo_serve_models_open(const struct mpo_session *session,
                                      struct mpo_serve_catalog *catalog)
{
    enum mpo_status status = MPO_OK;
    struct making making = {
        .session = session, .config = mpo_session_config(session), .catalog = catalog};
    status = list_wanted(&making);
    if (status == MPO_OK)
        status = describe_session(&making);
    MPO_TRY(mpo_comm_agree(status));
    for (int32_t i = 0; i < making.count; i++)
        MPO_TRY(open_model(&making, &making.wanted[i]));
    MPO_TRY(mpo_comm_agree(making.blend_count > 0 ? name_blends(&making)
                                                  : add_policies(&making)));
cleanup:
    free(making.wanted);
    free(making.presets);
    if (status != MPO_OK)
        mpo_serve_models_close(catalog);
    return status;
}

void mpo_serve_models_close(struct mpo_serve_catalog *catalog)
{
    for (int32_t i = 0; i < catalog->model_count; i++) {
        free(catalog->model[i].name);
        free((void *)catalog->model[i].mu);
    }
    free(catalog->model);
    free((void *)catalog->policy_name);
    free((void *)catalog->scale);
    free((void *)catalog->has_system);
    free((void *)catalog->blend_name);
    *catalog = (struct mpo_serve_catalog){0};
}
