/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cases of feed.
 */
#include "feed_case.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "feed_bench.h"
#include "runner.h"

enum { ROWS = FEED_BENCH_ROWS, POSITIONS = FEED_BENCH_POSITIONS };

/* ---- prompts ---- */

/* Several rows at once, each by pieces of its own lengths; one prompt is longer than two
 * batches of an engine. */
static void prompts_in_pieces_give_the_logits_of_whole_ones(void **state)
{
    struct feed_bench bench;
    feed_bench_start(&bench, *state);
    for (int round = 0; round < 6; round++) {
        int32_t slot[ROWS];
        int32_t done[ROWS] = {0};
        int32_t left = ROWS;
        if (round == 5)
            feed_bench_encode(&bench, 0, 1100 / 2, 77);
        for (int32_t i = 0; i < ROWS; i++)
            slot[i] = i > 0 ? feed_bench_pick(&bench, FEED_CASE_SLOTS - 1) + 1 : 0;
        while (left > 0) {
            struct mpo_policy_span span[ROWS];
            left = 0;
            for (int32_t i = 0; i < ROWS; i++) {
                int32_t rest = feed_bench_tokens(&bench, slot[i]) - done[i];
                int32_t most = round == 5 ? 700 : 12;
                int32_t count = feed_bench_pick(&bench, (rest < most ? rest : most) + 1);
                bool last = rest > 0 && count == rest;
                span[i] = span_of_slot(i, slot[i], done[i], count,
                                       last ? MPO_WANT_LAST : MPO_WANT_NONE);
                done[i] += count;
                left += rest > count;
            }
            feed_bench_feed(&bench, span, ROWS);
        }
        for (int32_t i = 0; i < ROWS; i++)
            feed_bench_truncate(&bench, i, -1);
    }
    for (int32_t i = 0; i < 2; i++)
        feed_bench_feed_one(
            &bench, span_of_slot(i, i, 0, feed_bench_tokens(&bench, i), MPO_WANT_LAST));
    feed_bench_close(&bench);
}

static void every_position_is_that_of_tokens_one_by_one(void **state)
{
    struct feed_bench bench;
    int32_t token[POSITIONS];
    feed_bench_start(&bench, *state);
    for (int32_t i = 0; i < POSITIONS; i++)
        token[i] = feed_bench_pick_token(&bench);
    feed_bench_feed_one(&bench,
                        span_of_slot(0, 2, 0, feed_bench_tokens(&bench, 2), MPO_WANT_LAST));
    feed_bench_fork(&bench, 0, 1);
    feed_bench_feed_one(&bench, span_of_tokens(0, token, POSITIONS - 1, MPO_WANT_EVERY));
    for (int32_t i = 0; i < POSITIONS - 1; i++)
        feed_bench_feed_one(&bench, span_of_tokens(1, &token[i], 1, MPO_WANT_LAST));
    feed_bench_truncate(&bench, 0, -1);
    feed_bench_feed_one(
        &bench, span_of_slot(0, 3, 0, feed_bench_tokens(&bench, 3), MPO_WANT_EVERY));
    feed_bench_close(&bench);
}

static void live_and_empty_rows_and_empty_spans_go_in_one_feed(void **state)
{
    struct feed_bench bench;
    int32_t token[3];
    feed_bench_start(&bench, *state);
    for (int32_t i = 0; i < 3; i++)
        token[i] = feed_bench_pick_token(&bench);
    feed_bench_feed_one(&bench,
                        span_of_slot(3, 1, 0, feed_bench_tokens(&bench, 1), MPO_WANT_NONE));
    const struct mpo_policy_span span[ROWS] = {
        span_of_slot(5, 4, 0, feed_bench_tokens(&bench, 4), MPO_WANT_LAST),
        span_of_tokens(3, token, 1, MPO_WANT_LAST),
        span_of_slot(0, 2, 0, 3, MPO_WANT_NONE),
        span_of_slot(4, 1, 1000, 0, MPO_WANT_EVERY),
        span_of_tokens(2, NULL, 0, MPO_WANT_LAST),
        span_of_tokens(1, token, 3, MPO_WANT_EVERY),
    };
    feed_bench_feed(&bench, span, ROWS);
    assert_int_equal(mpo_policy_row_tokens(&bench.test.policy, 4), 0);
    feed_bench_feed(&bench, NULL, 0);
    feed_bench_feed(&bench, &span[3], 2);
    feed_bench_feed_one(
        &bench, span_of_slot(0, 2, 3, feed_bench_tokens(&bench, 2) - 3, MPO_WANT_LAST));
    feed_bench_close(&bench);
}

static void rows_forked_on_the_way_go_on_by_themselves(void **state)
{
    struct feed_bench bench;
    feed_bench_start(&bench, *state);
    int32_t half = feed_bench_tokens(&bench, 5) / 2;
    feed_bench_feed_one(&bench, span_of_slot(0, 5, 0, half, MPO_WANT_NONE));
    for (int32_t row = 1; row < ROWS; row++)
        feed_bench_fork(&bench, row - 1, row);
    feed_bench_feed_one(
        &bench,
        span_of_slot(0, 5, half, feed_bench_tokens(&bench, 5) - half, MPO_WANT_LAST));
    feed_bench_fork(&bench, 0, 2);
    for (int32_t step = 0; step < 4; step++) {
        int32_t token[ROWS];
        struct mpo_policy_span span[ROWS];
        for (int32_t row = 0; row < ROWS; row++) {
            token[row] = feed_bench_pick_token(&bench);
            span[row] = span_of_tokens(row, &token[row], 1, MPO_WANT_LAST);
        }
        feed_bench_feed(&bench, span, ROWS - step);
        feed_bench_truncate(&bench, ROWS - 1 - step, -1);
    }
    feed_bench_close(&bench);
}

static void rows_cut_back_into_their_prompts_go_on(void **state)
{
    struct feed_bench bench;
    feed_bench_start(&bench, *state);
    feed_bench_feed_one(&bench,
                        span_of_slot(0, 6, 0, feed_bench_tokens(&bench, 6), MPO_WANT_LAST));
    feed_bench_fork(&bench, 0, 1);
    feed_bench_truncate(&bench, 0, 7);
    feed_bench_feed_one(&bench, span_of_slot(0, 6, 7, 4, MPO_WANT_LAST));
    feed_bench_feed_one(
        &bench, span_of_slot(0, 6, 11, feed_bench_tokens(&bench, 6) - 11, MPO_WANT_LAST));
    int32_t token = feed_bench_pick_token(&bench);
    feed_bench_feed_one(&bench, span_of_tokens(1, &token, 1, MPO_WANT_LAST));
    feed_bench_truncate(&bench, 1, 1);
    feed_bench_feed_one(&bench, span_of_tokens(1, &token, 1, MPO_WANT_LAST));
    feed_bench_truncate(&bench, 1, 0);
    feed_bench_truncate(&bench, 1, -1);
    feed_bench_feed_one(&bench,
                        span_of_slot(1, 0, 0, feed_bench_tokens(&bench, 0), MPO_WANT_LAST));
    feed_bench_close(&bench);
}

static void a_slot_can_be_used_again_while_rows_live_on_its_tokens(void **state)
{
    struct feed_bench bench;
    feed_bench_start(&bench, *state);
    feed_bench_feed_one(&bench,
                        span_of_slot(0, 3, 0, feed_bench_tokens(&bench, 3), MPO_WANT_LAST));
    feed_bench_encode(&bench, 3, 2, 99);
    int32_t token = feed_bench_pick_token(&bench);
    const struct mpo_policy_span span[2] = {
        span_of_tokens(0, &token, 1, MPO_WANT_LAST),
        span_of_slot(1, 3, 0, feed_bench_tokens(&bench, 3), MPO_WANT_LAST)};
    feed_bench_feed(&bench, span, 2);
    feed_bench_fork(&bench, 0, 1);
    feed_bench_feed_one(&bench, span_of_tokens(1, &token, 1, MPO_WANT_LAST));
    feed_bench_close(&bench);
}

static void token_ids_are_taken_as_they_are(void **state)
{
    struct feed_bench bench;
    int32_t token[9];
    feed_bench_start(&bench, *state);
    struct mpo_policy *policy = &bench.test.policy;
    for (int32_t i = 0; i < 9; i++)
        token[i] = feed_bench_pick_token(&bench);
    assert_ok(mpo_policy_encode_tokens(policy, 2, token, 9));
    assert_int_equal(feed_bench_tokens(&bench, 2), 9);
    assert_memory_equal(policy->slot[2].token, token, sizeof token);
    token[4] = -1;
    assert_status(mpo_policy_encode_tokens(policy, 2, token, 9), MPO_ERR_DATA);
    assert_error_names("token 5 of the prompt is -1");
    token[4] = policy->token_count;
    assert_status(mpo_policy_encode_tokens(policy, 2, token, 9), MPO_ERR_DATA);
    assert_status(mpo_policy_encode_tokens(policy, 2, token, 0), MPO_ERR_DATA);
    assert_status(mpo_policy_encode_tokens(policy, FEED_CASE_SLOTS, token, 3),
                  MPO_ERR_USAGE);
    assert_status(mpo_policy_encode_tokens(policy, -1, token, 3), MPO_ERR_USAGE);
    assert_int_equal(feed_bench_tokens(&bench, 2), 9);
    assert_int_equal(feed_bench_tokens(&bench, FEED_CASE_SLOTS), 0);
    assert_int_equal(feed_bench_tokens(&bench, -1), 0);
    feed_bench_feed_one(&bench, span_of_slot(0, 2, 0, 9, MPO_WANT_LAST));
    feed_bench_close(&bench);
}

/* ---- refusals ---- */

static void refuse_span(struct feed_bench *bench, struct mpo_policy_span span,
                        const char *word)
{
    int32_t token = bench->test.kind->first_token;
    const struct mpo_policy_span spans[2] = {span_of_tokens(0, &token, 1, MPO_WANT_LAST),
                                             span};
    assert_status(mpo_policy_feed(&bench->test.policy, spans, 2, bench->logits),
                  MPO_ERR_USAGE);
    assert_error_names(bench->test.policy.name);
    assert_error_names(word);
    for (int32_t row = 0; row < ROWS; row++)
        assert_int_equal(mpo_policy_row_tokens(&bench->test.policy, row),
                         bench->row[row].count);
}

static void what_does_not_exist_is_refused_and_changes_nothing(void **state)
{
    struct feed_bench bench;
    feed_bench_start(&bench, *state);
    struct mpo_policy *policy = &bench.test.policy;
    int32_t token[POSITIONS] = {0};
    for (int32_t i = 0; i < POSITIONS; i++)
        token[i] = feed_bench_pick_token(&bench);
    feed_bench_feed_one(&bench,
                        span_of_slot(0, 1, 0, feed_bench_tokens(&bench, 1), MPO_WANT_LAST));
    int32_t length = feed_bench_tokens(&bench, 2);
    refuse_span(&bench, span_of_tokens(ROWS, token, 1, MPO_WANT_LAST), "row 6 of 6");
    refuse_span(&bench, span_of_tokens(-1, token, 1, MPO_WANT_LAST), "row -1 of 6");
    refuse_span(&bench, span_of_tokens(0, token, 1, MPO_WANT_LAST), "row 0 twice");
    refuse_span(&bench, span_of_tokens(0, token, 0, MPO_WANT_LAST), "row 0 twice");
    refuse_span(&bench, span_of_tokens(1, token, -1, MPO_WANT_LAST),
                "-1 tokens onto row 1");
    refuse_span(&bench, span_of_slot(1, FEED_CASE_SLOTS, 0, 1, MPO_WANT_LAST),
                "slot 8 of 8");
    refuse_span(&bench, span_of_slot(1, -2, 0, 1, MPO_WANT_LAST), "slot -2 of 8");
    refuse_span(&bench, span_of_slot(1, 2, 0, length + 1, MPO_WANT_LAST), "onto row 1");
    refuse_span(&bench, span_of_slot(1, 2, length, 1, MPO_WANT_LAST), "onto row 1");
    refuse_span(&bench, span_of_slot(1, 2, INT32_MAX, INT32_MAX, MPO_WANT_LAST),
                "onto row 1");
    refuse_span(&bench, span_of_slot(1, 2, -1, 1, MPO_WANT_LAST), "onto row 1");
    refuse_span(&bench, span_of_tokens(2, token, POSITIONS, MPO_WANT_EVERY), "up to row 2");
    token[1] = policy->token_count;
    refuse_span(&bench, span_of_tokens(2, token, 2, MPO_WANT_LAST), "onto row 2");
    token[1] = -1;
    refuse_span(&bench, span_of_tokens(2, token, 2, MPO_WANT_LAST), "onto row 2");
    assert_status(mpo_policy_truncate(policy, ROWS, 0), MPO_ERR_USAGE);
    assert_status(mpo_policy_truncate(policy, 0, bench.row[0].count + 1), MPO_ERR_USAGE);
    assert_error_names("row 0 cut to");
    assert_status(mpo_policy_truncate(policy, 1, 1), MPO_ERR_USAGE);
    assert_status(mpo_policy_fork(policy, 1, 0), MPO_ERR_USAGE);
    assert_error_names("row 1 is empty");
    assert_status(mpo_policy_fork(policy, 0, ROWS), MPO_ERR_USAGE);
    assert_status(mpo_policy_fork(policy, -1, 0), MPO_ERR_USAGE);
    feed_bench_feed_one(&bench, span_of_tokens(0, token, 1, MPO_WANT_LAST));
    feed_bench_close(&bench);
}

static void without_room_nothing_is_fed(void **state)
{
    struct feed_bench bench;
    int32_t token = ((const struct feed_kind *)*state)->first_token;
    struct mpo_policy_setup setup = {0};
    struct mpo_policies_room room = {.row_capacity = 2, .position_capacity = 2};
    feed_bench_open(&bench, *state);
    struct mpo_policy *policy = &bench.test.policy;
    const struct mpo_policy_span span = span_of_tokens(0, &token, 1, MPO_WANT_LAST);
    assert_status(mpo_policy_feed(policy, &span, 1, bench.logits), MPO_ERR_USAGE);
    mpo_policy_clear(policy);
    assert_int_equal(mpo_policy_row_tokens(policy, 0), 0);
    assert_status(mpo_policy_make_room(policy, &room, &setup), MPO_ERR_CONFIG);
    room.held_prompts = 1;
    assert_status(mpo_policy_make_room(policy, &room, &setup), MPO_ERR_CONFIG);
    room.response_tokens = INT32_MAX;
    assert_status(mpo_policy_make_room(policy, &room, &setup), MPO_ERR_CONFIG);
    assert_error_names("would need a context of 4294967552 tokens");
    room.response_tokens = 1;
    room.row_capacity = MPO_ROW_COUNT_MAX + 1;
    assert_status(mpo_policy_make_room(policy, &room, &setup), MPO_ERR_CONFIG);
    room.row_capacity = 2;
    room.position_capacity = 1;
    assert_status(mpo_policy_make_room(policy, &room, &setup), MPO_ERR_CONFIG);
    room.position_capacity = 2;
    feed_bench_room(&bench, &room);
    assert_status(mpo_policy_make_room(policy, &room, &setup), MPO_ERR_INTERNAL);
    feed_bench_feed_one(&bench, span);
    feed_bench_close(&bench);
}

/* ---- cells ---- */

/* All cells of a context can be used, shared ones by several rows, and none more. */
static void rows_fill_their_room_to_the_last_cell(void **state)
{
    struct feed_bench bench;
    enum { CELLS = 511 };
    int32_t token[CELLS];
    feed_bench_open(&bench, *state);
    feed_bench_room(&bench, &(struct mpo_policies_room){.row_capacity = ROWS,
                                                        .position_capacity = POSITIONS,
                                                        .context_tokens = CELLS});
    for (int32_t i = 0; i < CELLS; i++)
        token[i] = feed_bench_pick_token(&bench);
    feed_bench_feed_one(&bench, span_of_tokens(0, token, 300, MPO_WANT_LAST));
    for (int32_t row = 1; row < ROWS; row++)
        feed_bench_fork(&bench, 0, row);
    feed_bench_feed_one(&bench, span_of_tokens(4, token, 210, MPO_WANT_LAST));
    refuse_span(&bench, span_of_tokens(1, token, 1, MPO_WANT_LAST), "onto row 1");
    assert_error_names("no cells for 1 of them");
    feed_bench_feed_one(&bench, span_of_tokens(2, token, 1, MPO_WANT_LAST));
    feed_bench_truncate(&bench, 4, 509);
    feed_bench_feed_one(&bench, span_of_tokens(4, token, 1, MPO_WANT_LAST));
    feed_bench_truncate(&bench, 4, 200);
    for (int32_t i = 0; i < 210; i++)
        feed_bench_feed_one(&bench, span_of_tokens(i % 2, &token[i], 1, MPO_WANT_LAST));
    refuse_span(&bench, span_of_tokens(1, token, 1, MPO_WANT_LAST), "no cells");
    for (int32_t row = 0; row < ROWS; row++)
        feed_bench_truncate(&bench, row, -1);
    feed_bench_feed_one(&bench, span_of_tokens(3, token, CELLS, MPO_WANT_LAST));
    feed_bench_close(&bench);
}

/* ---- any order ---- */

static struct mpo_policy_span any_span(struct feed_bench *bench, int32_t row,
                                       int32_t *token, int32_t room)
{
    int32_t slot = feed_bench_pick(bench, FEED_CASE_SLOTS);
    enum mpo_policy_want want = (enum mpo_policy_want)feed_bench_pick(bench, 3);
    if (feed_bench_pick(bench, 3) == 0) {
        int32_t first = feed_bench_pick(bench, feed_bench_tokens(bench, slot));
        int32_t rest = feed_bench_tokens(bench, slot) - first;
        return span_of_slot(row, slot, first,
                            feed_bench_pick(bench, (rest < room ? rest : room) + 1), want);
    }
    int32_t count = feed_bench_pick(bench, room < 4 ? room + 1 : 4);
    for (int32_t i = 0; i < count; i++)
        token[i] = feed_bench_pick_token(bench);
    return span_of_tokens(row, token, count, want);
}

static void feed_any(struct feed_bench *bench)
{
    struct mpo_policy_span span[ROWS];
    int32_t token[ROWS][4];
    int32_t first = feed_bench_pick(bench, ROWS);
    int32_t count = 1 + feed_bench_pick(bench, ROWS);
    for (int32_t i = 0; i < count; i++) {
        int32_t row = (first + 5 * i) % ROWS; /* 5 and 6 have no common factor */
        int32_t room = FEED_BENCH_LONGEST - bench->row[row].count;
        if (room > POSITIONS / ROWS)
            room = POSITIONS / ROWS - (i == 0); /* logits[output] stays NULL at the end */
        span[i] = any_span(bench, row, token[i], room);
    }
    feed_bench_feed(bench, span, count);
}

static void any_order_of_verbs_gives_what_follows_from_histories(void **state)
{
    struct feed_bench bench;
    feed_bench_start(&bench, *state);
    for (int32_t i = 0; i < 600; i++) {
        int32_t move = feed_bench_pick(&bench, 20);
        int32_t row = feed_bench_pick(&bench, ROWS);
        if (move == 0)
            feed_bench_encode(&bench, row, 1 + feed_bench_pick(&bench, 20), 1000 + i);
        else if (move < 4)
            feed_bench_truncate(&bench, row,
                                feed_bench_pick(&bench, bench.row[row].count + 1));
        else if (move < 8 && bench.row[row].count > 0)
            feed_bench_fork(&bench, row, feed_bench_pick(&bench, ROWS));
        else
            feed_any(&bench);
    }
    mpo_policy_clear(&bench.test.policy);
    for (int32_t row = 0; row < ROWS; row++) {
        assert_int_equal(mpo_policy_row_tokens(&bench.test.policy, row), 0);
        bench.row[row].count = 0;
    }
    feed_any(&bench);
    feed_bench_close(&bench);
}

/* ---- threads ---- */

enum { WRITERS = 3 };

/* One thread that encodes into a slot of its own, over and over. */
struct writer {
    pthread_t thread;
    struct feed_bench *bench;
    atomic_bool *ends;
    int32_t slot;
    int32_t rounds;
    int32_t failures;
};

/* CMocka must not fail on another thread, so failures are counted. */
static void *write_slot(void *self)
{
    struct writer *writer = self;
    struct mpo_policy *policy = &writer->bench->test.policy;
    const char *const texts[2] = {"a b c a b c d e a", "e d"};
    for (; !atomic_load(writer->ends) || writer->rounds < 50; writer->rounds++) {
        struct mpo_message message;
        int32_t counts[2] = {0, 0};
        for (int i = 0; i < 2; i++) {
            struct mpo_prompt prompt = feed_bench_prompt(&message, texts[i]);
            if (mpo_policy_encode(policy, writer->slot, &prompt, &counts[i]) != MPO_OK)
                writer->failures++;
        }
        struct mpo_prompt wrong = feed_bench_prompt(&message, "");
        if (counts[0] <= counts[1] ||
            mpo_policy_prompt_tokens(policy, writer->slot) != counts[1])
            writer->failures++;
        if (mpo_policy_encode(policy, FEED_CASE_SLOTS, &wrong, NULL) != MPO_ERR_USAGE)
            writer->failures++;
    }
    return NULL;
}

static void slots_are_written_while_others_are_fed(void **state)
{
    struct feed_bench bench;
    struct writer writer[WRITERS];
    atomic_bool ends = false;
    feed_bench_start(&bench, *state);
    for (int32_t i = 0; i < WRITERS; i++) {
        writer[i] = (struct writer){.bench = &bench, .ends = &ends, .slot = i};
        assert_int_equal(pthread_create(&writer[i].thread, NULL, write_slot, &writer[i]),
                         0);
    }
    for (int32_t i = 0; i < 100; i++) {
        struct mpo_policy_span span[2];
        int32_t token = feed_bench_pick_token(&bench);
        int32_t slot = WRITERS + i % (FEED_CASE_SLOTS - WRITERS);
        feed_bench_truncate(&bench, 0, -1);
        span[0] = span_of_slot(0, slot, 0, feed_bench_tokens(&bench, slot), MPO_WANT_LAST);
        span[1] = span_of_tokens(1, &token, 1, MPO_WANT_LAST);
        feed_bench_feed(&bench, span, 2);
    }
    atomic_store(&ends, true);
    for (int32_t i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(writer[i].thread, NULL), 0);
        assert_int_equal(writer[i].failures, 0);
        feed_bench_feed_one(
            &bench, span_of_slot(2 + i, i, 0, feed_bench_tokens(&bench, i), MPO_WANT_LAST));
    }
    feed_bench_close(&bench);
}

int feed_case_run(const char *name, const struct feed_kind *kind)
{
    void *state = (void *)(uintptr_t)kind;
#define CASE(function) cmocka_unit_test_prestate(function, state)
    const struct CMUnitTest tests[] = {
        CASE(prompts_in_pieces_give_the_logits_of_whole_ones),
        CASE(every_position_is_that_of_tokens_one_by_one),
        CASE(live_and_empty_rows_and_empty_spans_go_in_one_feed),
        CASE(rows_forked_on_the_way_go_on_by_themselves),
        CASE(rows_cut_back_into_their_prompts_go_on),
        CASE(a_slot_can_be_used_again_while_rows_live_on_its_tokens),
        CASE(token_ids_are_taken_as_they_are),
        CASE(what_does_not_exist_is_refused_and_changes_nothing),
        CASE(without_room_nothing_is_fed),
        CASE(rows_fill_their_room_to_the_last_cell),
        CASE(any_order_of_verbs_gives_what_follows_from_histories),
        CASE(slots_are_written_while_others_are_fed),
    };
#undef CASE
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}
