/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request asks: the chat, prompts of completions, the length of what follows, and the
 * weights that it is drawn with.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request_case.h"
#include "runner.h"
#include "serve/request_impl.h"

#define CHAT MPO_SERVE_CHAT
#define TEXT MPO_SERVE_COMPLETION

static char body[1 << 18];

/* ---- messages ---- */

static struct mpo_serve_request *parse_chat(const char *messages, const char *members)
{
    snprintf(body, sizeof body, "{\"messages\": %.200000s%s}", messages, members);
    return request_parse(CHAT, body);
}

static void check_chat_refused(const char *messages, const char *param, const char *word)
{
    assert_null(parse_chat(messages, ""));
    if (strcmp(request_refusal.param, param) != 0 ||
        strstr(request_refusal.message, word) == NULL)
        fail_msg("%s: %s: %s, expected %s: %s", messages, request_refusal.param,
                 request_refusal.message, param, word);
}

static void messages_keep_their_order_and_developer_is_system(void **state)
{
    (void)state;
    struct mpo_serve_request *request = parse_chat(
        "[{\"role\": \"developer\", \"content\": \"be\"}, {\"role\": \"user\", "
        "\"content\": "
        "[{\"type\": \"text\", \"text\": \"a \"}, {\"type\": \"text\", \"text\": \"b\"}], "
        "\"name\": \"x\"}, {\"role\": \"assistant\", \"content\": \"\", \"refusal\": null, "
        "\"tool_calls\": []}, {\"role\": \"user\", \"content\": \"c\"}]",
        "");
    assert_non_null(request);
    assert_int_equal(request->chat.message_count, 4);
    assert_string_equal(request->chat.messages[0].role, "system");
    assert_string_equal(request->chat.messages[1].content, "a b");
    assert_string_equal(request->chat.messages[2].role, "assistant");
    assert_string_equal(request->chat.messages[3].content, "c");
    assert_string_equal(request->chat.prefill, "");
    assert_string_equal(request->ignored, "messages.name,messages.tool_calls");
    mpo_serve_request_close(&request);
}

static void a_last_message_of_the_assistant_is_a_turn_or_a_beginning(void **state)
{
    (void)state;
    static const char *const chat = "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
                                    "\"assistant\", \"content\": \"b c\"}]";
    struct mpo_serve_request *request = parse_chat(chat, "");
    assert_int_equal(request->chat.message_count, 2);
    assert_string_equal(request->chat.prefill, "");
    mpo_serve_request_close(&request);
    request = parse_chat(
        chat, ", \"continue_final_message\": true, \"add_generation_prompt\": false");
    assert_int_equal(request->chat.message_count, 1);
    assert_string_equal(request->chat.prefill, "b c");
    mpo_serve_request_close(&request);
    assert_null(parse_chat("[{\"role\": \"assistant\", \"content\": \"b\"}]",
                           ", \"continue_final_message\": true"));
    assert_string_equal(request_refusal.param, "continue_final_message");
}

static void messages_that_no_template_can_have_are_refused(void **state)
{
    (void)state;
    check_chat_refused("[]", "messages", "1 to 1024");
    check_chat_refused("{}", "messages", "list");
    check_chat_refused("[1]", "messages[0]", "object");
    check_chat_refused("[{\"role\": \"tool\", \"content\": \"x\"}]", "messages[0]",
                       "found 'tool'");
    check_chat_refused("[{\"content\": \"x\"}]", "messages[0]", "role");
    check_chat_refused("[{\"role\": \"user\"}]", "messages[0]", "content");
    check_chat_refused("[{\"role\": \"user\", \"content\": null}]", "messages[0]", "null");
    check_chat_refused("[{\"role\": \"user\", \"content\": []}]", "messages[0]", "list");
    check_chat_refused("[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]",
                       "messages[0]", "image_url");
    check_chat_refused("[{\"role\": \"user\", \"content\": [\"x\"]}]", "messages[0]",
                       "found 'x'");
    check_chat_refused("[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]",
                       "messages[0]", "text");
    check_chat_refused("[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", "
                       "\"content\": \"b\"}]",
                       "messages[1]", "first one only");
    check_chat_refused(
        "[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{}]}]",
        "messages[0]", "tool_calls");
    assert_string_equal(request_refusal.code, "unsupported_parameter");
}

static void a_policy_with_a_system_text_takes_no_other(void **state)
{
    (void)state;
    request_world.has_system[1] = true;
    check_chat_refused("[{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"user\", "
                       "\"content\": \"a\"}]",
                       "messages[0]", "concise");
    request_expect_taken(CHAT, "");
    request_world.has_system[1] = false;
}

static void there_are_1024_messages_at_most(void **state)
{
    (void)state;
    static char list[1 << 17] = "[";
    for (int i = 0; i < MPO_SERVE_MESSAGE_COUNT_MAX; i++)
        append_text(list, "%s{\"role\": \"user\", \"content\": \"a\"}", i > 0 ? ", " : "");
    append_text(list, "]");
    struct mpo_serve_request *request = parse_chat(list, "");
    assert_int_equal(request->chat.message_count, 1024);
    mpo_serve_request_close(&request);
    *strrchr(list, ']') = '\0';
    append_text(list, ", {\"role\": \"user\", \"content\": \"a\"}]");
    check_chat_refused(list, "messages", "found 1025");
}

/* A short one is measured by the policies themselves, when it is their turn. */
static void a_chat_that_cannot_fit_is_refused(void **state)
{
    (void)state;
    static const char *const words = "a a a a a a a a a a a a a a a a a a a a";
    static char list[1 << 16];
    static char long_one[1 << 15];
    for (int count = 400; count <= 425; count += 25) {
        snprintf(list, sizeof list, "[");
        for (int i = 0; i < count; i++)
            append_text(list, "%s{\"role\": \"user\", \"content\": \"%s\"}",
                        i > 0 ? ", " : "", words);
        append_text(list, "]");
        struct mpo_serve_request *request = parse_chat(list, "");
        assert_true((request != NULL) == ((size_t)count * strlen(words) < 16384));
        mpo_serve_request_close(&request);
    }
    check_chat_refused(list, "messages", "expected at most 64 tokens, found at least 80");
    memset(long_one, 'a', sizeof long_one - 1);
    snprintf(list, sizeof list,
             "[{\"role\": \"user\", \"content\": \"b\"}, "
             "{\"role\": \"assistant\", \"content\": \"%s\"}]",
             long_one);
    check_chat_refused(list, "messages[1]", "found a text of 32767 bytes");
}

/* ---- prompts ---- */

static struct mpo_serve_request *parse_prompt(const char *prompt, const char *members)
{
    snprintf(body, sizeof body, "{\"prompt\": %s%s}", prompt, members);
    return request_parse(TEXT, body);
}

static void check_prompt(const char *prompt, const char *members, int32_t prompt_count,
                         const int32_t *token, int32_t token_count)
{
    struct mpo_serve_request *request = parse_prompt(prompt, members);
    if (request == NULL)
        fail_msg("%s: %s", prompt, request_refusal.message);
    const struct mpo_serve_prompt *last = &request->prompt[prompt_count - 1];
    assert_int_equal(request->prompt_count, prompt_count);
    assert_int_equal(last->token_count, token_count);
    assert_memory_equal(last->token, token, (size_t)token_count * sizeof *token);
    mpo_serve_request_close(&request);
}

static void check_prompt_refused(const char *prompt, const char *members, const char *code,
                                 const char *word)
{
    assert_null(parse_prompt(prompt, members));
    if (strcmp(request_refusal.code, code) != 0 ||
        strstr(request_refusal.message, word) == NULL)
        fail_msg("%s: %s: %s, expected %s: %s", prompt, request_refusal.code,
                 request_refusal.message, code, word);
}

static void prompts_are_texts_or_ids_one_or_many(void **state)
{
    (void)state;
    static const int32_t text[] = {SERVE_CASE_START, 0, 1, SERVE_CASE_END, 2};
    check_prompt("\"a b </s> c\"", "", 1, text, 5);
    check_prompt("\"<s> a b </s> c\"", "", 1, text, 5);
    check_prompt("\"a b </s> c\"", ", \"add_special_tokens\": false", 1, text + 1, 4);
    check_prompt("[\"a\", \"a b\"]", "", 2, text, 3);
    check_prompt("[0, 1, 3, 2]", "", 1, text + 1, 4);
    check_prompt("[[2], [4, 0, 1.0]]", "", 2, text, 3);
    check_prompt("\"\"", "", 1, text, 1);
    check_prompt("\" \"", ", \"add_special_tokens\": false", 1, text, 1);
    check_prompt("[[]]", "", 1, text, 1);
    check_prompt("[\"a\", \"\"]", "", 2, text, 1);
}

static void ids_have_their_text_and_texts_keep_theirs(void **state)
{
    (void)state;
    struct mpo_serve_request *request = parse_prompt("[[4, 0, 3], [1]]", "");
    assert_string_equal(request->prompt[0].text, "<s> a </s>");
    assert_string_equal(request->prompt[1].text, "b");
    mpo_serve_request_close(&request);
    request = parse_prompt("[\"a  b \"]", "");
    assert_string_equal(request->prompt[0].text, "a  b ");
    mpo_serve_request_close(&request);
}

static void prompts_that_are_none_are_refused(void **state)
{
    (void)state;
    check_prompt_refused("[]", "", "invalid_value", "1 to 64");
    check_prompt_refused("7", "", "invalid_value", "found 7");
    check_prompt_refused("{}", "", "invalid_value", "expected");
    check_prompt_refused("[\"a\", 1]", "", "invalid_value", "found 1");
    check_prompt_refused("[[1], \"a\"]", "", "invalid_value", "found 'a'");
    check_prompt_refused("[1, \"a\"]", "", "invalid_value", "found 'a'");
    check_prompt_refused("[4.5]", "", "invalid_value", "found 4.5");
    check_prompt_refused("[1, 4]", "", "invalid_value", "0 to 3, found 4 as number 2");
    check_prompt_refused("[5]", "", "invalid_value", "found 5");
    check_prompt_refused("[-1]", "", "invalid_value", "found -1");
    check_prompt_refused("[4294967296]", "", "invalid_value", "found 4294967296");
    check_prompt_refused("[true]", "", "invalid_value", "found true");
    check_prompt_refused("\"x\"", "", "invalid_value", "'x' is not a token");
    check_prompt_refused("null", "", "missing_field", "expected");
}

static void there_are_64_prompts_at_most(void **state)
{
    (void)state;
    static const int32_t text[] = {SERVE_CASE_START, 0};
    char list[1024] = "[\"a\"";
    for (int i = 1; i < MPO_SERVE_PROMPT_COUNT_MAX; i++)
        append_text(list, ", \"a\"");
    append_text(list, "]");
    check_prompt(list, "", 64, text, 2);
    *strrchr(list, ']') = '\0';
    append_text(list, ", \"a\"]");
    check_prompt_refused(list, "", "invalid_value", "found 65");
}

/* The table has no row of </s>: a figure after it would be made up. */
static void nothing_is_scored_after_a_token_that_nothing_follows(void **state)
{
    (void)state;
    static const char *const scored = ", \"echo\": true, \"logprobs\": 1";
    static const char *const given = ", \"echo\": true, \"logprobs\": 1, \"max_tokens\": 0";
    static const int32_t text[] = {0, SERVE_CASE_END, 1};
    check_prompt_refused("[0, 3, 1]", scored, "invalid_value", "no row");
    check_prompt_refused("[0, 1, 3]", scored, "invalid_value", "no row");
    check_prompt_refused("[[1], [0, 3, 1]]", given, "invalid_value", "no row");
    check_prompt("[0, 3]", given, 1, text, 2);
    check_prompt("[0, 3, 1]", "", 1, text, 3);
    check_prompt("[4, 0]", scored, 1, (const int32_t[]){SERVE_CASE_START, 0}, 2);
}

/* ---- length ---- */

/* Ids of a prompt of so many tokens. */
static const char *ids_of(int32_t count)
{
    static char list[1024];
    snprintf(list, sizeof list, "[");
    for (int32_t i = 0; i < count; i++)
        append_text(list, "%s1", i > 0 ? ", " : "");
    append_text(list, "]");
    return list;
}

static void check_max_tokens(int32_t prompt_tokens, const char *members, int32_t expected)
{
    struct mpo_serve_request *request = parse_prompt(ids_of(prompt_tokens), members);
    if (request == NULL)
        fail_msg("%d tokens%s: %s", prompt_tokens, members, request_refusal.message);
    assert_int_equal(request->max_tokens, expected);
    mpo_serve_request_close(&request);
}

static void completions_fit_the_context(void **state)
{
    (void)state;
    static const char *const code = "context_length_exceeded";
    check_max_tokens(1, "", 16);
    check_max_tokens(48, "", 16);
    check_max_tokens(49, "", 15);
    check_max_tokens(63, "", 1);
    check_prompt_refused(ids_of(64), "", code, "64 tokens");
    check_prompt_refused(ids_of(65), "", code, "found 65");
    check_max_tokens(60, ", \"max_tokens\": 4", 4);
    check_prompt_refused(ids_of(60), ", \"max_tokens\": 5", code, "max_tokens 5");
    check_max_tokens(64, ", \"max_tokens\": 0, \"echo\": true", 0);
    check_prompt_refused(ids_of(64), ", \"max_tokens\": 1, \"echo\": true", code, "64");
    check_prompt_refused(ids_of(2), ", \"max_tokens\": 0", "invalid_value", "echo");
    check_prompt_refused(
        "\"a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a "
        "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a "
        "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a "
        "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a "
        "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a\"",
        "", code, "expected at most 64");
}

/* Few enough bytes to be tokenised, and one token too many. */
static void a_text_of_too_many_tokens_is_refused(void **state)
{
    (void)state;
    char text[2 * SERVE_CASE_CONTEXT + 3] = "\"";
    for (int i = 0; i < SERVE_CASE_CONTEXT; i++)
        append_text(text, "a ");
    append_text(text, "\"");
    check_prompt_refused(text, "", "context_length_exceeded", "found 65");
    check_prompt_refused(text, ", \"add_special_tokens\": false", "context_length_exceeded",
                         "has 64 tokens");
}

static void max_tokens_has_two_names(void **state)
{
    (void)state;
    struct mpo_serve_request *request =
        request_expect(CHAT, "\"max_completion_tokens\": 5, \"max_tokens\": 5");
    assert_true(request->gave_max_tokens && request->max_tokens == 5);
    mpo_serve_request_close(&request);
    request = request_expect(TEXT, "\"max_completion_tokens\": 7");
    assert_int_equal(request->max_tokens, 7);
    mpo_serve_request_close(&request);
    request_expect_refused(CHAT, "\"max_completion_tokens\": 5, \"max_tokens\": 6",
                           "invalid_value", "max_tokens", "one number");
    request_world.catalog.max_tokens = 1000;
    request = request_expect(CHAT, "");
    assert_int_equal(request->max_tokens, SERVE_CASE_CONTEXT);
    mpo_serve_request_close(&request);
    request_world.catalog.max_tokens = 32;
}

/* ---- weights ---- */

static void check_mix(const char *members, double helpful, double base, double end_bias)
{
    struct mpo_serve_request *request = request_expect(CHAT, members);
    assert_close(request->mu[0], helpful, 1e-15);
    assert_close(request->mu[2], base, 1e-15);
    assert_true(request->end_bias == end_bias);
    mpo_serve_request_close(&request);
}

static void weights_replace_those_of_the_model(void **state)
{
    (void)state;
    check_mix("", 0.25, 0.0, SERVE_CASE_TILT);
    check_mix("\"weights\": [0.4, 0.6]", 0.4, 0.0, 0.0);
    check_mix("\"weights\": {\"concise\": 1}", 0.0, 0.0, 0.0);
    check_mix("\"weights\": {\"concise\": 0.6, \"helpful\": 0.4}", 0.4, 0.0, 0.0);
    check_mix("\"weights\": [0.4, 0.6009]", 0.4 / 1.0009, 0.0, 0.0);
    check_mix("\"weights\": [0.4, 0.6], \"end_bias\": -2", 0.4, 0.0, -2.0);
    check_mix("\"end_bias\": 3", 0.25, 0.0, 3.0);
    check_mix("\"strength\": 2", 0.5, -1.0, 0.0);
    check_mix("\"strength\": 1", 0.25, 0.0, SERVE_CASE_TILT);
    check_mix("\"strength\": 0, \"weights\": [1, 0]", 0.0, 1.0, 0.0);
    check_mix("\"model\": \"policy/base\"", 0.0, 1.0, 0.0);
}

static void check_weights_refused(const char *members, const char *param, const char *word)
{
    request_expect_refused(CHAT, members, "invalid_weights", param, word);
}

static void weights_off_the_simplex_need_permission(void **state)
{
    (void)state;
    check_weights_refused("\"weights\": [0.4]", "weights", "2 numbers");
    check_weights_refused("\"weights\": [0.4, 0.6, 0]", "weights", "found 3");
    check_weights_refused("\"weights\": [0.4, \"0.6\"]", "weights", "'0.6'");
    check_weights_refused("\"weights\": [0.4, 0.602]", "weights", "1.002");
    check_weights_refused("\"weights\": [-0.5, 1.5]", "weights", "-0.5 for helpful");
    check_weights_refused("\"weights\": [0, 0]", "weights", "sum of 0");
    check_weights_refused("\"weights\": {}", "weights", "sum of 0");
    check_weights_refused("\"weights\": {\"base\": 1}", "weights", "found 'base'");
    check_weights_refused("\"weights\": {\"helpful\": true}", "weights", "found true");
    check_weights_refused("\"weights\": [1, 0], \"model\": \"policy/helpful\"", "weights",
                          "policy/helpful");
    check_weights_refused("\"model\": \"mpo@0.5:0.6\"", "model", "1.1");
    request_world.catalog.allow_any_weights = true;
    check_mix("\"weights\": [-0.5, 1.7]", -0.5, 0.0, 0.0);
    check_mix("\"weights\": [0.4, 0.6], \"strength\": 2", 0.8, -1.0, 0.0);
    check_weights_refused("\"weights\": [1e7, 0]", "weights", "1e+06");
    request_expect_refused(CHAT, "\"weights\": [-0.5, 1.7], \"strength\": 2",
                           "invalid_value", "strength", "exponents as given");
    request_world.catalog.allow_any_weights = false;
}

static void strength_needs_a_reference(void **state)
{
    (void)state;
    request_expect_refused(CHAT, "\"strength\": 2, \"model\": \"policy/base\"",
                           "invalid_value", "strength", "a policy alone");
    request_world.catalog.has_reference = false;
    request_expect_refused(CHAT, "\"strength\": 2", "invalid_value", "strength",
                           "role reference");
    check_mix("\"strength\": 1.0", 0.25, 0.0, SERVE_CASE_TILT);
    request_world.catalog.has_reference = true;
}

static void scores_of_all_policies_are_wanted_or_not(void **state)
{
    (void)state;
    struct mpo_serve_request *request = request_expect(CHAT, "\"policy_scores\": true");
    assert_true(request->policy_scores && !request->weighted_only);
    mpo_serve_request_close(&request);
    request = request_expect(CHAT, "\"model\": \"policy/concise\"");
    assert_true(request->weights == NULL && request->weighted_only);
    mpo_serve_request_close(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_keep_their_order_and_developer_is_system),
        cmocka_unit_test(a_last_message_of_the_assistant_is_a_turn_or_a_beginning),
        cmocka_unit_test(messages_that_no_template_can_have_are_refused),
        cmocka_unit_test(a_policy_with_a_system_text_takes_no_other),
        cmocka_unit_test(there_are_1024_messages_at_most),
        cmocka_unit_test(a_chat_that_cannot_fit_is_refused),
        cmocka_unit_test(prompts_are_texts_or_ids_one_or_many),
        cmocka_unit_test(ids_have_their_text_and_texts_keep_theirs),
        cmocka_unit_test(prompts_that_are_none_are_refused),
        cmocka_unit_test(there_are_64_prompts_at_most),
        cmocka_unit_test(nothing_is_scored_after_a_token_that_nothing_follows),
        cmocka_unit_test(completions_fit_the_context),
        cmocka_unit_test(a_text_of_too_many_tokens_is_refused),
        cmocka_unit_test(max_tokens_has_two_names),
        cmocka_unit_test(weights_replace_those_of_the_model),
        cmocka_unit_test(weights_off_the_simplex_need_permission),
        cmocka_unit_test(strength_needs_a_reference),
        cmocka_unit_test(scores_of_all_policies_are_wanted_or_not),
    };
    return cmocka_run_group_tests_name("request prompts", tests, request_case_open,
                                       request_case_close);
}
