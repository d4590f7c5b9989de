/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches that stay alike while rows end: how often libllama uses a graph again, on the CPU,
 * where its rule is that of devices; and that a row's logits are the table's all the same.
 */
#include <llama.h>

#include "llama_case.h"

#define ROWS      16
#define POSITIONS 200

/* Rows begin together; one ends every ten positions or so, until one is left. */
struct unit {
    int32_t end[ROWS]; /* position at which a row has ended */
    int32_t last[ROWS];
    int32_t positions; /* that were decoded */
};

static void make_case(struct llama_case *test, enum mpo_device_rows device_rows)
{
    llama_case_make(test, NULL);
    test->unit.responses = ROWS;
    test->unit.max_tokens = POSITIONS;
    test->common.device_rows = device_rows;
    llama_case_start(test, "x\n");
}

static void make_unit(struct unit *unit, uint64_t seed)
{
    *unit = (struct unit){0};
    for (int32_t row = 0; row < ROWS; row++)
        unit->end[row] = 1 + (int32_t)(runner_uniform(seed, (uint64_t)row) * POSITIONS);
}

/* One token more onto each live row, which must get the table's logits. */
static void decode_position(struct llama_case *test, struct unit *unit)
{
    struct mpo_policy_span span[ROWS];
    int32_t count = 0;
    for (int32_t row = 0; row < ROWS; row++) {
        if (unit->end[row] == unit->positions)
            assert_ok(mpo_policy_truncate(&test->policy, row, 0));
        if (unit->end[row] <= unit->positions)
            continue;
        unit->last[row] = (unit->positions * 7 + row * 3) % test->states;
        span[count++] = (struct mpo_policy_span){.row = row,
                                                 .slot = -1,
                                                 .count = 1,
                                                 .token = &unit->last[row],
                                                 .want = MPO_WANT_LAST};
    }
    assert_ok(mpo_policy_feed(&test->policy, span, count, test->row));
    assert_ok(mpo_policy_collect(&test->policy));
    for (int32_t i = 0; i < count; i++)
        llama_case_check(test, i, unit->last[span[i].row]);
    unit->positions++;
}

static int32_t longest(const struct unit *unit)
{
    int32_t end = 0;
    for (int32_t row = 0; row < ROWS; row++)
        end = unit->end[row] > end ? unit->end[row] : end;
    return end;
}

/* @return share of positions whose graph was that of the one before */
static double decode_unit(enum mpo_device_rows device_rows)
{
    struct llama_case test;
    struct unit unit;
    make_case(&test, device_rows);
    make_unit(&unit, 1);
    int32_t end = longest(&unit);
    struct llama_context *context = llama_case_policy(&test)->context;
    llama_perf_context_reset(context);
    llama_case_begin(&test, 1, ROWS);
    while (unit.positions < end)
        decode_position(&test, &unit);
    double share = (double)llama_perf_context(context).n_reused / end;
    llama_case_remove(&test);
    return share;
}

static void graphs_are_used_again_at_nine_positions_of_ten(void **state)
{
    (void)state;
    double fixed = decode_unit(MPO_DEVICE_ROWS_FIXED);
    double compact = decode_unit(MPO_DEVICE_ROWS_COMPACT);
    print_message("graphs used again: fixed %.3f, compact %.3f\n", fixed, compact);
    assert_true(fixed >= 0.9);
    assert_true(compact < fixed);
}

static void batches_on_the_cpu_are_those_of_live_rows(void **state)
{
    (void)state;
    assert_close(decode_unit(MPO_DEVICE_ROWS_AUTO), decode_unit(MPO_DEVICE_ROWS_COMPACT),
                 1e-12);
}

/* 17 tokens of the prompt and 14 of each row leave 15 cells of 256; then twelve rows get a
 * token, and the four that live on beside them are silent. */
static void silent_rows_have_cells_of_their_own(void **state)
{
    (void)state;
    struct llama_case test;
    struct unit unit = {0};
    llama_case_make(&test, NULL);
    test.unit.responses = ROWS;
    test.unit.max_tokens = 14;
    test.common.device_rows = MPO_DEVICE_ROWS_FIXED;
    llama_case_start(&test, "0123456789abcdefg\n");
    for (int32_t row = 0; row < ROWS; row++)
        unit.end[row] = 14;
    llama_case_begin(&test, 1, ROWS);
    while (unit.positions < 14)
        decode_position(&test, &unit);
    assert_int_equal(test.policy.cells.capacity, 255);
    assert_int_equal(test.policy.cells.free_count, 255 - 17 - 14 * ROWS);
    for (int32_t row = 0; row < ROWS; row++)
        unit.end[row] = row % 4 == 0 ? -1 : 15; /* not fed, not ended */
    decode_position(&test, &unit);
    assert_int_equal(llama_case_policy(&test)->steady.count, ROWS);
    llama_case_remove(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_are_used_again_at_nine_positions_of_ten),
        cmocka_unit_test(batches_on_the_cpu_are_those_of_live_rows),
        cmocka_unit_test(silent_rows_have_cells_of_their_own),
    };
    return run_cases("policy_llama_steady", tests);
}
