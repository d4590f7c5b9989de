/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mirror descent on exact problems: F and its gradient of bigrams are known to rounding, so
 * that the bounds of theory hold without an exception.
 */
#include <math.h>

#include "bigram.h"
#include "mpo/descent.h"
#include "runner.h"

enum { K_MAX = 4, STEPS = 30 };

static struct mpo_descent *open_descent(enum mpo_step_rule rule, double constant,
                                        int32_t count)
{
    struct mpo_descent *descent = NULL;
    const struct mpo_descent_spec spec = {.map = "entropy",
                                          .step_rule = rule,
                                          .step_constant = constant,
                                          .steps = STEPS,
                                          .objective_count = count,
                                          .averaging = MPO_AVERAGING_UNIFORM};
    assert_ok(mpo_descent_open(&spec, &descent));
    return descent;
}

static struct bigram *open_bigram(uint64_t seed, int32_t policy_count)
{
    enum { VOCAB = 5 };
    static const int32_t end_token[1] = {VOCAB - 1};
    static const int32_t start[2] = {0, 1};
    float logits[K_MAX * VOCAB * VOCAB];
    bigram_random_logits(seed, 2.0, K_MAX * VOCAB * VOCAB, logits);
    const struct bigram_spec spec = {.logits = logits,
                                     .end_token = end_token,
                                     .start = start,
                                     .policy_count = policy_count,
                                     .vocab_size = VOCAB,
                                     .state_count = VOCAB,
                                     .end_count = 1,
                                     .start_count = 2,
                                     .max_tokens = 16};
    return bigram_open(&spec);
}

/* Descend on the exact F; returns the sum of r_t^2 that bounds of the regret are made of.
 */
static double descend(struct mpo_descent *descent, const struct bigram *bigram,
                      int32_t count, int32_t steps)
{
    double squares = 0.0;
    for (int32_t step = 0; step < steps; step++) {
        double gradient[K_MAX];
        bigram_gradient(bigram, mpo_descent_weights(descent), gradient);
        double low = INFINITY;
        double high = -INFINITY;
        for (int32_t k = 0; k < count; k++) {
            low = fmin(low, gradient[k]);
            high = fmax(high, gradient[k]);
        }
        squares += 0.25 * (high - low) * (high - low);
        assert_ok(mpo_descent_step(descent, gradient));
    }
    return squares;
}

/* With exact gradients 0 <= F(average) - F* <= averaged gap for certain, by convexity; and
 * the gap is the regret over T, which theory bounds: log K / eta + eta sum r^2 / 2 for the
 * fixed step (Hoeffding's lemma), 3 sqrt(log K sum r^2) for the adaptive one (a constant
 * above that of Orabona & Pal). */
static void check_convergence(enum mpo_step_rule rule, int32_t count, uint64_t seed)
{
    struct bigram *bigram = open_bigram(seed, count);
    struct mpo_descent *descent = open_descent(rule, 0.3, count);
    double optimum[K_MAX];
    double least = bigram_optimum(bigram, optimum);
    double squares = descend(descent, bigram, count, STEPS);
    double excess = bigram_value(bigram, mpo_descent_average(descent)) - least;
    double gap = mpo_descent_averaged_gap(descent);
    double size = 0.3 / sqrt(STEPS);
    bool is_fixed = rule == MPO_STEP_RULE_FIXED;
    double regret = is_fixed ? log(count) / size + 0.5 * size * squares
                             : 3.0 * sqrt(log(count) * squares);
    assert_between(excess, -1e-11, gap + 1e-11);
    assert_between(gap, -1e-11, regret / STEPS);
    mpo_descent_close(&descent);
    bigram_close(&bigram);
}

static void averaged_gap_bounds_the_excess_and_theory_bounds_the_gap(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++)
        for (int32_t count = 2; count <= K_MAX; count++) {
            check_convergence(MPO_STEP_RULE_FIXED, count, seed);
            check_convergence(MPO_STEP_RULE_ADAPTIVE, count, seed);
        }
}

static void descent_on_the_exact_objective_finds_the_optimum(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[2] = {MPO_STEP_RULE_DECREASING,
                                                MPO_STEP_RULE_ADAPTIVE};
    for (int32_t i = 0; i < 2; i++)
        for (uint64_t seed = 1; seed <= 5; seed++) {
            struct bigram *bigram = open_bigram(seed, 3);
            struct mpo_descent *descent = open_descent(rules[i], 0.3, 3);
            double optimum[K_MAX];
            double least = bigram_optimum(bigram, optimum);
            descend(descent, bigram, 3, 4000);
            assert_between(bigram_value(bigram, mpo_descent_average(descent)) - least,
                           -1e-11, 1e-3);
            assert_between(bigram_value(bigram, mpo_descent_weights(descent)) - least,
                           -1e-11, 1e-3);
            mpo_descent_close(&descent);
            bigram_close(&bigram);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(averaged_gap_bounds_the_excess_and_theory_bounds_the_gap),
        cmocka_unit_test(descent_on_the_exact_objective_finds_the_optimum),
    };
    return run_cases("descent on exact problems", tests);
}
