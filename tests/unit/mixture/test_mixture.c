/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture at one position against scalar code in long double, and the identities that
 * it must keep. 1e-12 is asked for everywhere: the figures are sums of up to 49152 terms in
 * double, whose rounding is some 1e-14 of their size.
 */
#include "mixture_case.h"

#include <math.h>
#include <string.h>

#include "mpo/policy.h"
#include "runner.h"

#define BOUND 1e-12

static void mixture_of_one_policy_is_that_policy(void **state)
{
    (void)state;
    struct mixture_case one;
    struct mixture_truth truth;
    double log_policy = 0.0;
    mixture_case_make(&one, 1, 2, 1500, 6.0);
    one.temperature[0] = 0.7;
    mixture_case_run(&one);
    for (int32_t row = 0; row < 2; row++) {
        mixture_truth_make(&one, row, &truth);
        assert_close(one.moments[row].log_z, 0.0, BOUND);
        assert_close(one.moments[row].entropy, -one.expectation[row], BOUND);
        for (int32_t token = 0; token < 1500; token += 7) {
            double log_proposal = mixture_case_score(&one, row, token, &log_policy);
            assert_close(log_proposal, log_policy, BOUND);
            assert_close(log_policy, log(truth.q[token]), BOUND);
        }
        mixture_truth_free(&truth);
    }
    mixture_case_free(&one);
}

static void mixture_of_equal_policies_is_that_policy(void **state)
{
    (void)state;
    struct mixture_case equal;
    double log_policy[3];
    mixture_case_make(&equal, 3, 1, 1100, 4.0);
    for (int32_t h = 1; h < 3; h++)
        memcpy(mixture_case_logits(&equal, h, 0), mixture_case_logits(&equal, 0, 0),
               1100 * sizeof(float));
    equal.mu[0] = 0.2;
    equal.mu[1] = 0.5;
    equal.mu[2] = 0.3;
    mixture_case_run(&equal);
    assert_close(equal.moments[0].log_z, 0.0, BOUND);
    double log_proposal = mixture_case_score(&equal, 0, 5, log_policy);
    assert_close(log_proposal, log_policy[0], BOUND);
    mixture_case_free(&equal);
}

static void constants_added_to_logits_change_nothing(void **state)
{
    (void)state;
    struct mixture_case plain;
    struct mixture_case shifted;
    /* Multiples of 1/64 and shifts by whole numbers: the shifted floats are exact. */
    mixture_case_make(&plain, 3, 2, 2000, 5.0);
    mixture_case_make(&shifted, 3, 2, 2000, 5.0);
    for (int32_t i = 0; i < 3 * 2 * 2000; i++) {
        plain.logits[i] = rintf(plain.logits[i] * 64.0f) / 64.0f;
        shifted.logits[i] = plain.logits[i] + (float)(100 * (i / 4000) - 37);
    }
    mixture_case_run(&plain);
    mixture_case_run(&shifted);
    for (int32_t row = 0; row < 2; row++) {
        assert_close(shifted.moments[row].log_z, plain.moments[row].log_z, BOUND);
        assert_close(shifted.moments[row].entropy, plain.moments[row].entropy, BOUND);
        for (int32_t h = 0; h < 3; h++)
            assert_close(shifted.expectation[row * 3 + h], plain.expectation[row * 3 + h],
                         BOUND);
    }
    mixture_case_free(&shifted);
    mixture_case_free(&plain);
}

static void permuted_policies_give_the_same_mixture(void **state)
{
    (void)state;
    static const int32_t order[3] = {2, 0, 1};
    struct mixture_case plain;
    struct mixture_case permuted;
    mixture_case_make(&plain, 3, 1, 1300, 5.0);
    mixture_case_make(&permuted, 3, 1, 1300, 5.0);
    for (int32_t h = 0; h < 3; h++) {
        plain.mu[h] = 0.1 + 0.2 * h;
        plain.temperature[h] = 0.6 + 0.3 * h;
    }
    for (int32_t h = 0; h < 3; h++) {
        permuted.mu[h] = plain.mu[order[h]];
        permuted.temperature[h] = plain.temperature[order[h]];
        memcpy(mixture_case_logits(&permuted, h, 0),
               mixture_case_logits(&plain, order[h], 0), 1300 * sizeof(float));
    }
    mixture_case_run(&plain);
    mixture_case_run(&permuted);
    assert_close(permuted.moments[0].log_z, plain.moments[0].log_z, BOUND);
    assert_close(permuted.moments[0].entropy, plain.moments[0].entropy, BOUND);
    for (int32_t h = 0; h < 3; h++)
        assert_close(permuted.expectation[h], plain.expectation[order[h]], BOUND);
    mixture_case_free(&permuted);
    mixture_case_free(&plain);
}

/* Sizes around the block of 1024 tokens, and that of a real vocabulary. */
static void figures_agree_with_scalar_code_at_every_vocabulary_size(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 2, 33, 1023, 1024, 1025, 2048, 5000, 49152};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct mixture_case some;
        mixture_case_make(&some, 3, 2, sizes[i], 8.0);
        some.mu[0] = 0.5;
        some.mu[1] = 0.3;
        some.mu[2] = 0.2;
        some.temperature[1] = 0.7;
        some.temperature[2] = 1.3;
        some.end_bias = 1.5;
        mixture_case_run(&some);
        mixture_case_check(&some, BOUND);
        mixture_case_free(&some);
    }
}

static void exponents_may_be_zero_negative_or_large(void **state)
{
    (void)state;
    static const double exponents[5][3] = {{0.0, 0.0, 0.0},
                                           {0.0, 1.0, 0.0},
                                           {1.5, -0.5, 0.0},
                                           {2.0, 2.0, -1.0},
                                           {0.0, 0.0, 3.0}};
    struct mixture_case some;
    mixture_case_make(&some, 3, 2, 2100, 3.0);
    mixture_case_mask(&some, 10, 3);
    mixture_case_run(&some);
    for (int32_t i = 0; i < 5; i++) {
        memcpy(some.mu, exponents[i], sizeof exponents[i]);
        some.end_bias = i == 0 ? 0.0 : -0.25 * i;
        mixture_case_combine(&some);
        mixture_case_check(&some, BOUND);
    }
    mixture_case_free(&some);
}

static void zero_exponents_give_the_uniform_distribution(void **state)
{
    (void)state;
    struct mixture_case flat;
    mixture_case_make(&flat, 2, 1, 1200, 9.0);
    mixture_case_mask(&flat, 3, 1);
    flat.mu[0] = 0.0;
    flat.mu[1] = 0.0;
    mixture_case_run(&flat);
    assert_close(flat.moments[0].log_z, log(800.0), BOUND);
    assert_close(flat.moments[0].entropy, log(800.0), BOUND);
    mixture_case_free(&flat);
}

static void masked_tokens_are_as_if_they_were_not_there(void **state)
{
    (void)state;
    struct mixture_case masked;
    struct mixture_case removed;
    mixture_case_make(&masked, 2, 1, 3000, 5.0);
    mixture_case_make(&removed, 2, 1, 2000, 5.0);
    mixture_case_mask(&masked, 3, 0);
    masked.end_token[0] = 2998;
    removed.end_token[0] = 1998;
    for (int32_t h = 0; h < 2; h++)
        for (int32_t v = 0; v < 2000; v++)
            mixture_case_logits(&removed, h, 0)[v] =
                mixture_case_logits(&masked, h, 0)[v / 2 * 3 + v % 2 + 1];
    mixture_case_run(&masked);
    mixture_case_run(&removed);
    assert_close(masked.moments[0].log_z, removed.moments[0].log_z, BOUND);
    assert_close(masked.moments[0].entropy, removed.moments[0].entropy, BOUND);
    assert_close(masked.moments[0].end_probability, removed.moments[0].end_probability,
                 BOUND);
    assert_true(masked.moments[0].end_probability > 0.0);
    assert_close(masked.expectation[1], removed.expectation[1], BOUND);
    mixture_case_free(&removed);
    mixture_case_free(&masked);
}

static void a_block_may_be_masked_altogether(void **state)
{
    (void)state;
    for (int32_t block = 0; block < 3; block++) {
        struct mixture_case some;
        mixture_case_make(&some, 2, 1, 3 * MPO_ROWS_BLOCK, 5.0);
        some.masked_count = MPO_ROWS_BLOCK;
        for (int32_t i = 0; i < MPO_ROWS_BLOCK; i++) {
            some.masked[i] = block * MPO_ROWS_BLOCK + i;
            mixture_case_logits(&some, 0, 0)[some.masked[i]] = MPO_MASKED_LOGIT;
            mixture_case_logits(&some, 1, 0)[some.masked[i]] = MPO_MASKED_LOGIT;
        }
        mixture_case_run(&some);
        mixture_case_check(&some, BOUND);
        mixture_case_free(&some);
    }
}

static void end_tilt_multiplies_the_odds_of_ending(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 2, 1, 1030, 3.0);
    some.end_count = 3;
    some.end_token[0] = 4;
    some.end_token[1] = 1023;
    some.end_token[2] = 1024;
    mixture_case_run(&some);
    double before = some.moments[0].end_probability;
    some.end_bias = 2.5;
    mixture_case_combine(&some);
    double after = some.moments[0].end_probability;
    assert_close(log(after / (1.0 - after)) - log(before / (1.0 - before)), 2.5, BOUND);
    mixture_case_check(&some, BOUND);
    mixture_case_free(&some);
}

/* Two policies so sure of different tokens that every product of probabilities underflows:
 * the log of it does not. Figures of size 1000 are rounded at 1e-13. */
static void sharp_rows_do_not_underflow(void **state)
{
    (void)state;
    struct mixture_case sharp;
    mixture_case_make(&sharp, 2, 1, 1100, 1.0);
    for (int32_t v = 0; v < 1100; v++) {
        mixture_case_logits(&sharp, 0, 0)[v] = v == 3 ? 1000.0f : -1000.0f;
        mixture_case_logits(&sharp, 1, 0)[v] = v == 1050 ? 1000.0f : -1000.0f;
    }
    mixture_case_run(&sharp);
    mixture_case_check(&sharp, 3e-12);
    assert_close(sharp.moments[0].log_z, -1000.0 + log(2.0), 3e-12);
    assert_close(sharp.moments[0].entropy, log(2.0), 3e-12);
    sharp.mu[0] = 0.75;
    sharp.mu[1] = 0.25;
    mixture_case_combine(&sharp);
    mixture_case_check(&sharp, 3e-12);
    assert_close(sharp.moments[0].log_z, -500.0, 3e-12);
    mixture_case_free(&sharp);
}

/* log Z <= 0 on the simplex, 0 at each vertex: Hoelder's inequality. */
static void log_z_is_negative_inside_the_simplex_and_zero_at_its_vertices(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 3, 1, 1500, 2.0);
    mixture_case_run(&some);
    assert_true(some.moments[0].log_z < -1e-3);
    for (int32_t vertex = 0; vertex < 3; vertex++) {
        for (int32_t h = 0; h < 3; h++)
            some.mu[h] = h == vertex ? 1.0 : 0.0;
        mixture_case_combine(&some);
        assert_close(some.moments[0].log_z, 0.0, BOUND);
    }
    mixture_case_free(&some);
}

/* d log Z / d mu_h = E_q log pi_h: the central difference has an error of some 1e-9. */
static void expectation_is_the_derivative_of_log_z(void **state)
{
    (void)state;
    struct mixture_case some;
    double expectation[3];
    mixture_case_make(&some, 3, 1, 1500, 2.0);
    some.end_bias = 1.0;
    mixture_case_run(&some);
    memcpy(expectation, some.expectation, sizeof expectation);
    for (int32_t h = 0; h < 3; h++) {
        some.mu[h] += 1e-5;
        mixture_case_combine(&some);
        double above = some.moments[0].log_z;
        some.mu[h] -= 2e-5;
        mixture_case_combine(&some);
        double below = some.moments[0].log_z;
        some.mu[h] += 1e-5;
        assert_close((above - below) / 2e-5, expectation[h], 1e-7);
    }
    mixture_case_free(&some);
}

static void rows_with_a_nan_or_without_a_finite_logit_are_refused(void **state)
{
    (void)state;
    static const float wrong[2] = {NAN, INFINITY};
    struct mixture_case some;
    double norm = 0.0;
    mixture_case_make(&some, 2, 1, 1100, 1.0);
    mixture_case_run(&some);
    const float *row = mixture_case_logits(&some, 1, 0);
    for (int32_t i = 0; i < 2; i++)
        for (int32_t at = 0; at < 1100; at += 1099) {
            float kept = row[at];
            mixture_case_logits(&some, 1, 0)[at] = wrong[i];
            assert_status(mpo_mixture_normalise(some.mixture, 1, 1, &row, &norm),
                          MPO_ERR_DATA);
            mixture_case_logits(&some, 1, 0)[at] = kept;
        }
    for (int32_t v = 0; v < 1100; v++)
        mixture_case_logits(&some, 1, 0)[v] = v % 2 ? -INFINITY : MPO_MASKED_LOGIT;
    assert_status(mpo_mixture_normalise(some.mixture, 1, 1, &row, &norm), MPO_ERR_DATA);
    mixture_case_free(&some);
}

static void combinations_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 2, 2, 1100, 1.0);
    mixture_case_run(&some);
    mixture_case_logits(&some, 0, 1)[7] = -INFINITY;
    assert_status(mpo_mixture_combine(some.mixture, &some.rows, &some.exponents,
                                      some.moments, some.expectation),
                  MPO_ERR_DATA);
    assert_error_names("row 1");
    mixture_case_free(&some);
}

static void absent_devices_and_empty_vocabularies_are_refused(void **state)
{
    (void)state;
    static const int32_t both[2] = {0, 1};
    const double temperature = 1.0;
    struct mpo_mixture *mixture = NULL;
    struct mpo_mixture_spec spec = {.device = "abacus",
                                    .temperature = &temperature,
                                    .end_token = both,
                                    .masked = both,
                                    .policy_count = 1,
                                    .end_count = 1,
                                    .vocab_size = 2,
                                    .row_capacity = 1};
    assert_status(mpo_mixture_open(&spec, &mixture), MPO_ERR_DEVICE);
    assert_error_names("abacus");
    assert_error_names("cpu");
    assert_null(mixture);
    spec.device = "cpu";
    spec.masked_count = 2;
    assert_status(mpo_mixture_open(&spec, &mixture), MPO_ERR_DATA);
    assert_null(mixture);
    mpo_mixture_close(&mixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixture_of_one_policy_is_that_policy),
        cmocka_unit_test(mixture_of_equal_policies_is_that_policy),
        cmocka_unit_test(constants_added_to_logits_change_nothing),
        cmocka_unit_test(permuted_policies_give_the_same_mixture),
        cmocka_unit_test(figures_agree_with_scalar_code_at_every_vocabulary_size),
        cmocka_unit_test(exponents_may_be_zero_negative_or_large),
        cmocka_unit_test(zero_exponents_give_the_uniform_distribution),
        cmocka_unit_test(masked_tokens_are_as_if_they_were_not_there),
        cmocka_unit_test(a_block_may_be_masked_altogether),
        cmocka_unit_test(end_tilt_multiplies_the_odds_of_ending),
        cmocka_unit_test(sharp_rows_do_not_underflow),
        cmocka_unit_test(log_z_is_negative_inside_the_simplex_and_zero_at_its_vertices),
        cmocka_unit_test(expectation_is_the_derivative_of_log_z),
        cmocka_unit_test(rows_with_a_nan_or_without_a_finite_logit_are_refused),
        cmocka_unit_test(combinations_that_are_not_finite_are_refused),
        cmocka_unit_test(absent_devices_and_empty_vocabularies_are_refused),
    };
    return run_cases("mixture", tests);
}
