/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies to requests: what fields become, what they say of each other, and bodies that are
 * none.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request_case.h"
#include "runner.h"
#include "serve/request_impl.h"

/* ---- what the fields become ---- */

static void without_fields_a_request_has_the_initial_values(void **state)
{
    (void)state;
    struct mpo_serve_request *chat = request_expect(MPO_SERVE_CHAT, "");
    struct mpo_serve_request *text = request_expect(MPO_SERVE_COMPLETION, "");
    assert_true(strncmp(chat->id, "chatcmpl-", 9) == 0 && strlen(chat->id) == 9 + 24);
    assert_true(strncmp(text->id, "cmpl-", 5) == 0 && strlen(text->id) == 5 + 24);
    assert_string_equal(chat->model, "mpo");
    assert_int_equal(chat->client, 7);
    assert_int_equal(chat->prompt_count, 1);
    assert_int_equal(chat->n, 1);
    assert_int_equal(chat->best_of, 1);
    assert_int_equal(chat->max_tokens, 32);
    assert_int_equal(text->max_tokens, 16);
    assert_false(chat->gave_max_tokens || chat->greedy || chat->gave_seed || chat->stream ||
                 chat->logprobs || chat->policy_scores || chat->isolated || text->echo);
    assert_true(chat->weighted_only);
    assert_true(mpo_mixture_filter_is_open(&chat->filter));
    assert_true(chat->seed <= INT64_MAX && chat->seed != text->seed);
    assert_true(chat->weights[0] == 0.25 && chat->mu[1] == 0.75 && chat->mu[2] == 0.0);
    assert_true(chat->end_bias == SERVE_CASE_TILT);
    assert_int_equal(text->prompt[0].token_count, 3);
    assert_int_equal(text->prompt[0].token[0], SERVE_CASE_START);
    assert_string_equal(text->prompt[0].text, "a b");
    mpo_serve_request_close(&chat);
    mpo_serve_request_close(&text);
}

static void temperature_and_filters_are_those_of_generate(void **state)
{
    (void)state;
    struct mpo_serve_request *request = request_expect(
        MPO_SERVE_CHAT, "\"temperature\": 0, \"top_k\": -1, \"top_p\": 0.5, \"min_p\": "
                        "0.25, \"seed\": 9223372036854775807, \"n\": 3.0");
    assert_true(request->greedy && request->gave_seed);
    assert_true(request->filter.temperature == 1.0 && request->filter.top_k == 0);
    assert_true(request->filter.top_p == 0.5 && request->filter.min_p == 0.25);
    assert_true(request->seed == INT64_MAX);
    assert_int_equal(request->n, 3);
    mpo_serve_request_close(&request);
    request = request_expect(MPO_SERVE_CHAT, "\"temperature\": 1e-320");
    assert_false(request->greedy);
    assert_true(isfinite(1.0 / request->filter.temperature));
    mpo_serve_request_close(&request);
}

static void logprobs_have_two_forms(void **state)
{
    (void)state;
    static const struct {
        enum mpo_serve_kind kind;
        const char *members;
        bool logprobs;
        int32_t top;
    } cases[] = {
        {MPO_SERVE_COMPLETION, "\"logprobs\": true", true, 1},
        {MPO_SERVE_COMPLETION, "\"logprobs\": false", false, 0},
        {MPO_SERVE_COMPLETION, "\"logprobs\": 0", true, 0},
        {MPO_SERVE_COMPLETION, "\"logprobs\": 20", true, 20},
        {MPO_SERVE_CHAT, "\"logprobs\": true", true, 0},
        {MPO_SERVE_CHAT, "\"logprobs\": true, \"top_logprobs\": 20", true, 20},
        {MPO_SERVE_CHAT, "\"logprobs\": false, \"top_logprobs\": 0", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mpo_serve_request *request = request_expect(cases[i].kind, cases[i].members);
        assert_int_equal(request->logprobs, cases[i].logprobs);
        assert_int_equal(request->top_logprobs, cases[i].top);
        mpo_serve_request_close(&request);
    }
    request_expect_refused(MPO_SERVE_COMPLETION, "\"logprobs\": 21", "invalid_value",
                           "logprobs", "0 to 20");
    request_expect_refused(MPO_SERVE_CHAT, "\"logprobs\": 1", "invalid_value", "logprobs",
                           "true");
    request_expect_refused(MPO_SERVE_CHAT, "\"top_logprobs\": 2", "invalid_value",
                           "top_logprobs", "logprobs: true");
}

static void best_of_stands_alone(void **state)
{
    (void)state;
    static const char *const beside[] = {"\"n\": 2",
                                         "\"stream\": true",
                                         "\"stop\": \"x\"",
                                         "\"temperature\": 0",
                                         "\"temperature\": 0.5",
                                         "\"top_p\": 0.5",
                                         "\"top_k\": 3",
                                         "\"min_p\": 0.1",
                                         "\"logit_bias\": {\"1\": 1}",
                                         "\"presence_penalty\": 1",
                                         "\"frequency_penalty\": -1"};
    char members[128];
    struct mpo_serve_request *request =
        request_expect(MPO_SERVE_COMPLETION, "\"best_of\": 6");
    assert_int_equal(mpo_serve_choices(request), 6);
    mpo_serve_request_close(&request);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        snprintf(members, sizeof members, "\"best_of\": 2, %s", beside[i]);
        request_expect_refused(MPO_SERVE_CHAT, members, "invalid_value", "best_of",
                               "1 with");
        snprintf(members, sizeof members, "\"best_of\": 1, %s", beside[i]);
        request_expect_taken(MPO_SERVE_CHAT, members);
    }
    request_expect_taken(MPO_SERVE_CHAT,
                         "\"best_of\": 2, \"top_k\": 0, \"top_p\": 1, \"stop\": []");
}

static void stop_texts_are_few_and_short(void **state)
{
    (void)state;
    char members[4096] = "\"stop\": [";
    char longest[1026] = "";
    struct mpo_serve_request *request =
        request_expect(MPO_SERVE_CHAT, "\"stop\": [\"x\", \"\", \"yz\"]");
    assert_int_equal(request->stop_count, 2);
    assert_string_equal(request->stop[1], "yz");
    mpo_serve_request_close(&request);
    request_expect_taken(MPO_SERVE_CHAT, "\"stop\": \"x\"");
    request_expect_taken(MPO_SERVE_CHAT, "\"stop\": []");
    for (int i = 0; i < MPO_SERVE_STOP_COUNT_MAX; i++)
        append_text(members, "%s\"x\"", i > 0 ? ", " : "");
    append_text(members, "]");
    request_expect_taken(MPO_SERVE_CHAT, members);
    *strrchr(members, ']') = '\0';
    append_text(members, ", \"x\"]");
    request_expect_refused(MPO_SERVE_CHAT, members, "invalid_value", "stop", "at most 16");
    memset(longest, 'x', 1025);
    snprintf(members, sizeof members, "\"stop\": \"%.1024s\"", longest);
    request_expect_taken(MPO_SERVE_CHAT, members);
    snprintf(members, sizeof members, "\"stop\": \"%s\"", longest);
    request_expect_refused(MPO_SERVE_CHAT, members, "invalid_value", "stop", "1024");
    request_expect_refused(MPO_SERVE_CHAT, "\"stop\": [1]", "invalid_value", "stop",
                           "texts");
}

static void biases_are_of_tokens(void **state)
{
    (void)state;
    struct mpo_serve_request *request =
        request_expect(MPO_SERVE_CHAT, "\"logit_bias\": {\"3\": -100, \"0\": 100}");
    assert_int_equal(request->bias_count, 2);
    assert_int_equal(request->bias[0].token, 3);
    assert_true(request->bias[0].value == -100.0 && request->bias[1].value == 100.0);
    mpo_serve_request_close(&request);
    static const char *const wrong[] = {"{\"4\": 1}",     "{\"-1\": 1}",  "{\"01\": 1}",
                                        "{\"x\": 1}",     "{\"\": 1}",    "{\"1\": 100.5}",
                                        "{\"1\": \"1\"}", "{\"1\": null}"};
    char members[128];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(members, sizeof members, "\"logit_bias\": %s", wrong[i]);
        request_expect_refused(MPO_SERVE_CHAT, members, "invalid_value", "logit_bias",
                               "expected");
    }
    request_expect_taken(MPO_SERVE_CHAT, "\"logit_bias\": {}");
}

static void too_many_biases_are_refused(void **state)
{
    (void)state;
    static char members[16384] = "\"logit_bias\": {";
    request_world.catalog.vocab_size = 1000;
    for (int i = 0; i < MPO_SERVE_BIAS_COUNT_MAX; i++)
        append_text(members, "%s\"%d\": 1", i > 0 ? ", " : "", i);
    append_text(members, "}");
    request_expect_taken(MPO_SERVE_CHAT, members);
    *strrchr(members, '}') = '\0';
    append_text(members, ", \"999\": 1}");
    request_expect_refused(MPO_SERVE_CHAT, members, "invalid_value", "logit_bias",
                           "at most 300");
    request_world.catalog.vocab_size = SERVE_CASE_VOCAB;
}

static void stream_options_tell_usage(void **state)
{
    (void)state;
    struct mpo_serve_request *request = request_expect(
        MPO_SERVE_CHAT, "\"stream\": true, \"stream_options\": {\"include_usage\": "
                        "true, \"continuous_usage_stats\": true}");
    assert_true(request->stream && request->include_usage);
    assert_string_equal(request->ignored, "stream_options.continuous_usage_stats");
    mpo_serve_request_close(&request);
    request_expect_refused(MPO_SERVE_CHAT, "\"stream_options\": {\"include_usage\": 1}",
                           "invalid_value", "stream_options.include_usage",
                           "true or false");
}

static void isolated_needs_permission(void **state)
{
    (void)state;
    request_expect_refused(MPO_SERVE_CHAT, "\"isolated\": true", "invalid_value",
                           "isolated", "serve.isolated");
    request_world.catalog.allows_isolated = true;
    struct mpo_serve_request *request =
        request_expect(MPO_SERVE_CHAT, "\"isolated\": true");
    assert_true(request->isolated);
    mpo_serve_request_close(&request);
    request_world.catalog.allows_isolated = false;
}

/* ---- unknown fields ---- */

static void unknown_fields_are_named_or_refused(void **state)
{
    (void)state;
    char members[8192] = "";
    struct mpo_serve_request *request = request_expect(
        MPO_SERVE_CHAT,
        "\"x-1\": 1, \"a b\": 1, \"\\u00e9\": 1, \"y.z_\": null, \"k\\r\\n\": 2");
    assert_string_equal(request->ignored, "x-1,y.z_");
    mpo_serve_request_close(&request);
    for (int i = 0; i < 25; i++)
        append_text(members, "%s\"%c%063d\": 1", i > 0 ? ", " : "", 'a' + i, i);
    append_text(members, ", \"z%064d\": 1", 0);
    request = request_expect(MPO_SERVE_CHAT, members);
    assert_int_equal(strlen(request->ignored), 20 * 64 + 19);
    mpo_serve_request_close(&request);
    request_world.catalog.refuses_unknown = true;
    request_expect_refused(MPO_SERVE_CHAT, "\"x-1\": 1", "unsupported_parameter", "x-1",
                           "x-1");
    request_expect_taken(MPO_SERVE_CHAT, "\"user\": \"x\"");
    request_world.catalog.refuses_unknown = false;
}

/* ---- JSON ---- */

static void check_json(const char *body, const char *word)
{
    assert_null(request_parse(MPO_SERVE_CHAT, body));
    assert_string_equal(request_refusal.code, "invalid_json");
    if (strstr(request_refusal.message, word) == NULL)
        fail_msg("%s: %s, expected %s", body, request_refusal.message, word);
}

static void json_outside_its_limits_is_refused(void **state)
{
    (void)state;
    char deep[256] = "{\"x\": ";
    check_json("", "not valid JSON");
    check_json("[]", "found a list of 0");
    check_json("\"x\"", "found 'x'");
    check_json("{\"a\": 1, \"a\": 2}", "uplicate");
    check_json("{\"a\": 1} x", "end of file");
    check_json("{\"a\": \"\\u0000\"}", "u0000");
    check_json("{\"a\": \"\xff\"}", "decode byte 0xff");
    check_json("{\"a\": 1e999}", "overflow");
    check_json("{\"a\": 99999999999999999999}", "too big");
    check_json("{'a': 1}", "not valid JSON");
    for (int i = 0; i < 31; i++)
        append_text(deep, "[");
    for (int i = 0; i < 31; i++)
        append_text(deep, "]");
    append_text(deep, ", \"quoted\": \"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[\"}");
    assert_null(request_parse(MPO_SERVE_CHAT, deep));
    assert_string_equal(request_refusal.code, "missing_field");
    memmove(deep + 7, deep + 6, strlen(deep + 6) + 1);
    check_json(deep, "more than 32 levels");
}

static void a_refusal_is_json_whatever_it_quotes(void **state)
{
    (void)state;
    char body[256] = "{\"x\xf0\x9f\x98";
    assert_null(request_parse(MPO_SERVE_CHAT, body));
    const struct mpo_http_error told = mpo_serve_refusal_error(&request_refusal);
    char *text = mpo_http_error_body(&told);
    json_t *root = json_loads(text, 0, NULL);
    json_t *error = json_object_get(root, "error");
    assert_true(json_is_string(json_object_get(error, "message")));
    assert_true(json_is_null(json_object_get(error, "param")));
    assert_string_equal(json_string_value(json_object_get(error, "code")), "invalid_json");
    assert_string_equal(json_string_value(json_object_get(error, "type")),
                        "invalid_request_error");
    json_decref(root);
    free(text);
    struct mpo_serve_refusal other = {0};
    mpo_serve_refuse(&other, 503, "draining", NULL, "first");
    mpo_serve_refuse(&other, 504, "deadline_exceeded", NULL, "second");
    assert_string_equal(other.message, "first");
    assert_int_equal(other.retry_after_seconds, 5);
    assert_false(other.never_retry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_fields_a_request_has_the_initial_values),
        cmocka_unit_test(temperature_and_filters_are_those_of_generate),
        cmocka_unit_test(logprobs_have_two_forms),
        cmocka_unit_test(best_of_stands_alone),
        cmocka_unit_test(stop_texts_are_few_and_short),
        cmocka_unit_test(biases_are_of_tokens),
        cmocka_unit_test(too_many_biases_are_refused),
        cmocka_unit_test(stream_options_tell_usage),
        cmocka_unit_test(isolated_needs_permission),
        cmocka_unit_test(unknown_fields_are_named_or_refused),
        cmocka_unit_test(json_outside_its_limits_is_refused),
        cmocka_unit_test(a_refusal_is_json_whatever_it_quotes),
    };
    return cmocka_run_group_tests_name("request", tests, request_case_open,
                                       request_case_close);
}
