/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an answer says, against JSON written by hand.
 */
#include <math.h>

#include "runner.h"
#include "answer_case.h"

/* Event fields for figures of a test's own. */
struct figures {
    int32_t token;
    double log_q;
    double log_z;
    double log_policy[ANSWER_CASE_POLICIES];
    int32_t top_token[4];
    double top_log_q[4];
};

static void take_figures(struct answer_case_sent *sent, enum mpo_serve_event_kind kind,
                         const struct figures *figures)
{
    answer_case_take(sent, &(struct mpo_serve_event){.kind = kind,
                                                     .token = figures->token,
                                                     .log_q = figures->log_q,
                                                     .log_z = figures->log_z,
                                                     .log_policy = figures->log_policy,
                                                     .top_count = 4,
                                                     .top_token = figures->top_token,
                                                     .top_log_q = figures->top_log_q});
}

/* ---- whole answers ---- */

static void a_chat_says_all_that_was_asked(void **state)
{
    struct answer_case self;
    struct answer_case_sent sent;
    (void)state;
    answer_case_make(&self);
    int32_t euro = answer_case_word(&self, "\xe2\x82", 2);
    int32_t rest = answer_case_word(&self, "\xac!", 2);
    int32_t quote = answer_case_word(&self, "\"\n", 2);
    int32_t end = answer_case_special(&self, "<|im_end|>");
    self.request.logprobs = true;
    self.request.top_logprobs = 2;
    self.request.policy_scores = true;
    answer_case_begin(&self, &sent);
    answer_case_seat(&self, &sent, 0);
    take_figures(
        &sent, MPO_SERVE_TOKEN,
        &(struct figures){
            euro, -0.25, -0.5, {-1.5, NAN}, {quote, euro, -1, -1}, {-0.125, -0.25, 0, 0}});
    take_figures(&sent, MPO_SERVE_TOKEN,
                 &(struct figures){rest,
                                   -20000.0,
                                   -1.0,
                                   {-1.0, -2.0},
                                   {end, quote, euro, -1},
                                   {-0.5, -INFINITY, -INFINITY, 0}});
    take_figures(
        &sent, MPO_SERVE_TOKEN,
        &(struct figures){
            end, -1.0 / 3.0, 0.0, {-0.5, -0.5}, {end, -1, -1, -1}, {-1.0 / 3.0, 0, 0, 0}});
    assert_int_equal(sent.http_status, 0);
    answer_case_choice(&sent, 0, 0, MPO_SERVE_FINISH_END);
    assert_int_equal(sent.http_status, 0);
    answer_case_done(&sent);
    json_t *body = answer_case_json(&sent);
    answer_case_assert_json(
        body,
        "{\"id\": \"" ANSWER_CASE_ID "\", \"object\": \"chat.completion\","
        " \"created\": 1700000000, \"model\": \"mpo\","
        " \"system_fingerprint\": \"00112233aabbccdd\","
        " \"choices\": [{\"index\": 0,"
        "   \"message\": {\"role\": \"assistant\", \"content\": \"\\u20ac!\","
        "     \"refusal\": null},"
        "   \"logprobs\": {\"refusal\": null, \"content\": ["
        "     {\"token\": \"bytes:\\\\xe2\\\\x82\", \"logprob\": -0.25, \"bytes\": [226, "
        "130],"
        "      \"top_logprobs\": ["
        "        {\"token\": \"\\\"\\n\", \"logprob\": -0.125, \"bytes\": [34, 10]},"
        "        {\"token\": \"bytes:\\\\xe2\\\\x82\", \"logprob\": -0.25,"
        "         \"bytes\": [226, 130]}],"
        "      \"mpo\": {\"policy\": {\"one\": -1.5, \"two\": null}, \"log_z\": -0.5}},"
        "     {\"token\": \"bytes:\\\\xac!\", \"logprob\": -9999.0, \"bytes\": [172, 33],"
        "      \"top_logprobs\": ["
        "        {\"token\": \"<|im_end|>\", \"logprob\": -0.5, \"bytes\": []},"
        "        {\"token\": \"\\\"\\n\", \"logprob\": -9999.0, \"bytes\": [34, 10]}],"
        "      \"mpo\": {\"policy\": {\"one\": -1.0, \"two\": -2.0}, \"log_z\": -1.0}},"
        "     {\"token\": \"<|im_end|>\", \"logprob\": -0.33333333333333331, \"bytes\": [],"
        "      \"top_logprobs\": [{\"token\": \"<|im_end|>\","
        "        \"logprob\": -0.33333333333333331, \"bytes\": []}],"
        "      \"mpo\": {\"policy\": {\"one\": -0.5, \"two\": -0.5}, \"log_z\": 0.0}}]},"
        "   \"finish_reason\": \"stop\", \"stop_reason\": 3,"
        "   \"mpo\": {\"log_mixture\": -20000.583333333332, \"log_z\": -1.5,"
        "     \"log_policy\": {\"one\": -3.0, \"two\": null}}}],"
        " \"usage\": {\"prompt_tokens\": 8, \"completion_tokens\": 3, \"total_tokens\": 11,"
        "   \"prompt_tokens_details\": {\"cached_tokens\": 2}},"
        " \"mpo\": {\"seed\": 7, \"end_bias\": 0.0, \"strength\": 1.0,"
        "   \"weights\": {\"one\": 0.25, \"two\": 0.75},"
        "   \"prompt_tokens\": {\"one\": 5, \"two\": 8}}}");
    json_decref(body);
    answer_case_end(&sent);
}

/* "<s>The sky" as <s>, The, " sky"; two tokens of one text; no weights. */
static void a_completion_echoes_and_keeps_the_more_probable_of_one_name(void **state)
{
    struct answer_case self;
    struct answer_case_sent sent;
    static char text[] = "The sky";
    (void)state;
    answer_case_make(&self);
    int32_t begin = answer_case_special(&self, "<s>");
    int32_t the = answer_case_word(&self, "The", 3);
    int32_t sky = answer_case_word(&self, " sky", 4);
    int32_t twin = answer_case_word(&self, " sky", 4);
    int32_t tokens[] = {begin, the, sky};
    self.prompt[0] = (struct mpo_serve_prompt){text, tokens, 3};
    self.request.kind = MPO_SERVE_COMPLETION;
    self.request.logprobs = true;
    self.request.top_logprobs = 2;
    self.request.echo = true;
    self.request.weights = NULL;
    answer_case_begin(&self, &sent);
    answer_case_seat(&self, &sent, 0);
    take_figures(
        &sent, MPO_SERVE_GIVEN,
        &(struct figures){the, -3.0, 0, {0}, {sky, twin, -1, -1}, {-0.5, -0.75, 0, 0}});
    take_figures(
        &sent, MPO_SERVE_GIVEN,
        &(struct figures){sky, -1.0, 0, {0}, {twin, the, -1, -1}, {-0.5, -0.75, 0, 0}});
    take_figures(&sent, MPO_SERVE_TOKEN,
                 &(struct figures){
                     twin, -0.125, 0, {0}, {twin, the, sky, -1}, {-0.125, -2.0, -2.5, 0}});
    answer_case_choice(&sent, 0, 0, MPO_SERVE_FINISH_LENGTH);
    answer_case_done(&sent);
    json_t *body = answer_case_json(&sent);
    answer_case_assert_json(
        json_object_get(body, "choices"),
        "[{\"index\": 0, \"text\": \"The sky sky\", \"finish_reason\": \"length\","
        "  \"stop_reason\": null, \"logprobs\": {"
        "  \"tokens\": [\"<s>\", \"The\", \" sky\", \" sky\"],"
        "  \"token_logprobs\": [null, -3.0, -1.0, -0.125],"
        "  \"top_logprobs\": [null, {\" sky\": -0.5, \"The\": -3.0},"
        "    {\" sky\": -0.5, \"The\": -0.75}, {\" sky\": -0.125, \"The\": -2.0}],"
        "  \"text_offset\": [0, 0, 3, 7]}}]");
    answer_case_assert_json(json_object_get(json_object_get(body, "mpo"), "weights"),
                            "null");
    json_decref(body);
    answer_case_end(&sent);
}

/* A special token that the client wrote is in the text; a space that the tokenizer put first
 * is not; bytes that were no UTF-8 are U+FFFD there. */
static void offsets_of_an_echo_follow_its_text(void **state)
{
    struct answer_case self;
    struct answer_case_sent sent;
    static char text[] = "a<e>\xc3\xa9\xef\xbf\xbd"
                         "b";
    (void)state;
    answer_case_make(&self);
    int32_t tokens[] = {
        answer_case_special(&self, "<s>"),      answer_case_word(&self, " a", 2),
        answer_case_special(&self, "<e>"),      answer_case_word(&self, "\xc3", 1),
        answer_case_word(&self, "\xa9\xff", 2), answer_case_word(&self, "b", 1)};
    self.prompt[0] = (struct mpo_serve_prompt){text, tokens, 6};
    self.request.kind = MPO_SERVE_COMPLETION;
    self.request.logprobs = true;
    self.request.echo = true;
    self.request.policy_scores = true;
    answer_case_begin(&self, &sent);
    answer_case_seat(&self, &sent, 0);
    for (int32_t i = 1; i < 6; i++)
        answer_case_given(&sent, 0, 0, tokens[i]);
    answer_case_choice(&sent, 0, 0, MPO_SERVE_FINISH_LENGTH);
    answer_case_done(&sent);
    json_t *body = answer_case_json(&sent);
    json_t *logprobs = answer_case_whole_logprobs(body, 0);
    assert_string_equal(answer_case_whole_text(body, 0), text);
    answer_case_assert_json(json_object_get(logprobs, "text_offset"), "[0, 0, 1, 4, 4, 6]");
    answer_case_assert_json(json_array_get(json_object_get(logprobs, "mpo"), 0), "null");
    answer_case_assert_json(
        json_array_get(json_object_get(logprobs, "mpo"), 1),
        "{\"policy\": {\"one\": -0.9, \"two\": -0.3375}, \"log_z\": -0.015625}");
    answer_case_assert_json(
        json_object_get(json_object_get(body, "usage"), "completion_tokens"), "0");
    json_decref(body);
    answer_case_end(&sent);
}

static void a_stop_text_is_told_and_entries_stay(void **state)
{
    struct answer_case self;
    struct answer_case_sent sent;
    char *stops[] = {"x", "ND"};
    (void)state;
    answer_case_make(&self);
    int32_t tokens[] = {answer_case_word(&self, "a", 1), answer_case_word(&self, "bEN", 3),
                        answer_case_word(&self, "D", 1), answer_case_word(&self, "c", 1)};
    self.request.kind = MPO_SERVE_COMPLETION;
    self.request.logprobs = true;
    answer_case_stop(&self, stops, 2);
    answer_case_begin(&self, &sent);
    answer_case_seat(&self, &sent, 0);
    for (int32_t i = 0; i < 3; i++)
        answer_case_token(&sent, 0, 0, tokens[i]);
    answer_case_take(&sent, &(struct mpo_serve_event){.kind = MPO_SERVE_CHOICE,
                                                      .finish = MPO_SERVE_FINISH_STOP,
                                                      .stop = 1});
    answer_case_done(&sent);
    json_t *body = answer_case_json(&sent);
    json_t *choice = json_array_get(json_object_get(body, "choices"), 0);
    assert_string_equal(answer_case_whole_text(body, 0), "abE");
    answer_case_assert_json(json_object_get(choice, "finish_reason"), "\"stop\"");
    answer_case_assert_json(json_object_get(choice, "stop_reason"), "\"ND\"");
    answer_case_assert_json(json_object_get(answer_case_whole_logprobs(body, 0), "tokens"),
                            "[\"a\", \"bEN\", \"D\"]");
    answer_case_assert_json(
        json_object_get(answer_case_whole_logprobs(body, 0), "text_offset"), "[0, 1, 3]");
    json_decref(body);
    answer_case_end(&sent);
}

/* ---- streams ---- */

static void a_stream_begins_with_the_role_and_ends_with_usage(void **state)
{
    struct answer_case self;
    struct answer_case_sent sent;
    bool is_done = false;
    (void)state;
    answer_case_make(&self);
    int32_t word = answer_case_word(&self, "hi", 2);
    int32_t end = answer_case_special(&self, "</s>");
    self.request.stream = true;
    self.request.include_usage = true;
    answer_case_begin(&self, &sent);
    assert_int_equal(sent.http_status, 0);
    answer_case_seat(&self, &sent, 0);
    assert_int_equal(sent.http_status, 200);
    answer_case_token(&sent, 0, 0, word);
    answer_case_token(&sent, 0, 0, end);
    answer_case_choice(&sent, 0, 0, MPO_SERVE_FINISH_END);
    assert_false(sent.is_complete);
    answer_case_done(&sent);
    assert_true(sent.is_complete);
    json_t *chunks = answer_case_chunks(&sent, &is_done);
    assert_true(is_done);
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        json_t *chunk = json_array_get(chunks, i);
        answer_case_assert_json(json_object_get(chunk, "object"),
                                "\"chat.completion.chunk\"");
        json_object_del(chunk, "object");
        json_object_del(chunk, "id");
        json_object_del(chunk, "created");
        json_object_del(chunk, "model");
        json_object_del(chunk, "system_fingerprint");
    }
    answer_case_assert_json(
        chunks,
        "[{\"choices\": [{\"index\": 0, \"delta\": {\"role\": \"assistant\","
        "   \"content\": \"\"}, \"logprobs\": null, \"finish_reason\": null}],"
        "  \"usage\": null},"
        " {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"hi\"},"
        "   \"logprobs\": null, \"finish_reason\": null}], \"usage\": null},"
        " {\"choices\": [{\"index\": 0, \"delta\": {}, \"logprobs\": null,"
        "   \"finish_reason\": \"stop\", \"stop_reason\": 1}], \"usage\": null},"
        " {\"choices\": [], \"usage\": {\"prompt_tokens\": 8, \"completion_tokens\": 2,"
        "   \"total_tokens\": 10, \"prompt_tokens_details\": {\"cached_tokens\": 2}},"
        "  \"mpo\": {\"seed\": 7, \"end_bias\": 0.0, \"strength\": 1.0,"
        "   \"weights\": {\"one\": 0.25, \"two\": 0.75},"
        "   \"prompt_tokens\": {\"one\": 5, \"two\": 8}}}]");
    json_decref(chunks);
    answer_case_end(&sent);
}

/* Whether the first piece begins a text is the same for whoever looks for stop texts. */
static void what_continues_a_text_begins_none(void **state)
{
    struct mpo_serve_request request = {.kind = MPO_SERVE_CHAT};
    struct mpo_decode_text text = {0};
    (void)state;
    request.chat.prefill = "";
    mpo_answer_text_begin(&text, &request);
    assert_false(text.has_tokens);
    request.chat.prefill = "Well,";
    mpo_answer_text_begin(&text, &request);
    assert_true(text.has_tokens);
    request = (struct mpo_serve_request){.kind = MPO_SERVE_COMPLETION};
    mpo_answer_text_begin(&text, &request);
    assert_true(text.has_tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_says_all_that_was_asked),
        cmocka_unit_test(a_completion_echoes_and_keeps_the_more_probable_of_one_name),
        cmocka_unit_test(offsets_of_an_echo_follow_its_text),
        cmocka_unit_test(a_stop_text_is_told_and_entries_stay),
        cmocka_unit_test(a_stream_begins_with_the_role_and_ends_with_usage),
        cmocka_unit_test(what_continues_a_text_begins_none),
    };
    return run_cases("answer", tests);
}
