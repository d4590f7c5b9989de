/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs of llama policies, on models whose logits are a table: what they give
 * must be the table's rows however the tokens came in. Threads, units and cuts must
 * not change a bit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama_case.h"
#include "policy_verbs.h"

#define OPS          mpo_policy_llama_ops
#define BYTE(letter) BIGRAM_GGUF_BYTE(letter)

/* ---- exact logits ---- */

static void logits_after_a_prompt_and_its_tokens_are_rows_of_the_table(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.unit.unit_prompts = 2;
    llama_case_start(&test, "one\ntwo words\n");
    llama_case_begin(&test, 2, 2);
    llama_case_check(&test, 0, BYTE('e'));
    llama_case_check(&test, 1, BYTE('s'));
    const int32_t first[4] = {BYTE('a'), BYTE('b'), BIGRAM_GGUF_SPACE, 2};
    llama_case_extend(&test, first, 4);
    for (int32_t row = 0; row < 4; row++)
        llama_case_check(&test, row, first[row]);
    const int32_t second[2] = {BYTE('c'), 0};
    llama_case_extend(&test, second, 2);
    llama_case_check(&test, 0, BYTE('c'));
    llama_case_check(&test, 1, 0);
    llama_case_remove(&test);
}

static void several_tokens_at_once_give_every_position_in_order(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    llama_case_start(&test, "x\n");
    llama_case_begin(&test, 1, 2);
    const int32_t row[2] = {1, 0};
    const int32_t count[2] = {3, 1};
    const int32_t token[4] = {BYTE('a'), BYTE('b'), BYTE('c'), BYTE('d')};
    struct policy_batch batch = {row, count, token, 2, true};
    assert_ok(policy_extend(&test.policy, &batch, test.row));
    for (int32_t i = 0; i < 4; i++)
        llama_case_check(&test, i, token[i]);
    batch.every_position = false;
    assert_ok(policy_extend(&test.policy, &batch, test.row));
    llama_case_check(&test, 0, BYTE('c'));
    llama_case_check(&test, 1, BYTE('d'));
    llama_case_remove(&test);
}

/* 900 prompt tokens and then 900 response tokens take several llama_decode each. */
static void prompts_and_rows_of_several_batches_are_exact(void **state)
{
    (void)state;
    enum { LONG = 300 };
    struct llama_case test;
    char prompts[3 * (LONG + 1) + 1];
    int32_t token[3 * LONG];
    llama_case_make(&test, &(struct bigram_gguf_options){.context_tokens = 1024});
    test.unit.unit_prompts = 3;
    test.unit.responses = 1;
    test.unit.max_tokens = LONG;
    memset(prompts, 'x', sizeof prompts);
    for (int32_t i = 0; i < 3; i++) {
        prompts[i * (LONG + 1) + LONG - 1] = (char)('a' + i);
        prompts[i * (LONG + 1) + LONG] = '\n';
    }
    prompts[sizeof prompts - 1] = '\0';
    for (int32_t i = 0; i < 3 * LONG; i++)
        token[i] = BYTE(i % 251);
    llama_case_start(&test, prompts);
    llama_case_begin(&test, 3, 1);
    for (int32_t i = 0; i < 3; i++)
        llama_case_check(&test, i, BYTE('a' + i));
    const int32_t row[3] = {2, 0, 1};
    const int32_t count[3] = {LONG, LONG, LONG};
    struct policy_batch batch = {row, count, token, 3, false};
    assert_ok(policy_extend(&test.policy, &batch, test.row));
    for (int32_t i = 0; i < 3; i++)
        llama_case_check(&test, i, token[(i + 1) * LONG - 1]);
    llama_case_remove(&test);
}

static void a_unit_of_256_rows_works_down_to_its_last_row(void **state)
{
    (void)state;
    struct llama_case test;
    int32_t token[LLAMA_CASE_ROWS];
    llama_case_make(&test, NULL);
    test.unit.unit_prompts = 4;
    test.unit.responses = 64;
    llama_case_start(&test, "a\nb\nc\nd\n");
    llama_case_begin(&test, 4, 64);
    for (int32_t i = 0; i < LLAMA_CASE_ROWS; i++)
        token[i] = i;
    llama_case_extend(&test, token, LLAMA_CASE_ROWS);
    for (int32_t i = 0; i < LLAMA_CASE_ROWS; i++)
        llama_case_check(&test, i, i);
    llama_case_extend(&test, &token[9], 1);
    llama_case_check(&test, 0, 9);
    llama_case_extend(&test, &token[7], 1);
    llama_case_check(&test, 0, 7);
    llama_case_remove(&test);
}

/* ---- rows that come and go ---- */

static void prompts_join_rows_that_live_and_are_exact(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.unit.unit_prompts = 3;
    test.unit.row_capacity = 4;
    llama_case_start(&test, "one\ntwo words\nlonger prompt\n");
    llama_case_begin(&test, 2, 2);
    const int32_t token[4] = {BYTE('a'), BYTE('b'), BYTE('c'), BYTE('d')};
    llama_case_extend(&test, token, 4);
    assert_ok(mpo_policy_truncate(&test.policy, 0, -1));
    assert_ok(mpo_policy_truncate(&test.policy, 3, -1));
    assert_ok(llama_case_enter(&test, 2, (const int32_t[]){0, 3}, 2));
    llama_case_check(&test, 0, BYTE('t'));
    llama_case_extend(&test, token, 4);
    for (int32_t i = 0; i < 4; i++)
        llama_case_check(&test, i, token[i]);
    const struct mpo_llama_policy *policy = llama_case_policy(&test);
    assert_int_equal(llama_memory_seq_pos_max(policy->memory, 0), 13);
    assert_int_equal(llama_memory_seq_pos_max(policy->memory, 1), 4);
    assert_int_equal(llama_memory_seq_pos_max(policy->memory, 2), 10);
    assert_int_equal(llama_memory_seq_pos_max(policy->memory, 3), 13);
    llama_case_remove(&test);
}

/* One row of each earlier prompt stays and is full, and the last prompt fills its two rows:
 * 800 cells, and no unit of these sizes needs more.
 * A context for one prompt less would have 768. */
static void the_most_crowded_unit_fits_its_context(void **state)
{
    (void)state;
    enum { PROMPTS = 8, LONG = 100, ROWS = 6, TOKENS = 50 };
    struct llama_case test;
    char prompts[PROMPTS * (LONG + 1) + 1];
    llama_case_make(&test, NULL);
    test.unit.unit_prompts = PROMPTS;
    test.unit.row_capacity = ROWS;
    test.unit.max_tokens = TOKENS;
    memset(prompts, 'x', sizeof prompts);
    for (int32_t i = 0; i < PROMPTS; i++)
        prompts[i * (LONG + 1) + LONG] = '\n';
    prompts[sizeof prompts - 1] = '\0';
    llama_case_start(&test, prompts);
    mpo_policy_clear(&test.policy);
    for (int32_t i = 0; i < ROWS - 1; i++) {
        int32_t count[2] = {TOKENS, TOKENS};
        int32_t token[2 * TOKENS] = {0};
        const int32_t row[2] = {i, i + 1};
        struct policy_batch batch = {row, count, token, 2, false};
        if (i > 0)
            assert_ok(mpo_policy_truncate(&test.policy, i, -1));
        assert_ok(llama_case_enter(&test, i, row, 2));
        assert_ok(policy_extend(&test.policy, &batch, test.row));
        llama_case_check(&test, 1, 0);
    }
    llama_case_remove(&test);
}

/* ---- truncate and fork ---- */

static void copy_row(const struct llama_case *test, int32_t output, float *copy)
{
    memcpy(copy, test->row[output], (size_t)test->states * sizeof *copy);
}

static void rows_cut_back_and_copied_go_on_like_fresh_ones(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.unit.responses = 3;
    llama_case_start(&test, "begin\n");
    llama_case_begin(&test, 1, 3);
    const int32_t token[3] = {BYTE('a'), BYTE('b'), BYTE('c')};
    llama_case_extend(&test, token, 3);
    assert_ok(mpo_policy_truncate(&test.policy, 0, 5));
    assert_ok(mpo_policy_fork(&test.policy, 1, 2));
    assert_ok(mpo_policy_fork(&test.policy, 1, 1));
    const struct mpo_llama_policy *policy = llama_case_policy(&test);
    assert_int_equal(mpo_policy_row_tokens(&test.policy, 0), 5);
    assert_int_equal(mpo_policy_row_tokens(&test.policy, 2), 6);
    assert_int_equal(llama_memory_seq_pos_max(policy->memory, 0), 4);
    assert_int_equal(llama_memory_seq_pos_max(policy->memory, 2), 5);
    llama_case_extend(&test, token, 3);
    for (int32_t i = 0; i < 3; i++)
        llama_case_check(&test, i, token[i]);
    assert_ok(mpo_policy_truncate(&test.policy, 0, -1));
    assert_ok(mpo_policy_truncate(&test.policy, 0, -1));
    assert_int_equal(llama_memory_seq_pos_max(policy->memory, 0), -1);
    assert_ok(mpo_policy_fork(&test.policy, 2, 0));
    llama_case_extend(&test, token, 1);
    llama_case_check(&test, 0, BYTE('a'));
    llama_case_remove(&test);
}

/* ---- the same bits ---- */

/* One unit with everything a decode does; the rows of every verb go to kept. */
static size_t run_unit(struct llama_case *test, float *kept)
{
    size_t rows = 0;
    size_t wide = (size_t)test->states;
    llama_case_begin(test, 2, 3);
    for (int32_t i = 0; i < 2; i++)
        copy_row(test, i, kept + wide * rows++);
    for (int32_t step = 0; step < 4; step++) {
        int32_t token[6];
        int32_t live = step < 3 ? 6 - step : 1;
        for (int32_t i = 0; i < live; i++)
            token[i] = BYTE('a' + 7 * step + i);
        llama_case_extend(test, token, live);
        for (int32_t i = 0; i < live; i++)
            copy_row(test, i, kept + wide * rows++);
    }
    return rows;
}

static void a_unit_gives_the_same_bits_again_and_with_two_threads(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.unit.unit_prompts = 2;
    test.unit.responses = 3;
    size_t bytes = 32 * (size_t)test.states * sizeof(float);
    float *kept[3];
    for (int32_t i = 0; i < 3; i++)
        kept[i] = runner_allocate(1, bytes);
    llama_case_start(&test, "a first prompt\nand another\n");
    size_t rows = run_unit(&test, kept[0]);
    llama_case_begin(&test, 1, 1);
    assert_int_equal(run_unit(&test, kept[1]), rows);
    llama_case_stop(&test);
    test.common.thread_count = 2;
    llama_case_start(&test, "a first prompt\nand another\n");
    run_unit(&test, kept[2]);
    assert_memory_equal(kept[0], kept[1], bytes);
    assert_memory_equal(kept[0], kept[2], bytes);
    for (int32_t i = 0; i < 3; i++)
        free(kept[i]);
    llama_case_remove(&test);
}

static void a_single_row_and_a_single_token_have_company(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.unit.responses = 1;
    llama_case_start(&test, "x\n");
    const struct mpo_llama_policy *policy = llama_case_policy(&test);
    llama_case_begin(&test, 1, 1);
    llama_case_check(&test, 0, BYTE('x'));
    for (int32_t i = 0; i < 8; i++) {
        int32_t token = BYTE('a' + i);
        llama_case_extend(&test, &token, 1);
        llama_case_check(&test, 0, token);
        assert_int_equal(llama_memory_seq_pos_max(policy->memory, 0), i + 1);
        assert_int_equal(llama_memory_seq_pos_max(policy->memory, 1), -1);
    }
    llama_case_remove(&test);
}

/* ---- sharing ---- */

static void policies_that_name_one_file_share_its_model(void **state)
{
    (void)state;
    struct llama_case test;
    char link[TABLE_PATH_BYTES];
    struct mpo_policy other;
    llama_case_make(&test, NULL);
    llama_case_start(&test, "x\n");
    snprintf(link, sizeof link, "%.480s/./model.gguf", test.folder);
    struct mpo_policy_spec spec = test.spec;
    spec.model = link;
    assert_ok(mpo_policy_open(&spec, &test.common, &OPS, &test.library, &other));
    const struct mpo_llama_policy *policy = other.self;
    assert_ptr_equal(policy->model, llama_case_policy(&test)->model);
    assert_int_equal(policy->model->reference_count, 2);
    assert_ok(llama_case_prepare_other(&test, &other));
    mpo_policy_close(&test.policy);
    test.policy = other;
    assert_int_equal(policy->model->reference_count, 1);
    llama_case_begin(&test, 1, 1);
    llama_case_check(&test, 0, BYTE('x'));
    llama_case_remove(&test);
}

static void an_adapter_changes_its_own_policy_by_its_scale(void **state)
{
    (void)state;
    struct llama_case test;
    char path[TABLE_PATH_BYTES];
    float shift[BIGRAM_GGUF_TOKENS];
    struct mpo_policy plain;
    llama_case_make(&test, NULL);
    for (int32_t id = 0; id < BIGRAM_GGUF_TOKENS; id++)
        shift[id] = 0.01f * (float)id;
    snprintf(path, sizeof path, "%.480s/adapter.gguf", test.folder);
    bigram_gguf_write_adapter(path, shift, BIGRAM_GGUF_TOKENS);
    test.setup.vocab_size = test.states;
    assert_ok(mpo_policy_open(&test.spec, &test.common, &OPS, &test.library, &plain));
    test.spec.lora = path;
    test.spec.lora_scale = 0.5;
    llama_case_start(&test, "x\n");
    llama_case_begin(&test, 1, 2);
    const float *expected = test.logits + (size_t)BYTE('x') * (size_t)test.states;
    for (int32_t id = 0; id < test.states; id++)
        assert_close(test.row[0][id], expected[id] + 0.5f * shift[id], 1e-4);
    assert_ok(llama_case_prepare_other(&test, &plain));
    mpo_policy_close(&test.policy);
    test.policy = plain;
    llama_case_begin(&test, 1, 1);
    llama_case_check(&test, 0, BYTE('x'));
    llama_case_remove(&test);
}

/* ---- the vocabulary ---- */

static void padding_and_suppressed_tokens_are_masked(void **state)
{
    (void)state;
    struct llama_case test;
    const int32_t suppressed[1] = {BYTE('q')};
    llama_case_make(&test, &(struct bigram_gguf_options){.padding = 4,
                                                         .suppressed = suppressed,
                                                         .suppressed_count = 1});
    assert_ok(llama_case_open(&test));
    struct mpo_vocabulary vocabulary = {0};
    OPS.vocabulary(test.policy.self, &vocabulary);
    assert_int_equal(vocabulary.size, BIGRAM_GGUF_TOKENS + 4);
    assert_int_equal(vocabulary.used, BIGRAM_GGUF_TOKENS);
    int32_t masked[8];
    int32_t count = 0;
    for (int32_t id = 0; id < vocabulary.size; id++)
        if (vocabulary.flags[id] & MPO_TOKEN_MASKED)
            masked[count++] = id;
    assert_int_equal(count, 5);
    assert_int_equal(masked[0], BYTE('q'));
    assert_int_equal(masked[1], BIGRAM_GGUF_TOKENS);
    test.setup.masked = masked;
    test.setup.masked_count = count;
    test.setup.vocab_size = vocabulary.size;
    assert_ok(llama_case_prepare(&test, "x\n"));
    llama_case_begin(&test, 1, 2);
    const int32_t token[2] = {BYTE('a'), BYTE('b')};
    for (int32_t i = 0; i < count; i++)
        assert_same_bits(test.row[0][masked[i]], MPO_MASKED_LOGIT);
    llama_case_extend(&test, token, 2);
    for (int32_t i = 0; i < count; i++)
        assert_same_bits(test.row[1][masked[i]], MPO_MASKED_LOGIT);
    assert_close(test.row[1][0], test.logits[(size_t)token[1] * (size_t)test.states], 1e-5);
    llama_case_remove(&test);
}

static void tokens_have_texts_attributes_and_ends(void **state)
{
    (void)state;
    struct llama_case test;
    struct mpo_token token = {0};
    struct mpo_vocabulary vocabulary = {0};
    llama_case_make(&test, &(struct bigram_gguf_options){.eos = BYTE('z'),
                                                         .changed_text = "changed",
                                                         .changed_id = BIGRAM_GGUF_SPACE});
    assert_ok(llama_case_open(&test));
    OPS.token(test.policy.self, BIGRAM_GGUF_SPACE, &token);
    assert_string_equal(token.text, "changed");
    assert_int_equal(token.attribute, LLAMA_TOKEN_ATTR_NORMAL);
    OPS.token(test.policy.self, 1, &token);
    assert_string_equal(token.text, "<s>");
    assert_int_equal(token.attribute, LLAMA_TOKEN_ATTR_CONTROL);
    OPS.vocabulary(test.policy.self, &vocabulary);
    assert_true(vocabulary.flags[BYTE('z')] & MPO_TOKEN_END);
    assert_false(vocabulary.flags[BYTE('y')] & MPO_TOKEN_END);
    assert_non_null(strstr(vocabulary.summary, "SPM"));
    assert_non_null(strstr(vocabulary.summary, "eos 125"));
    llama_case_remove(&test);
}

static void text_leaves_ends_out_and_may_end_inside_a_character(void **state)
{
    (void)state;
    struct llama_case test;
    char text[16];
    llama_case_make(&test, NULL);
    assert_ok(llama_case_open(&test));
    const int32_t cut[4] = {BIGRAM_GGUF_SPACE, BYTE('h'), BYTE('\xc3'), 2};
    assert_int_equal(mpo_policy_text(&test.policy, cut, 4, text, sizeof text), 3);
    assert_string_equal(text, " h\xc3");
    assert_int_equal(mpo_policy_text(&test.policy, cut, 4, text, 4), 3);
    assert_int_equal(mpo_policy_text(&test.policy, cut, 4, text, 3), -1);
    assert_int_equal(mpo_policy_text(&test.policy, cut, 0, text, 1), 0);
    assert_int_equal(mpo_policy_text(&test.policy, &(int32_t){100000}, 1, text, 1), 0);
    llama_case_remove(&test);
}

/* ---- what a caller must not ask for ---- */

static void assert_extend_refused(struct llama_case *test, int32_t row, int32_t count,
                                  bool every_position)
{
    int32_t token[256] = {0};
    struct policy_batch batch = {&row, &count, token, 1, every_position};
    assert_status(policy_extend(&test->policy, &batch, test->row), MPO_ERR_USAGE);
}

static void calls_that_would_end_the_process_are_refused(void **state)
{
    (void)state;
    struct llama_case test;
    int32_t token = -1;
    llama_case_make(&test, NULL);
    test.unit.max_tokens = 100;
    llama_case_start(&test, "x\n");
    llama_case_begin(&test, 1, 1);
    assert_extend_refused(&test, 0, 255, false);
    assert_extend_refused(&test, 0, 65, true);
    assert_extend_refused(&test, 0, 0, false);
    assert_extend_refused(&test, 1, 1, false);
    assert_extend_refused(&test, 2, 1, false);
    assert_extend_refused(&test, -1, 1, false);
    struct policy_batch batch = {&(int32_t){0}, NULL, &token, 1, false};
    assert_status(policy_extend(&test.policy, &batch, test.row), MPO_ERR_USAGE);
    token = BIGRAM_GGUF_TOKENS;
    assert_status(policy_extend(&test.policy, &batch, test.row), MPO_ERR_USAGE);
    assert_status(mpo_policy_truncate(&test.policy, 0, 2), MPO_ERR_USAGE);
    assert_status(mpo_policy_truncate(&test.policy, 1, 1), MPO_ERR_USAGE);
    assert_status(mpo_policy_fork(&test.policy, 1, 0), MPO_ERR_USAGE);
    const int32_t row[3] = {1, 0, 2};
    assert_status(llama_case_enter(&test, 1, row, 1), MPO_ERR_USAGE);
    assert_status(llama_case_enter(&test, 0, row, 2), MPO_ERR_USAGE);
    assert_status(llama_case_enter(&test, 0, row, 3), MPO_ERR_USAGE);
    assert_status(llama_case_enter(&test, 0, row + 2, 1), MPO_ERR_USAGE);
    token = BYTE('a');
    assert_ok(policy_extend(&test.policy, &batch, test.row));
    llama_case_check(&test, 0, token);
    llama_case_remove(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_after_a_prompt_and_its_tokens_are_rows_of_the_table),
        cmocka_unit_test(several_tokens_at_once_give_every_position_in_order),
        cmocka_unit_test(prompts_and_rows_of_several_batches_are_exact),
        cmocka_unit_test(a_unit_of_256_rows_works_down_to_its_last_row),
        cmocka_unit_test(prompts_join_rows_that_live_and_are_exact),
        cmocka_unit_test(the_most_crowded_unit_fits_its_context),
        cmocka_unit_test(rows_cut_back_and_copied_go_on_like_fresh_ones),
        cmocka_unit_test(a_unit_gives_the_same_bits_again_and_with_two_threads),
        cmocka_unit_test(a_single_row_and_a_single_token_have_company),
        cmocka_unit_test(policies_that_name_one_file_share_its_model),
        cmocka_unit_test(an_adapter_changes_its_own_policy_by_its_scale),
        cmocka_unit_test(padding_and_suppressed_tokens_are_masked),
        cmocka_unit_test(tokens_have_texts_attributes_and_ends),
        cmocka_unit_test(text_leaves_ends_out_and_may_end_inside_a_character),
        cmocka_unit_test(calls_that_would_end_the_process_are_refused),
    };
    return run_cases("policy_llama", tests);
}
