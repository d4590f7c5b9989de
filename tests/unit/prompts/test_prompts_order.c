/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which prompts a step gets: the epochs' permutations in turn, whatever step is asked for.
 */
#include <stdbool.h>
#include <string.h>

#include "mpo/prompts.h"
#include "mpo/rng.h"
#include "runner.h"
#include "table_files.h"

enum { PROMPT_COUNT = 7 };

static struct mpo_prompts *seven_prompts(void)
{
    char folder[TABLE_PATH_BYTES];
    char path[TABLE_PATH_BYTES];
    struct mpo_prompts *prompts = NULL;
    table_folder_make(folder);
    table_write_text(folder, "p.txt", "0\n1\n2\n3\n4\n5\n6\n", path);
    const struct mpo_prompts_spec spec = {.path = path, .format = MPO_AUTO, .prefill = ""};
    assert_ok(mpo_prompts_open(&spec, &prompts));
    table_folder_remove(folder);
    return prompts;
}

/* What position `position` of the endless sequence is, by definition. */
static int64_t expected_prompt(uint64_t seed, int64_t position)
{
    int64_t order[PROMPT_COUNT];
    mpo_rng_permutation(seed, MPO_RNG_PROMPT_ORDER, (uint64_t)(position / PROMPT_COUNT),
                        PROMPT_COUNT, order);
    return order[position % PROMPT_COUNT];
}

static void steps_walk_through_the_permutations_of_the_epochs(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = seven_prompts();
    int64_t index[PROMPT_COUNT];
    for (int32_t count = 1; count <= PROMPT_COUNT; count++)
        for (int64_t step = 0; step < 20; step++) {
            mpo_prompts_of_step(prompts, 5, step, count, index);
            for (int32_t i = 0; i < count; i++)
                assert_int_equal(index[i], expected_prompt(5, step * count + i));
        }
    mpo_prompts_close(&prompts);
}

static void steps_may_be_visited_in_any_order_and_with_any_seed(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = seven_prompts();
    int64_t index[3];
    for (uint64_t i = 0; i < 200; i++) {
        int64_t step = (int64_t)(runner_uniform(1, i) * 1e6);
        mpo_prompts_of_step(prompts, i % 3, step, 3, index);
        for (int32_t j = 0; j < 3; j++)
            assert_int_equal(index[j], expected_prompt(i % 3, step * 3 + j));
    }
    mpo_prompts_close(&prompts);
}

static void every_epoch_holds_every_prompt_once(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = seven_prompts();
    bool orders_differ = false;
    int64_t first[PROMPT_COUNT];
    for (int64_t epoch = 0; epoch < 5; epoch++) {
        int64_t index[PROMPT_COUNT];
        int32_t seen[PROMPT_COUNT] = {0};
        mpo_prompts_of_step(prompts, 9, epoch, PROMPT_COUNT, index);
        for (int32_t i = 0; i < PROMPT_COUNT; i++)
            seen[index[i]]++;
        for (int32_t i = 0; i < PROMPT_COUNT; i++)
            assert_int_equal(seen[i], 1);
        if (epoch == 0)
            memcpy(first, index, sizeof first);
        orders_differ = orders_differ || memcmp(first, index, sizeof first) != 0;
    }
    assert_true(orders_differ);
    mpo_prompts_close(&prompts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_walk_through_the_permutations_of_the_epochs),
        cmocka_unit_test(steps_may_be_visited_in_any_order_and_with_any_seed),
        cmocka_unit_test(every_epoch_holds_every_prompt_once),
    };
    return run_cases("the order of prompts", tests);
}
