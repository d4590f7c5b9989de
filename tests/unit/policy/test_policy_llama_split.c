/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache for each row, against one for all: logits depend on all tokens of a row, through
 * attention, and are those of its history either way, whatever rows end, begin anew or come in
 * another order. How often libllama uses a graph again, and what the caches take.
 */
#include <llama.h>
#include <string.h>

#include "llama_case.h"
#include "policy_verbs.h"

#define ROWS      16
#define POSITIONS 200
#define SHORT     60 /* of them, where logits are compared */
#define MEMORY    1.0f
#define PROMPTS   "one\nthe second\na third of them\n"

struct walk {
    struct llama_case test;
    int32_t token[ROWS][POSITIONS + 64]; /* what rows have read */
    int32_t length[ROWS];                /* 0: empty */
    int32_t end[ROWS];                   /* length at which a row ends */
    uint64_t drawn;
};

struct settings {
    enum mpo_kv kv;
    enum mpo_device_rows device_rows;
    bool captured; /* the host's own memory stands for a device's */
    int32_t threads;
};

static int32_t pick(struct walk *walk, int32_t count)
{
    return (int32_t)(runner_uniform(31, walk->drawn++) * count);
}

static void open_walk(struct walk *walk, const struct settings *settings)
{
    static const struct bigram_gguf_options options = {.memory = MEMORY, .says_f32 = true};
    memset(walk, 0, sizeof *walk);
    llama_case_make(&walk->test, &options);
    walk->test.unit.unit_prompts = 3;
    walk->test.unit.responses = 8;
    walk->test.unit.row_capacity = ROWS;
    walk->test.unit.max_tokens = POSITIONS;
    walk->test.common.kv = settings->kv;
    walk->test.common.device_rows = settings->device_rows;
    walk->test.common.rows_on_device = settings->captured;
    walk->test.common.thread_count = settings->threads;
    llama_case_start(&walk->test, PROMPTS);
    mpo_policy_clear(&walk->test.policy);
}

static void check_row(struct walk *walk, int32_t output, int32_t row)
{
    float expected[BIGRAM_GGUF_TOKENS];
    bigram_gguf_logits(walk->test.logits, MEMORY, walk->token[row], walk->length[row],
                       expected);
    for (int32_t id = 0; id < walk->test.states; id++)
        assert_close(walk->test.row[output][id], expected[id], 1e-5);
}

/* A prompt into one row, from which others are copied. */
static void begin_rows(struct walk *walk, int32_t slot, const int32_t *row, int32_t count)
{
    const int64_t prompt = slot;
    const struct mpo_policy_slot *tokens = &walk->test.policy.slot[slot];
    const struct policy_entry entry = {&prompt, row, 1, count};
    assert_ok(policy_begin(&walk->test.policy, &entry, walk->test.row));
    for (int32_t i = 0; i < count; i++) {
        memcpy(walk->token[row[i]], tokens->token,
               (size_t)tokens->count * sizeof *tokens->token);
        walk->length[row[i]] = tokens->count;
        walk->end[row[i]] = tokens->count + 1 + pick(walk, POSITIONS);
    }
    check_row(walk, 0, row[0]);
}

/* A token more onto each live row. @return how many live */
static int32_t extend_rows(struct walk *walk, bool backwards)
{
    struct mpo_policy_span span[ROWS];
    int32_t count = 0;
    for (int32_t i = 0; i < ROWS; i++) {
        int32_t row = backwards ? ROWS - 1 - i : i;
        if (walk->length[row] == 0)
            continue;
        walk->token[row][walk->length[row]++] = pick(walk, walk->test.states);
        span[count++] =
            (struct mpo_policy_span){.row = row,
                                     .slot = -1,
                                     .count = 1,
                                     .token = &walk->token[row][walk->length[row] - 1],
                                     .want = MPO_WANT_LAST};
    }
    assert_ok(mpo_policy_feed(&walk->test.policy, span, count, walk->test.row));
    assert_ok(mpo_policy_collect(&walk->test.policy));
    for (int32_t i = 0; i < count; i++)
        check_row(walk, i, span[i].row);
    return count;
}

/* @return how many have ended */
static int32_t end_rows(struct walk *walk)
{
    int32_t count = 0;
    for (int32_t row = 0; row < ROWS; row++)
        if (walk->length[row] > 0 && walk->length[row] >= walk->end[row]) {
            assert_ok(mpo_policy_truncate(&walk->test.policy, row, 0));
            walk->length[row] = 0;
            count++;
        }
    return count;
}

static void walk_about(const struct settings *settings)
{
    static const int32_t first[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int32_t other[8] = {15, 9, 10, 14, 12, 13, 11, 8};
    struct walk walk;
    open_walk(&walk, settings);
    assert_int_equal(llama_case_policy(&walk.test)->split.is_on,
                     settings->kv == MPO_KV_SPLIT);
    begin_rows(&walk, 0, first, 8);
    begin_rows(&walk, 1, other, 8);
    for (int32_t position = 0; position < SHORT; position++) {
        extend_rows(&walk, position % 3 == 2);
        end_rows(&walk);
        for (int32_t row = 0; row < ROWS && position % 7 == 6; row++)
            if (walk.length[row] == 0 && pick(&walk, 2) == 0)
                begin_rows(&walk, 2, &row, 1);
    }
    llama_case_remove(&walk.test);
}

static void rows_have_their_histories(void **state)
{
    (void)state;
    for (int captured = 0; captured < 2; captured++) {
        walk_about(
            &(struct settings){MPO_KV_UNIFIED, MPO_DEVICE_ROWS_COMPACT, captured, 1});
        walk_about(&(struct settings){MPO_KV_SPLIT, MPO_DEVICE_ROWS_COMPACT, captured, 1});
        walk_about(&(struct settings){MPO_KV_SPLIT, MPO_DEVICE_ROWS_FIXED, captured, 1});
    }
}

static void graphs_are_used_again_at_nine_positions_of_ten(void **state)
{
    static const int32_t all[ROWS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const struct settings settings = {MPO_KV_SPLIT, MPO_DEVICE_ROWS_FIXED, false, 1};
    struct walk walk;
    int32_t positions = 0;
    (void)state;
    open_walk(&walk, &settings);
    struct llama_context *context = llama_case_policy(&walk.test)->context;
    begin_rows(&walk, 0, all, ROWS);
    llama_perf_context_reset(context);
    for (int32_t live = ROWS; live > 0; live -= end_rows(&walk)) {
        assert_int_equal(extend_rows(&walk, false), live);
        positions++;
    }
    double share = (double)llama_perf_context(context).n_reused / positions;
    print_message("graphs used again at %.3f of %d positions\n", share, positions);
    assert_true(positions > POSITIONS / 2);
    assert_true(share >= 0.9);
    llama_case_remove(&walk.test);
}

/* A row alone, in a cache of its own, has no company. */
static void threads_do_not_matter(void **state)
{
    static const int32_t row[2] = {0, 1};
    struct walk walk[2];
    (void)state;
    for (int32_t i = 0; i < 2; i++) {
        const struct settings settings = {MPO_KV_SPLIT, MPO_DEVICE_ROWS_COMPACT, false,
                                          i + 1};
        open_walk(&walk[i], &settings);
        begin_rows(&walk[i], 2, row, 2);
        walk[i].end[0] = walk[i].length[0] + 5;
    }
    for (int32_t position = 0; position < 15; position++) {
        int32_t live = extend_rows(&walk[0], false);
        assert_int_equal(live, position < 5 ? 2 : 1);
        assert_int_equal(extend_rows(&walk[1], false), live);
        for (int32_t output = 0; output < live; output++)
            assert_memory_equal(walk[0].test.row[output], walk[1].test.row[output],
                                (size_t)walk[0].test.states * sizeof(float));
        for (int32_t i = 0; i < 2; i++)
            end_rows(&walk[i]);
    }
    for (int32_t i = 0; i < 2; i++)
        llama_case_remove(&walk[i].test);
}

/* 16 rows of 14 + 200 tokens and a silent one: 256 cells each, as libllama has it too. */
static void each_row_has_the_cells_that_it_can_need(void **state)
{
    const struct settings split = {MPO_KV_SPLIT, MPO_DEVICE_ROWS_FIXED, false, 1};
    struct walk walk;
    struct mpo_policy_need need = {0};
    (void)state;
    open_walk(&walk, &split);
    const struct mpo_llama_policy *policy = llama_case_policy(&walk.test);
    assert_int_equal(llama_n_ctx(policy->context), ROWS * 256);
    assert_int_equal(llama_n_ctx_seq(policy->context), 256);
    mpo_llama_need(policy, &policy->setup, &need);
    assert_int_equal(need.context_tokens, ROWS * 256);
    uint64_t bytes = need.cache_bytes;
    struct mpo_policy_setup shared = policy->setup;
    shared.row_tokens = 0; /* as of serve, or of given responses */
    mpo_llama_need(policy, &shared, &need);
    assert_int_equal(need.context_tokens, shared.cell_count);
    assert_false(mpo_llama_is_split(policy, &shared));
    assert_int_equal(need.cache_bytes / (uint64_t)mpo_llama_cells(policy, &shared),
                     bytes / (ROWS * 256));
    llama_case_remove(&walk.test);
}

static void files_that_are_not_in_f32_have_one_cache_on_the_cpu(void **state)
{
    struct llama_case test;
    (void)state;
    llama_case_make(&test, NULL);
    test.common.kv = MPO_KV_SPLIT;
    llama_case_start(&test, "x\n");
    assert_false(llama_case_policy(&test)->split.is_on);
    llama_case_remove(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_their_histories),
        cmocka_unit_test(graphs_are_used_again_at_nine_positions_of_ten),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(each_row_has_the_cells_that_it_can_need),
        cmocka_unit_test(files_that_are_not_in_f32_have_one_cache_on_the_cpu),
    };
    return run_cases("policy_llama_split", tests);
}
