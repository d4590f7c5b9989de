/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the list of models, and what GET /v1/models returns for them.
 */
#include "models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/spelling.h"

const struct mpo_serve_model *mpo_serve_model_find(const struct mpo_serve_catalog *catalog,
                                                   const char *name)
{
    for (int32_t i = 0; i < catalog->model_count; i++)
        if (strcmp(catalog->model[i].name, name) == 0)
            return &catalog->model[i];
    return NULL;
}

/* How far a name is from a listed one, or from what follows its "mpo:" or "policy/". */
static size_t distance_of(const char *name, const char *listed)
{
    const char *rest = listed + strcspn(listed, ":/");
    size_t whole = mpo_spelling_distance(name, listed);
    size_t part = *rest != '\0' ? mpo_spelling_distance(name, rest + 1) : whole;
    return part < whole ? part : whole;
}

bool mpo_serve_refuse_model(const struct mpo_serve_catalog *catalog, const char *name,
                            struct mpo_serve_refusal *refusal)
{
    char quoted[MPO_QUOTE_BYTES];
    const char *nearest = catalog->model[0].name;
    size_t least = SIZE_MAX;
    for (int32_t i = 0; i < catalog->model_count; i++) {
        size_t distance = distance_of(name, catalog->model[i].name);
        if (distance >= least)
            continue;
        least = distance;
        nearest = catalog->model[i].name;
    }
    mpo_serve_refuse(refusal, 404, "model_not_found", "model",
                     "model: there is no '%s'; the nearest is '%.100s', and GET /v1/models "
                     "lists all; %s%s",
                     mpo_quote(name, quoted), nearest,
                     catalog->blend_name != NULL
                         ? "others are set up by --presets=NAME=WEIGHTS"
                         : "weights may be given as mpo@",
                     catalog->blend_name != NULL    ? ""
                     : catalog->objective_count > 1 ? "0.4:0.6"
                                                    : "1");
    return false;
}

json_t *mpo_serve_weights_json(const struct mpo_serve_catalog *catalog,
                               const double *weights)
{
    if (weights == NULL)
        return json_null();
    json_t *object = json_object();
    for (int32_t k = 0; k < catalog->objective_count; k++)
        if (json_object_set_new(object, catalog->policy_name[k], json_real(weights[k])) !=
            0) {
            json_decref(object);
            return NULL;
        }
    return object;
}

/* One entry of the list. */
static json_t *describe_model(const struct mpo_serve_catalog *catalog, const char *name,
                              const struct mpo_serve_mix *mix)
{
    bool is_alone = mix->policy >= 0;
    json_t *mpo = json_pack("{s:o, s:f, s:f, s:s?}", "weights",
                            mpo_serve_weights_json(catalog, is_alone ? NULL : mix->weights),
                            "end_bias", mix->end_bias, "strength", mix->strength, "policy",
                            is_alone ? catalog->policy_name[mix->policy] : NULL);
    return json_pack("{s:s, s:s, s:I, s:s, s:i, s:o}", "id", name, "object", "model",
                     "created", (json_int_t)catalog->created, "owned_by", "mpo",
                     "max_model_len", (int)catalog->context_tokens, "mpo", mpo);
}

/* Owned by the caller. The object is given away. */
static char *print_json(json_t *object)
{
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

json_t *mpo_serve_models_list(const struct mpo_serve_catalog *catalog)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < catalog->model_count; i++) {
        struct mpo_serve_refusal refusal = {0};
        struct mpo_serve_mix mix = {0};
        const char *name = catalog->model[i].name;
        json_t *entry = mpo_serve_mix_open(catalog, name, &mix, &refusal)
                            ? describe_model(catalog, name, &mix)
                            : NULL;
        mpo_serve_mix_close(&mix);
        if (json_array_append_new(list, entry) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o}", "object", "list", "data", list);
}

char *mpo_serve_models_json(const struct mpo_serve_catalog *catalog)
{
    return print_json(mpo_serve_models_list(catalog));
}

char *mpo_serve_model_json(const struct mpo_serve_catalog *catalog, const char *id,
                           struct mpo_serve_refusal *refusal)
{
    struct mpo_serve_mix mix = {0};
    char *text = NULL;
    if (mpo_serve_mix_open(catalog, id, &mix, refusal)) {
        text = print_json(describe_model(catalog, id, &mix));
        if (text == NULL)
            mpo_serve_refuse(refusal, 500, "out_of_memory", NULL,
                             "the server has no memory for this answer; ask again");
    }
    mpo_serve_mix_close(&mix);
    return text;
}
