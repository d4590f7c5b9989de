/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of one position that have nothing to do with each other: exponents, tilts, rules and
 * wishes of their own, and rows that fail. What is found of a row is what is found of it
 * alone, to the bit.
 */
#include "mixture_questions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/policy.h"
#include "runner.h"

#define VOCAB    2500 /* three blocks, the last one short */
#define POLICIES 3

static void make_case(struct mixture_case *some, int32_t row_count)
{
    mixture_case_make(some, POLICIES, row_count, VOCAB, 6.0);
    mixture_case_mask(some, 11, 4);
    for (int32_t h = 0; h < POLICIES; h++) {
        some->temperature[h] = 0.7 + 0.2 * h;
        some->mu[h] = 0.8 / (1 + h);
    }
    some->end_bias = 0.5;
    some->varies = true;
}

/* A mixture of one row of some, with that row's exponents. */
static void make_alone(struct mixture_case *alone, const struct mixture_case *some,
                       int32_t row)
{
    make_case(alone, 1);
    for (int32_t h = 0; h < POLICIES; h++)
        memcpy(mixture_case_logits(alone, h, 0), mixture_case_logits(some, h, row),
               VOCAB * sizeof(float));
    alone->varies = false;
    memcpy(alone->mu, some->row_mu + row * POLICIES, sizeof *alone->mu * POLICIES);
    alone->end_bias = some->row_end_bias[row];
    mixture_case_run(alone);
}

static void same_moments(const struct mpo_mixture_moments *found,
                         const struct mpo_mixture_moments *expected)
{
    assert_same_bits(found->log_z, expected->log_z);
    assert_same_bits(found->entropy, expected->entropy);
    assert_same_bits(found->end_probability, expected->end_probability);
}

static void rows_of_one_call_are_each_row_alone(void **state)
{
    (void)state;
    enum { ROWS = 16, COUNT = 48 };
    struct mixture_case some;
    struct mixture_questions all;
    struct mixture_questions one;
    make_case(&some, ROWS);
    mixture_case_run(&some);
    mixture_case_check(&some, 1e-12);
    mixture_questions_make(&all, &some, COUNT);
    mixture_questions_make(&one, &some, COUNT);
    mixture_questions_ask(&all, some.mixture);
    for (int32_t row = 0; row < ROWS; row++) {
        struct mixture_case alone;
        make_alone(&alone, &some, row);
        same_moments(&some.moments[row], &alone.moments[0]);
        for (int32_t h = 0; h < POLICIES; h++)
            assert_same_bits(some.expectation[row * POLICIES + h], alone.expectation[h]);
        for (int32_t i = 0; i < COUNT; i++)
            if (one.row[i] == row)
                mixture_questions_ask_one(&one, alone.mixture, i, 0);
        mixture_case_free(&alone);
    }
    mixture_questions_same(&all, &one);
    for (int32_t i = 0; i < COUNT; i++)
        assert_in_range(all.token[i], 0, VOCAB - 1);
    mixture_questions_free(&one);
    mixture_questions_free(&all);
    mixture_case_free(&some);
}

/* The order of questions is of no account. */
static void questions_in_another_order_have_the_same_answers(void **state)
{
    (void)state;
    enum { COUNT = 36 };
    struct mixture_case some;
    struct mixture_questions plain;
    struct mixture_questions turned;
    make_case(&some, 3); /* fewer than questions: they are taken in parts */
    mixture_case_run(&some);
    mixture_questions_make(&plain, &some, COUNT);
    mixture_questions_make(&turned, &some, COUNT);
    for (int32_t i = 0; i < COUNT; i++) {
        int32_t from = COUNT - 1 - i;
        turned.row[i] = plain.row[from];
        turned.kind[i] = plain.kind[from];
        turned.uniform[i] = plain.uniform[from];
        turned.rule[i] = plain.rule[from];
        turned.token[i] = plain.token[from];
    }
    mixture_questions_ask(&plain, some.mixture);
    mixture_questions_ask(&turned, some.mixture);
    for (int32_t i = 0; i < COUNT; i++) {
        assert_int_equal(turned.token[i], plain.token[COUNT - 1 - i]);
        assert_same_bits(turned.log_proposal[i], plain.log_proposal[COUNT - 1 - i]);
    }
    mixture_questions_free(&turned);
    mixture_questions_free(&plain);
    mixture_case_free(&some);
}

/* ---- expectations ---- */

static void without_expectations_everything_else_is_the_same(void **state)
{
    (void)state;
    static const bool some_expect[4] = {true, false, false, true};
    static const bool none_expects[4] = {false};
    struct mixture_case some;
    struct mixture_questions expected;
    struct mixture_questions found;
    struct mpo_mixture_moments moments[4];
    double expectation[4 * POLICIES];
    make_case(&some, 4);
    mixture_case_run(&some);
    mixture_questions_make(&expected, &some, 36);
    mixture_questions_make(&found, &some, 36);
    mixture_questions_ask(&expected, some.mixture);
    for (int32_t way = 0; way < 3; way++) {
        double *wanted = way == 2 ? NULL : expectation;
        some.exponents.expects = way == 0 ? some_expect : way == 1 ? none_expects : NULL;
        memset(expectation, 0, sizeof expectation);
        assert_ok(mpo_mixture_combine(some.mixture, &some.rows, &some.exponents, moments,
                                      wanted));
        for (int32_t row = 0; row < 4; row++) {
            bool expects = way == 0 && some_expect[row];
            assert_same_bits(moments[row].log_z, some.moments[row].log_z);
            assert_same_bits(moments[row].end_probability,
                             some.moments[row].end_probability);
            if (expects)
                assert_same_bits(moments[row].entropy, some.moments[row].entropy);
            else
                assert_true(isnan(moments[row].entropy));
            for (int32_t h = 0; h < POLICIES && wanted != NULL; h++)
                if (expects)
                    assert_same_bits(expectation[row * POLICIES + h],
                                     some.expectation[row * POLICIES + h]);
                else
                    assert_true(isnan(expectation[row * POLICIES + h]));
        }
        mixture_questions_ask(&found, some.mixture);
        mixture_questions_same(&found, &expected);
    }
    mixture_questions_free(&found);
    mixture_questions_free(&expected);
    mixture_case_free(&some);
}

/* ---- rows that fail ---- */

enum { GOOD_ROWS = 5, FAILED = 2 };

struct failure {
    const char *what;
    float logit;         /* of policy 1 in row FAILED */
    bool everywhere;     /* else of one token */
    bool is_normal;      /* its normaliser is finite */
    bool needs_negative; /* with that exponent alone */
};

static const struct failure failures[] = {
    {"a NaN", NAN, false, false, false},
    {"nothing but NaN", NAN, true, false, false},
    {"an infinite logit", INFINITY, false, false, false},
    {"no finite logit", -INFINITY, true, false, false},
    {"nothing but masked tokens", MPO_MASKED_LOGIT, true, false, false},
    {"a token without support", -INFINITY, false, true, false},
    {"a token without support and a negative exponent", -INFINITY, false, true, true},
};

static void break_row(struct mixture_case *some, const struct failure *failure)
{
    float *row = mixture_case_logits(some, 1, FAILED);
    for (int32_t v = 0; v < VOCAB; v++)
        if (v % 11 != 4 && (failure->everywhere || v == 7))
            row[v] = failure->logit;
    if (failure->needs_negative)
        some->row_mu[FAILED * POLICIES + 1] = -0.5;
}

/* Normalise and combine as mixture_case_run, and say what fails. */
static void run_broken(struct mixture_case *some, const struct failure *failure)
{
    for (int32_t h = 0; h < POLICIES; h++) {
        double *log_norm = some->log_norm + h * GOOD_ROWS;
        bool fails = h == 1 && !failure->is_normal;
        for (int32_t row = 0; row < GOOD_ROWS; row++)
            log_norm[row] = 0.0;
        assert_status(mpo_mixture_normalise(some->mixture, h, GOOD_ROWS,
                                            some->row + h * GOOD_ROWS, log_norm),
                      fails ? MPO_ERR_DATA : MPO_OK);
        if (fails)
            assert_error_names("policy 1: the logits of row 2 have no finite normaliser");
        for (int32_t row = 0; row < GOOD_ROWS; row++)
            assert_int_equal(isfinite(log_norm[row]) != 0, !(fails && row == FAILED));
    }
    assert_status(mpo_mixture_combine(some->mixture, &some->rows, &some->exponents,
                                      some->moments, some->expectation),
                  MPO_ERR_DATA);
    assert_error_names("the mixture of row 2 is not finite");
    assert_true(!isfinite(some->moments[FAILED].log_z));
}

static void check_blank(const struct mixture_questions *found,
                        const struct mixture_questions *asked, int32_t i)
{
    assert_true(isnan(found->log_proposal[i]));
    if (found->kind[i] == MPO_MIXTURE_GIVEN) {
        assert_int_equal(found->token[i], asked->token[i]);
        return;
    }
    assert_int_equal(found->token[i], -1);
    for (int32_t h = 0; h < POLICIES; h++)
        assert_true(isnan(found->log_policy[i * POLICIES + h]));
}

static void check_failure(struct mixture_case *some, const struct mixture_questions *good,
                          const struct failure *failure)
{
    struct mpo_mixture_moments moments[GOOD_ROWS];
    double expectation[GOOD_ROWS * POLICIES];
    int32_t top[4];
    struct mixture_questions found;
    memcpy(moments, some->moments, sizeof moments);
    memcpy(expectation, some->expectation, sizeof expectation);
    break_row(some, failure);
    run_broken(some, failure);
    mixture_questions_make(&found, some, good->count);
    mixture_questions_ask(&found, some->mixture);
    for (int32_t row = 0; row < GOOD_ROWS; row++) {
        if (row == FAILED)
            continue;
        same_moments(&some->moments[row], &moments[row]);
        for (int32_t h = 0; h < POLICIES; h++)
            assert_same_bits(some->expectation[row * POLICIES + h],
                             expectation[row * POLICIES + h]);
    }
    for (int32_t i = 0; i < found.count; i++) {
        if (found.row[i] == FAILED) {
            check_blank(&found, good, i);
            continue;
        }
        assert_int_equal(found.token[i], good->token[i]);
        assert_same_bits(found.log_proposal[i], good->log_proposal[i]);
    }
    assert_ok(mpo_mixture_top(some->mixture, FAILED, 4, top));
    for (int32_t i = 0; i < 4; i++)
        assert_int_equal(top[i], -1);
    mixture_questions_free(&found);
}

static void a_row_that_fails_leaves_the_others_as_they_are(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        struct mixture_case some;
        struct mixture_questions good;
        make_case(&some, GOOD_ROWS);
        mixture_case_run(&some);
        mixture_questions_make(&good, &some, 30);
        mixture_questions_ask(&good, some.mixture);
        print_message("%s\n", failures[i].what);
        check_failure(&some, &good, &failures[i]);
        mixture_questions_free(&good);
        mixture_case_free(&some);
    }
}

static void every_row_that_fails_is_marked(void **state)
{
    (void)state;
    struct mixture_case some;
    make_case(&some, 4);
    mixture_case_run(&some);
    for (int32_t row = 1; row < 4; row += 2)
        mixture_case_logits(&some, 0, row)[9] = -INFINITY; /* log Z alone is finite */
    assert_status(mpo_mixture_combine(some.mixture, &some.rows, &some.exponents,
                                      some.moments, some.expectation),
                  MPO_ERR_DATA);
    assert_error_names("row 1");
    for (int32_t row = 0; row < 4; row++)
        assert_int_equal(isfinite(some.moments[row].log_z) != 0, row % 2 == 0);
    mixture_case_free(&some);
}

/* A token that one policy excludes has no share; only E_q log pi_h does not exist. */
static void a_token_without_support_fails_only_where_expectations_are_wanted(void **state)
{
    (void)state;
    static const bool nobody[2] = {false, false};
    struct mixture_case some;
    int32_t top[2];
    make_case(&some, 2);
    mixture_case_run(&some);
    mixture_case_logits(&some, 0, 1)[9] = -INFINITY;
    some.exponents.expects = nobody;
    for (int32_t h = 0; h < POLICIES; h++)
        assert_ok(mpo_mixture_normalise(some.mixture, h, 2, some.row + h * 2,
                                        some.log_norm + h * 2));
    assert_ok(mpo_mixture_combine(some.mixture, &some.rows, &some.exponents, some.moments,
                                  some.expectation));
    assert_true(isfinite(some.moments[1].log_z) != 0);
    assert_ok(mpo_mixture_top(some.mixture, 1, 2, top));
    assert_in_range(top[1], 0, VOCAB - 1);
    mixture_case_free(&some);
}

/* As many rows as each policy has, to the bit; a failed one is named by its policy. */
static void rows_of_several_policies_are_normalised_as_one_after_another(void **state)
{
    (void)state;
    static const int32_t taken[POLICIES] = {3, 0, 2};
    int32_t first_row[POLICIES + 1] = {0};
    const float *row[POLICIES * 3];
    double log_norm[POLICIES * 3];
    struct mixture_case some;
    make_case(&some, 3);
    mixture_case_run(&some);
    for (int32_t h = 0; h < POLICIES; h++) {
        first_row[h + 1] = first_row[h] + taken[h];
        for (int32_t i = 0; i < taken[h]; i++)
            row[first_row[h] + i] = some.row[h * 3 + i];
    }
    const struct mpo_mixture_part part = {0, POLICIES, first_row};
    assert_ok(mpo_mixture_normalise_part(some.mixture, &part, row, log_norm));
    for (int32_t h = 0; h < POLICIES; h++)
        for (int32_t i = 0; i < taken[h]; i++)
            assert_same_bits(log_norm[first_row[h] + i], some.log_norm[h * 3 + i]);
    const struct mpo_mixture_part last = {2, 1, first_row};
    first_row[1] = 1;
    assert_ok(mpo_mixture_normalise_part(some.mixture, &last, row + 4, log_norm));
    assert_same_bits(log_norm[0], some.log_norm[2 * 3 + 1]);
    first_row[1] = 3;
    mixture_case_logits(&some, 2, 1)[20] = NAN;
    assert_status(mpo_mixture_normalise_part(some.mixture, &part, row, log_norm),
                  MPO_ERR_DATA);
    assert_error_names("policy 2: the logits of row 1");
    assert_same_bits(log_norm[3], some.log_norm[2 * 3]);
    mixture_case_free(&some);
}

/* With mu_h = 0 and no wish for its expectation, a policy has no say in a row. */
static void a_policy_without_an_exponent_may_fail(void **state)
{
    (void)state;
    static const bool nobody[2] = {false, false};
    struct mixture_case some;
    struct mixture_case good;
    double log_policy[POLICIES];
    make_case(&some, 2);
    make_case(&good, 2);
    some.varies = good.varies = false;
    some.mu[1] = good.mu[1] = 0.0;
    mixture_case_run(&good);
    mixture_case_run(&some);
    mixture_case_logits(&some, 1, 0)[20] = NAN;
    assert_status(
        mpo_mixture_normalise(some.mixture, 1, 2, some.row + 2, some.log_norm + 2),
        MPO_ERR_DATA);
    some.exponents.expects = nobody;
    assert_ok(mpo_mixture_combine(some.mixture, &some.rows, &some.exponents, some.moments,
                                  some.expectation));
    assert_same_bits(some.moments[0].log_z, good.moments[0].log_z);
    double expected = mixture_case_score(&good, 0, 12, log_policy);
    assert_same_bits(mixture_case_score(&some, 0, 12, log_policy), expected);
    assert_true(!isfinite(log_policy[1]));
    mixture_case_free(&good);
    mixture_case_free(&some);
}

/* ---- rows without a policy ---- */

static void a_policy_without_logits_takes_no_part(void **state)
{
    (void)state;
    struct mixture_case some;
    struct mixture_case whole;
    double log_policy[2][2] = {{0.0}};
    mixture_case_make(&some, 2, 3, 50, 5.0);
    mixture_case_make(&whole, 2, 3, 50, 5.0);
    some.mu[1] = 0.0;
    whole.mu[1] = 0.0;
    mixture_case_run(&some);
    mixture_case_run(&whole);
    some.row[3 + 1] = NULL; /* of policy 1 in row 1 */
    some.log_norm[3 + 1] = NAN;
    mixture_case_combine(&some);
    assert_memory_equal(some.moments, whole.moments, 3 * sizeof *some.moments);
    for (int32_t row = 0; row < 3; row++) {
        double found = mixture_case_score(&some, row, 12, log_policy[0]);
        assert_same_bits(found, mixture_case_score(&whole, row, 12, log_policy[1]));
        for (int32_t h = 0; h < 2; h++) {
            bool is_absent = h == 1 && row == 1;
            assert_int_equal(isnan(log_policy[0][h]) != 0, is_absent);
            assert_int_equal(isnan(some.expectation[row * 2 + h]) != 0, is_absent);
            if (is_absent)
                continue;
            assert_same_bits(log_policy[0][h], log_policy[1][h]);
            assert_same_bits(some.expectation[row * 2 + h], whole.expectation[row * 2 + h]);
        }
    }
    some.row_mu[2 + 1] = 0.25;
    assert_status(mpo_mixture_combine(some.mixture, &some.rows, &some.exponents,
                                      some.moments, some.expectation),
                  MPO_ERR_USAGE);
    assert_error_names("policy 1 has no logits of row 1, and the exponent 0.25");
    mixture_case_free(&whole);
    mixture_case_free(&some);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_one_call_are_each_row_alone),
        cmocka_unit_test(questions_in_another_order_have_the_same_answers),
        cmocka_unit_test(without_expectations_everything_else_is_the_same),
        cmocka_unit_test(a_row_that_fails_leaves_the_others_as_they_are),
        cmocka_unit_test(every_row_that_fails_is_marked),
        cmocka_unit_test(a_token_without_support_fails_only_where_expectations_are_wanted),
        cmocka_unit_test(rows_of_several_policies_are_normalised_as_one_after_another),
        cmocka_unit_test(a_policy_without_an_exponent_may_fail),
        cmocka_unit_test(a_policy_without_logits_takes_no_part),
    };
    return run_cases("rows of a mixture", tests);
}
