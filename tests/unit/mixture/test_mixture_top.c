/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The most probable tokens against all tokens sorted by score: blocks that are passed over
 * must not have had a place in the list.
 */
#include "mixture_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/policy.h"
#include "runner.h"

static const double *sorted_by;

static int most_probable_first(const void *left, const void *right)
{
    int32_t a = *(const int32_t *)left;
    int32_t b = *(const int32_t *)right;
    if (sorted_by[a] != sorted_by[b])
        return sorted_by[a] > sorted_by[b] ? -1 : 1;
    return a < b ? -1 : 1;
}

/* Tokens of a row by probability, -1 for those that are masked. Rows of one policy with
 * exponent 1, so that logits are in the order of scores. */
static int32_t *sort_tokens(const struct mixture_case *some, int32_t row)
{
    size_t vocab = (size_t)some->vocab_size;
    const float *logits = mixture_case_logits(some, 0, row);
    double *key = runner_allocate(vocab, sizeof *key);
    int32_t *order = runner_allocate(vocab, sizeof *order);
    for (int32_t v = 0; v < some->vocab_size; v++) {
        key[v] = (double)logits[v];
        order[v] = v;
    }
    for (int32_t i = 0; i < some->masked_count; i++)
        key[some->masked[i]] = -INFINITY;
    sorted_by = key;
    qsort(order, vocab, sizeof *order, most_probable_first);
    for (int32_t v = 0; v < some->vocab_size; v++)
        if (key[order[v]] == -INFINITY)
            order[v] = -1;
    free(key);
    return order;
}

static void check_lists(struct mixture_case *some)
{
    static const int32_t counts[] = {0, 1, 2, 5, 20, 127, MPO_MIXTURE_TOP_MAX};
    double log_proposal = 0.0;
    double log_policy = 0.0;
    mixture_case_run(some);
    for (int32_t row = 0; row < some->row_count; row++) {
        int32_t *order = sort_tokens(some, row);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            int32_t token[MPO_MIXTURE_TOP_MAX + 1];
            for (int32_t j = 0; j <= MPO_MIXTURE_TOP_MAX; j++)
                token[j] = -7;
            assert_ok(mpo_mixture_top(some->mixture, row, counts[i], token));
            for (int32_t j = 0; j < counts[i]; j++)
                assert_int_equal(token[j], j < some->vocab_size ? order[j] : -1);
            assert_int_equal(token[counts[i]], -7);
        }
        assert_int_equal(mixture_case_draw(some, row, NULL, &log_proposal, &log_policy),
                         order[0]);
        free(order);
    }
}

static void lists_are_those_of_brute_force(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 2, 33, 127, 128, 1023, 1024, 1025, 9000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct mixture_case some;
        mixture_case_make(&some, 1, 2, sizes[i], 6.0);
        check_lists(&some);
        mixture_case_free(&some);
    }
}

/* Few different logits: most places of a list are ties, across blocks too. */
static void of_equally_probable_tokens_the_lower_come_first(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 1, 3, 5000, 1.0);
    for (int32_t row = 0; row < 3; row++)
        for (int32_t v = 0; v < 5000; v++)
            mixture_case_logits(&some, 0, row)[v] =
                row == 0   ? 1.0f
                : row == 1 ? (float)(v % 700 == 3)
                           : rintf(3.0f * mixture_case_logits(&some, 0, row)[v]);
    check_lists(&some);
    mixture_case_free(&some);
}

static void masked_tokens_are_not_listed(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 1, 2, 3000, 4.0);
    for (int32_t v = 0; v < 3000; v++) { /* leaves 60 of them, none in the first block */
        if (v > 1024 && v % 33 == 0)
            continue;
        some.masked[some.masked_count++] = v;
        for (int32_t row = 0; row < 2; row++)
            mixture_case_logits(&some, 0, row)[v] = MPO_MASKED_LOGIT;
    }
    check_lists(&some);
    mixture_case_free(&some);
}

/* The best tokens one in a block, in falling order of blocks; all in one block; and a tie
 * with the last of a list in a block before, which is looked at later. */
static void blocks_are_passed_over_rightly(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 1, 3, 20 * MPO_ROWS_BLOCK, 1.0);
    for (int32_t block = 0; block < 20; block++)
        mixture_case_logits(&some, 0, 0)[block * MPO_ROWS_BLOCK + 37 * block] =
            10.0f + (float)block;
    for (int32_t i = 0; i < 200; i++)
        mixture_case_logits(&some, 0, 1)[7 * MPO_ROWS_BLOCK + 5 * i] =
            5.0f + (float)(i % 90);
    for (int32_t i = 0; i < 200; i++)
        mixture_case_logits(&some, 0, 2)[7 * MPO_ROWS_BLOCK + 5 * i] = i == 0 ? 9.0f : 5.0f;
    mixture_case_logits(&some, 0, 2)[3 * MPO_ROWS_BLOCK + 11] = 5.0f;
    check_lists(&some);
    mixture_case_free(&some);
}

static void a_listed_token_has_the_figures_of_a_given_one(void **state)
{
    (void)state;
    struct mixture_case some;
    struct mixture_truth truth;
    int32_t token[10];
    double log_policy[2];
    mixture_case_make(&some, 2, 1, 3000, 6.0);
    mixture_case_run(&some);
    mixture_truth_make(&some, 0, &truth);
    assert_ok(mpo_mixture_top(some.mixture, 0, 10, token));
    for (int32_t i = 0; i < 10; i++) {
        assert_close(mixture_case_score(&some, 0, token[i], log_policy),
                     log(truth.q[token[i]]), 1e-11);
        assert_true(i == 0 || truth.q[token[i]] < truth.q[token[i - 1]]);
    }
    mixture_truth_free(&truth);
    mixture_case_free(&some);
}

static void lists_that_are_too_long_and_rows_that_are_not_there_are_refused(void **state)
{
    (void)state;
    struct mixture_case some;
    int32_t token[MPO_MIXTURE_TOP_MAX + 1];
    mixture_case_make(&some, 1, 2, 10, 1.0);
    mixture_case_run(&some);
    assert_status(mpo_mixture_top(some.mixture, 0, MPO_MIXTURE_TOP_MAX + 1, token),
                  MPO_ERR_USAGE);
    assert_status(mpo_mixture_top(some.mixture, 0, -1, token), MPO_ERR_USAGE);
    assert_status(mpo_mixture_top(some.mixture, 2, 1, token), MPO_ERR_USAGE);
    assert_error_names("row 2 of 2");
    assert_ok(mpo_mixture_normalise(some.mixture, 0, 2, some.row, some.log_norm));
    assert_status(mpo_mixture_top(some.mixture, 0, 1, token), MPO_ERR_USAGE);
    mixture_case_free(&some);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_those_of_brute_force),
        cmocka_unit_test(of_equally_probable_tokens_the_lower_come_first),
        cmocka_unit_test(masked_tokens_are_not_listed),
        cmocka_unit_test(blocks_are_passed_over_rightly),
        cmocka_unit_test(a_listed_token_has_the_figures_of_a_given_one),
        cmocka_unit_test(lists_that_are_too_long_and_rows_that_are_not_there_are_refused),
    };
    return run_cases("most probable tokens", tests);
}
