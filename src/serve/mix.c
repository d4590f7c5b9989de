/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request is drawn from: a model's weights or the request's own, a strength and an
 * end tilt, and the exponents that they make (mpo/exponents.h).
 *
 * A tilt belongs to the exponents that it was fitted for. Weights or a strength of the
 * request's own make other ones, which have none, as generate has it.
 *
 * Models that are policies (rollout.mixture: adapters) have exponent 1 at their own; their
 * scales are set, so a request cannot change weights or strength.
 */
#include "models.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/spelling.h"
#include "mpo/exponents.h"

#define AT_FORM         "mpo@"
#define SUM_TOLERANCE   1e-3 /* of weights that a person types into a chat */
#define AT_NUMBER_BYTES 64

int32_t mpo_serve_objective(const struct mpo_serve_catalog *catalog, const char *name,
                            size_t bytes)
{
    for (int32_t k = 0; k < catalog->objective_count; k++)
        if (strlen(catalog->policy_name[k]) == bytes &&
            memcmp(catalog->policy_name[k], name, bytes) == 0)
            return k;
    return -1;
}

const char *mpo_serve_objectives(const struct mpo_serve_catalog *catalog, char *text,
                                 size_t text_bytes)
{
    size_t length = 0;
    text[0] = '\0';
    for (int32_t k = 0; k < catalog->objective_count && length < text_bytes; k++)
        length += (size_t)snprintf(text + length, text_bytes - length, "%s%s",
                                   k > 0 ? ", " : "", catalog->policy_name[k]);
    return text;
}

/* ---- weights of a client ---- */

/* Exponents as given, of the objectives; a reference has none. */
static void copy_exponents(const struct mpo_serve_catalog *catalog,
                           struct mpo_serve_mix *mix)
{
    mix->strength = 1.0;
    memset(mix->mu, 0, (size_t)catalog->policy_count * sizeof *mix->mu);
    memcpy(mix->mu, mix->weights, (size_t)catalog->objective_count * sizeof *mix->mu);
}

/* On the simplex, or exponents where they are allowed. `param` has them. */
static bool check_weights(const struct mpo_serve_catalog *catalog,
                          struct mpo_serve_mix *mix, const char *param,
                          struct mpo_serve_refusal *refusal)
{
    double sum = 0.0;
    int32_t worst = -1; /* the first that is negative */
    bool is_bounded = true;
    for (int32_t k = 0; k < catalog->objective_count; k++) {
        sum += mix->weights[k];
        is_bounded = is_bounded && fabs(mix->weights[k]) <= MPO_EXPONENT_MAX;
        if (worst < 0 && !(mix->weights[k] >= 0.0))
            worst = k;
    }
    mix->as_given = worst >= 0 || !(fabs(sum - 1.0) <= SUM_TOLERANCE);
    if (mix->as_given && catalog->allow_any_weights && is_bounded) {
        copy_exponents(catalog, mix);
        return true;
    }
    if (mix->as_given && catalog->allow_any_weights)
        mpo_serve_refuse(refusal, 400, "invalid_weights", param,
                         "%s: expected numbers from %g to %g", param, -MPO_EXPONENT_MAX,
                         MPO_EXPONENT_MAX);
    else if (worst >= 0)
        mpo_serve_refuse(refusal, 400, "invalid_weights", param,
                         "%s: expected weights of at least 0, found %.9g for %.63s; "
                         "serve.allow_any_weights accepts it",
                         param, mix->weights[worst], catalog->policy_name[worst]);
    else if (mix->as_given)
        mpo_serve_refuse(refusal, 400, "invalid_weights", param,
                         "%s: expected weights with sum 1 (within 1e-3), found a sum of "
                         "%.9g; serve.allow_any_weights accepts it",
                         param, sum);
    for (int32_t k = 0; k < catalog->objective_count && !mix->as_given; k++)
        mix->weights[k] /= sum;
    return !mix->as_given;
}

/* Where each model is a policy. `param` has the weights. */
static bool refuse_weights(const struct mpo_serve_catalog *catalog, const char *param,
                           struct mpo_serve_refusal *refusal)
{
    char names[256] = "";
    size_t length = 0;
    for (int32_t i = 0; i < catalog->model_count && length < sizeof names; i++)
        length += (size_t)snprintf(names + length, sizeof names - length, "%s%s",
                                   i > 0 ? ", " : "", catalog->model[i].name);
    mpo_serve_refuse(refusal, 400, "invalid_weights", param,
                     "%s: expected no weights, because with rollout.mixture: adapters each "
                     "model has scales that are set when the server starts; ask for one of "
                     "the models %s%s, or start it with --presets=NAME=WEIGHTS",
                     param, names, length < sizeof names ? "" : " ...");
    return false;
}

/* ---- mpo@0.4:0.6, mpo@helpful=0.4:concise=0.6 ---- */

static bool read_number(const char *text, size_t bytes, double *value)
{
    char number[AT_NUMBER_BYTES];
    char *end = NULL;
    if (bytes == 0 || bytes >= sizeof number || strspn(text, "0123456789.+-eE") < bytes)
        return false;
    memcpy(number, text, bytes);
    number[bytes] = '\0';
    *value = strtod(number, &end);
    return *end == '\0' && isfinite(*value);
}

/* One number, or NAME=number, into weights that are NAN before. */
static bool read_entry(const struct mpo_serve_catalog *catalog, const char *entry,
                       size_t bytes, double *weights, int32_t index)
{
    const char *equals = memchr(entry, '=', bytes);
    int32_t k = index;
    if (equals != NULL) {
        k = mpo_serve_objective(catalog, entry, (size_t)(equals - entry));
        bytes -= (size_t)(equals + 1 - entry);
        entry = equals + 1;
    }
    return k >= 0 && k < catalog->objective_count && isnan(weights[k]) &&
           read_number(entry, bytes, &weights[k]);
}

/* All weights as numbers, or all that are not 0 by name. */
static bool read_at_form(const struct mpo_serve_catalog *catalog, const char *text,
                         double *weights)
{
    bool is_named = strchr(text, '=') != NULL;
    int32_t count = 0;
    for (int32_t k = 0; k < catalog->objective_count; k++)
        weights[k] = NAN;
    for (const char *at = text;; count++) {
        /* A name may have a colon: an entry ends at the first one after its number begins. */
        const char *equals = is_named ? strchr(at, '=') : at;
        size_t bytes = equals == NULL ? 0 : (size_t)(equals - at) + strcspn(equals, ":");
        if (equals == NULL || !read_entry(catalog, at, bytes, weights, count))
            return false;
        if (at[bytes] == '\0')
            break;
        at += bytes + 1;
    }
    for (int32_t k = 0; k < catalog->objective_count; k++)
        if (isnan(weights[k]) && !is_named)
            return false;
        else if (isnan(weights[k]))
            weights[k] = 0.0;
    return true;
}

static bool open_at_form(const struct mpo_serve_catalog *catalog, const char *name,
                         struct mpo_serve_mix *mix, struct mpo_serve_refusal *refusal)
{
    char quoted[MPO_QUOTE_BYTES];
    char names[256];
    if (catalog->blend_name != NULL)
        return refuse_weights(catalog, "model", refusal);
    mix->strength = catalog->strength;
    if (read_at_form(catalog, name + strlen(AT_FORM), mix->weights))
        return check_weights(catalog, mix, "model", refusal);
    mpo_serve_refuse(refusal, 400, "invalid_weights", "model",
                     "model: expected mpo@ and %d numbers separated by ':', or "
                     "NAME=NUMBER of some of %s, found '%s'",
                     catalog->objective_count,
                     mpo_serve_objectives(catalog, names, sizeof names),
                     mpo_quote(name, quoted));
    return false;
}

/* ---- the mix ---- */

static void copy_model(const struct mpo_serve_catalog *catalog,
                       const struct mpo_serve_model *model, struct mpo_serve_mix *mix)
{
    if (model->weights != NULL)
        memcpy(mix->weights, model->weights,
               (size_t)catalog->objective_count * sizeof *mix->weights);
    memcpy(mix->mu, model->mu, (size_t)catalog->policy_count * sizeof *mix->mu);
    mix->scale = model->scale;
    mix->strength = model->strength;
    mix->end_bias = model->end_bias;
    mix->policy = model->policy;
    mix->as_given = model->as_given;
}

bool mpo_serve_mix_open(const struct mpo_serve_catalog *catalog, const char *name,
                        struct mpo_serve_mix *mix, struct mpo_serve_refusal *refusal)
{
    const struct mpo_serve_model *model = mpo_serve_model_find(catalog, name);
    bool is_at_form = model == NULL && strncmp(name, AT_FORM, strlen(AT_FORM)) == 0;
    *mix = (struct mpo_serve_mix){.policy = -1, .strength = 1.0};
    if (model == NULL && !is_at_form)
        return mpo_serve_refuse_model(catalog, name, refusal);
    mix->mu = calloc((size_t)catalog->policy_count, sizeof *mix->mu);
    mix->weights = calloc((size_t)catalog->objective_count, sizeof *mix->weights);
    if (mix->mu == NULL || mix->weights == NULL) {
        mpo_serve_refuse(refusal, 500, "out_of_memory", NULL,
                         "the server has no memory for this request; ask again");
        return false;
    }
    if (is_at_form)
        return open_at_form(catalog, name, mix, refusal);
    copy_model(catalog, model, mix);
    return true;
}

void mpo_serve_mix_close(struct mpo_serve_mix *mix)
{
    free(mix->mu);
    free(mix->weights);
    *mix = (struct mpo_serve_mix){.policy = -1};
}

bool mpo_serve_mix_reweigh(const struct mpo_serve_catalog *catalog,
                           struct mpo_serve_mix *mix, const double *weights,
                           struct mpo_serve_refusal *refusal)
{
    if (catalog->blend_name != NULL)
        return refuse_weights(catalog, "weights", refusal);
    if (mix->policy >= 0) {
        mpo_serve_refuse(refusal, 400, "invalid_weights", "weights",
                         "weights: expected none with a model that is a single policy "
                         "(policy/%.63s); leave them out, or ask for the model mpo",
                         catalog->policy_name[mix->policy]);
        return false;
    }
    memcpy(mix->weights, weights, (size_t)catalog->objective_count * sizeof *weights);
    mix->end_bias = 0.0;
    if (mix->as_given) { /* its strength was none */
        mix->strength = catalog->strength;
        mix->scale = NULL;
    }
    return check_weights(catalog, mix, "weights", refusal);
}

bool mpo_serve_mix_strengthen(const struct mpo_serve_catalog *catalog,
                              struct mpo_serve_mix *mix, double strength,
                              struct mpo_serve_refusal *refusal)
{
    if (catalog->blend_name != NULL && strength != mix->strength)
        mpo_serve_refuse(refusal, 400, "invalid_value", "strength",
                         "strength: expected %.9g, the model's own, because with "
                         "rollout.mixture: adapters its scales are set when the server "
                         "starts, found %.9g; leave it out",
                         mix->strength, strength);
    else if (catalog->blend_name != NULL)
        return true;
    else if (strength != 1.0 && (mix->policy >= 0 || mix->as_given))
        mpo_serve_refuse(
            refusal, 400, "invalid_value", "strength",
            "strength: expected 1 for %s, which has no weights on the simplex, "
            "found %.9g; leave it out",
            mix->policy >= 0 ? "a policy alone" : "exponents as given", strength);
    else if (strength != 1.0 && !catalog->has_reference)
        mpo_serve_refuse(refusal, 400, "invalid_value", "strength",
                         "strength: expected 1, because no policy of this server has role "
                         "reference, found %.9g; leave it out",
                         strength);
    if (refusal->http_status != 0)
        return false;
    if (strength != mix->strength)
        mix->end_bias = 0.0;
    mix->strength = strength;
    return true;
}

void mpo_serve_mix_finish(const struct mpo_serve_catalog *catalog,
                          struct mpo_serve_mix *mix)
{
    struct mpo_exponents exponents = {
        .objective_count = catalog->objective_count,
        .policy_count = catalog->policy_count,
        .strength = mix->strength,
        .scale = mix->scale != NULL ? mix->scale : catalog->scale,
    };
    if (!mix->as_given && mix->policy < 0 && catalog->blend_name == NULL)
        mpo_exponents_of(&exponents, mix->weights, mix->mu);
}
