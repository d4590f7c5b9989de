/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ground truth that other tests stand on: the recursion against brute force over every
 * response, its gradient against central differences, and the solver against its own
 * optimality conditions.
 */
#include "bigram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

enum { POLICIES = 3, VOCAB = 3, STATES = VOCAB + 1, LENGTH = 5 };

static struct bigram *make(uint64_t seed, double strength, int32_t max_tokens)
{
    static const double temperature[POLICIES] = {1.0, 0.7, 1.4};
    static const int32_t end_token[1] = {VOCAB - 1};
    static const int32_t start[2] = {VOCAB, 0};
    float logits[POLICIES * STATES * VOCAB];
    bigram_random_logits(seed, strength, POLICIES * STATES * VOCAB, logits);
    const struct bigram_spec spec = {.logits = logits,
                                     .temperature = temperature,
                                     .end_token = end_token,
                                     .start = start,
                                     .policy_count = POLICIES,
                                     .vocab_size = VOCAB,
                                     .state_count = STATES,
                                     .end_count = 1,
                                     .start_count = 2,
                                     .max_tokens = max_tokens};
    return bigram_open(&spec);
}

/* Sums over every response from one start state. */
struct brute {
    const struct bigram *bigram;
    const double *weights;
    int32_t start;
    double z;                  /* sum_y prod_k pi_k(y)^l_k */
    double weighted[POLICIES]; /* sum_y prod_k pi_k(y)^l_k log pi_k(y) */
    double total[POLICIES];    /* sum_y pi_k(y) */
};

static void add_response(void *context, const int32_t *token, int32_t token_count)
{
    struct brute *brute = context;
    double log_policy[POLICIES];
    double combined = 0.0;
    for (int32_t k = 0; k < POLICIES; k++) {
        log_policy[k] =
            bigram_log_response(brute->bigram, k, brute->start, token, token_count);
        combined += brute->weights[k] * log_policy[k];
        brute->total[k] += exp(log_policy[k]);
    }
    brute->z += exp(combined);
    for (int32_t k = 0; k < POLICIES; k++)
        brute->weighted[k] += exp(combined) * log_policy[k];
}

static void recursion_agrees_with_the_sum_over_every_response(void **state)
{
    (void)state;
    const double weights[POLICIES] = {0.5, 0.3, 0.2};
    struct bigram *bigram = make(1, 2.0, LENGTH);
    double value = 0.0;
    double expected[POLICIES] = {0};
    double gradient[POLICIES];
    for (int32_t x = 0; x < 2; x++) {
        struct brute brute = {.bigram = bigram, .weights = weights, .start = x ? 0 : VOCAB};
        /* 1 response of one token, 2 of two, ..., and 2^4 * 3 of five. */
        assert_int_equal(bigram_enumerate(bigram, add_response, &brute), 15 + 48);
        for (int32_t k = 0; k < POLICIES; k++)
            assert_close(brute.total[k], 1.0, 1e-13);
        value += log(brute.z) / 2.0;
        for (int32_t k = 0; k < POLICIES; k++)
            expected[k] += brute.weighted[k] / brute.z / 2.0;
    }
    assert_close(bigram_value(bigram, weights), value, 1e-13);
    assert_close(bigram_gradient(bigram, weights, gradient), value, 1e-13);
    for (int32_t k = 0; k < POLICIES; k++)
        assert_close(gradient[k], expected[k], 1e-13);
    bigram_close(&bigram);
}

static void gradient_agrees_with_central_differences(void **state)
{
    (void)state;
    double weights[POLICIES] = {0.2, 0.2, 0.6};
    double gradient[POLICIES];
    struct bigram *bigram = make(2, 2.0, 30);
    bigram_gradient(bigram, weights, gradient);
    for (int32_t k = 0; k < POLICIES; k++) {
        double kept = weights[k];
        weights[k] = kept + 1e-5;
        double above = bigram_value(bigram, weights);
        weights[k] = kept - 1e-5;
        double below = bigram_value(bigram, weights);
        weights[k] = kept;
        assert_close((above - below) / 2e-5, gradient[k], 1e-7);
    }
    bigram_close(&bigram);
}

static void value_is_convex_negative_and_zero_at_the_vertices(void **state)
{
    (void)state;
    struct bigram *bigram = make(3, 2.0, 20);
    for (int32_t vertex = 0; vertex < POLICIES; vertex++) {
        double corner[POLICIES] = {0};
        corner[vertex] = 1.0;
        assert_close(bigram_value(bigram, corner), 0.0, 1e-12);
    }
    for (uint64_t i = 0; i < 200; i++) {
        double ends[2][POLICIES];
        double middle[POLICIES];
        for (int32_t end = 0; end < 2; end++) {
            double u = runner_uniform(4, 4 * i + 2 * (uint64_t)end);
            double v = runner_uniform(4, 4 * i + 2 * (uint64_t)end + 1);
            ends[end][0] = fmin(u, v);
            ends[end][1] = fabs(u - v);
            ends[end][2] = 1.0 - fmax(u, v);
        }
        for (int32_t k = 0; k < POLICIES; k++)
            middle[k] = 0.5 * (ends[0][k] + ends[1][k]);
        double between =
            0.5 * (bigram_value(bigram, ends[0]) + bigram_value(bigram, ends[1]));
        assert_true(bigram_value(bigram, middle) <= between + 1e-13);
        assert_true(between <= 1e-13);
    }
    bigram_close(&bigram);
}

/* At the optimum the objectives that count are equally far, and no other is farther. */
static void optimum_is_equally_far_from_the_policies_that_count(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct bigram *bigram = make(seed, 2.0, 16);
        double weights[POLICIES];
        double divergence[POLICIES];
        double least = bigram_optimum(bigram, weights);
        double farthest = 0.0;
        bigram_divergence(bigram, weights, divergence);
        for (int32_t k = 0; k < POLICIES; k++)
            farthest = fmax(farthest, divergence[k]);
        /* F* = -max_k KL(pi_l* || pi_k), and every k with a weight attains the maximum. */
        assert_close(least, -farthest, 1e-10);
        for (int32_t k = 0; k < POLICIES; k++)
            if (weights[k] > 1e-6)
                assert_close(divergence[k], farthest, 1e-5);
        bigram_close(&bigram);
    }
}

static void optimum_is_not_above_any_other_point(void **state)
{
    (void)state;
    struct bigram *bigram = make(5, 3.0, 16);
    double weights[POLICIES];
    double least = bigram_optimum(bigram, weights);
    for (int32_t i = 0; i <= 20; i++)
        for (int32_t j = 0; i + j <= 20; j++) {
            double other[POLICIES] = {i / 20.0, j / 20.0, (20 - i - j) / 20.0};
            assert_true(bigram_value(bigram, other) >= least - 1e-12);
        }
    bigram_close(&bigram);
}

/* A policy between two others is served already: its weight is exactly 0. */
static void optimum_may_lie_on_a_face(void **state)
{
    (void)state;
    static const int32_t end_token[1] = {1};
    static const int32_t start[1] = {2};
    float logits[3 * 3 * 2];
    for (int32_t s = 0; s < 3; s++)
        for (int32_t v = 0; v < 2; v++) {
            logits[(0 * 3 + s) * 2 + v] = v ? 1.0f : -1.0f;
            logits[(1 * 3 + s) * 2 + v] = v ? -1.0f : 1.0f;
            logits[(2 * 3 + s) * 2 + v] = 0.0f;
        }
    const struct bigram_spec spec = {logits, NULL, end_token, start, 3, 2, 3, 1, 1, 1};
    struct bigram *bigram = bigram_open(&spec);
    double weights[3];
    bigram_optimum(bigram, weights);
    assert_close(weights[0], 0.5, 1e-6);
    assert_close(weights[1], 0.5, 1e-6);
    assert_close(weights[2], 0.0, 0.0);
    bigram_close(&bigram);
}

static void one_policy_has_value_zero_and_weight_one(void **state)
{
    (void)state;
    static const int32_t end_token[1] = {2};
    static const int32_t start[1] = {0};
    float logits[9];
    double weights[1] = {0};
    bigram_random_logits(8, 2.0, 9, logits);
    const struct bigram_spec spec = {logits, NULL, end_token, start, 1, 3, 3, 1, 1, 40};
    struct bigram *bigram = bigram_open(&spec);
    assert_close(bigram_optimum(bigram, weights), 0.0, 1e-12);
    assert_close(weights[0], 1.0, 0.0);
    bigram_close(&bigram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recursion_agrees_with_the_sum_over_every_response),
        cmocka_unit_test(gradient_agrees_with_central_differences),
        cmocka_unit_test(value_is_convex_negative_and_zero_at_the_vertices),
        cmocka_unit_test(optimum_is_equally_far_from_the_policies_that_count),
        cmocka_unit_test(optimum_is_not_above_any_other_point),
        cmocka_unit_test(optimum_may_lie_on_a_face),
        cmocka_unit_test(one_policy_has_value_zero_and_weight_one),
    };
    return run_cases("bigram ground truth", tests);
}
