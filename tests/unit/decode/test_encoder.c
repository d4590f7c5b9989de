/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts that a thread encodes while another one feeds: they are those that mpo_policy_encode
 * makes, done in their order, each told once.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/encoder.h"
#include "feed_bench.h"
#include "feed_words.h"
#include "runner.h"

enum { ENCODED = 3, ROUNDS = 300, WORDS = 400 };

struct bench {
    struct feed_bench feed;
    struct mpo_policy *policy[2]; /* the same one twice */
    struct mpo_encoder *encoder;
    atomic_int told;
};

static void note_encoded(void *argument)
{
    struct bench *bench = argument;
    atomic_fetch_add(&bench->told, 1);
}

static void open_bench(struct bench *bench)
{
    feed_bench_start(&bench->feed, &feed_words);
    bench->told = 0;
    bench->policy[0] = bench->policy[1] = &bench->feed.test.policy;
    assert_ok(mpo_encoder_open(&(struct mpo_encoder_spec){.policy = bench->policy,
                                                          .policy_count = 2,
                                                          .slot_count = FEED_CASE_SLOTS,
                                                          .encoded = note_encoded,
                                                          .argument = bench},
                               &bench->encoder));
}

static void close_bench(struct bench *bench)
{
    mpo_encoder_close(&bench->encoder);
    assert_null(bench->encoder);
    mpo_encoder_close(&bench->encoder);
    feed_bench_close(&bench->feed);
}

/* So many times a word; a prompt has a message of its own. */
static void submit(struct bench *bench, int32_t slot, const char *word, int32_t count)
{
    const size_t bytes = strlen(word) + 1;
    struct mpo_encoder_prompt prompt = {
        .text = runner_allocate(bytes * (size_t)count + 1, 1),
        .messages = runner_allocate(1, sizeof *prompt.messages)};
    for (int32_t i = 0; i < count; i++)
        snprintf(prompt.text + (size_t)i * bytes, bytes + 1, "%s ", word);
    prompt.prompt = feed_bench_prompt(prompt.messages, prompt.text);
    mpo_encoder_submit(bench->encoder, slot, &prompt);
    assert_null(prompt.text);
}

/* Rows begin with prompts that are there, while others come. */
static void feed_others(struct bench *bench, int32_t round)
{
    struct mpo_policy_span span[2];
    int32_t token = feed_bench_pick_token(&bench->feed);
    int32_t slot = ENCODED + round % (FEED_CASE_SLOTS - ENCODED);
    feed_bench_truncate(&bench->feed, 0, -1);
    feed_bench_truncate(&bench->feed, 1, -1);
    span[0] =
        span_of_slot(0, slot, 0, feed_bench_tokens(&bench->feed, slot), MPO_WANT_LAST);
    span[1] = span_of_tokens(1, &token, 1, MPO_WANT_LAST);
    feed_bench_feed(&bench->feed, span, 2);
}

static void take(struct bench *bench, int32_t slot, int32_t expected)
{
    int32_t length[2] = {0, 0};
    assert_ok(mpo_encoder_take(bench->encoder, slot, length));
    assert_int_equal(length[0], expected);
    assert_int_equal(length[1], expected);
    assert_int_equal(feed_bench_tokens(&bench->feed, slot), expected);
    assert_false(mpo_encoder_has(bench->encoder, slot));
    assert_false(mpo_encoder_is_done(bench->encoder, slot));
}

/* ---- cases ---- */

static void prompts_are_encoded_in_their_order_while_others_are_fed(void **state)
{
    struct bench bench;
    int32_t fed = 0;
    (void)state;
    open_bench(&bench);
    for (int32_t round = 0; round < ROUNDS; round++) {
        for (int32_t slot = 0; slot < ENCODED; slot++) {
            submit(&bench, slot, "b", slot == 0 ? WORDS : slot);
            assert_true(mpo_encoder_has(bench.encoder, slot));
            assert_int_equal(mpo_encoder_number(bench.encoder, slot),
                             round * ENCODED + slot + 1);
        }
        do /* once at least, and until the last one is there */
            feed_others(&bench, fed++);
        while (!mpo_encoder_is_done(bench.encoder, ENCODED - 1) && round % 2 == 0);
        for (int32_t slot = ENCODED - 1; slot >= 0; slot--) {
            assert_true(round % 2 == 1 || mpo_encoder_is_done(bench.encoder, slot));
            take(&bench, slot, 1 + (slot == 0 ? WORDS : slot)); /* the start */
        }
        feed_bench_truncate(&bench.feed, 2, -1);
        feed_bench_feed_one(&bench.feed, span_of_slot(2, 1, 0, 2, MPO_WANT_LAST));
    }
    close_bench(&bench);
    assert_int_equal(bench.told, ROUNDS * ENCODED);
}

static void a_refusal_is_told_and_changes_no_slot(void **state)
{
    struct bench bench;
    int32_t length[2] = {0, 0};
    (void)state;
    open_bench(&bench);
    int32_t before = feed_bench_tokens(&bench.feed, 1);
    submit(&bench, 1, "nothing", 2);
    submit(&bench, 2, "c", 4);
    assert_status(mpo_encoder_take(bench.encoder, 1, length), MPO_ERR_DATA);
    assert_error_names("nothing");
    take(&bench, 2, 5);
    assert_int_equal(feed_bench_tokens(&bench.feed, 1), before);
    assert_status(mpo_encoder_take(bench.encoder, 1, length), MPO_ERR_INTERNAL);
    close_bench(&bench);
}

/* Whatever of them has begun; what they own is freed. */
static void an_encoder_may_be_closed_with_prompts_under_way(void **state)
{
    (void)state;
    for (int32_t round = 0; round < 20; round++) {
        struct bench bench;
        open_bench(&bench);
        for (int32_t slot = 0; slot < FEED_CASE_SLOTS; slot++)
            submit(&bench, slot, "a", WORDS);
        if (round % 2 == 0)
            take(&bench, 0, 1 + WORDS);
        close_bench(&bench);
        assert_in_range(bench.told, round % 2 == 0, FEED_CASE_SLOTS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_encoded_in_their_order_while_others_are_fed),
        cmocka_unit_test(a_refusal_is_told_and_changes_no_slot),
        cmocka_unit_test(an_encoder_may_be_closed_with_prompts_under_way),
    };
    return run_cases("encoder", tests);
}
