/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of fields, and what one value alone can be wrong in: type and range.
 */
#include "request_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT_CHAT        MPO_SERVE_AT_CHAT
#define AT_TEXT        MPO_SERVE_AT_TEXT
#define AT_BOTH        MPO_SERVE_AT_BOTH
#define ROWS           MPO_SERVE_OF_ROWS
#define CONTEXT        MPO_SERVE_OF_CONTEXT
#define BOUND_BYTES    32
#define INTEGER_BEYOND 0x1p63 /* above all of JSON's integers */

const struct mpo_serve_field mpo_serve_fields[MPO_SERVE_FIELD_COUNT] = {
#define MPO_SERVE_FIELD_AS(id, name, endpoints, type, initial, low, high, sentence)        \
    {name, AT_##endpoints, MPO_SERVE_TYPE_##type, initial, low, high, sentence},
#include "fields.def"
};

int32_t mpo_serve_field_find(const char *name, enum mpo_serve_kind kind)
{
    for (int32_t i = 0; i < MPO_SERVE_FIELD_COUNT; i++)
        if ((mpo_serve_fields[i].endpoints & (1U << kind)) != 0 &&
            strcmp(mpo_serve_fields[i].name, name) == 0)
            return i;
    return -1;
}

double mpo_serve_field_high(const struct mpo_serve_field *field,
                            const struct mpo_serve_catalog *catalog)
{
    if (field->high == ROWS)
        return catalog->row_capacity;
    return field->high == CONTEXT ? catalog->context_tokens : field->high;
}

/* ---- refusals ---- */

/* What a check is about. */
struct check {
    const struct mpo_serve_field *field;
    const json_t *value;
    double high;
    struct mpo_serve_refusal *refusal;
};

static bool refuse_field(const struct check *check, const char *expected)
{
    char found[MPO_SERVE_FOUND_BYTES];
    mpo_serve_refuse(check->refusal, 400, "invalid_value", check->field->name,
                     "%s: expected %s, found %s", check->field->name, expected,
                     mpo_serve_json_found(check->value, found));
    return false;
}

static const char *bound_text(double bound, char text[BOUND_BYTES])
{
    if (bound >= INTEGER_BEYOND)
        snprintf(text, BOUND_BYTES, "%lld", (long long)INT64_MAX);
    else
        snprintf(text, BOUND_BYTES, "%.10g", bound);
    return text;
}

/* "a whole number from 1 to 16". */
static bool refuse_range(const struct check *check, const char *kind)
{
    char expected[128];
    char low[BOUND_BYTES];
    char high[BOUND_BYTES];
    bool is_share = check->field->type == MPO_SERVE_TYPE_SHARE;
    if (check->field->low == check->high)
        snprintf(expected, sizeof expected, "%s", bound_text(check->high, high));
    else
        snprintf(expected, sizeof expected, "%s %s %s to %s", kind,
                 is_share ? "above" : "from", bound_text(check->field->low, low),
                 bound_text(check->high, high));
    return refuse_field(check, expected);
}

/* ---- types ---- */

static bool is_in_range(const struct check *check, double value)
{
    bool is_share = check->field->type == MPO_SERVE_TYPE_SHARE;
    return (is_share ? value > check->field->low : value >= check->field->low) &&
           value <= check->high;
}

static bool check_integer(const struct check *check)
{
    int64_t value = 0;
    if (!mpo_serve_json_integer(check->value, &value) || !is_in_range(check, (double)value))
        return refuse_range(check, "a whole number");
    return true;
}

static bool check_logprobs(const struct check *check)
{
    return json_is_boolean(check->value) || json_is_integer(check->value) ||
                   json_is_real(check->value)
               ? json_is_boolean(check->value) || check_integer(check)
               : refuse_field(check, "a whole number from 0 to 20, true or false");
}

static bool check_text(const struct check *check)
{
    char expected[64];
    size_t bytes = json_string_length(check->value);
    if (json_is_string(check->value) && is_in_range(check, (double)bytes))
        return true;
    snprintf(expected, sizeof expected, "a text of %g to %g bytes", check->field->low,
             check->high);
    return refuse_field(check, expected);
}

/* What asks for nothing. */
static bool is_empty(const json_t *value)
{
    return json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool check_refused(const struct check *check)
{
    char found[MPO_SERVE_FOUND_BYTES];
    json_t *allowed = json_loads(check->field->initial, 0, NULL);
    bool is_allowed = is_empty(check->value);
    for (size_t i = 0; i < json_array_size(allowed) && !is_allowed; i++)
        is_allowed = json_equal(check->value, json_array_get(allowed, i)) != 0;
    json_decref(allowed);
    if (!is_allowed)
        mpo_serve_refuse(check->refusal, 400, "unsupported_parameter", check->field->name,
                         "%s: %s, found %s; leave it out", check->field->name,
                         check->field->sentence, mpo_serve_json_found(check->value, found));
    return is_allowed;
}

bool mpo_serve_field_check(const struct mpo_serve_field *field, const json_t *value,
                           const struct mpo_serve_catalog *catalog,
                           struct mpo_serve_refusal *refusal)
{
    const struct check check = {field, value, mpo_serve_field_high(field, catalog),
                                refusal};
    switch (field->type) {
    case MPO_SERVE_TYPE_TEXT:
        return check_text(&check);
    case MPO_SERVE_TYPE_FLAG:
        return json_is_boolean(value) || refuse_field(&check, "true or false");
    case MPO_SERVE_TYPE_INTEGER:
        return check_integer(&check);
    case MPO_SERVE_TYPE_NUMBER:
    case MPO_SERVE_TYPE_SHARE:
        return (json_is_number(value) && is_in_range(&check, json_number_value(value))) ||
               refuse_range(&check, "a number");
    case MPO_SERVE_TYPE_LOGPROBS:
        return check_logprobs(&check);
    case MPO_SERVE_TYPE_TEXTS:
        return json_is_string(value) || json_is_array(value) ||
               refuse_field(&check, "a string, or a list of them");
    case MPO_SERVE_TYPE_WEIGHTS:
        return json_is_array(value) || json_is_object(value) ||
               refuse_field(&check, "a list of numbers, or {name: number}");
    case MPO_SERVE_TYPE_MESSAGES:
        return json_is_array(value) || refuse_field(&check, "a list of messages");
    case MPO_SERVE_TYPE_PROMPTS:
        return json_is_string(value) || json_is_array(value) ||
               refuse_field(&check, "a string, token ids, or a list of either");
    case MPO_SERVE_TYPE_BIASES:
        return json_is_object(value) || refuse_field(&check, "{token id: number}");
    case MPO_SERVE_TYPE_OPTIONS:
        return json_is_object(value) || refuse_field(&check, "an object");
    case MPO_SERVE_TYPE_REFUSED:
        return check_refused(&check);
    case MPO_SERVE_TYPE_TAKEN:
        return true;
    }
    return true;
}
