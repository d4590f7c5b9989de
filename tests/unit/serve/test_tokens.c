/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /tokenize, POST /detokenize and GET /tokenizer_info over table policies, and the
 * bounds of a text before it is tokenised.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request_case.h"
#include "runner.h"
#include "serve/tokens.h"

/* Compare an answer with JSON; the answer is given away. */
static void check_answer(char *text, const char *expected)
{
    if (text == NULL)
        fail_msg("%s, expected %s", request_refusal.message, expected);
    json_t *got = json_loads(text, 0, NULL);
    json_t *want = json_loads(expected, 0, NULL);
    assert_non_null(want);
    if (!json_equal(got, want))
        fail_msg("%s, expected %s", text, expected);
    json_decref(got);
    json_decref(want);
    free(text);
}

static char *tokenize(const char *body)
{
    return mpo_serve_tokenize_json(&request_world.catalog, body, strlen(body),
                                   &request_refusal);
}

static char *detokenize(const char *body)
{
    return mpo_serve_detokenize_json(&request_world.catalog, body, strlen(body),
                                     &request_refusal);
}

static void check_refused(char *text, const char *code, const char *param, const char *word)
{
    assert_null(text);
    assert_int_equal(request_refusal.http_status, 400);
    if (strcmp(request_refusal.code, code) != 0 ||
        strcmp(request_refusal.param, param) != 0 ||
        strstr(request_refusal.message, word) == NULL)
        fail_msg("%s, %s: %s", request_refusal.code, request_refusal.param,
                 request_refusal.message);
}

static void text_becomes_tokens_with_special_ones(void **state)
{
    (void)state;
    check_answer(tokenize("{\"prompt\": \"a c\"}"),
                 "{\"tokens\": [4, 0, 2], \"count\": 3, \"max_model_len\": 64, "
                 "\"token_strs\": null}");
    check_answer(tokenize("{\"content\": \"a c\", \"add_special_tokens\": false, "
                          "\"return_token_strs\": true, \"model\": \"x\"}"),
                 "{\"tokens\": [0, 2], \"count\": 2, \"max_model_len\": 64, "
                 "\"token_strs\": [\" a\", \" c\"]}");
    /* as lm-evaluation-harness asks for the token that ends a text */
    check_answer(tokenize("{\"prompt\": \"</s>\", \"add_special_tokens\": false}"),
                 "{\"tokens\": [3], \"count\": 1, \"max_model_len\": 64, \"token_strs\": "
                 "null}");
    check_answer(tokenize("{\"prompt\": \"\", \"add_special_tokens\": false}"),
                 "{\"tokens\": [], \"count\": 0, \"max_model_len\": 64, \"token_strs\": "
                 "null}");
}

static void a_chat_becomes_the_tokens_of_the_first_policy(void **state)
{
    (void)state;
    check_answer(tokenize("{\"messages\": [{\"role\": \"user\", \"content\": \"a b\"}]}"),
                 "{\"tokens\": [4, 0, 1], \"count\": 3, \"max_model_len\": 64, "
                 "\"token_strs\": null}");
    check_refused(tokenize("{\"messages\": [{\"role\": \"user\", \"content\": \"</s>\"}]}"),
                  "template_error", "messages", "end token");
    check_refused(tokenize("{\"messages\": [{\"role\": \"x\", \"content\": \"a\"}]}"),
                  "invalid_value", "messages[0]", "role");
    check_refused(tokenize("{\"messages\": 1}"), "invalid_value", "messages", "list");
}

static void what_is_no_text_is_refused(void **state)
{
    (void)state;
    check_refused(tokenize("{}"), "missing_field", "prompt", "messages");
    check_refused(tokenize("{\"prompt\": null}"), "missing_field", "prompt", "content");
    check_refused(tokenize("{\"prompt\": [1]}"), "invalid_value", "prompt", "text");
    check_refused(tokenize("{\"prompt\": \"zebra\"}"), "invalid_value", "prompt", "zebra");
    check_refused(tokenize("{\"prompt\": \"a\", \"add_special_tokens\": 1}"),
                  "invalid_value", "add_special_tokens", "true or false");
    check_refused(tokenize("{\"prompt\": \"a\", \"return_token_strs\": \"x\"}"),
                  "invalid_value", "return_token_strs", "found 'x'");
    check_refused(tokenize("[]"), "invalid_json", "", "object");
}

static void tokens_become_text_and_come_back(void **state)
{
    (void)state;
    check_answer(detokenize("{\"tokens\": [4, 0, 2, 3]}"),
                 "{\"prompt\": \"<s> a c </s>\", \"content\": \"<s> a c </s>\"}");
    check_answer(detokenize("{\"tokens\": [1, 1]}"),
                 "{\"prompt\": \"b b\", \"content\": \"b b\"}");
    check_answer(detokenize("{\"tokens\": []}"), "{\"prompt\": \"\", \"content\": \"\"}");
    check_answer(tokenize("{\"prompt\": \"<s> a c </s>\"}"),
                 "{\"tokens\": [4, 0, 2, 3], \"count\": 4, \"max_model_len\": 64, "
                 "\"token_strs\": null}");
    check_refused(detokenize("{}"), "missing_field", "tokens", "none");
    check_refused(detokenize("{\"tokens\": \"a\"}"), "invalid_value", "tokens", "list");
    check_refused(detokenize("{\"tokens\": [0, 4]}"), "invalid_value", "tokens",
                  "found 4 as number 2");
    check_refused(detokenize("{\"tokens\": [1.5]}"), "invalid_value", "tokens", "1.5");
}

static void the_tokenizer_is_described(void **state)
{
    (void)state;
    check_answer(mpo_serve_tokenizer_info_json(&request_world.catalog, &request_refusal),
                 "{\"tokenizer_class\": \"mpo\", \"eos_token\": \"</s>\", \"bos_token\": "
                 "\"<s>\", \"chat_template\": null, \"vocab_size\": 4, \"max_model_len\": "
                 "64}");
}

/* A piece of the table has at most 5 bytes, a space before it included. */
static void a_text_that_cannot_fit_is_not_tokenised(void **state)
{
    (void)state;
    static char body[2048];
    int spaces = 5 * SERVE_CASE_CONTEXT + 4;
    snprintf(body, sizeof body, "{\"prompt\": \"%*s\"}", spaces, "");
    char *text = tokenize(body);
    assert_non_null(text);
    free(text);
    snprintf(body, sizeof body, "{\"prompt\": \"%*s\"}", spaces + 1, "");
    check_refused(tokenize(body), "context_length_exceeded", "prompt",
                  "at least 65 tokens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_becomes_tokens_with_special_ones),
        cmocka_unit_test(a_chat_becomes_the_tokens_of_the_first_policy),
        cmocka_unit_test(what_is_no_text_is_refused),
        cmocka_unit_test(tokens_become_text_and_come_back),
        cmocka_unit_test(the_tokenizer_is_described),
        cmocka_unit_test(a_text_that_cannot_fit_is_not_tokenised),
    };
    return cmocka_run_group_tests_name("tokens", tests, request_case_open,
                                       request_case_close);
}
