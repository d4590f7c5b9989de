/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server asks of the row machine beside draws: prompts as token ids, prompts whose
 * tokens are looked up, biases that change, rows that pause. A row that is asked so is to the
 * bit the row that it stands for. On one rank and on several; the root plays.
 */
#include <math.h>
#include <sched.h>
#include <stdatomic.h>

#include "decode_requests.h"
#include "runner.h"

#define LENGTH 9
#define GIVEN  7

static const double mu[DECODE_POLICIES] = {0.5, 0.2, 0.3};

/* Two end tokens among them. */
static const int32_t text[GIVEN + 1] = {1, 0, ROLLOUT_CASE_END, 2,
                                        2, 1, ROLLOUT_CASE_END, 0};

struct drawn {
    struct decode_figures figures[GIVEN + LENGTH];
    int32_t count;
};

static struct mpo_decode_row row_of(int32_t slot)
{
    return (struct mpo_decode_row){.slot = slot,
                                   .share = -1,
                                   .free_count = LENGTH,
                                   .mu = mu,
                                   .end_bias = -50.0, /* never ends by itself */
                                   .rule = {.seed = 5}};
}

/* Run one row from a cleared cache. */
static void run_row(struct mpo_decode *decode, const struct mpo_decode_row *row,
                    struct drawn *out)
{
    const struct mpo_decode_event *event = NULL;
    int32_t index = -1;
    int32_t count = 0;
    out->count = 0;
    assert_ok(mpo_decode_admit(decode, row, &index));
    while (mpo_decode_live_rows(decode) > 0) {
        assert_ok(mpo_decode_step(decode, &event, &count));
        for (int32_t i = 0; i < count; i++)
            out->figures[out->count++] = decode_figures_of(row, &event[i]);
    }
}

/* The same tokens and figures, counted from another position on. */
static void assert_drawn_alike(const struct decode_figures *a,
                               const struct decode_figures *b, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        struct decode_figures shifted = b[i];
        shifted.position = a[i].position;
        assert_memory_equal(&a[i], &shifted, sizeof shifted);
    }
}

/* ---- prompts as token ids ---- */

/* The prompts of the case are the texts a, b, c, whose tokens are 0, 1, 2. */
static void offer_tokens(struct mpo_decode *decode)
{
    static struct drawn by_text;
    static struct drawn by_token;
    struct mpo_decode_row row = row_of(1);
    const int32_t token = 1;
    const int32_t bad = DECODE_VOCAB + 1; /* V is the start of a table */
    run_row(decode, &row, &by_text);
    assert_ok(mpo_decode_offer_tokens(decode, 0, &token, 1));
    row.slot = 0;
    run_row(decode, &row, &by_token);
    assert_int_equal(by_text.count, LENGTH);
    assert_int_equal(by_token.count, LENGTH);
    assert_drawn_alike(by_text.figures, by_token.figures, LENGTH);
    assert_status(mpo_decode_offer_tokens(decode, 0, &bad, 1), MPO_ERR_DATA);
    assert_status(mpo_decode_offer_tokens(decode, 0, &token, 0), MPO_ERR_USAGE);
    assert_status(mpo_decode_offer_tokens(decode, 1000, &token, 1), MPO_ERR_USAGE);
}

/* A slot is free for another prompt when the row that waits for its prompt is cancelled or
 * cleared, before the step in which that row leaves. */
static void offer_again(struct mpo_decode *decode)
{
    static struct drawn alone;
    static struct drawn after;
    const struct mpo_decode_event *event = NULL;
    struct mpo_decode_row row = row_of(0);
    int32_t index = -1;
    int32_t count = 0;
    assert_ok(mpo_decode_offer_tokens(decode, 0, text, 2));
    run_row(decode, &row, &alone);
    for (int32_t way = 0; way < 2; way++) {
        assert_ok(mpo_decode_offer_tokens(decode, 0, text, GIVEN + 1));
        assert_ok(mpo_decode_admit(decode, &row, &index));
        assert_status(mpo_decode_offer_tokens(decode, 0, text, 2), MPO_ERR_USAGE);
        assert_ok(mpo_decode_step(decode, &event, &count));
        assert_int_equal(count, 0);
        assert_status(mpo_decode_offer_tokens(decode, 0, text, 2), MPO_ERR_USAGE);
        if (way == 0)
            mpo_decode_cancel(decode, index);
        else
            mpo_decode_clear(decode);
        assert_ok(mpo_decode_offer_tokens(decode, 0, text, 2));
        run_row(decode, &row, &after);
        assert_int_equal(after.count, LENGTH);
        assert_drawn_alike(alone.figures, after.figures, LENGTH);
    }
}

/* ---- prompts that are encoded beside steps ---- */

/* The tokens of a are 0; more of them are a prompt that other ranks encode too. */
static const struct mpo_message beside_message = {"user", "b a c"};
static const struct mpo_prompt beside_prompt = {
    .text = "", .messages = &beside_message, .message_count = 1, .prefill = ""};

/* What the others are said to have done. */
static atomic_llong others_done;
static atomic_int told_count;

static int64_t say_others(void *argument)
{
    (void)argument;
    return others_done;
}

static void note_encoded(void *argument)
{
    (void)argument;
    told_count++;
}

/* Until it is encoded here; steps go on meanwhile. */
static void wait_for_encoding(struct mpo_decode *decode, int32_t slot)
{
    while (mpo_decode_offer_progress(decode, slot) == MPO_DECODE_NOT_ENCODED)
        sched_yield();
}

/* The slot is taken from its offer to its end, and has then the prompt of an offer at once. */
static void offer_beside(struct mpo_decode *decode)
{
    static struct drawn at_once;
    static struct drawn beside;
    static struct drawn other;
    int32_t length[2][DECODE_POLICIES];
    struct mpo_decode_row row = row_of(0);
    struct mpo_decode_row company = row_of(1);
    assert_ok(mpo_decode_offer(decode, 0, &beside_prompt, length[0]));
    run_row(decode, &row, &at_once);
    run_row(decode, &company, &other);
    for (int32_t round = 1; round <= 20; round++) {
        others_done = round - 1;
        assert_int_equal(mpo_decode_offer_progress(decode, 0), MPO_DECODE_NOT_ENCODED);
        assert_status(mpo_decode_end_offer(decode, 0, NULL), MPO_ERR_USAGE);
        assert_ok(mpo_decode_begin_offer(decode, 0, &beside_prompt));
        assert_status(mpo_decode_begin_offer(decode, 0, &beside_prompt), MPO_ERR_USAGE);
        assert_status(mpo_decode_offer_tokens(decode, 0, text, 1), MPO_ERR_USAGE);
        run_row(decode, &company, &beside); /* steps that wait for no token */
        assert_drawn_alike(other.figures, beside.figures, LENGTH);
        wait_for_encoding(decode, 0);
        assert_int_equal(mpo_decode_offer_progress(decode, 0), MPO_DECODE_ENCODED_HERE);
        others_done = round;
        assert_int_equal(mpo_decode_offer_progress(decode, 0), MPO_DECODE_ENCODED);
        assert_ok(mpo_decode_end_offer(decode, 0, length[1]));
        assert_memory_equal(length[0], length[1], sizeof length[0]);
        run_row(decode, &row, &beside);
        assert_drawn_alike(at_once.figures, beside.figures, LENGTH);
    }
    while (told_count < 20)
        sched_yield(); /* the last one is told after it is there */
    assert_int_equal(told_count, 20);
}

/* A refusal is that of an offer at once, and the end of one waits for what is not done. */
static void refuse_beside(struct mpo_decode *decode)
{
    const struct mpo_message message = {"user", "a nothing"};
    struct mpo_prompt bad = beside_prompt;
    bad.messages = &message;
    others_done = INT64_MAX;
    assert_status(mpo_decode_begin_offer(decode, -1, &bad), MPO_ERR_USAGE);
    assert_status(mpo_decode_begin_offer(decode, 1000, &bad), MPO_ERR_USAGE);
    for (int32_t slot = 0; slot < DECODE_SLOT_COUNT; slot++)
        assert_ok(mpo_decode_begin_offer(decode, slot, slot == 1 ? &bad : &beside_prompt));
    for (int32_t slot = DECODE_SLOT_COUNT - 1; slot >= 0; slot--) {
        enum mpo_status expected = slot == 1 ? MPO_ERR_DATA : MPO_OK;
        assert_status(mpo_decode_end_offer(decode, slot, NULL), expected);
        assert_int_equal(mpo_decode_offer_progress(decode, slot), MPO_DECODE_NOT_ENCODED);
    }
    assert_ok(mpo_decode_begin_offer(decode, 0, &beside_prompt)); /* and is left so */
}

/* ---- prompts that are looked up ---- */

/* A prompt whose first token is the slot's and whose others are given has the draws of the
 * whole prompt; an end token in it ends nothing, even as its last. */
static void look_up_prompts(struct mpo_decode *decode)
{
    static struct drawn whole;
    static struct drawn looked_up;
    for (int32_t length = 1; length <= GIVEN; length++) {
        struct mpo_decode_row row = row_of(0);
        assert_ok(mpo_decode_offer_tokens(decode, 0, text, length + 1));
        run_row(decode, &row, &whole);
        assert_ok(mpo_decode_offer_tokens(decode, 0, text, 1));
        row.given = text + 1;
        row.given_count = length;
        row.given_is_prompt = true;
        run_row(decode, &row, &looked_up);
        assert_int_equal(whole.count, LENGTH);
        assert_int_equal(looked_up.count, length + LENGTH);
        for (int32_t i = 0; i < length; i++) {
            assert_int_equal(looked_up.figures[i].token, text[i + 1]);
            assert_int_equal(looked_up.figures[i].flags, MPO_DECODE_GIVEN);
        }
        assert_drawn_alike(looked_up.figures + length, whole.figures, LENGTH);
    }
}

/* A response that is given ends with its end token, as before. */
static void look_up_responses(struct mpo_decode *decode)
{
    static struct drawn drawn;
    struct mpo_decode_row row = row_of(0);
    assert_ok(mpo_decode_offer_tokens(decode, 0, text, 1));
    row.given = text + 1;
    row.given_count = GIVEN - 1;
    run_row(decode, &row, &drawn);
    assert_int_equal(drawn.count, GIVEN - 1);
    assert_int_equal(drawn.figures[GIVEN - 2].flags, MPO_DECODE_GIVEN | MPO_DECODE_ENDED);
}

/* ---- biases that change ---- */

/* All tokens but one are forbidden, another one in each step. */
static void change_biases(struct mpo_decode *decode)
{
    struct mpo_mixture_bias bias[DECODE_VOCAB];
    const struct mpo_decode_event *event = NULL;
    struct mpo_decode_row row = row_of(0);
    int32_t index = -1;
    int32_t count = 0;
    row.rule.changes = true;
    assert_ok(mpo_decode_admit(decode, &row, &index));
    for (int32_t i = 0; i < LENGTH; i++) {
        int32_t wanted = i * 3 % ROLLOUT_CASE_END;
        for (int32_t v = 0; v < DECODE_VOCAB; v++)
            bias[v] = (struct mpo_mixture_bias){v, v == wanted ? 0.0 : -INFINITY};
        if (i > 0) /* of two at once the bias of the draws to come counts */
            assert_ok(mpo_decode_rebias(decode, index, bias, DECODE_VOCAB));
        assert_ok(mpo_decode_step(decode, &event, &count));
        assert_int_equal(count, 1);
        if (i > 0)
            assert_int_equal(event->token, wanted);
    }
    assert_int_equal(mpo_decode_live_rows(decode), 0);
    assert_status(mpo_decode_rebias(decode, index, bias, 1), MPO_ERR_USAGE);
}

static void refuse_biases(struct mpo_decode *decode)
{
    const struct mpo_mixture_bias bias = {DECODE_VOCAB, 0.0};
    struct mpo_decode_row row = row_of(0);
    int32_t index = -1;
    assert_ok(mpo_decode_admit(decode, &row, &index));
    assert_status(mpo_decode_rebias(decode, index, &bias, 0), MPO_ERR_USAGE);
    assert_error_names("rule.changes");
    mpo_decode_cancel(decode, index);
    row.rule.changes = true;
    assert_ok(mpo_decode_admit(decode, &row, &index));
    assert_status(mpo_decode_rebias(decode, index, &bias, 1), MPO_ERR_USAGE);
    assert_status(mpo_decode_rebias(decode, -1, &bias, 0), MPO_ERR_USAGE);
    mpo_decode_clear(decode);
}

/* A rule that could change and does not is the rule as it is. */
static void keep_biases(struct mpo_decode *decode)
{
    static struct drawn fixed;
    static struct drawn changing;
    struct mpo_decode_row row = row_of(0);
    run_row(decode, &row, &fixed);
    row.rule.changes = true;
    run_row(decode, &row, &changing);
    for (int32_t i = 0; i < LENGTH; i++) {
        assert_int_equal(changing.figures[i].token, fixed.figures[i].token);
        assert_same_bits(changing.figures[i].log_q, fixed.figures[i].log_q);
    }
}

/* ---- pauses ---- */

static void pause_rows(struct mpo_decode *decode)
{
    static struct drawn alone[2];
    static struct drawn paused[2];
    const struct mpo_decode_event *event = NULL;
    struct mpo_decode_row row[2] = {row_of(0), row_of(2)};
    int32_t index[2] = {-1, -1};
    int32_t count = 0;
    paused[0].count = paused[1].count = 0;
    for (int32_t j = 0; j < 2; j++)
        run_row(decode, &row[j], &alone[j]);
    for (int32_t j = 0; j < 2; j++)
        assert_ok(mpo_decode_admit(decode, &row[j], &index[j]));
    for (int32_t step = 0; mpo_decode_live_rows(decode) > 0; step++) {
        mpo_decode_pause(decode, index[0], step >= 3 && step < 7);
        assert_ok(mpo_decode_step(decode, &event, &count));
        for (int32_t i = 0; i < count; i++) {
            int32_t j = event[i].row == index[1];
            assert_false(j == 0 && step >= 3 && step < 7);
            paused[j].figures[paused[j].count++] = decode_figures_of(&row[j], &event[i]);
        }
    }
    for (int32_t j = 0; j < 2; j++) {
        assert_int_equal(paused[j].count, LENGTH);
        assert_drawn_alike(alone[j].figures, paused[j].figures, LENGTH);
    }
}

/* ---- whole prompts ---- */

static int32_t steps_to_first(struct mpo_decode *decode, const struct mpo_decode_row *row)
{
    const struct mpo_decode_event *event = NULL;
    int32_t index = -1;
    int32_t count = 0;
    int32_t steps = 0;
    assert_ok(mpo_decode_admit(decode, row, &index));
    while (count == 0) {
        assert_ok(mpo_decode_step(decode, &event, &count));
        steps++;
    }
    mpo_decode_clear(decode);
    return steps;
}

/* Chunks of two tokens: seven before the last one take four steps. */
static void feed_whole_prompts(struct mpo_decode *decode)
{
    struct mpo_decode_row row = row_of(0);
    assert_ok(mpo_decode_offer_tokens(decode, 0, text, GIVEN + 1));
    assert_int_equal(steps_to_first(decode, &row), 4);
    row.whole_prompt = true;
    assert_int_equal(steps_to_first(decode, &row), 1);
}

/* ---- cases ---- */

static void play(int32_t prefill_tokens, void (*root)(struct mpo_decode *))
{
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_MIXED, prefill_tokens);
    spec.response_tokens = 0;
    spec.bias_max = DECODE_VOCAB;
    decode_play(&spec, root);
}

static void token_ids_are_a_prompt_like_its_text(void **state)
{
    (void)state;
    play(2, offer_tokens);
}

static void play_beside(void (*root)(struct mpo_decode *))
{
    struct rollout_case loop;
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_MIXED, 2);
    const struct mpo_decode_beside beside = {.encoded = note_encoded, .others = say_others};
    spec.response_tokens = 0;
    spec.parked_rows = 2;
    told_count = 0;
    rollout_case_open(&loop, &spec);
    if (mpo_comm_group_rank(loop.comm) == 0)
        assert_status(mpo_decode_begin_offer(loop.decode, 0, &beside_prompt),
                      MPO_ERR_USAGE);
    assert_ok(mpo_decode_encode_beside(loop.decode, &beside));
    assert_status(mpo_decode_encode_beside(loop.decode, &beside), MPO_ERR_USAGE);
    decode_play_on(&loop, root);
    mpo_decode_end_encoding(loop.decode);
    mpo_decode_end_encoding(loop.decode);
    rollout_case_close(&loop);
}

static void a_prompt_is_encoded_beside_steps(void **state)
{
    (void)state;
    play_beside(offer_beside);
    play_beside(refuse_beside);
}

static void a_slot_is_free_when_its_row_is_cancelled(void **state)
{
    (void)state;
    play(2, offer_again);
}

static void a_prompt_that_is_looked_up_is_the_prompt(void **state)
{
    (void)state;
    play(1, look_up_prompts);
    play(8, look_up_prompts);
    play(2, look_up_responses);
}

static void biases_may_change_between_two_steps(void **state)
{
    (void)state;
    play(8, change_biases);
    play(2, refuse_biases);
    play(2, keep_biases);
}

static void a_paused_row_goes_on_as_if_nothing_had_been(void **state)
{
    (void)state;
    play(8, pause_rows);
}

static void a_whole_prompt_takes_one_step(void **state)
{
    (void)state;
    play(2, feed_whole_prompts);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_ids_are_a_prompt_like_its_text),
        cmocka_unit_test(a_prompt_is_encoded_beside_steps),
        cmocka_unit_test(a_slot_is_free_when_its_row_is_cancelled),
        cmocka_unit_test(a_prompt_that_is_looked_up_is_the_prompt),
        cmocka_unit_test(biases_may_change_between_two_steps),
        cmocka_unit_test(a_paused_row_goes_on_as_if_nothing_had_been),
        cmocka_unit_test(a_whole_prompt_takes_one_step),
    };
    return run_cases_on_ranks(argc, argv, "decode serving", tests);
}
