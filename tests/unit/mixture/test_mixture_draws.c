/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws from the mixture. Inversion is deterministic, so a sweep of the uniform over a fine
 * grid must reproduce the cumulative sums exactly: no statistics are needed.
 */
#include "mixture_case.h"

#include <math.h>
#include <stdlib.h>

#include "mpo/policy.h"
#include "runner.h"

/* The cumulative sums of the truth are rounded differently, so at a distance of 1e-12 from
 * a jump either neighbour is right. */
#define JUMP 1e-12

/* Sweep u over (i + 1/2) / count: the token's interval of the distribution holds u. */
static void check_sweep(struct mixture_case *some, int32_t row, int32_t count)
{
    struct mixture_truth truth;
    double log_proposal = 0.0;
    double log_policy[MIXTURE_CASE_POLICY_MAX];
    int32_t last = -1;
    mixture_truth_make(some, row, &truth);
    double below = 0.0;
    int32_t next = 0; /* below is the sum of q over tokens before this one */
    for (int32_t i = 0; i < count; i++) {
        double uniform = (i + 0.5) / count;
        int32_t token = mixture_case_draw(some, row, &uniform, &log_proposal, log_policy);
        assert_in_range(token, 0, some->vocab_size - 1);
        assert_true(token >= last);
        while (next < token)
            below += truth.q[next++];
        assert_true(truth.q[token] > 0.0);
        assert_between(uniform, below - JUMP, below + truth.q[token] + JUMP);
        assert_close(log_proposal, log(truth.q[token]), 1e-11);
        last = token;
    }
    mixture_truth_free(&truth);
}

static void sweep_of_the_uniform_reproduces_the_distribution(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 2, 33, 1024, 1025, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct mixture_case some;
        mixture_case_make(&some, 2, 2, sizes[i], 4.0);
        some.mu[0] = 0.7;
        some.mu[1] = 0.3;
        some.end_bias = 1.0;
        if (sizes[i] > 1)
            mixture_case_mask(&some, 4, 1);
        mixture_case_run(&some);
        check_sweep(&some, 0, mixture_case_sweep(2500));
        check_sweep(&some, 1, mixture_case_sweep(2500));
        mixture_case_free(&some);
    }
}

/* Every jump of the distribution, from both sides: the token changes there
 * and nowhere else. */
static void tokens_change_at_the_cumulative_sums(void **state)
{
    (void)state;
    struct mixture_case some;
    struct mixture_truth truth;
    double log_proposal = 0.0;
    double log_policy[2];
    mixture_case_make(&some, 2, 1, 2300, 1.0);
    mixture_case_run(&some);
    mixture_truth_make(&some, 0, &truth);
    double cumulative = 0.0;
    for (int32_t token = 0; token < 2299; token++) {
        cumulative += truth.q[token];
        double before = cumulative - JUMP;
        double after = cumulative + JUMP;
        assert_int_equal(mixture_case_draw(&some, 0, &before, &log_proposal, log_policy),
                         token);
        assert_int_equal(mixture_case_draw(&some, 0, &after, &log_proposal, log_policy),
                         token + 1);
    }
    mixture_truth_free(&truth);
    mixture_case_free(&some);
}

static void extreme_uniforms_draw_tokens_of_positive_probability(void **state)
{
    (void)state;
    struct mixture_case some;
    double log_proposal = 0.0;
    double log_policy[2];
    const double lowest = 0x1p-53;
    const double highest = 1.0 - 0x1p-53;
    mixture_case_make(&some, 2, 1, 4000, 3.0);
    /* The first and the last block are masked: 1024 is the first that can be drawn. */
    some.masked_count = 0;
    for (int32_t v = 0; v < 4000; v++) {
        if (v >= 1024 && v < 3000)
            continue;
        some.masked[some.masked_count++] = v;
        mixture_case_logits(&some, 0, 0)[v] = MPO_MASKED_LOGIT;
        mixture_case_logits(&some, 1, 0)[v] = MPO_MASKED_LOGIT;
    }
    mixture_case_run(&some);
    assert_int_equal(mixture_case_draw(&some, 0, &lowest, &log_proposal, log_policy), 1024);
    assert_int_equal(mixture_case_draw(&some, 0, &highest, &log_proposal, log_policy),
                     2999);
    mixture_case_free(&some);
}

static void masked_tokens_are_never_drawn(void **state)
{
    (void)state;
    struct mixture_case some;
    double log_proposal = 0.0;
    double log_policy[2];
    mixture_case_make(&some, 2, 1, 1100, 2.0);
    mixture_case_mask(&some, 2, 1);
    /* A negative exponent makes a masked logit the largest score of all. */
    some.mu[0] = 1.5;
    some.mu[1] = -0.5;
    mixture_case_run(&some);
    for (int32_t i = 0; i < mixture_case_sweep(5000); i++) {
        double uniform = runner_uniform(3, (uint64_t)i);
        int32_t token = mixture_case_draw(&some, 0, &uniform, &log_proposal, log_policy);
        assert_int_equal(token % 2, 0);
    }
    assert_int_equal(mixture_case_draw(&some, 0, NULL, &log_proposal, log_policy) % 2, 0);
    mixture_case_free(&some);
}

static void greedy_takes_the_lowest_id_on_ties(void **state)
{
    (void)state;
    struct mixture_case some;
    double log_proposal = 0.0;
    double log_policy[2];
    mixture_case_make(&some, 2, 2, 4000, 1.0);
    static const int32_t tied[] = {3999, 2048, 2047, 1500, 600};
    for (size_t i = 0; i < sizeof tied / sizeof *tied; i++) {
        for (int32_t h = 0; h < 2; h++)
            mixture_case_logits(&some, h, 1)[tied[i]] = 5.0f;
        mixture_case_run(&some);
        assert_int_equal(mixture_case_draw(&some, 1, NULL, &log_proposal, log_policy),
                         tied[i]);
    }
    mixture_case_free(&some);
}

static void greedy_takes_the_most_probable_token(void **state)
{
    (void)state;
    struct mixture_case some;
    struct mixture_truth truth;
    double log_proposal = 0.0;
    double log_policy[3];
    mixture_case_make(&some, 3, 4, 5000, 6.0);
    mixture_case_run(&some);
    for (int32_t row = 0; row < 4; row++) {
        mixture_truth_make(&some, row, &truth);
        int32_t best = 0;
        for (int32_t v = 1; v < 5000; v++)
            if (truth.q[v] > truth.q[best])
                best = v;
        assert_int_equal(mixture_case_draw(&some, row, NULL, &log_proposal, log_policy),
                         best);
        mixture_truth_free(&truth);
    }
    mixture_case_free(&some);
}

/* Many draws at once, several of them from one row and rows out of order. */
static void score_has_the_figures_of_the_draw(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    struct mixture_case some;
    int32_t row[COUNT];
    enum mpo_mixture_kind kind[COUNT];
    int32_t token[COUNT];
    double uniform[COUNT];
    double log_proposal[COUNT];
    double log_policy[COUNT * 3];
    double scored[3];
    mixture_case_make(&some, 3, 3, 2100, 3.0);
    some.end_bias = 3.0;
    mixture_case_run(&some);
    for (int32_t i = 0; i < COUNT; i++) {
        row[i] = (i * 2) % 3;
        kind[i] = MPO_MIXTURE_DRAWN;
        uniform[i] = runner_uniform(11, (uint64_t)i);
    }
    struct mpo_mixture_draws draws = {.count = COUNT,
                                      .row = row,
                                      .kind = kind,
                                      .uniform = uniform,
                                      .token = token,
                                      .log_proposal = log_proposal,
                                      .log_policy = log_policy};
    assert_ok(mpo_mixture_draw(some.mixture, &draws));
    for (int32_t i = 0; i < COUNT; i++) {
        double alone = mixture_case_score(&some, row[i], token[i], scored);
        assert_same_bits(log_proposal[i], alone);
        for (int32_t h = 0; h < 3; h++)
            assert_same_bits(log_policy[i * 3 + h], scored[h]);
        assert_int_equal(mixture_case_draw(&some, row[i], &uniform[i], &alone, scored),
                         token[i]);
    }
    mixture_case_free(&some);
}

static void draws_from_rows_that_were_not_combined_are_refused(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 1, 2, 10, 1.0);
    mixture_case_run(&some);
    int32_t row = 2;
    int32_t token = 0;
    double log_proposal = 0.0;
    double log_policy = 0.0;
    const enum mpo_mixture_kind kind = MPO_MIXTURE_GREATEST;
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = &log_policy};
    assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_USAGE);
    mixture_case_free(&some);
}

static void a_draw_without_a_uniform_is_refused(void **state)
{
    (void)state;
    const enum mpo_mixture_kind kind = MPO_MIXTURE_DRAWN;
    struct mixture_case some;
    int32_t row = 0;
    int32_t token = 0;
    double log_proposal = 0.0;
    double log_policy = 0.0;
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = &log_policy};
    mixture_case_make(&some, 1, 1, 10, 1.0);
    mixture_case_run(&some);
    assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_USAGE);
    assert_error_names("no uniform");
    mixture_case_free(&some);
}

static void given_tokens_beyond_the_vocabulary_are_refused(void **state)
{
    (void)state;
    static const int32_t wrong[2] = {-1, 10};
    struct mixture_case some;
    mixture_case_make(&some, 1, 1, 10, 1.0);
    mixture_case_run(&some);
    for (int32_t i = 0; i < 2; i++) {
        const enum mpo_mixture_kind kind = MPO_MIXTURE_GIVEN;
        int32_t row = 0;
        int32_t token = wrong[i];
        double log_proposal = 0.0;
        double log_policy = 0.0;
        struct mpo_mixture_draws draws = {.count = 1,
                                          .row = &row,
                                          .kind = &kind,
                                          .token = &token,
                                          .log_proposal = &log_proposal,
                                          .log_policy = &log_policy};
        assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_USAGE);
        assert_error_names("of 10");
    }
    mixture_case_free(&some);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sweep_of_the_uniform_reproduces_the_distribution),
        cmocka_unit_test(tokens_change_at_the_cumulative_sums),
        cmocka_unit_test(extreme_uniforms_draw_tokens_of_positive_probability),
        cmocka_unit_test(masked_tokens_are_never_drawn),
        cmocka_unit_test(greedy_takes_the_lowest_id_on_ties),
        cmocka_unit_test(greedy_takes_the_most_probable_token),
        cmocka_unit_test(score_has_the_figures_of_the_draw),
        cmocka_unit_test(draws_from_rows_that_were_not_combined_are_refused),
        cmocka_unit_test(a_draw_without_a_uniform_is_refused),
        cmocka_unit_test(given_tokens_beyond_the_vocabulary_are_refused),
    };
    return run_cases("mixture draws", tests);
}
