/* SPDX-License-Identifier: Apache-2.0 */
#include "decode_requests.h"

#include <string.h>

#include "runner.h"

static const char *const prompt_text[DECODE_SLOT_COUNT] = {"a b c d a b a", "b", "c a b c"};

/* ---- chance ---- */

static uint64_t chance_count;

double decode_chance(void)
{
    return runner_uniform(20261129, chance_count++);
}

int32_t decode_chance_of(int32_t count)
{
    return (int32_t)(decode_chance() * count);
}

static struct mpo_draw_rule random_rule(struct decode_request *request)
{
    struct mpo_draw_rule rule = {.greedy = decode_chance() < 0.2,
                                 .seed = (uint64_t)decode_chance_of(1000),
                                 .counter = {.step = (uint64_t)decode_chance_of(5),
                                             .response = (uint64_t)decode_chance_of(5)}};
    if (decode_chance() < 0.4)
        rule.filter = (struct mpo_mixture_filter){.temperature = 0.5 + decode_chance(),
                                                  .top_k = decode_chance_of(4),
                                                  .top_p = 0.7,
                                                  .min_p = 0.05};
    if (decode_chance() < 0.4) {
        rule.bias_count = 1 + decode_chance_of(DECODE_BIAS_MAX);
        for (int32_t i = 0; i < rule.bias_count; i++)
            request->bias[i] = (struct mpo_mixture_bias){decode_chance_of(DECODE_VOCAB),
                                                         4.0 * decode_chance() - 2.0};
        rule.bias = request->bias;
    }
    return rule;
}

void decode_request_make(struct decode_request *request)
{
    *request = (struct decode_request){.row_index = -1};
    for (int32_t h = 0; h < DECODE_POLICIES; h++)
        request->mu[h] = decode_chance() < 0.2 ? 0.0 : 1.5 * decode_chance() - 0.2;
    int32_t given_count =
        decode_chance() < 0.4 ? 1 + decode_chance_of(DECODE_GIVEN_MAX) : 0;
    for (int32_t i = 0; i < given_count; i++)
        request->given[i] = decode_chance_of(DECODE_VOCAB - 1);
    request->row = (struct mpo_decode_row){
        .slot = decode_chance_of(DECODE_SLOT_COUNT),
        .share = -1,
        .given = request->given,
        .given_count = given_count,
        .free_count =
            given_count > 0 && decode_chance() < 0.5 ? 0 : 1 + decode_chance_of(5),
        .mu = request->mu,
        .end_bias = decode_chance() < 0.5 ? 0.0 : decode_chance() - 0.5,
        .rule = random_rule(request),
        .top_count = decode_chance_of(DECODE_TOP_MAX + 1),
        .moments = decode_chance() < 0.5,
    };
    request->cancel_at = decode_chance() < 0.2 ? 1 + decode_chance_of(4) : 0;
}

/* ---- events ---- */

struct decode_figures decode_figures_of(const struct mpo_decode_row *row,
                                        const struct mpo_decode_event *event)
{
    struct decode_figures figures = {.position = event->position,
                                     .token = event->token,
                                     .flags = event->flags,
                                     .log_q = event->log_q,
                                     .log_z = event->moments->log_z};
    memcpy(figures.log_policy, event->log_policy, sizeof figures.log_policy);
    for (int32_t i = 0; i < row->top_count; i++) {
        figures.top_token[i] = event->top_token[i];
        figures.top_log_q[i] = event->top_log_q[i];
    }
    if (!row->moments)
        return figures;
    figures.entropy = event->moments->entropy;
    figures.end_probability = event->moments->end_probability;
    memcpy(figures.expectation, event->expectation, sizeof figures.expectation);
    return figures;
}

static bool is_last(const struct mpo_decode_event *event)
{
    return (event->flags & (MPO_DECODE_ENDED | MPO_DECODE_CUT | MPO_DECODE_FAILED)) != 0;
}

/* Each request by itself, from a cleared cache. */
void decode_request_run_alone(struct mpo_decode *decode, struct decode_request *request)
{
    int32_t row = -1;
    int32_t count = 0;
    const struct mpo_decode_event *event = NULL;
    mpo_decode_clear(decode);
    assert_ok(mpo_decode_admit(decode, &request->row, &row));
    assert_int_equal(row, 0);
    do {
        assert_ok(mpo_decode_step(decode, &event, &count));
        for (int32_t i = 0; i < count; i++) {
            assert_int_equal(event[i].row, row);
            assert_in_range(request->alone_count, 0, DECODE_TOKENS_MAX - 1);
            request->alone[request->alone_count++] =
                decode_figures_of(&request->row, &event[i]);
        }
    } while (mpo_decode_live_rows(decode) > 0);
    assert_in_range(request->alone_count, 1, DECODE_TOKENS_MAX);
}

/* In this step. */
static bool was_cancelled[DECODE_ROW_COUNT];

/* An event in company is the next one of its request alone. */
static void compare_event(struct mpo_decode *decode, struct decode_request *requests,
                          const struct mpo_decode_event *event)
{
    struct decode_request *request = NULL;
    for (int32_t i = 0; i < DECODE_REQUESTS; i++)
        if (requests[i].row_index == event->row && !requests[i].is_over)
            request = &requests[i];
    if (request == NULL) { /* cancelled between two tokens of one step */
        assert_true(was_cancelled[event->row]);
        return;
    }
    struct decode_figures figures = decode_figures_of(&request->row, event);
    assert_in_range(request->seen, 0, request->alone_count - 1);
    assert_memory_equal(&figures, &request->alone[request->seen],
                        sizeof(struct decode_figures));
    request->seen++;
    request->is_over = is_last(event);
    if (!request->is_over && request->cancel_at == request->seen) {
        mpo_decode_cancel(decode, event->row);
        was_cancelled[event->row] = true;
        request->is_over = true;
    }
}

void decode_requests_run_in_company(struct mpo_decode *decode,
                                    struct decode_request *requests)
{
    int32_t next = 0;
    int32_t most = 0;
    mpo_decode_clear(decode);
    while (next < DECODE_REQUESTS || mpo_decode_live_rows(decode) > 0) {
        const struct mpo_decode_event *event = NULL;
        int32_t count = 0;
        while (next < DECODE_REQUESTS && mpo_decode_free_rows(decode) > 0 &&
               decode_chance() < 0.6) {
            assert_ok(
                mpo_decode_admit(decode, &requests[next].row, &requests[next].row_index));
            next++;
        }
        if (mpo_decode_live_rows(decode) > most)
            most = mpo_decode_live_rows(decode);
        assert_ok(mpo_decode_step(decode, &event, &count));
        memset(was_cancelled, 0, sizeof was_cancelled);
        for (int32_t i = 0; i < count; i++)
            compare_event(decode, requests, &event[i]);
    }
    assert_int_equal(most, DECODE_ROW_COUNT); /* they did keep each other company */
    for (int32_t i = 0; i < DECODE_REQUESTS; i++) {
        bool cancelled =
            requests[i].cancel_at > 0 && requests[i].cancel_at < requests[i].alone_count;
        assert_true(requests[i].is_over);
        if (!cancelled)
            assert_int_equal(requests[i].seen, requests[i].alone_count);
    }
}

/* ---- machines ---- */

struct rollout_case_spec decode_machine(enum mpo_decode_prefill prefill, int32_t tokens)
{
    return (struct rollout_case_spec){.prompt_count = DECODE_SLOT_COUNT,
                                      .unit_prompts = 1,
                                      .responses = 1,
                                      .row_capacity = DECODE_ROW_COUNT,
                                      .prefill = prefill,
                                      .prefill_tokens = tokens,
                                      .given_positions = 4,
                                      .top_max = DECODE_TOP_MAX,
                                      .bias_max = DECODE_BIAS_MAX};
}

void decode_play_on(struct rollout_case *loop, void (*root)(struct mpo_decode *))
{
    if (mpo_comm_group_rank(loop->comm) != 0) {
        assert_ok(mpo_decode_follow(loop->decode));
        return;
    }
    for (int32_t slot = 0; slot < DECODE_SLOT_COUNT; slot++)
        assert_ok(mpo_decode_offer_text(loop->decode, slot, prompt_text[slot], NULL));
    root(loop->decode);
    assert_ok(mpo_decode_release(loop->decode));
}

void decode_play(const struct rollout_case_spec *spec, void (*root)(struct mpo_decode *))
{
    struct rollout_case loop;
    rollout_case_open(&loop, spec);
    decode_play_on(&loop, root);
    rollout_case_close(&loop);
}
