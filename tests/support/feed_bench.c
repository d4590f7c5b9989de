/* SPDX-License-Identifier: Apache-2.0 */
#include "feed_bench.h"

#include <stdlib.h>
#include <string.h>

#include "runner.h"

int32_t feed_bench_pick(struct feed_bench *bench, int32_t count)
{
    return (int32_t)(runner_uniform(29, bench->drawn++) * count);
}

int32_t feed_bench_pick_token(struct feed_bench *bench)
{
    const struct feed_kind *kind = bench->test.kind;
    return kind->first_token + feed_bench_pick(bench, kind->token_count);
}

/* ---- open and close ---- */

struct mpo_prompt feed_bench_prompt(struct mpo_message *message, const char *text)
{
    *message = (struct mpo_message){"user", text};
    return (struct mpo_prompt){
        .text = text, .messages = message, .message_count = 1, .prefill = ""};
}

/* A prompt of so many words, the same for the same seed. */
void feed_bench_encode(struct feed_bench *bench, int32_t slot, int32_t word_count, int seed)
{
    char text[2 * FEED_BENCH_LONGEST + 1] = "";
    struct mpo_message message;
    int32_t count = 0;
    for (int32_t i = 0; i < word_count; i++) {
        text[2 * i] = (char)('a' + (int)(runner_uniform((uint64_t)seed, (uint64_t)i) * 5));
        text[2 * i + 1] = i + 1 < word_count ? ' ' : '\0';
    }
    struct mpo_prompt prompt = feed_bench_prompt(&message, text);
    assert_ok(mpo_policy_encode(&bench->test.policy, slot, &prompt, &count));
    assert_int_equal(count, mpo_policy_prompt_tokens(&bench->test.policy, slot));
}

void feed_bench_open(struct feed_bench *bench, const struct feed_kind *kind)
{
    memset(bench, 0, sizeof *bench);
    bench->test.kind = kind;
    table_folder_make(bench->test.folder);
    kind->open(&bench->test);
    for (int32_t slot = 0; slot < FEED_CASE_SLOTS; slot++)
        feed_bench_encode(bench, slot, 5 * slot + 1, slot);
}

void feed_bench_room(struct feed_bench *bench, const struct mpo_policies_room *room)
{
    struct mpo_policy_setup setup = {.row_count = room->row_capacity,
                                     .position_count = room->position_capacity,
                                     .vocab_size = bench->test.states};
    assert_ok(mpo_policy_make_room(&bench->test.policy, room, &setup));
    mpo_policy_clear(&bench->test.policy);
}

void feed_bench_start(struct feed_bench *bench, const struct feed_kind *kind)
{
    feed_bench_open(bench, kind);
    feed_bench_room(bench,
                    &(struct mpo_policies_room){.row_capacity = FEED_BENCH_ROWS,
                                                .position_capacity = FEED_BENCH_POSITIONS,
                                                .context_tokens = 4096});
}

void feed_bench_close(struct feed_bench *bench)
{
    const struct mpo_policy_ops *ops = bench->test.policy.ops;
    mpo_policy_close(&bench->test.policy);
    ops->close_library(bench->test.library);
    free(bench->test.table);
    table_folder_remove(bench->test.folder);
}

/* ---- spans ---- */

struct mpo_policy_span span_of_slot(int32_t row, int32_t slot, int32_t first, int32_t count,
                                    enum mpo_policy_want want)
{
    return (struct mpo_policy_span){
        .row = row, .slot = slot, .first = first, .count = count, .want = want};
}

struct mpo_policy_span span_of_tokens(int32_t row, const int32_t *token, int32_t count,
                                      enum mpo_policy_want want)
{
    return (struct mpo_policy_span){
        .row = row, .slot = -1, .count = count, .token = token, .want = want};
}

static void check_output(struct feed_bench *bench, int32_t output,
                         const struct feed_history *row)
{
    struct feed_case *test = &bench->test;
    float *expected = runner_allocate((size_t)test->states, sizeof *expected);
    const float *found = bench->logits[output];
    test->kind->expect(test, row->token, row->count, expected);
    for (int32_t id = 0; id < test->states; id++) {
        if (test->kind->bound > 0.0)
            assert_close(found[id], expected[id], test->kind->bound);
        else
            assert_same_bits(found[id], expected[id]);
    }
    free(expected);
}

static const int32_t *tokens_of(const struct feed_bench *bench,
                                const struct mpo_policy_span *span)
{
    return span->slot < 0 ? span->token
                          : bench->test.policy.slot[span->slot].token + span->first;
}

/* Feed, and compare all that is given with the histories. */
void feed_bench_feed(struct feed_bench *bench, const struct mpo_policy_span *spans,
                     int32_t count)
{
    int32_t output = 0;
    memset(bench->logits, 0, sizeof bench->logits);
    assert_ok(mpo_policy_feed(&bench->test.policy, spans, count, bench->logits));
    assert_ok(mpo_policy_collect(&bench->test.policy));
    for (int32_t i = 0; i < count; i++) {
        const struct mpo_policy_span *span = &spans[i];
        struct feed_history *row = &bench->row[span->row];
        for (int32_t j = 0; j < span->count; j++) {
            row->token[row->count++] = tokens_of(bench, span)[j];
            if (span->want == MPO_WANT_EVERY ||
                (span->want == MPO_WANT_LAST && j + 1 == span->count))
                check_output(bench, output++, row);
        }
        assert_int_equal(mpo_policy_row_tokens(&bench->test.policy, span->row), row->count);
    }
    assert_null(bench->logits[output]);
}

void feed_bench_feed_one(struct feed_bench *bench, struct mpo_policy_span span)
{
    feed_bench_feed(bench, &span, 1);
}

int32_t feed_bench_tokens(const struct feed_bench *bench, int32_t slot)
{
    return mpo_policy_prompt_tokens(&bench->test.policy, slot);
}

void feed_bench_truncate(struct feed_bench *bench, int32_t row, int32_t tokens)
{
    assert_ok(mpo_policy_truncate(&bench->test.policy, row, tokens));
    bench->row[row].count = tokens > 0 ? tokens : 0;
    assert_int_equal(mpo_policy_row_tokens(&bench->test.policy, row),
                     bench->row[row].count);
}

void feed_bench_fork(struct feed_bench *bench, int32_t from, int32_t to)
{
    assert_ok(mpo_policy_fork(&bench->test.policy, from, to));
    bench->row[to] = bench->row[from];
    assert_int_equal(mpo_policy_row_tokens(&bench->test.policy, to), bench->row[to].count);
}
