/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tokens go in which step where prompts are fed beside rows that draw. Each step is
 * written as what the first policy was fed, in order:
 *
 *     2:0+5      tokens 0 .. 4 of the prompt in slot 2
 *     2:5+3!     its last three, from which the row goes on
 *     d          a drawn token
 *     g4         four given ones
 *
 * The linker sends the library's calls of mpo_policy_feed through the function below.
 */
#include <stdio.h>
#include <string.h>

#include "decode/decode_impl.h"
#include "rollout_case.h"
#include "runner.h"

#define ROWS  8
#define LEAST 4
#define STEP  16
#define IDLE  15

/* ---- what is fed ---- */

static char fed[256];

enum mpo_status __real_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits);
enum mpo_status __wrap_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits);

static const struct mpo_policy *watched;

static void note_span(const struct mpo_policy_span *span)
{
    char text[32] = "d";
    if (span->slot >= 0)
        snprintf(text, sizeof text, "%d:%d+%d%s", span->slot, span->first, span->count,
                 span->want == MPO_WANT_LAST ? "!" : "");
    else if (span->count > 1)
        snprintf(text, sizeof text, "g%d", span->count);
    size_t length = strlen(fed);
    snprintf(fed + length, sizeof fed - length, "%s%s", length > 0 ? " " : "", text);
}

enum mpo_status __wrap_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits)
{
    for (int32_t i = 0; policy == watched && i < span_count; i++)
        note_span(&spans[i]);
    return __real_mpo_policy_feed(policy, spans, span_count, logits);
}

/* ---- a machine ---- */

static const double mu[ROLLOUT_CASE_POLICIES] = {0.5, 0.2, 0.3};

static void open_machine(struct rollout_case *loop, int32_t step_tokens)
{
    const struct rollout_case_spec spec = {.prompt_count = ROLLOUT_CASE_STARTS,
                                           .unit_prompts = 1,
                                           .responses = 1,
                                           .row_capacity = ROWS,
                                           .parked_rows = 2,
                                           .given_positions = 8,
                                           .prefill = MPO_DECODE_MIXED,
                                           .prefill_tokens = LEAST,
                                           .prefill_step = step_tokens,
                                           .prefill_idle = IDLE};
    rollout_case_open(loop, &spec);
    watched = mpo_policies_local(loop->policies, 0);
}

/* A prompt of `length` tokens in a slot, and a row of it. */
static int32_t admit(struct rollout_case *loop, int32_t slot, int32_t length, int32_t share)
{
    static const int32_t token[40] = {1, 0, 2, 2, 1};
    int32_t index = -1;
    const struct mpo_decode_row row = {.slot = slot,
                                       .share = share,
                                       .free_count = ROLLOUT_CASE_MAX_TOKENS,
                                       .mu = mu,
                                       .end_bias = -50.0};
    if (share < 0)
        assert_ok(mpo_decode_offer_tokens(loop->decode, slot, token, length));
    assert_ok(mpo_decode_admit(loop->decode, &row, &index));
    return index;
}

static void step(struct rollout_case *loop, const char *expected)
{
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    fed[0] = '\0';
    assert_ok(mpo_decode_step(loop->decode, &event, &count));
    assert_string_equal(fed, expected);
}

/* ---- cases ---- */

static void budgets_grow_with_those_who_wait(void **state)
{
    static const struct {
        int32_t drawing, looked_up, waiting, expected;
    } rows[] = {
        {0, 0, 1, 512},                                  /* nobody stands still meanwhile */
        {1, 0, 1, 16},                                   /* at least */
        {8, 0, 1, 16},                                   /* two a draw */
        {9, 0, 9, 18},  {16, 0, 1, 32},   {1, 0, 2, 61}, /* more wait than draw: a whole step */
        {7, 0, 8, 55},  {16, 8, 1, 32},   {16, 32, 1, 16}, {40, 0, 1, 22},
        {60, 0, 1, 16}, {60, 0, 100, 16}, {0, 32, 1, 30},
    };
    const struct mpo_decode_spec spec = {
        .prefill_tokens = 16, .prefill_step = 62, .prefill_idle = 512};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mpo_decode_load load = {rows[i].drawing, rows[i].looked_up, rows[i].waiting};
        assert_int_equal(mpo_decode_prefill_budget(&spec, NULL, &load), rows[i].expected);
    }
}

static void budgets_that_are_given_stay(void **state)
{
    const struct mpo_decode_spec spec = {.prefill_tokens = 16};
    (void)state;
    for (int32_t rows = 0; rows < 80; rows += 5)
        assert_int_equal(
            mpo_decode_prefill_budget(
                &spec, NULL,
                &(struct mpo_decode_load){.drawing = rows, .waiting = 80 - rows}),
            16);
}

/* Prompts of 6 tokens: an idle step takes two and a half, then one row draws less than wait. */
static void several_prompts_go_in_one_step(void **state)
{
    struct rollout_case loop;
    (void)state;
    open_machine(&loop, STEP);
    for (int32_t slot = 0; slot < 7; slot++)
        admit(&loop, slot, 6, -1);
    step(&loop, "0:0+6! 1:0+6! 2:0+3");
    step(&loop, "d d 2:3+3! 3:0+6! 4:0+6!"); /* two draw, five wait: 14 and a last token */
    step(&loop, "d d d d d 5:0+6! 6:0+4");   /* five draw, two wait: two a draw */
    step(&loop, "d d d d d d 6:4+2!");
    step(&loop, "d d d d d d d");
    rollout_case_close(&loop);
}

/* The last token of a prompt that all else fits of is free, as that of a drawing row is. */
static void a_step_leaves_no_lone_last_token(void **state)
{
    struct rollout_case loop;
    (void)state;
    open_machine(&loop, STEP);
    admit(&loop, 0, IDLE + 1, -1);
    admit(&loop, 1, 3, -1);
    step(&loop, "0:0+16!");
    step(&loop, "d 1:0+3!");
    rollout_case_close(&loop);
}

/* A long prompt beside one row is fed by the least chunk, and nobody waits for it. */
static void long_prompts_are_fed_beside_draws(void **state)
{
    struct rollout_case loop;
    (void)state;
    open_machine(&loop, STEP);
    admit(&loop, 0, 1, -1);
    step(&loop, "0:0+1!");
    admit(&loop, 1, 10, -1);
    step(&loop, "d 1:0+4");
    step(&loop, "d 1:4+4");
    step(&loop, "d 1:8+2!");
    rollout_case_close(&loop);
}

/* What steps cost says how long the chunks are, and a step without is measured now and then. */
static void chunks_follow_what_steps_cost(void **state)
{
    struct rollout_case loop;
    (void)state;
    open_machine(&loop, STEP);
    struct mpo_decode_pace *pace = &loop.decode->pace;
    assert_ok(mpo_decode_pace_open(pace, 2.0, ROWS));
    admit(&loop, 0, 1, -1);
    step(&loop, "0:0+1!");
    admit(&loop, 1, 20, -1);
    step(&loop, "d 1:0+4"); /* nothing is known */
    assert_int_equal(pace->calm[1].crowded, 1);
    assert_true(pace->calm[1].seconds == 0.0);
    pace->calm[1] = (struct mpo_decode_calm){.seconds = 7000.0};
    pace->token_seconds = 1000.0;
    step(&loop, "d 1:4+7");
    assert_int_equal(pace->calm[1].crowded, 1);
    pace->token_seconds = 1e9;
    step(&loop, "d 1:11+1");
    pace->calm[1].crowded = 32;
    step(&loop, "d");
    assert_int_equal(pace->calm[1].crowded, 0);
    assert_true(pace->calm[1].seconds < 7000.0);
    pace->token_seconds = 1e-9; /* no more than a step holds */
    step(&loop, "d 1:12+8!");
    rollout_case_close(&loop);
}

/* Choices of one prompt count as rows that wait, and its tokens are fed once. */
static void choices_wait_for_one_prompt(void **state)
{
    struct rollout_case loop;
    (void)state;
    open_machine(&loop, STEP);
    admit(&loop, 0, 1, -1);
    step(&loop, "0:0+1!");
    int32_t leader = admit(&loop, 1, 20, -1);
    admit(&loop, 1, 20, leader);
    step(&loop, "d 1:0+15");
    step(&loop, "d 1:15+5!");
    step(&loop, "d d d");
    rollout_case_close(&loop);
}

static void chunks_that_are_given_stay(void **state)
{
    struct rollout_case loop;
    (void)state;
    open_machine(&loop, 0);
    admit(&loop, 0, 1, -1);
    step(&loop, "0:0+1!");
    for (int32_t slot = 1; slot < 4; slot++)
        admit(&loop, slot, 3, -1);
    step(&loop, "d 1:0+3! 2:0+1");
    step(&loop, "d d 2:1+2! 3:0+3!");
    rollout_case_close(&loop);
}

/* ---- reuse ---- */

static const int32_t letters[16] = {1, 0, 2, 2, 1, 0, 0, 1, 2, 0, 1, 1, 2, 2, 0, 1};

/* Draw a row of two tokens to its end, which parks it. @return the row */
static int32_t park_row(struct rollout_case *loop, int32_t length)
{
    int32_t index = -1;
    const struct mpo_decode_row row = {.slot = 0,
                                       .share = -1,
                                       .free_count = 2,
                                       .mu = mu,
                                       .end_bias = -50.0,
                                       .parks = true};
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    assert_ok(mpo_decode_offer_tokens(loop->decode, 0, letters, length));
    assert_ok(mpo_decode_admit(loop->decode, &row, &index));
    while (mpo_decode_live_rows(loop->decode) > 0)
        assert_ok(mpo_decode_step(loop->decode, &event, &count));
    return index;
}

static struct mpo_decode_row row_with(int32_t source, const int32_t *reused)
{
    return (struct mpo_decode_row){.slot = 1,
                                   .share = -1,
                                   .free_count = 1,
                                   .mu = mu,
                                   .end_bias = -50.0,
                                   .reused = reused,
                                   .source = source};
}

/* Each policy goes on from its own beginning, and the policy that lacks most says how long a
 * prompt takes. */
static void what_is_reused_is_not_fed(void **state)
{
    struct rollout_case loop;
    const int32_t reused[ROLLOUT_CASE_POLICIES] = {8, 5, 8};
    const int32_t token[] = {letters[0], letters[1], letters[2], letters[3],
                             letters[4], letters[5], letters[6], letters[7],
                             2,          2,          2,          0};
    int32_t index = -1;
    (void)state;
    open_machine(&loop, STEP);
    int32_t parked = park_row(&loop, 8);
    admit(&loop, 2, 1, -1);
    step(&loop, "2:0+1!");
    assert_ok(mpo_decode_offer_tokens(loop.decode, 1, token, 12));
    struct mpo_decode_row row = row_with(parked, reused);
    assert_ok(mpo_decode_admit(loop.decode, &row, &index));
    assert_int_not_equal(index, parked);
    step(&loop, "d 1:8+3");   /* four tokens of the policy that has seven left */
    step(&loop, "d 1:11+1!"); /* its last three, and the last one of all */
    for (int32_t k = 0; k < ROLLOUT_CASE_POLICIES; k++)
        assert_int_equal(mpo_policy_row_tokens(mpo_policies_local(loop.policies, k), index),
                         12);
    rollout_case_close(&loop);
}

/* A parked row can become the new one, which then needs no place beside it. */
static void a_row_takes_the_place_of_its_source(void **state)
{
    struct rollout_case loop;
    const int32_t reused[ROLLOUT_CASE_POLICIES] = {8, 8, 6};
    int32_t index = -1;
    (void)state;
    open_machine(&loop, STEP);
    int32_t parked = park_row(&loop, 8);
    assert_ok(mpo_decode_offer_tokens(loop.decode, 1, letters, 10));
    struct mpo_decode_row row = row_with(parked, reused);
    row.takes_over = true;
    assert_ok(mpo_decode_admit(loop.decode, &row, &index));
    assert_int_equal(index, parked);
    step(&loop, "1:8+2!");
    assert_int_equal(mpo_policy_row_tokens(watched, index), 10);
    mpo_decode_park(loop.decode, index); /* it has ended */
    assert_int_equal(mpo_decode_free_rows(loop.decode), ROWS);
    rollout_case_close(&loop);
}

/* A source that leaves before the step, or that never was one. */
static void sources_that_are_gone_are_fed_anew(void **state)
{
    struct rollout_case loop;
    const int32_t reused[ROLLOUT_CASE_POLICIES] = {8, 8, 8};
    const int32_t all[ROLLOUT_CASE_POLICIES] = {10, 8, 8};
    const int32_t more[ROLLOUT_CASE_POLICIES] = {8, 10, 8};
    int32_t index = -1;
    (void)state;
    open_machine(&loop, STEP);
    int32_t parked = park_row(&loop, 8);
    assert_ok(mpo_decode_offer_tokens(loop.decode, 1, letters, 10));
    struct mpo_decode_row row = row_with(parked, all);
    assert_status(mpo_decode_admit(loop.decode, &row, &index), MPO_ERR_USAGE);
    assert_ok(mpo_decode_offer_tokens(loop.decode, 1, letters, 12));
    row.reused = more; /* nine are held: the second drawn token was not fed */
    assert_status(mpo_decode_admit(loop.decode, &row, &index), MPO_ERR_USAGE);
    row.reused = reused;
    row.source = parked + 1;
    assert_status(mpo_decode_admit(loop.decode, &row, &index), MPO_ERR_USAGE);
    row.source = parked;
    assert_ok(mpo_decode_admit(loop.decode, &row, &index));
    mpo_decode_cancel(loop.decode, parked);
    step(&loop, "1:0+12!");
    rollout_case_close(&loop);
}

/* All rows can be at work beside those that are parked, and no more. */
static void parked_rows_take_nobodys_place(void **state)
{
    struct rollout_case loop;
    const struct mpo_decode_row row = {.slot = 1, .share = -1, .free_count = 1, .mu = mu};
    int32_t index = -1;
    (void)state;
    open_machine(&loop, STEP);
    park_row(&loop, 3);
    park_row(&loop, 3);
    assert_ok(mpo_decode_offer_tokens(loop.decode, 1, letters, 2));
    for (int32_t i = 0; i < ROWS; i++) {
        assert_int_equal(mpo_decode_free_rows(loop.decode), ROWS - i);
        assert_ok(mpo_decode_admit(loop.decode, &row, &index));
    }
    assert_int_equal(mpo_decode_free_rows(loop.decode), 0);
    assert_status(mpo_decode_admit(loop.decode, &row, &index), MPO_ERR_USAGE);
    mpo_decode_clear(loop.decode);
    rollout_case_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budgets_grow_with_those_who_wait),
        cmocka_unit_test(budgets_that_are_given_stay),
        cmocka_unit_test(several_prompts_go_in_one_step),
        cmocka_unit_test(a_step_leaves_no_lone_last_token),
        cmocka_unit_test(long_prompts_are_fed_beside_draws),
        cmocka_unit_test(chunks_follow_what_steps_cost),
        cmocka_unit_test(choices_wait_for_one_prompt),
        cmocka_unit_test(chunks_that_are_given_stay),
        cmocka_unit_test(what_is_reused_is_not_fed),
        cmocka_unit_test(a_row_takes_the_place_of_its_source),
        cmocka_unit_test(sources_that_are_gone_are_fed_anew),
        cmocka_unit_test(parked_rows_take_nobodys_place),
    };
    return run_cases("decode_plan", tests);
}
