/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields that are lists or objects: weights, stop, logit_bias, stream_options.
 */
#include "request_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/text.h"

/* ---- model, weights, strength, end_bias ---- */

static bool refuse_weight(const struct mpo_serve_reading *reading, const char *name,
                          const json_t *value)
{
    char found[MPO_SERVE_FOUND_BYTES];
    mpo_serve_refuse(reading->refusal, 400, "invalid_weights", "weights",
                     "weights: expected a number for %.63s, found %s", name,
                     mpo_serve_json_found(value, found));
    return false;
}

/* {name: number}; objectives that are not named have weight 0. */
static bool read_named(const struct mpo_serve_reading *reading, double *weights)
{
    const char *name = NULL;
    json_t *value = NULL;
    char names[256];
    json_t *object = (json_t *)reading->value[MPO_SERVE_FIELD_weights];
    json_object_foreach(object, name, value)
    {
        int32_t k = mpo_serve_objective(reading->catalog, name, strlen(name));
        if (k < 0) {
            mpo_serve_refuse(reading->refusal, 400, "invalid_weights", "weights",
                             "weights: expected names of objectives (%s), found '%.63s'",
                             mpo_serve_objectives(reading->catalog, names, sizeof names),
                             name);
            return false;
        }
        if (!json_is_number(value))
            return refuse_weight(reading, name, value);
        weights[k] = json_number_value(value);
    }
    return true;
}

static bool read_numbered(const struct mpo_serve_reading *reading, double *weights)
{
    const json_t *list = reading->value[MPO_SERVE_FIELD_weights];
    const struct mpo_serve_catalog *catalog = reading->catalog;
    if (json_array_size(list) != (size_t)catalog->objective_count) {
        mpo_serve_refuse(reading->refusal, 400, "invalid_weights", "weights",
                         "weights: expected %d numbers, one per objective, found %zu",
                         catalog->objective_count, json_array_size(list));
        return false;
    }
    for (int32_t k = 0; k < catalog->objective_count; k++) {
        const json_t *value = json_array_get(list, (size_t)k);
        if (!json_is_number(value))
            return refuse_weight(reading, catalog->policy_name[k], value);
        weights[k] = json_number_value(value);
    }
    return true;
}

static bool read_weights(const struct mpo_serve_reading *reading, struct mpo_serve_mix *mix)
{
    double *weights = calloc((size_t)reading->catalog->objective_count, sizeof *weights);
    if (weights == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    bool is_read = reading->catalog->blend_name != NULL || /* refused, whatever they are */
                   (json_is_array(reading->value[MPO_SERVE_FIELD_weights])
                        ? read_numbered(reading, weights)
                        : read_named(reading, weights));
    is_read =
        is_read && mpo_serve_mix_reweigh(reading->catalog, mix, weights, reading->refusal);
    free(weights);
    return is_read;
}

static bool read_mix(const struct mpo_serve_reading *reading, struct mpo_serve_mix *mix)
{
    const json_t *const *value = reading->value;
    if (!mpo_serve_mix_open(reading->catalog, reading->request->model, mix,
                            reading->refusal))
        return false;
    if (value[MPO_SERVE_FIELD_weights] != NULL && !read_weights(reading, mix))
        return false;
    if (value[MPO_SERVE_FIELD_strength] != NULL &&
        !mpo_serve_mix_strengthen(reading->catalog, mix,
                                  json_number_value(value[MPO_SERVE_FIELD_strength]),
                                  reading->refusal))
        return false;
    if (value[MPO_SERVE_FIELD_end_bias] != NULL)
        mix->end_bias = json_number_value(value[MPO_SERVE_FIELD_end_bias]);
    mpo_serve_mix_finish(reading->catalog, mix);
    return true;
}

bool mpo_serve_read_model(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    struct mpo_serve_mix mix = {0};
    const json_t *name = reading->value[MPO_SERVE_FIELD_model];
    request->model = strdup(name != NULL ? json_string_value(name) : "mpo");
    if (request->model == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    bool is_read = read_mix(reading, &mix);
    if (is_read) {
        request->mu = mix.mu;
        request->strength = mix.strength;
        request->end_bias = mix.end_bias;
        mix.mu = NULL;
        if (mix.policy < 0) {
            request->weights = mix.weights;
            mix.weights = NULL;
        }
    }
    mpo_serve_mix_close(&mix);
    return is_read;
}

/* ---- stop ---- */

static bool add_stop(const struct mpo_serve_reading *reading, const json_t *value)
{
    struct mpo_serve_request *request = reading->request;
    char found[MPO_SERVE_FOUND_BYTES];
    if (!json_is_string(value))
        return mpo_serve_refuse_value(reading, "stop", "expected texts, found %s",
                                      mpo_serve_json_found(value, found));
    if (json_string_length(value) > MPO_DECODE_STOP_BYTES_MAX)
        return mpo_serve_refuse_value(
            reading, "stop", "expected texts of at most %d bytes, found one of %zu",
            MPO_DECODE_STOP_BYTES_MAX, json_string_length(value));
    if (json_string_length(value) == 0)
        return true;
    char *text = strdup(json_string_value(value));
    if (text == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    request->stop[request->stop_count++] = text;
    return true;
}

static bool read_stop(const struct mpo_serve_reading *reading)
{
    const json_t *value = reading->value[MPO_SERVE_FIELD_stop];
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (value == NULL || count == 0)
        return true;
    if (count > MPO_SERVE_STOP_COUNT_MAX)
        return mpo_serve_refuse_value(reading, "stop",
                                      "expected at most %d texts, found %zu",
                                      MPO_SERVE_STOP_COUNT_MAX, count);
    reading->request->stop = calloc(count, sizeof *reading->request->stop);
    if (reading->request->stop == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    if (json_is_string(value))
        return add_stop(reading, value);
    for (size_t i = 0; i < count; i++)
        if (!add_stop(reading, json_array_get(value, i)))
            return false;
    return true;
}

/* ---- logit_bias ---- */

/* An id as it is written: digits alone, and no needless 0 before them, so that no token is
 * named twice. @return -1: it is none */
static int64_t read_id(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10 || text[digits] != '\0' ||
        (text[0] == '0' && digits > 1))
        return -1;
    return strtoll(text, NULL, 10);
}

static bool read_bias(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    const struct mpo_serve_field *field = &mpo_serve_fields[MPO_SERVE_FIELD_logit_bias];
    const char *name = NULL;
    json_t *value = NULL;
    char found[MPO_SERVE_FOUND_BYTES];
    json_t *object = (json_t *)reading->value[MPO_SERVE_FIELD_logit_bias];
    size_t count = json_object_size(object);
    if (count > MPO_SERVE_BIAS_COUNT_MAX)
        return mpo_serve_refuse_value(reading, field->name,
                                      "expected at most %d tokens, found %zu",
                                      MPO_SERVE_BIAS_COUNT_MAX, count);
    if (count == 0)
        return true;
    request->bias = calloc(count, sizeof *request->bias);
    if (request->bias == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    json_object_foreach(object, name, value)
    {
        int64_t id = read_id(name);
        double bias = json_number_value(value);
        if (id < 0 || id >= reading->catalog->vocab_size)
            return mpo_serve_refuse_value(reading, field->name,
                                          "expected token ids from 0 to %d, found '%.40s'",
                                          reading->catalog->vocab_size - 1, name);
        if (!json_is_number(value) || bias < field->low || bias > field->high)
            return mpo_serve_refuse_value(
                reading, field->name,
                "expected numbers from %g to %g, found %s for token %lld", field->low,
                field->high, mpo_serve_json_found(value, found), (long long)id);
        request->bias[request->bias_count++] = (struct mpo_mixture_bias){(int32_t)id, bias};
    }
    return true;
}

/* ---- stream_options ---- */

static bool read_options(const struct mpo_serve_reading *reading)
{
    const char *name = NULL;
    json_t *value = NULL;
    char found[MPO_SERVE_FOUND_BYTES];
    char full[80];
    json_t *object = (json_t *)reading->value[MPO_SERVE_FIELD_stream_options];
    json_object_foreach(object, name, value)
    {
        if (strcmp(name, "include_usage") != 0) {
            snprintf(full, sizeof full, "stream_options.%.63s", name);
            mpo_serve_ignore(reading, full);
            continue;
        }
        if (!json_is_boolean(value) && !json_is_null(value))
            return mpo_serve_refuse_value(reading, "stream_options.include_usage",
                                          "expected true or false, found %s",
                                          mpo_serve_json_found(value, found));
        reading->request->include_usage = json_is_true(value);
    }
    return true;
}

bool mpo_serve_read_lists(const struct mpo_serve_reading *reading)
{
    return read_stop(reading) && read_bias(reading) && read_options(reading);
}
