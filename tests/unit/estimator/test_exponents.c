/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exponents: mu sums to 1 where a reference is hosted, weights stay what they are to the
 * bit, and scores follow from their formula.
 */
#include "mpo/exponents.h"

#include "runner.h"

enum { K = 3, H = 4 };

static const double weights[K] = {0.2, 0.5, 0.3};
static const double scale[K] = {1.0, 0.5, 2.0};
static const double figure[H] = {-3.0, -5.0, -4.0, -6.0};

static void without_strength_and_scales_they_are_the_weights(void **state)
{
    (void)state;
    static const double ones[K] = {1.0, 1.0, 1.0};
    const struct mpo_exponents plain[2] = {{K, H, 1.0, NULL}, {K, H, 1.0, ones}};
    for (int i = 0; i < 2; i++) {
        double mu[H];
        assert_true(mpo_exponents_are_weights(&plain[i]));
        mpo_exponents_of(&plain[i], weights, mu);
        for (int32_t k = 0; k < K; k++) {
            assert_same_bits(mu[k], weights[k]);
            assert_same_bits(mpo_exponents_score(&plain[i], figure, k), figure[k]);
        }
        assert_same_bits(mu[K], 0.0);
    }
}

static void the_reference_has_what_is_left_of_one(void **state)
{
    (void)state;
    const struct mpo_exponents exponents = {K, H, 1.5, scale};
    double mu[H];
    assert_false(mpo_exponents_are_weights(&exponents));
    mpo_exponents_of(&exponents, weights, mu);
    assert_close(mu[0], 1.5 * 0.2, 1e-15);
    assert_close(mu[1], 1.5 * 0.5 * 0.5, 1e-15);
    assert_close(mu[2], 1.5 * 2.0 * 0.3, 1e-15);
    assert_close(mu[0] + mu[1] + mu[2] + mu[3], 1.0, 1e-15);
}

static void a_score_is_the_scaled_distance_from_the_reference(void **state)
{
    (void)state;
    const struct mpo_exponents scaled = {K, H, 1.0, scale};
    const struct mpo_exponents strong = {K, H, 2.0, NULL};
    for (int32_t k = 0; k < K; k++) {
        assert_close(mpo_exponents_score(&scaled, figure, k),
                     scale[k] * (figure[k] - figure[K]), 1e-15);
        assert_close(mpo_exponents_score(&strong, figure, k), figure[k] - figure[K], 1e-15);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_strength_and_scales_they_are_the_weights),
        cmocka_unit_test(the_reference_has_what_is_left_of_one),
        cmocka_unit_test(a_score_is_the_scaled_distance_from_the_reference),
    };
    return run_cases("exponents", tests);
}
