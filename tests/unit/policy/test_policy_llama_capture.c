/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of logits that stay where they were computed: bit for bit those that libllama brings
 * to the host, whichever verbs led to them, at addresses that do not move. On the CPU,
 * whose own memory stands for a device's; the way through libllama is the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama_case.h"
#include "policy_verbs.h"

#define BYTE(letter) BIGRAM_GGUF_BYTE(letter)

/* One policy that leaves its rows and one that brings them, which do the same. */
struct twins {
    struct llama_case left;
    struct llama_case brought;
};

static void twins_make(struct twins *twins, const struct bigram_gguf_options *options)
{
    llama_case_make(&twins->left, options);
    llama_case_make(&twins->brought, options);
    twins->left.common.rows_on_device = true;
}

static void twins_share(struct twins *twins, int32_t unit_prompts, int32_t responses,
                        int32_t max_tokens)
{
    struct llama_case *both[2] = {&twins->left, &twins->brought};
    for (int i = 0; i < 2; i++) {
        both[i]->unit.unit_prompts = unit_prompts;
        both[i]->unit.responses = responses;
        both[i]->unit.max_tokens = max_tokens;
    }
}

static void twins_start(struct twins *twins, const char *prompts)
{
    llama_case_start(&twins->left, prompts);
    llama_case_start(&twins->brought, prompts);
    assert_true(mpo_policy_rows_on_device(&twins->left.policy));
    assert_false(mpo_policy_rows_on_device(&twins->brought.policy));
}

static void twins_remove(struct twins *twins)
{
    llama_case_remove(&twins->left);
    llama_case_remove(&twins->brought);
}

static void check_rows(const struct twins *twins, int32_t count)
{
    size_t bytes = (size_t)twins->left.states * sizeof(float);
    for (int32_t i = 0; i < count; i++) {
        assert_ptr_not_equal(twins->left.row[i], twins->brought.row[i]);
        assert_memory_equal(twins->left.row[i], twins->brought.row[i], bytes);
    }
}

static void twins_begin(struct twins *twins, const struct policy_entry *entry)
{
    assert_ok(policy_begin(&twins->left.policy, entry, twins->left.row));
    assert_ok(policy_begin(&twins->brought.policy, entry, twins->brought.row));
    check_rows(twins, entry->prompt_count);
}

static void twins_extend(struct twins *twins, const struct policy_batch *batch)
{
    int32_t outputs = batch->row_count;
    for (int32_t i = 0; batch->every_position && i < batch->row_count; i++)
        outputs += batch->token_count[i] - 1;
    assert_ok(policy_extend(&twins->left.policy, batch, twins->left.row));
    assert_ok(policy_extend(&twins->brought.policy, batch, twins->brought.row));
    check_rows(twins, outputs);
}

/* ---- a walk over the verbs ---- */

enum { ROWS = 6, EACH = 2, LONGEST = 24, MOVES = 400 };

struct walk {
    struct twins twins;
    int32_t length[ROWS]; /* response tokens, -1: empty */
    int32_t prompt_tokens[ROWS];
    uint64_t seed;
    uint64_t drawn;
};

static int32_t pick(struct walk *walk, int32_t count)
{
    return (int32_t)(runner_uniform(walk->seed, walk->drawn++) * count);
}

static int32_t rows_where(const struct walk *walk, bool live, int32_t *row)
{
    int32_t count = 0;
    for (int32_t i = 0; i < ROWS; i++)
        if ((walk->length[i] >= 0) == live)
            row[count++] = i;
    return count;
}

static void enter(struct walk *walk)
{
    int32_t row[ROWS];
    int32_t free_count = rows_where(walk, false, row);
    int64_t prompt[ROWS];
    if (free_count < EACH)
        return;
    int32_t prompts = 1 + pick(walk, free_count / EACH);
    for (int32_t i = 0; i < prompts; i++)
        prompt[i] = pick(walk, 3);
    for (int32_t i = 0; i < prompts * EACH; i++) {
        walk->length[row[i]] = 0;
        walk->prompt_tokens[row[i]] =
            mpo_policy_prompt_tokens(&walk->twins.left.policy, (int32_t)prompt[i / EACH]);
    }
    twins_begin(&walk->twins, &(struct policy_entry){prompt, row, prompts, EACH});
}

/* Live rows that have room, each by one token, or some of them by several. */
static void extend(struct walk *walk, bool several)
{
    int32_t row[ROWS];
    int32_t count[ROWS];
    int32_t token[ROWS * LONGEST];
    int32_t token_count = 0;
    int32_t chosen = 0;
    int32_t live = rows_where(walk, true, row);
    for (int32_t i = 0; i < live; i++) {
        int32_t room = LONGEST - walk->length[row[i]];
        if (room == 0 || (several && pick(walk, 2) == 0))
            continue;
        row[chosen] = row[i];
        count[chosen] = several ? 1 + pick(walk, room < 8 ? room : 8) : 1;
        walk->length[row[chosen]] += count[chosen];
        for (int32_t j = 0; j < count[chosen]; j++)
            token[token_count++] = pick(walk, BIGRAM_GGUF_TOKENS);
        chosen++;
    }
    struct policy_batch batch = {row, count, token, chosen, pick(walk, 2) == 0};
    if (chosen > 0)
        twins_extend(&walk->twins, &batch);
}

static void cut_back(struct walk *walk)
{
    int32_t row[ROWS];
    int32_t live = rows_where(walk, true, row);
    if (live == 0)
        return;
    int32_t which = row[pick(walk, live)];
    walk->length[which] = pick(walk, walk->length[which] + 2) - 1;
    int32_t kept = walk->length[which];
    kept += kept >= 0 ? walk->prompt_tokens[which] : 0;
    assert_ok(mpo_policy_truncate(&walk->twins.left.policy, which, kept));
    assert_ok(mpo_policy_truncate(&walk->twins.brought.policy, which, kept));
}

static void copy(struct walk *walk)
{
    int32_t row[ROWS];
    int32_t live = rows_where(walk, true, row);
    int32_t to = pick(walk, ROWS);
    if (live == 0)
        return;
    int32_t from = row[pick(walk, live)];
    walk->length[to] = walk->length[from];
    walk->prompt_tokens[to] = walk->prompt_tokens[from];
    assert_ok(mpo_policy_fork(&walk->twins.left.policy, from, to));
    assert_ok(mpo_policy_fork(&walk->twins.brought.policy, from, to));
}

static void clear(struct walk *walk)
{
    memset(walk->length, 0xff, sizeof walk->length);
    mpo_policy_clear(&walk->twins.left.policy);
    mpo_policy_clear(&walk->twins.brought.policy);
}

static void take_move(struct walk *walk)
{
    int32_t move = pick(walk, 40);
    if (move == 0)
        clear(walk);
    else if (move < 8)
        enter(walk);
    else if (move < 24)
        extend(walk, false);
    else if (move < 32)
        extend(walk, true);
    else if (move < 36)
        cut_back(walk);
    else
        copy(walk);
}

static void rows_left_are_those_brought_over_any_walk_of_verbs(void **state)
{
    (void)state;
    struct walk walk = {.seed = 20};
    twins_make(&walk.twins, NULL);
    twins_share(&walk.twins, ROWS / EACH, EACH, LONGEST);
    twins_start(&walk.twins, "one\ntwo words\na longer prompt\n");
    clear(&walk);
    for (int i = 0; i < MOVES; i++)
        take_move(&walk);
    twins_remove(&walk.twins);
}

/* ---- cases of their own ---- */

/* The rows of the last llama_decode count, not those that led to it. */
static void prompts_of_several_batches_leave_their_last_rows(void **state)
{
    (void)state;
    enum { LONG = 300 };
    char prompts[3 * (LONG + 1) + 1];
    const int64_t prompt[3] = {2, 0, 1};
    const int32_t row[3] = {0, 1, 2};
    struct twins twins;
    twins_make(&twins, &(struct bigram_gguf_options){.context_tokens = 1024});
    twins_share(&twins, 3, 1, 8);
    memset(prompts, 'x', sizeof prompts);
    for (int32_t i = 0; i < 3; i++) {
        prompts[i * (LONG + 1) + LONG - 1] = (char)('a' + i);
        prompts[i * (LONG + 1) + LONG] = '\n';
    }
    prompts[sizeof prompts - 1] = '\0';
    twins_start(&twins, prompts);
    twins_begin(&twins, &(struct policy_entry){prompt, row, 3, 1});
    for (int32_t i = 0; i < 3; i++)
        llama_case_check(&twins.left, i, BYTE('a' + (int)prompt[i]));
    twins_remove(&twins);
}

static void rows_of_256_sequences_stay_down_to_the_last_one(void **state)
{
    (void)state;
    struct twins twins;
    int64_t prompt[4] = {0, 1, 2, 3};
    int32_t row[LLAMA_CASE_ROWS];
    twins_make(&twins, NULL);
    twins_share(&twins, 4, 64, 8);
    twins_start(&twins, "a\nb\nc\nd\n");
    for (int32_t i = 0; i < LLAMA_CASE_ROWS; i++)
        row[i] = i;
    twins_begin(&twins, &(struct policy_entry){prompt, row, 4, 64});
    twins_extend(&twins, &(struct policy_batch){
                             .row = row, .token = row, .row_count = LLAMA_CASE_ROWS});
    for (int32_t i = 0; i < 2; i++)
        twins_extend(&twins, &(struct policy_batch){
                                 .row = &row[200], .token = &row[9], .row_count = 1});
    llama_case_check(&twins.left, 0, 9);
    twins_remove(&twins);
}

static void graphs_are_used_again_as_often_from_addresses_that_stay(void **state)
{
    (void)state;
    struct twins twins;
    const int64_t prompt = 0;
    const int32_t row[4] = {0, 1, 2, 3};
    twins_make(&twins, NULL);
    twins_share(&twins, 1, 4, 32);
    twins_start(&twins, "x\n");
    twins_begin(&twins, &(struct policy_entry){&prompt, row, 1, 4});
    const float *place = twins.left.row[0];
    for (int32_t step = 0; step < 32; step++) {
        const int32_t token[4] = {step, 2 * step, 3 * step, 4 * step};
        struct policy_batch batch = {
            .row = row, .token = token, .row_count = 4 - step / 10};
        twins_extend(&twins, &batch);
        assert_ptr_equal(twins.left.row[0], place);
    }
    int32_t left = llama_perf_context(llama_case_policy(&twins.left)->context).n_reused;
    int32_t brought =
        llama_perf_context(llama_case_policy(&twins.brought)->context).n_reused;
    assert_int_equal(left, brought);
    assert_true(left >= 20);
    twins_remove(&twins);
}

/* Rows 1 and 4 end, then 3: silent rows lie before, between and behind the others. */
static void rows_beside_silent_ones_are_those_brought(void **state)
{
    (void)state;
    struct twins twins;
    const int64_t prompt = 0;
    const int32_t row[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int32_t left[3][8] = {
        {0, 1, 2, 3, 4, 5, 6, 7}, {0, 2, 3, 5, 6, 7}, {0, 2, 5, 6, 7}};
    static const int32_t count[3] = {8, 6, 5};
    twins_make(&twins, NULL);
    twins.left.common.device_rows = MPO_DEVICE_ROWS_FIXED;
    twins.brought.common.device_rows = MPO_DEVICE_ROWS_FIXED;
    twins_share(&twins, 1, 8, 40);
    twins_start(&twins, "x\n");
    twins_begin(&twins, &(struct policy_entry){&prompt, row, 1, 8});
    for (int32_t step = 0; step < 30; step++) {
        int32_t token[8];
        for (int32_t i = 0; i < count[step / 10]; i++)
            token[i] = (7 * step + 11 * left[step / 10][i]) % twins.left.states;
        twins_extend(&twins, &(struct policy_batch){.row = left[step / 10],
                                                    .token = token,
                                                    .row_count = count[step / 10]});
        for (int32_t i = 0; i < count[step / 10]; i++)
            llama_case_check(&twins.left, i, token[i]);
    }
    assert_int_equal(llama_case_policy(&twins.left)->steady.count, 5);
    twins_remove(&twins);
}

static void masked_tokens_are_left_as_the_model_gave_them(void **state)
{
    (void)state;
    struct twins twins;
    const int32_t masked[1] = {BYTE('q')};
    const int64_t prompt = 0;
    const int32_t row = 0;
    struct policy_entry entry = {&prompt, &row, 1, 1};
    twins_make(&twins, NULL);
    twins.left.setup.masked = twins.brought.setup.masked = masked;
    twins.left.setup.masked_count = twins.brought.setup.masked_count = 1;
    twins_start(&twins, "x\n");
    assert_ok(policy_begin(&twins.left.policy, &entry, twins.left.row));
    assert_ok(policy_begin(&twins.brought.policy, &entry, twins.brought.row));
    llama_case_check(&twins.left, 0, BYTE('x'));
    assert_same_bits(twins.brought.row[0][masked[0]], MPO_MASKED_LOGIT);
    twins_remove(&twins);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_left_are_those_brought_over_any_walk_of_verbs),
        cmocka_unit_test(prompts_of_several_batches_leave_their_last_rows),
        cmocka_unit_test(rows_of_256_sequences_stay_down_to_the_last_one),
        cmocka_unit_test(graphs_are_used_again_as_often_from_addresses_that_stay),
        cmocka_unit_test(rows_beside_silent_ones_are_those_brought),
        cmocka_unit_test(masked_tokens_are_left_as_the_model_gave_them),
    };
    return run_cases("policy_llama_capture", tests);
}
