/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which request leaves the line, and which group decodes it: the one with the fewest rows, or
 * where its prompt's beginning was, if that one is not much busier.
 */
#include <string.h>

#include "runner.h"
#include "serve/dispatch.h"
#include "serve/schedule.h"

#define GROUPS  3
#define ROWS    8 /* of a group; 2 may be spared for cells */
#define CLIENTS 3
#define ENTRIES 64

/* A dispatcher and its requests. */
struct bench {
    struct mpo_dispatch *dispatch;
    struct mpo_dispatch_entry entry[ENTRIES];
    int32_t count;
};

static struct bench *open_bench(int32_t groups)
{
    static struct bench bench;
    const struct mpo_dispatch_spec spec = {groups, ROWS, CLIENTS};
    memset(&bench, 0, sizeof bench);
    assert_ok(mpo_dispatch_open(&spec, &bench.dispatch));
    return &bench;
}

static struct mpo_dispatch_entry *enter(struct bench *bench,
                                        struct mpo_dispatch_entry request)
{
    struct mpo_dispatch_entry *entry = &bench->entry[bench->count++];
    *entry = request;
    entry->prompt_count = entry->prompt_count > 0 ? entry->prompt_count : 1;
    entry->prompt_rows = entry->prompt_rows > 0 ? entry->prompt_rows : 1;
    mpo_dispatch_enter(bench->dispatch, entry);
    return entry;
}

/* The group of a request that leaves the line at once. */
static int32_t hand(struct bench *bench, int32_t rows, int64_t tokens,
                    const struct mpo_dispatch_prompt *prompt)
{
    struct mpo_dispatch_entry request = {.prompt_rows = rows, .tokens = tokens};
    if (prompt != NULL)
        request.prompt = *prompt;
    struct mpo_dispatch_entry *entry = enter(bench, request);
    assert_ptr_equal(mpo_dispatch_take(bench->dispatch), entry);
    return entry->group;
}

/* All rows of a request. */
static void seat_all(struct bench *bench, struct mpo_dispatch_entry *entry)
{
    for (int32_t i = 0; i < entry->prompt_count; i++)
        mpo_dispatch_seat(bench->dispatch, entry, 0);
}

static void end(struct bench *bench, struct mpo_dispatch_entry *entry)
{
    mpo_dispatch_end(bench->dispatch, entry);
}

/* A prompt of so many blocks that differ by their letter from those of any other. */
static struct mpo_dispatch_prompt make_prompt(char letter, int32_t blocks)
{
    struct mpo_dispatch_prompt prompt = {0};
    char block[MPO_DISPATCH_BLOCK_BYTES];
    memset(block, letter, sizeof block);
    for (int32_t i = 0; i < blocks; i++)
        mpo_dispatch_add(&prompt, block, sizeof block);
    return prompt;
}

/* ---- which group ---- */

static void the_fewest_rows_win_then_the_fewest_tokens(void **state)
{
    struct bench *bench = open_bench(GROUPS);
    (void)state;
    assert_int_equal(hand(bench, 2, 10, NULL), 0);
    assert_int_equal(hand(bench, 1, 50, NULL), 1);
    assert_int_equal(hand(bench, 1, 20, NULL), 2);
    assert_int_equal(hand(bench, 3, 0, NULL), 2); /* 1 row each, 20 < 50 */
    assert_int_equal(hand(bench, 1, 0, NULL), 1);
    end(bench, &bench->entry[2]);
    mpo_dispatch_leave(bench->dispatch, &bench->entry[3]);
    end(bench, &bench->entry[3]);
    assert_int_equal(hand(bench, 1, 0, NULL), 2);
    mpo_dispatch_close(&bench->dispatch);
}

static void a_prompt_goes_where_its_beginning_was(void **state)
{
    struct bench *bench = open_bench(GROUPS);
    const struct mpo_dispatch_prompt first = make_prompt('a', 4);
    const struct mpo_dispatch_prompt longer = make_prompt('a', 9);
    const struct mpo_dispatch_prompt other = make_prompt('b', 9);
    (void)state;
    assert_int_equal(hand(bench, 1, 0, &other), 0);
    assert_int_equal(hand(bench, 1, 0, &first), 1);
    end(bench, &bench->entry[0]);
    assert_int_equal(hand(bench, 1, 0, &longer), 1); /* 2 rows, others 0 */
    assert_int_equal(hand(bench, 1, 0, NULL), 0);
    mpo_dispatch_close(&bench->dispatch);
}

static void a_group_that_is_much_busier_does_not_get_it(void **state)
{
    struct bench *bench = open_bench(GROUPS);
    const struct mpo_dispatch_prompt prompt = make_prompt('a', 4);
    int32_t got[GROUPS] = {3, 1, 0};
    (void)state;
    for (int32_t i = 0; i < 3; i++) /* which are two more than others have, and one */
        assert_int_equal(hand(bench, 1, 0, &prompt), 0);
    assert_int_equal(hand(bench, 1, 0, &prompt), 1);
    for (int32_t i = 4; i < GROUPS * ROWS; i++)
        got[hand(bench, 1, 0, &prompt)]++;
    for (int32_t g = 0; g < GROUPS; g++)
        assert_int_equal(got[g], ROWS);
    mpo_dispatch_close(&bench->dispatch);
}

static void a_request_that_has_no_room_does_not_wait_for_its_beginning(void **state)
{
    struct bench *bench = open_bench(GROUPS);
    const struct mpo_dispatch_prompt prompt = make_prompt('a', 4);
    (void)state;
    assert_int_equal(hand(bench, 1, 0, &prompt), 0);
    assert_int_equal(hand(bench, ROWS, 0, &prompt), 1);
    mpo_dispatch_close(&bench->dispatch);
}

static void beginnings_are_the_same_however_they_are_cut(void **state)
{
    struct mpo_dispatch_prompt whole = {0};
    struct mpo_dispatch_prompt parts = {0};
    char text[1000];
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 23);
    mpo_dispatch_add(&whole, text, sizeof text);
    for (size_t at = 0; at < sizeof text; at += 7)
        mpo_dispatch_add(&parts, text + at, sizeof text - at < 7 ? sizeof text - at : 7);
    assert_int_equal(whole.block_count, sizeof text / MPO_DISPATCH_BLOCK_BYTES);
    assert_int_equal(parts.block_count, whole.block_count);
    assert_memory_equal(parts.block, whole.block,
                        (size_t)whole.block_count * sizeof *whole.block);
    for (int32_t i = 0; i < 100; i++)
        mpo_dispatch_add(&whole, text, sizeof text);
    assert_int_equal(whole.block_count, MPO_DISPATCH_BLOCK_MAX);
}

/* ---- who leaves the line ---- */

static void who_waits_goes_to_whichever_group_has_room(void **state)
{
    struct bench *bench = open_bench(2);
    (void)state;
    for (int32_t i = 0; i < 2 * ROWS; i++)
        assert_int_equal(hand(bench, 1, 0, NULL), i % 2);
    struct mpo_dispatch_entry *first = enter(bench, (struct mpo_dispatch_entry){0});
    struct mpo_dispatch_entry *second = enter(bench, (struct mpo_dispatch_entry){0});
    struct mpo_dispatch_entry *third = enter(bench, (struct mpo_dispatch_entry){0});
    assert_null(mpo_dispatch_take(bench->dispatch));
    assert_int_equal(mpo_dispatch_waiting(bench->dispatch), 3);
    assert_ptr_equal(mpo_dispatch_first(bench->dispatch), first);
    end(bench, &bench->entry[1]);
    assert_ptr_equal(mpo_dispatch_take(bench->dispatch), first);
    assert_int_equal(first->group, 1);
    assert_null(mpo_dispatch_take(bench->dispatch));
    end(bench, second); /* in the line */
    end(bench, first);
    assert_ptr_equal(mpo_dispatch_take(bench->dispatch), third);
    assert_int_equal(third->group, 1);
    assert_int_equal(mpo_dispatch_waiting(bench->dispatch), 0);
    assert_null(mpo_dispatch_first(bench->dispatch));
    mpo_dispatch_close(&bench->dispatch);
}

/* Client 0 draws in one group, for which client 1 has the other one first. */
static void shares_are_those_of_all_groups(void **state)
{
    struct bench *bench = open_bench(2);
    struct mpo_dispatch_entry *entry[4];
    (void)state;
    for (int32_t g = 0; g < 2; g++)
        enter(bench, (struct mpo_dispatch_entry){.client = g, .prompt_rows = ROWS});
    for (int32_t g = 0; g < 2; g++)
        seat_all(bench, mpo_dispatch_take(bench->dispatch));
    for (int32_t i = 0; i < 4; i++)
        entry[i] = enter(bench, (struct mpo_dispatch_entry){.client = i / 2});
    for (int32_t i = 0; i < 100; i++)
        mpo_dispatch_draw(bench->dispatch, &bench->entry[0]);
    assert_null(mpo_dispatch_take(bench->dispatch));
    end(bench, &bench->entry[1]);
    for (int32_t i = 0; i < 4; i++) {
        struct mpo_dispatch_entry *next = mpo_dispatch_take(bench->dispatch);
        assert_ptr_equal(next, entry[(i + 2) % 4]);
        mpo_dispatch_seat(bench->dispatch, next, 100);
    }
    mpo_dispatch_close(&bench->dispatch);
}

/* It is passed over by smaller ones, and then waits in a group, whose rows become free. */
static void a_large_request_is_passed_over_so_often(void **state)
{
    for (int32_t isolated = 0; isolated < 2; isolated++) {
        struct bench *bench = open_bench(2);
        (void)state;
        for (int32_t g = 0; g < 2; g++)
            assert_int_equal(hand(bench, 2, 0, NULL), g);
        struct mpo_dispatch_entry *large =
            enter(bench, (struct mpo_dispatch_entry){.prompt_rows = isolated ? 1 : ROWS - 1,
                                                     .isolated = isolated});
        for (int32_t i = 0; i < MPO_SCHEDULE_PATIENCE; i++) {
            assert_null(mpo_dispatch_take(bench->dispatch));
            hand(bench, 1, 0, NULL);
        }
        assert_ptr_equal(mpo_dispatch_take(bench->dispatch), large);
        assert_int_equal(large->rows, isolated ? ROWS : ROWS - 1);
        struct mpo_dispatch_entry *next = enter(bench, (struct mpo_dispatch_entry){0});
        assert_ptr_equal(mpo_dispatch_take(bench->dispatch), next);
        assert_int_equal(next->group, 1 - large->group);
        end(bench, large);
        mpo_dispatch_close(&bench->dispatch);
    }
}

/* Its group takes no more of this client, and one request of each other one. */
static void others_are_let_in_beside_many_prompts(void **state)
{
    struct bench *bench = open_bench(2);
    struct mpo_dispatch_entry *entry[5];
    (void)state;
    for (int32_t g = 0; g < 2; g++) {
        struct mpo_dispatch_entry *many =
            enter(bench, (struct mpo_dispatch_entry){.prompt_count = 5 * (g + 3)});
        assert_ptr_equal(mpo_dispatch_take(bench->dispatch), many);
        assert_int_equal(many->group, g);
        for (int32_t i = 0; i < ROWS; i++)
            mpo_dispatch_seat(bench->dispatch, many, 1);
    }
    for (int32_t i = 0; i < 5; i++)
        entry[i] = enter(bench, (struct mpo_dispatch_entry){.client = i < 2 ? 0 : 1});
    for (int32_t g = 0; g < 2; g++) {
        assert_ptr_equal(mpo_dispatch_take(bench->dispatch), entry[2 + g]);
        assert_int_equal(entry[2 + g]->group, g); /* the one with fewer rows first */
    }
    assert_null(mpo_dispatch_take(bench->dispatch));
    mpo_dispatch_seat(bench->dispatch, entry[2], 1);
    assert_ptr_equal(mpo_dispatch_take(bench->dispatch), entry[4]);
    assert_int_equal(entry[4]->group, 0);
    end(bench, &bench->entry[0]);
    assert_ptr_equal(mpo_dispatch_take(bench->dispatch), entry[0]);
    assert_int_equal(entry[0]->group, 0);
    mpo_dispatch_close(&bench->dispatch);
}

static void one_group_gets_all_at_once(void **state)
{
    struct bench *bench = open_bench(1);
    (void)state;
    for (int32_t i = 0; i < 3 * ROWS; i++)
        assert_int_equal(hand(bench, 1 + i % ROWS, 0, NULL), 0);
    mpo_dispatch_close(&bench->dispatch);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fewest_rows_win_then_the_fewest_tokens),
        cmocka_unit_test(a_prompt_goes_where_its_beginning_was),
        cmocka_unit_test(a_group_that_is_much_busier_does_not_get_it),
        cmocka_unit_test(a_request_that_has_no_room_does_not_wait_for_its_beginning),
        cmocka_unit_test(beginnings_are_the_same_however_they_are_cut),
        cmocka_unit_test(who_waits_goes_to_whichever_group_has_room),
        cmocka_unit_test(shares_are_those_of_all_groups),
        cmocka_unit_test(a_large_request_is_passed_over_so_often),
        cmocka_unit_test(others_are_let_in_beside_many_prompts),
        cmocka_unit_test(one_group_gets_all_at_once),
    };
    return run_cases("dispatch", tests);
}
