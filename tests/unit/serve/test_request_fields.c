/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every field of fields.def inside, at and outside its range, with values of other types,
 * and as null.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request_case.h"
#include "runner.h"
#include "serve/request_impl.h"

/* ---- every field ---- */

static const enum mpo_serve_kind kinds[] = {MPO_SERVE_CHAT, MPO_SERVE_COMPLETION};

/* What else a value needs to be taken, and values that another rule refuses. */
static const struct {
    const char *name;
    const char *value; /* NULL: any */
    unsigned at;
    const char *beside;
    const char *code; /* NULL: taken */
} others[] = {
    {"top_logprobs", NULL, MPO_SERVE_AT_CHAT, ", \"logprobs\": true", NULL},
    {"max_tokens", "0", MPO_SERVE_AT_TEXT, ", \"echo\": true", NULL},
    {"max_tokens", "0", MPO_SERVE_AT_CHAT, "", "invalid_value"},
    {"max_completion_tokens", "0", MPO_SERVE_AT_TEXT, ", \"echo\": true", NULL},
    {"max_completion_tokens", "0", MPO_SERVE_AT_CHAT, "", "invalid_value"},
    {"max_tokens", "64", MPO_SERVE_AT_TEXT, "", "context_length_exceeded"},
    {"max_completion_tokens", "64", MPO_SERVE_AT_TEXT, "", "context_length_exceeded"},
    {"add_generation_prompt", "false", MPO_SERVE_AT_BOTH, "", "unsupported_parameter"},
    {"continue_final_message", "true", MPO_SERVE_AT_CHAT, "", "invalid_value"},
};

/* A value within the field's own range. */
static void check_inside(const struct mpo_serve_field *field, enum mpo_serve_kind kind,
                         const char *value)
{
    char members[4096];
    const char *beside = "";
    const char *code = NULL;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if ((others[i].at & (1U << kind)) != 0 &&
            strcmp(others[i].name, field->name) == 0 &&
            (others[i].value == NULL || strcmp(others[i].value, value) == 0)) {
            beside = others[i].beside;
            code = others[i].code;
        }
    snprintf(members, sizeof members, "\"%s\": %s%s", field->name, value, beside);
    struct mpo_serve_request *request = request_parse_with(kind, members);
    if (code == NULL && request == NULL)
        fail_msg("%s: %s", members, request_refusal.message);
    if (code != NULL && (request != NULL || strcmp(request_refusal.code, code) != 0))
        fail_msg("%s: %s, expected %s", members,
                 request != NULL ? "taken" : request_refusal.code, code);
    if (request != NULL)
        assert_string_equal(request->ignored, "");
    mpo_serve_request_close(&request);
}

static void check_outside(const struct mpo_serve_field *field, enum mpo_serve_kind kind,
                          const char *value)
{
    char members[4096];
    snprintf(members, sizeof members, "\"%s\": %s", field->name, value);
    request_expect_refused(kind, members, "invalid_value", field->name, "expected");
    if (strstr(request_refusal.message, "found") == NULL ||
        strncmp(request_refusal.message, field->name, strlen(field->name)) != 0)
        fail_msg("%s: says neither what was found nor where: %s", members,
                 request_refusal.message);
}

static void check_number(const struct mpo_serve_field *field, enum mpo_serve_kind kind)
{
    double high = mpo_serve_field_high(field, &request_world.catalog);
    bool is_whole = field->type == MPO_SERVE_TYPE_INTEGER;
    bool is_share = field->type == MPO_SERVE_TYPE_SHARE;
    double step = is_whole ? 1.0 : 1e-6;
    const double inside[] = {is_share ? step : field->low, high,
                             floor((field->low + high) / 2 + (is_whole ? 0.0 : 0.25))};
    const double outside[] = {is_share ? field->low : field->low - step, high + step,
                              high + 1e6};
    char text[64];
    for (int i = 0; i < 3; i++) {
        double within = inside[i] < 0x1p63 ? inside[i] : 0x1p62;
        if (within < (is_share ? step : field->low))
            within = high;
        snprintf(text, sizeof text, "%.17g", within);
        if (is_whole && within >= 1e15)
            snprintf(text, sizeof text, "%lld", (long long)INT64_MAX);
        check_inside(field, kind, text);
        snprintf(text, sizeof text, "%.17g", outside[i]);
        check_outside(field, kind, text);
    }
    if (is_whole)
        check_outside(field, kind, "1.5");
    check_outside(field, kind, "\"1\"");
    check_outside(field, kind, "true");
    check_outside(field, kind, "[1]");
}

static void check_text(const struct mpo_serve_field *field, enum mpo_serve_kind kind)
{
    char text[2048];
    memset(text, 'x', sizeof text);
    text[0] = '"';
    text[(size_t)field->high + 2] = '"';
    text[(size_t)field->high + 3] = '\0';
    check_outside(field, kind, text);
    check_outside(field, kind, "\"\"");
    check_outside(field, kind, "1");
    check_outside(field, kind, "[\"mpo\"]");
}

static void check_kind_of_list(const struct mpo_serve_field *field,
                               enum mpo_serve_kind kind)
{
    bool takes_object = field->type == MPO_SERVE_TYPE_WEIGHTS ||
                        field->type == MPO_SERVE_TYPE_BIASES ||
                        field->type == MPO_SERVE_TYPE_OPTIONS;
    check_outside(field, kind, "1.25");
    if (field->type != MPO_SERVE_TYPE_LOGPROBS)
        check_outside(field, kind, "true");
    check_outside(field, kind, takes_object ? "\"x\"" : "{\"x\": 1}");
}

static void check_refused(const struct mpo_serve_field *field, enum mpo_serve_kind kind)
{
    static const char *const wrong[] = {"\"x\"", "[{\"type\": \"x\"}]", "{\"x\": 1}",
                                        "true", "7"};
    static const char *const empty[] = {"\"\"", "[]", "{}", "false", "null"};
    char members[256];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_inside(field, kind, empty[i]);
        snprintf(members, sizeof members, "\"%s\": %s", field->name, wrong[i]);
        request_expect_refused(kind, members, "unsupported_parameter", field->name,
                               "leave it out");
    }
    json_t *allowed = json_loads(field->initial, 0, NULL);
    for (size_t i = 0; i < json_array_size(allowed); i++) {
        char *text = json_dumps(json_array_get(allowed, i), JSON_ENCODE_ANY);
        check_inside(field, kind, text);
        free(text);
    }
    json_decref(allowed);
}

static void check_taken(const struct mpo_serve_field *field, enum mpo_serve_kind kind)
{
    static const char *const any[] = {"\"x\"", "[1]", "{\"x\": {}}", "true", "-7", "1e300"};
    for (size_t i = 0; i < sizeof any / sizeof *any; i++)
        check_inside(field, kind, any[i]);
}

static void check_field(const struct mpo_serve_field *field, enum mpo_serve_kind kind)
{
    switch (field->type) {
    case MPO_SERVE_TYPE_FLAG:
        if (strcmp(field->name, "isolated") != 0)
            check_inside(field, kind, "true");
        check_inside(field, kind, "false");
        check_outside(field, kind, "1");
        check_outside(field, kind, "\"true\"");
        break;
    case MPO_SERVE_TYPE_INTEGER:
    case MPO_SERVE_TYPE_NUMBER:
    case MPO_SERVE_TYPE_SHARE:
        check_number(field, kind);
        break;
    case MPO_SERVE_TYPE_TEXT:
        check_text(field, kind);
        break;
    case MPO_SERVE_TYPE_REFUSED:
        check_refused(field, kind);
        break;
    case MPO_SERVE_TYPE_TAKEN:
        check_taken(field, kind);
        break;
    default:
        if (field->type != MPO_SERVE_TYPE_MESSAGES && field->type != MPO_SERVE_TYPE_PROMPTS)
            check_kind_of_list(field, kind);
    }
}

static void every_field_is_taken_inside_and_at_its_range_and_refused_outside(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int32_t i = 0; i < MPO_SERVE_FIELD_COUNT; i++)
            if ((mpo_serve_fields[i].endpoints & (1U << kinds[k])) != 0)
                check_field(&mpo_serve_fields[i], kinds[k]);
}

/* What is published, written a second time: the cases above follow the table wherever it
 * goes. */
static void the_table_has_the_published_ranges(void **state)
{
    (void)state;
    static const struct {
        enum mpo_serve_field_index index;
        double low;
        double high;
        const char *initial;
    } published[] = {
        {MPO_SERVE_FIELD_end_bias, -100, 100, NULL},
        {MPO_SERVE_FIELD_messages, 1, 1024, NULL},
        {MPO_SERVE_FIELD_prompt, 1, 64, NULL},
        {MPO_SERVE_FIELD_logprobs_of_text, 0, 20, "false"},
        {MPO_SERVE_FIELD_top_logprobs, 0, 20, "0"},
        {MPO_SERVE_FIELD_max_tokens, 0, SERVE_CASE_CONTEXT, NULL},
        {MPO_SERVE_FIELD_max_completion_tokens, 0, SERVE_CASE_CONTEXT, NULL},
        {MPO_SERVE_FIELD_temperature, 0, 2, "1"},
        {MPO_SERVE_FIELD_top_p, 0, 1, "1"},
        {MPO_SERVE_FIELD_top_k, -1, INT32_MAX, "0"},
        {MPO_SERVE_FIELD_min_p, 0, 1, "0"},
        {MPO_SERVE_FIELD_seed, 0, 0x1p63, NULL},
        {MPO_SERVE_FIELD_n, 1, SERVE_CASE_ROWS, "1"},
        {MPO_SERVE_FIELD_best_of, 1, SERVE_CASE_ROWS, "1"},
        {MPO_SERVE_FIELD_stop, 0, 16, NULL},
        {MPO_SERVE_FIELD_logit_bias, -100, 100, NULL},
        {MPO_SERVE_FIELD_presence_penalty, -2, 2, "0"},
        {MPO_SERVE_FIELD_frequency_penalty, -2, 2, "0"},
        {MPO_SERVE_FIELD_repetition_penalty, 1, 1, "1"},
    };
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        const struct mpo_serve_field *field = &mpo_serve_fields[published[i].index];
        const char *initial = published[i].initial;
        if (field->low != published[i].low ||
            mpo_serve_field_high(field, &request_world.catalog) != published[i].high ||
            (initial == NULL) != (field->initial == NULL) ||
            (initial != NULL && strcmp(initial, field->initial) != 0))
            fail_msg("%s: another range or initial value than published", field->name);
    }
}

static void null_is_absent_in_every_field(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int32_t i = 0; i < MPO_SERVE_FIELD_COUNT; i++) {
            const struct mpo_serve_field *field = &mpo_serve_fields[i];
            if ((field->endpoints & (1U << kinds[k])) != 0 &&
                field->type != MPO_SERVE_TYPE_MESSAGES &&
                field->type != MPO_SERVE_TYPE_PROMPTS)
                check_inside(field, kinds[k], "null");
        }
    struct mpo_serve_request *request =
        request_parse(MPO_SERVE_CHAT, "{\"messages\": null}");
    assert_null(request);
    assert_string_equal(request_refusal.code, "missing_field");
    request = request_parse(MPO_SERVE_COMPLETION, "{}");
    assert_null(request);
    assert_string_equal(request_refusal.param, "prompt");
}

static void a_field_of_the_other_endpoint_is_unknown(void **state)
{
    (void)state;
    char members[128];
    for (int32_t i = 0; i < MPO_SERVE_FIELD_COUNT; i++) {
        const struct mpo_serve_field *field = &mpo_serve_fields[i];
        if (field->endpoints == MPO_SERVE_AT_BOTH || strcmp(field->name, "logprobs") == 0)
            continue;
        enum mpo_serve_kind other =
            field->endpoints == MPO_SERVE_AT_CHAT ? MPO_SERVE_COMPLETION : MPO_SERVE_CHAT;
        snprintf(members, sizeof members, "\"%s\": {\"x\": 1}", field->name);
        struct mpo_serve_request *request = request_expect(other, members);
        assert_string_equal(request->ignored, field->name);
        mpo_serve_request_close(&request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_taken_inside_and_at_its_range_and_refused_outside),
        cmocka_unit_test(the_table_has_the_published_ranges),
        cmocka_unit_test(null_is_absent_in_every_field),
        cmocka_unit_test(a_field_of_the_other_endpoint_is_unknown),
    };
    return cmocka_run_group_tests_name("request fields", tests, request_case_open,
                                       request_case_close);
}
