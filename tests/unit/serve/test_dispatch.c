/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which group decodes a request: the one with the fewest rows, or where its prompt's beginning
 * was, if that one is not much busier.
 */
#include <string.h>

#include "runner.h"
#include "serve/dispatch.h"

#define GROUPS 3
#define ROWS   8 /* of a group; 2 may be spared for cells */

static struct mpo_dispatch *open_dispatch(void)
{
    struct mpo_dispatch *dispatch = NULL;
    assert_ok(mpo_dispatch_open(GROUPS, ROWS, &dispatch));
    return dispatch;
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

static void the_fewest_rows_win_then_the_fewest_tokens(void **state)
{
    struct mpo_dispatch *dispatch = open_dispatch();
    (void)state;
    assert_int_equal(mpo_dispatch_enter(dispatch, 2, 10, NULL), 0);
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 50, NULL), 1);
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 20, NULL), 2);
    assert_int_equal(mpo_dispatch_enter(dispatch, 3, 0, NULL), 2); /* 1 row each, 20 < 50 */
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, NULL), 1);
    mpo_dispatch_leave(dispatch, 2, 4, 20);
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, NULL), 2);
    mpo_dispatch_close(&dispatch);
}

static void a_prompt_goes_where_its_beginning_was(void **state)
{
    struct mpo_dispatch *dispatch = open_dispatch();
    const struct mpo_dispatch_prompt first = make_prompt('a', 4);
    const struct mpo_dispatch_prompt longer = make_prompt('a', 9);
    const struct mpo_dispatch_prompt other = make_prompt('b', 9);
    (void)state;
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, &other), 0);
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, &first), 1);
    mpo_dispatch_leave(dispatch, 0, 1, 0);
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, &longer), 1); /* 2 rows, others 0 */
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, NULL), 0);
    mpo_dispatch_close(&dispatch);
}

static void a_group_that_is_much_busier_does_not_get_it(void **state)
{
    struct mpo_dispatch *dispatch = open_dispatch();
    const struct mpo_dispatch_prompt prompt = make_prompt('a', 4);
    int32_t got[GROUPS] = {0};
    (void)state;
    for (int32_t i = 0; i < 3; i++) /* which are two more than others have, and one */
        assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, &prompt), 0);
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, &prompt), 1);
    got[0] = 3;
    got[1] = 1;
    for (int32_t i = 4; i < GROUPS * ROWS; i++)
        got[mpo_dispatch_enter(dispatch, 1, 0, &prompt)]++;
    for (int32_t g = 0; g < GROUPS; g++)
        assert_int_equal(got[g], ROWS);
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, &prompt), 0); /* all are full */
    mpo_dispatch_close(&dispatch);
}

static void a_request_that_has_no_room_does_not_wait_for_its_beginning(void **state)
{
    struct mpo_dispatch *dispatch = open_dispatch();
    const struct mpo_dispatch_prompt prompt = make_prompt('a', 4);
    (void)state;
    assert_int_equal(mpo_dispatch_enter(dispatch, 1, 0, &prompt), 0);
    assert_int_equal(mpo_dispatch_enter(dispatch, ROWS, 0, &prompt), 1);
    mpo_dispatch_close(&dispatch);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fewest_rows_win_then_the_fewest_tokens),
        cmocka_unit_test(a_prompt_goes_where_its_beginning_was),
        cmocka_unit_test(a_group_that_is_much_busier_does_not_get_it),
        cmocka_unit_test(a_request_that_has_no_room_does_not_wait_for_its_beginning),
        cmocka_unit_test(beginnings_are_the_same_however_they_are_cut),
    };
    return run_cases("dispatch", tests);
}
