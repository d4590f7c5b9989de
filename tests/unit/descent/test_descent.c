/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mirror descent: every step rule against its closed form, and what any of them must keep
 * (the simplex, symmetry, refusal of bad input).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/descent.h"
#include "runner.h"

enum { K_MAX = 4, STEPS = 30 };

static struct mpo_descent *open_descent(enum mpo_step_rule rule, double constant,
                                        int32_t count, const double *initial)
{
    struct mpo_descent *descent = NULL;
    const struct mpo_descent_spec spec = {
        "entropy", rule, constant, STEPS, count, initial, NULL, MPO_AVERAGING_UNIFORM};
    assert_ok(mpo_descent_open(&spec, &descent));
    return descent;
}

static void make_gradient(uint64_t seed, int64_t step, int32_t count, double *gradient)
{
    for (int32_t k = 0; k < count; k++)
        gradient[k] =
            -10.0 + 6.0 * runner_uniform(seed, (uint64_t)(step * count + k)) - 0.5 * k;
}

/* weights ~ exp(logarithm), in place. */
static void normalise(double *logarithm, double *weights, int32_t count)
{
    double top = -INFINITY;
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++)
        top = fmax(top, logarithm[k]);
    for (int32_t k = 0; k < count; k++)
        sum += exp(logarithm[k] - top);
    for (int32_t k = 0; k < count; k++) {
        logarithm[k] -= top + log(sum);
        weights[k] = exp(logarithm[k]);
    }
}

static void check_rule_against_closed_form(enum mpo_step_rule rule, double constant)
{
    static const double initial[3] = {0.5, 0.3, 0.2};
    struct mpo_descent *descent = open_descent(rule, constant, 3, initial);
    bool is_fixed = rule == MPO_STEP_RULE_FIXED;
    double logarithm[3];
    double weights[3];
    double gradient[3];
    for (int32_t k = 0; k < 3; k++)
        logarithm[k] = log(initial[k]);
    for (int64_t step = 0; step < STEPS; step++) {
        double size = constant / sqrt(is_fixed ? (double)STEPS : (double)(step + 1));
        make_gradient(1, step, 3, gradient);
        assert_ok(mpo_descent_step(descent, gradient));
        for (int32_t k = 0; k < 3; k++)
            logarithm[k] -= size * gradient[k];
        normalise(logarithm, weights, 3);
        assert_close(mpo_descent_step_size(descent), size, 1e-15);
        for (int32_t k = 0; k < 3; k++)
            assert_close(mpo_descent_weights(descent)[k], weights[k], 1e-13);
    }
    mpo_descent_close(&descent);
}

static void fixed_steps_follow_their_closed_form(void **state)
{
    (void)state;
    check_rule_against_closed_form(MPO_STEP_RULE_FIXED, 0.5);
    check_rule_against_closed_form(MPO_STEP_RULE_FIXED, 3.0);
}

static void decreasing_steps_follow_their_closed_form(void **state)
{
    (void)state;
    check_rule_against_closed_form(MPO_STEP_RULE_DECREASING, 0.5);
    check_rule_against_closed_form(MPO_STEP_RULE_DECREASING, 3.0);
}

static void adaptive_steps_are_dual_averaging(void **state)
{
    (void)state;
    static const double initial[3] = {0.6, 0.3, 0.1};
    struct mpo_descent *descent = open_descent(MPO_STEP_RULE_ADAPTIVE, 1.0, 3, initial);
    double sum[3] = {0};
    double squares = 0.0;
    for (int64_t step = 0; step < STEPS; step++) {
        double gradient[3];
        double logarithm[3];
        double weights[3];
        make_gradient(2, step, 3, gradient);
        assert_ok(mpo_descent_step(descent, gradient));
        double low = fmin(gradient[0], fmin(gradient[1], gradient[2]));
        double high = fmax(gradient[0], fmax(gradient[1], gradient[2]));
        squares += 0.25 * (high - low) * (high - low);
        double size = sqrt(log(3.0) / squares);
        for (int32_t k = 0; k < 3; k++) {
            sum[k] += gradient[k];
            logarithm[k] = log(initial[k]) - size * sum[k];
        }
        normalise(logarithm, weights, 3);
        assert_close(mpo_descent_step_size(descent), size, 1e-15);
        for (int32_t k = 0; k < 3; k++)
            assert_close(mpo_descent_weights(descent)[k], weights[k], 1e-13);
    }
    mpo_descent_close(&descent);
}

static void adaptive_steps_have_no_scale(void **state)
{
    (void)state;
    struct mpo_descent *plain = open_descent(MPO_STEP_RULE_ADAPTIVE, 1.0, 3, NULL);
    struct mpo_descent *scaled = open_descent(MPO_STEP_RULE_ADAPTIVE, 1.0, 3, NULL);
    for (int64_t step = 0; step < STEPS; step++) {
        double gradient[3];
        double times[3];
        make_gradient(3, step, 3, gradient);
        for (int32_t k = 0; k < 3; k++)
            times[k] = 4096.0 * gradient[k];
        assert_ok(mpo_descent_step(plain, gradient));
        assert_ok(mpo_descent_step(scaled, times));
        for (int32_t k = 0; k < 3; k++)
            assert_close(mpo_descent_weights(scaled)[k], mpo_descent_weights(plain)[k],
                         1e-13);
    }
    mpo_descent_close(&scaled);
    mpo_descent_close(&plain);
}

static void equal_gradients_leave_the_weights_alone(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[3] = {
        MPO_STEP_RULE_FIXED, MPO_STEP_RULE_DECREASING, MPO_STEP_RULE_ADAPTIVE};
    static const double initial[3] = {0.6, 0.3, 0.1};
    const double gradient[3] = {-7.0, -7.0, -7.0};
    for (int32_t i = 0; i < 3; i++) {
        struct mpo_descent *descent = open_descent(rules[i], 1.0, 3, initial);
        for (int32_t step = 0; step < 5; step++)
            assert_ok(mpo_descent_step(descent, gradient));
        for (int32_t k = 0; k < 3; k++)
            assert_close(mpo_descent_weights(descent)[k], initial[k], 1e-14);
        assert_close(mpo_descent_averaged_gap(descent), 0.0, 1e-14);
        if (i == 2)
            assert_same_bits(mpo_descent_step_size(descent), 0.0);
        mpo_descent_close(&descent);
    }
}

static void weight_of_one_objective_stays_one(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[3] = {
        MPO_STEP_RULE_FIXED, MPO_STEP_RULE_DECREASING, MPO_STEP_RULE_ADAPTIVE};
    for (int32_t i = 0; i < 3; i++) {
        struct mpo_descent *descent = open_descent(rules[i], 1.0, 1, NULL);
        for (int64_t step = 0; step < STEPS; step++) {
            double gradient = -20.0 + (double)step;
            assert_ok(mpo_descent_step(descent, &gradient));
            assert_same_bits(mpo_descent_weights(descent)[0], 1.0);
        }
        assert_close(mpo_descent_average(descent)[0], 1.0, 1e-15);
        assert_close(mpo_descent_averaged_gap(descent), 0.0, 1e-13);
        mpo_descent_close(&descent);
    }
}

static void permuted_objectives_give_permuted_weights(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[3] = {
        MPO_STEP_RULE_FIXED, MPO_STEP_RULE_DECREASING, MPO_STEP_RULE_ADAPTIVE};
    static const int32_t order[4] = {2, 0, 3, 1};
    static const double initial[4] = {0.4, 0.3, 0.2, 0.1};
    double permuted_initial[4];
    for (int32_t k = 0; k < 4; k++)
        permuted_initial[k] = initial[order[k]];
    for (int32_t i = 0; i < 3; i++) {
        struct mpo_descent *plain = open_descent(rules[i], 1.0, 4, initial);
        struct mpo_descent *permuted = open_descent(rules[i], 1.0, 4, permuted_initial);
        for (int64_t step = 0; step < STEPS; step++) {
            double gradient[4];
            double other[4];
            make_gradient(4, step, 4, gradient);
            for (int32_t k = 0; k < 4; k++)
                other[k] = gradient[order[k]];
            assert_ok(mpo_descent_step(plain, gradient));
            assert_ok(mpo_descent_step(permuted, other));
        }
        for (int32_t k = 0; k < 4; k++) {
            assert_close(mpo_descent_weights(permuted)[k],
                         mpo_descent_weights(plain)[order[k]], 1e-13);
            assert_close(mpo_descent_average(permuted)[k],
                         mpo_descent_average(plain)[order[k]], 1e-13);
        }
        mpo_descent_close(&permuted);
        mpo_descent_close(&plain);
    }
}

static void average_and_gap_are_of_the_points_where_gradients_were_taken(void **state)
{
    (void)state;
    struct mpo_descent *descent = open_descent(MPO_STEP_RULE_ADAPTIVE, 1.0, 3, NULL);
    double weights_sum[3] = {0};
    double gradient_sum[3] = {0};
    double inner_sum = 0.0;
    assert_true(isnan(mpo_descent_averaged_gap(descent)));
    assert_same_bits(mpo_descent_step_size(descent), 0.0);
    for (int64_t step = 0; step < STEPS; step++) {
        double gradient[3];
        make_gradient(5, step, 3, gradient);
        for (int32_t k = 0; k < 3; k++) {
            weights_sum[k] += mpo_descent_weights(descent)[k];
            gradient_sum[k] += gradient[k];
            inner_sum += mpo_descent_weights(descent)[k] * gradient[k];
        }
        assert_ok(mpo_descent_step(descent, gradient));
        double taken = (double)(step + 1);
        double least = fmin(gradient_sum[0], fmin(gradient_sum[1], gradient_sum[2]));
        for (int32_t k = 0; k < 3; k++)
            assert_close(mpo_descent_average(descent)[k], weights_sum[k] / taken, 1e-14);
        assert_close(mpo_descent_averaged_gap(descent), (inner_sum - least) / taken, 1e-12);
    }
    mpo_descent_close(&descent);
}

static void weights_start_where_they_are_told_to(void **state)
{
    (void)state;
    static const double initial[3] = {0.7, 0.2, 0.1};
    struct mpo_descent *given = open_descent(MPO_STEP_RULE_ADAPTIVE, 1.0, 3, initial);
    struct mpo_descent *uniform = open_descent(MPO_STEP_RULE_ADAPTIVE, 1.0, 3, NULL);
    for (int32_t k = 0; k < 3; k++) {
        assert_close(mpo_descent_weights(given)[k], initial[k], 1e-15);
        assert_close(mpo_descent_weights(uniform)[k], 1.0 / 3.0, 1e-15);
    }
    mpo_descent_close(&uniform);
    mpo_descent_close(&given);
}

static void weights_stay_on_the_simplex_under_huge_gradients(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[3] = {
        MPO_STEP_RULE_FIXED, MPO_STEP_RULE_DECREASING, MPO_STEP_RULE_ADAPTIVE};
    for (int32_t i = 0; i < 3; i++) {
        struct mpo_descent *descent = open_descent(rules[i], 1e3, 3, NULL);
        for (int64_t step = 0; step < STEPS; step++) {
            double gradient[3] = {-1e5, step % 2 ? -3e6 : 2e6, 1e4};
            assert_ok(mpo_descent_step(descent, gradient));
            const double *weights = mpo_descent_weights(descent);
            assert_close(weights[0] + weights[1] + weights[2], 1.0, 1e-12);
            for (int32_t k = 0; k < 3; k++)
                assert_between(weights[k], 0.0, 1.0);
        }
        mpo_descent_close(&descent);
    }
}

/* Steps add up in the logarithm: a weight too small for a double is not lost for ever. */
static void weights_come_back_from_below_the_smallest_double(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[2] = {MPO_STEP_RULE_FIXED,
                                                MPO_STEP_RULE_ADAPTIVE};
    const double away[2] = {-1.0, 4999.0};
    const double back[2] = {4999.0, -1.0};
    for (int32_t i = 0; i < 2; i++) {
        struct mpo_descent *descent = open_descent(rules[i], sqrt(STEPS), 2, NULL);
        assert_ok(mpo_descent_step(descent, away));
        assert_ok(mpo_descent_step(descent, back));
        assert_close(mpo_descent_weights(descent)[0], 0.5, 1e-12);
        mpo_descent_close(&descent);
    }
}

static void wrong_specifications_are_refused(void **state)
{
    (void)state;
    static const double wrong[4][2] = {{0.5, 0.6}, {1.0, 0.0}, {1.5, -0.5}, {NAN, 0.5}};
    struct mpo_descent *descent = NULL;
    struct mpo_descent_spec spec = {"euclid", MPO_STEP_RULE_ADAPTIVE, 1.0, 10, 2, NULL,
                                    NULL,     MPO_AVERAGING_UNIFORM};
    assert_status(mpo_descent_open(&spec, &descent), MPO_ERR_CONFIG);
    assert_error_names("euclid");
    assert_error_names("entropy");
    spec.map = "entropy";
    spec.step_rule = (enum mpo_step_rule)99;
    assert_status(mpo_descent_open(&spec, &descent), MPO_ERR_CONFIG);
    assert_error_names("99");
    assert_error_names("adaptive");
    spec.step_rule = MPO_STEP_RULE_ADAPTIVE;
    for (int32_t i = 0; i < 4; i++) {
        spec.initial = wrong[i];
        assert_status(mpo_descent_open(&spec, &descent), MPO_ERR_CONFIG);
        assert_null(descent);
    }
    mpo_descent_close(&descent);
}

static void gradients_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    static const double wrong[3] = {NAN, INFINITY, -INFINITY};
    struct mpo_descent *descent = open_descent(MPO_STEP_RULE_ADAPTIVE, 1.0, 2, NULL);
    const double fine[2] = {-3.0, -4.0};
    assert_ok(mpo_descent_step(descent, fine));
    double before = mpo_descent_weights(descent)[0];
    for (int32_t i = 0; i < 3; i++) {
        const double gradient[2] = {-3.0, wrong[i]};
        assert_status(mpo_descent_step(descent, gradient), MPO_ERR_DATA);
        assert_same_bits(mpo_descent_weights(descent)[0], before);
    }
    mpo_descent_close(&descent);
}

/* What a record keeps: the state with its arrays copied. */
struct kept {
    struct mpo_descent_state state;
    double dual[3];
    double weights_sum[3];
    double gradient_sum[3];
};

static void keep(const struct mpo_descent *descent, struct kept *kept)
{
    mpo_descent_save(descent, &kept->state);
    memcpy(kept->dual, kept->state.dual, sizeof kept->dual);
    memcpy(kept->weights_sum, kept->state.weights_sum, sizeof kept->weights_sum);
    memcpy(kept->gradient_sum, kept->state.gradient_sum, sizeof kept->gradient_sum);
    kept->state.dual = kept->dual;
    kept->state.weights_sum = kept->weights_sum;
    kept->state.gradient_sum = kept->gradient_sum;
}

static void assert_same_descent(const struct mpo_descent *a, const struct mpo_descent *b)
{
    assert_same_bits(mpo_descent_averaged_gap(a), mpo_descent_averaged_gap(b));
    for (int32_t k = 0; k < 3; k++) {
        assert_same_bits(mpo_descent_weights(a)[k], mpo_descent_weights(b)[k]);
        assert_same_bits(mpo_descent_average(a)[k], mpo_descent_average(b)[k]);
    }
}

static void loaded_state_continues_bit_for_bit(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[3] = {
        MPO_STEP_RULE_FIXED, MPO_STEP_RULE_DECREASING, MPO_STEP_RULE_ADAPTIVE};
    static const double initial[3] = {0.7, 0.2, 0.1};
    for (int32_t i = 0; i < 3; i++)
        for (int64_t cut = 0; cut < STEPS; cut++) {
            struct kept kept;
            double gradient[3];
            struct mpo_descent *whole = open_descent(rules[i], 0.9, 3, initial);
            struct mpo_descent *resumed = open_descent(rules[i], 0.9, 3, initial);
            for (int64_t step = 0; step < cut; step++) {
                make_gradient(6, step, 3, gradient);
                assert_ok(mpo_descent_step(whole, gradient));
            }
            keep(whole, &kept);
            assert_int_equal(kept.state.step, cut);
            assert_ok(mpo_descent_load(resumed, &kept.state));
            assert_same_descent(whole, resumed);
            for (int64_t step = cut; step < STEPS; step++) {
                make_gradient(6, step, 3, gradient);
                assert_ok(mpo_descent_step(whole, gradient));
                assert_ok(mpo_descent_step(resumed, gradient));
                assert_same_descent(whole, resumed);
                assert_same_bits(mpo_descent_step_size(whole),
                                 mpo_descent_step_size(resumed));
            }
            mpo_descent_close(&resumed);
            mpo_descent_close(&whole);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_steps_follow_their_closed_form),
        cmocka_unit_test(decreasing_steps_follow_their_closed_form),
        cmocka_unit_test(adaptive_steps_are_dual_averaging),
        cmocka_unit_test(adaptive_steps_have_no_scale),
        cmocka_unit_test(equal_gradients_leave_the_weights_alone),
        cmocka_unit_test(weight_of_one_objective_stays_one),
        cmocka_unit_test(permuted_objectives_give_permuted_weights),
        cmocka_unit_test(average_and_gap_are_of_the_points_where_gradients_were_taken),
        cmocka_unit_test(weights_start_where_they_are_told_to),
        cmocka_unit_test(weights_stay_on_the_simplex_under_huge_gradients),
        cmocka_unit_test(weights_come_back_from_below_the_smallest_double),
        cmocka_unit_test(wrong_specifications_are_refused),
        cmocka_unit_test(gradients_that_are_not_finite_are_refused),
        cmocka_unit_test(loaded_state_continues_bit_for_bit),
    };
    return run_cases("descent", tests);
}
