/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and events as bytes: what an engine reads of a request, and a client of an event,
 * are the same at the other end; what is cut or no frame is refused.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "request_case.h"
#include "runner.h"
#include "serve/wire.h"

#define POLICIES SERVE_CASE_POLICIES

/* The only frame of a buffer. */
static struct mpo_wire_frame only_frame(const struct mpo_serve_buffer *buffer)
{
    struct mpo_wire_frame frame = {0};
    assert_false(buffer->is_lost);
    assert_int_equal(mpo_wire_first(buffer->bytes, buffer->count, &frame), buffer->count);
    assert_int_equal(buffer->count % 8, 0);
    return frame;
}

/* There and back. */
static struct mpo_serve_request *carry(const struct mpo_serve_request *request)
{
    struct mpo_serve_buffer buffer = {0};
    mpo_wire_put_request(&buffer, 5, request, POLICIES);
    struct mpo_wire_frame frame = only_frame(&buffer);
    assert_int_equal(frame.head.kind, MPO_WIRE_REQUEST);
    assert_int_equal(frame.head.request, 5);
    struct mpo_serve_request *carried = mpo_wire_read_request(&frame, POLICIES);
    assert_non_null(carried);
    mpo_serve_buffer_close(&buffer);
    return carried;
}

static void assert_plain_same(const struct mpo_serve_request *a,
                              const struct mpo_serve_request *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_string_equal(a->id, b->id);
    assert_int_equal(a->client, b->client);
    assert_memory_equal(a->mu, b->mu, POLICIES * sizeof *a->mu);
    assert_same_bits(a->end_bias, b->end_bias);
    assert_int_equal(a->weighted_only, b->weighted_only);
    assert_int_equal(a->prompt_count, b->prompt_count);
    assert_int_equal(a->echo, b->echo);
    assert_int_equal(mpo_serve_choices(a), mpo_serve_choices(b));
    assert_int_equal(a->max_tokens, b->max_tokens);
    assert_int_equal(a->gave_max_tokens, b->gave_max_tokens);
    assert_int_equal(a->greedy, b->greedy);
    assert_memory_equal(&a->filter, &b->filter, sizeof a->filter);
    assert_int_equal(a->seed, b->seed);
    assert_same_bits(a->presence_penalty, b->presence_penalty);
    assert_same_bits(a->frequency_penalty, b->frequency_penalty);
    assert_int_equal(a->isolated, b->isolated);
    assert_int_equal(a->logprobs, b->logprobs);
    assert_int_equal(a->top_logprobs, b->top_logprobs);
    assert_int_equal(a->policy_scores, b->policy_scores);
    assert_int_equal(a->bias_count, b->bias_count);
    for (int32_t i = 0; i < a->bias_count; i++) {
        assert_int_equal(a->bias[i].token, b->bias[i].token);
        assert_same_bits(a->bias[i].value, b->bias[i].value);
    }
    assert_int_equal(a->stop_count, b->stop_count);
    for (int32_t i = 0; i < a->stop_count; i++)
        assert_string_equal(a->stop[i], b->stop[i]);
}

static void completions_arrive_as_they_were_sent(void **state)
{
    static const char body[] =
        "{\"prompt\": [\"a b\", \"c\"], \"n\": 2, \"max_tokens\": 9, \"seed\": 77, "
        "\"temperature\": 0.7, \"top_p\": 0.9, \"logprobs\": 3, \"echo\": true, "
        "\"policy_scores\": true, \"stop\": [\"x\", \"a longer one\"], \"logit_bias\": "
        "{\"1\": 2.5, \"2\": -100}, \"frequency_penalty\": 0.5, \"presence_penalty\": -1, "
        "\"weights\": [0.3, 0.7], \"end_bias\": 1.25}";
    struct mpo_serve_request *sent = request_parse(MPO_SERVE_COMPLETION, body);
    (void)state;
    assert_non_null(sent);
    struct mpo_serve_request *got = carry(sent);
    assert_plain_same(sent, got);
    assert_int_equal(got->prompt_count, 2);
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(got->prompt[i].token_count, sent->prompt[i].token_count);
        assert_memory_equal(got->prompt[i].token, sent->prompt[i].token,
                            (size_t)sent->prompt[i].token_count *
                                sizeof *sent->prompt[i].token);
    }
    mpo_serve_request_close(&got);
    mpo_serve_request_close(&sent);
}

static void chats_arrive_as_they_were_sent(void **state)
{
    static const char body[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"be kind\"}, {\"role\": "
        "\"user\", \"content\": \"\"}, {\"role\": \"assistant\", \"content\": \"a b\"}], "
        "\"continue_final_message\": true, \"temperature\": 0}";
    struct mpo_serve_request *sent = request_parse(MPO_SERVE_CHAT, body);
    (void)state;
    assert_non_null(sent);
    struct mpo_serve_request *got = carry(sent);
    assert_plain_same(sent, got);
    assert_int_equal(got->chat.message_count, sent->chat.message_count);
    for (int32_t i = 0; i < sent->chat.message_count; i++) {
        assert_string_equal(got->chat.messages[i].role, sent->chat.messages[i].role);
        assert_string_equal(got->chat.messages[i].content, sent->chat.messages[i].content);
    }
    assert_string_equal(got->chat.prefill, "a b");
    assert_int_equal(got->chat.ended, sent->chat.ended);
    mpo_serve_request_close(&got);
    mpo_serve_request_close(&sent);
}

/* Each length of a request's frame but the whole one is refused. */
static void requests_that_are_cut_are_none(void **state)
{
    struct mpo_serve_request *sent =
        request_expect(MPO_SERVE_CHAT, "\"stop\": [\"abc\"], \"logit_bias\": {\"1\": 1.0}");
    struct mpo_serve_buffer buffer = {0};
    (void)state;
    mpo_wire_put_request(&buffer, 0, sent, POLICIES);
    struct mpo_wire_frame frame = only_frame(&buffer);
    int64_t whole = frame.head.bytes;
    for (int64_t bytes = 0; bytes < whole; bytes += 8) {
        frame.head.bytes = bytes;
        assert_null(mpo_wire_read_request(&frame, POLICIES));
    }
    mpo_serve_buffer_close(&buffer);
    mpo_serve_request_close(&sent);
}

static void events_arrive_as_they_were_put(void **state)
{
    const double policy[POLICIES] = {-1.5, NAN, -INFINITY};
    const double top[] = {-0.1, -2.0};
    const int32_t token[] = {3, -1};
    const int32_t length[POLICIES] = {4, 5, 6};
    struct mpo_serve_refusal refusal = {0};
    struct mpo_serve_refusal other = {0};
    struct mpo_serve_event got = {0};
    struct mpo_serve_buffer buffer = {0};
    (void)state;
    mpo_serve_refuse(&refusal, 504, "deadline_exceeded", "a", "too %s", "late");
    const struct mpo_serve_event sent = {.kind = MPO_SERVE_TOKEN,
                                         .prompt = 1,
                                         .choice = 2,
                                         .token = 3,
                                         .ends = true,
                                         .finish = MPO_SERVE_FINISH_STOP,
                                         .stop = 4,
                                         .log_q = -0.25,
                                         .log_z = -0.5,
                                         .log_policy = policy,
                                         .top_count = 2,
                                         .top_token = token,
                                         .top_log_q = top,
                                         .length = length,
                                         .cached_tokens = 9,
                                         .refusal = &refusal};
    mpo_wire_put_event(&buffer, 8, &sent, POLICIES);
    struct mpo_wire_frame frame = only_frame(&buffer);
    assert_true(mpo_wire_read_event(&frame, POLICIES, &got, &other));
    assert_int_equal(frame.head.request, 8);
    assert_int_equal(got.kind, sent.kind);
    assert_int_equal(got.prompt, 1);
    assert_int_equal(got.choice, 2);
    assert_int_equal(got.token, 3);
    assert_true(got.ends);
    assert_int_equal(got.finish, sent.finish);
    assert_int_equal(got.stop, 4);
    assert_same_bits(got.log_q, sent.log_q);
    assert_same_bits(got.log_z, sent.log_z);
    assert_int_equal(got.cached_tokens, 9);
    assert_memory_equal(got.log_policy, policy, sizeof policy);
    assert_memory_equal(got.length, length, sizeof length);
    assert_memory_equal(got.top_log_q, top, sizeof top);
    assert_memory_equal(got.top_token, token, sizeof token);
    assert_ptr_equal(got.refusal, &other);
    assert_int_equal(other.http_status, 504);
    assert_string_equal(other.code, "deadline_exceeded");
    assert_string_equal(other.param, "a");
    assert_string_equal(other.message, refusal.message);
    assert_int_equal(other.never_retry, refusal.never_retry);
    for (int64_t bytes = frame.head.bytes - 8; bytes >= 0; bytes -= 8) {
        frame.head.bytes = bytes;
        assert_false(mpo_wire_read_event(&frame, POLICIES, &got, &other));
    }
    mpo_serve_buffer_close(&buffer);
}

static void an_event_without_figures_has_none(void **state)
{
    struct mpo_serve_buffer buffer = {0};
    struct mpo_serve_event got = {0};
    struct mpo_serve_refusal refusal = {0};
    (void)state;
    mpo_wire_put_event(&buffer, 0,
                       &(struct mpo_serve_event){.kind = MPO_SERVE_DONE, .choice = -1},
                       POLICIES);
    struct mpo_wire_frame frame = only_frame(&buffer);
    assert_true(mpo_wire_read_event(&frame, POLICIES, &got, &refusal));
    assert_int_equal(got.choice, -1);
    assert_null(got.log_policy);
    assert_null(got.length);
    assert_null(got.top_token);
    assert_null(got.refusal);
    mpo_serve_buffer_close(&buffer);
}

static void frames_are_found_wherever_they_are_cut(void **state)
{
    struct mpo_serve_buffer buffer = {0};
    struct mpo_wire_frame frame = {0};
    (void)state;
    mpo_wire_put(&buffer, MPO_WIRE_LOST, -1, "gone", 5);
    mpo_wire_put(&buffer, MPO_WIRE_END, -1, NULL, 0);
    for (size_t count = 0; count < 24; count++)
        assert_int_equal(mpo_wire_first(buffer.bytes, count, &frame), 0);
    assert_int_equal(mpo_wire_first(buffer.bytes, 24, &frame), 24);
    assert_string_equal(frame.bytes, "gone");
    assert_int_equal(mpo_wire_first(buffer.bytes + 24, buffer.count - 24, &frame), 16);
    assert_int_equal(frame.head.kind, MPO_WIRE_END);
    struct mpo_wire_head head = {.kind = MPO_WIRE_END, .bytes = -8};
    assert_int_equal(mpo_wire_first((const char *)&head, sizeof head, &frame), -1);
    head.bytes = 7;
    assert_int_equal(mpo_wire_first((const char *)&head, sizeof head, &frame), -1);
    head.bytes = INT64_MAX - 7;
    assert_int_equal(mpo_wire_first((const char *)&head, sizeof head, &frame), -1);
    mpo_serve_buffer_close(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completions_arrive_as_they_were_sent),
        cmocka_unit_test(chats_arrive_as_they_were_sent),
        cmocka_unit_test(requests_that_are_cut_are_none),
        cmocka_unit_test(events_arrive_as_they_were_put),
        cmocka_unit_test(an_event_without_figures_has_none),
        cmocka_unit_test(frames_are_found_wherever_they_are_cut),
    };
    return cmocka_run_group_tests_name("wire", tests, request_case_open,
                                       request_case_close);
}
