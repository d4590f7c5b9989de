/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the estimator learns from step to step: the coefficient of the control variate, the
 * end tilt, and the sums that let a run be resumed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formulas.h"
#include "mpo/estimator.h"
#include "responses.h"
#include "runner.h"

enum { K = 3, H = 4, PROMPTS = 3, RESPONSES = 5, LENGTH = 7 };

#define BOUND 1e-12

static const double weights[K] = {0.2, 0.5, 0.3};

static struct mpo_estimator *open_estimator(double end_bias, double control)
{
    struct mpo_estimator *estimator = NULL;
    const struct mpo_estimator_spec spec = {.objective_count = K,
                                            .prompts_max = PROMPTS,
                                            .responses_max = RESPONSES,
                                            .end_bias = end_bias,
                                            .control = control};
    assert_ok(mpo_estimator_open(&spec, &estimator));
    return estimator;
}

/* Sums of the regression over responses, from its definition. */
struct regression {
    double cross;
    double square;
};

/* A response moves the gradient of its prompt by m softmax(log w)_j (log pi_k(y_j)
 * - g_k); its control is C_j,k - C_x,k. Both are centred over k, and c is the
 * slope between them. */
static void regress(const struct mpo_responses *responses, int32_t slot,
                    struct regression *sums)
{
    struct formulas one;
    formulas_evaluate(responses, slot, weights, K, &one);
    for (int32_t j = 0; j < RESPONSES; j++) {
        const double *log_policy = responses->log_policy + (slot * RESPONSES + j) * H;
        const double *control = responses->control + (slot * RESPONSES + j) * H;
        double influence[K];
        double influence_mean = 0.0;
        double control_mean = 0.0;
        for (int32_t k = 0; k < K; k++) {
            influence[k] = RESPONSES * one.weight[j] * (log_policy[k] - one.log_policy[k]);
            influence_mean += influence[k] / K;
            control_mean += (control[k] - one.control[k]) / K;
        }
        for (int32_t k = 0; k < K; k++) {
            double centred = control[k] - one.control[k] - control_mean;
            sums->cross += (influence[k] - influence_mean) * centred;
            sums->square += centred * centred;
        }
    }
}

static void coefficient_is_one_and_then_the_regression_of_earlier_steps(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    struct regression sums = {0};
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    for (int32_t step = 0; step < 12; step++) {
        responses_random(&responses, 100 + (uint64_t)step);
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        double expected = step < 3 ? 1.0 : sums.cross / sums.square;
        assert_close(estimate.coefficient, expected, 1e-11);
        for (int32_t k = 0; k < K; k++)
            assert_close(
                estimate.gradient[k],
                estimate.log_policy[k] - estimate.coefficient * estimate.control[k], BOUND);
        for (int32_t p = 0; p < PROMPTS; p++)
            regress(&responses, p, &sums);
    }
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

/* With G = 0.4 C + noise the regression finds about 0.4, so the sign and side are right. */
static void coefficient_recovers_a_known_slope(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    for (uint64_t step = 0; step < 400; step++) {
        responses_random(&responses, 1000 + step);
        for (int32_t i = 0; i < PROMPTS * RESPONSES; i++)
            for (int32_t k = 0; k < K; k++) {
                double noise = runner_uniform(step, (uint64_t)(i * K + k)) - 0.5;
                responses.log_policy[i * H + k] =
                    -9.0 + 0.4 * responses.control[i * H + k] + 0.1 * noise;
                responses.log_proposal[i] = -9.0;
            }
        /* Equal weights of the responses make the gradient a plain mean. */
        const double none[K] = {0.0, 0.0, 0.0};
        assert_ok(mpo_estimator_step(estimator, none, &responses, &estimate));
    }
    assert_close(estimate.coefficient, 0.4, 0.01);
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

/* The sums of a fit whose record has the schema mpo-1.0. */
static void load_old_tilt(struct mpo_estimator *estimator)
{
    const struct mpo_estimator_state old = {.tilt_is_old = true};
    mpo_estimator_load(estimator, &old);
}

static void check_tilt(bool is_old)
{
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    double squares = is_old ? 0.0 : 1.0;
    double end_bias = 0.0;
    if (is_old)
        load_old_tilt(estimator);
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    assert_same_bits(mpo_estimator_end_bias(estimator), 0.0);
    for (uint64_t step = 0; step < 12; step++) {
        double direction = 0.0;
        responses_random(&responses, 50 + step);
        for (int32_t p = 0; p < PROMPTS; p++) {
            struct formulas one;
            formulas_evaluate(&responses, p, weights, K, &one);
            direction += (one.direction - (is_old ? 0.0 : one.surprise)) / PROMPTS;
        }
        assert_close(mpo_estimator_end_bias(estimator), end_bias, BOUND);
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        assert_close(estimate.end_bias, end_bias, BOUND);
        squares += direction * direction;
        end_bias += 0.5 * direction / sqrt(squares);
        assert_close(mpo_estimator_end_bias(estimator), end_bias, BOUND);
        if (step == 0 && is_old)
            assert_close(fabs(end_bias), 0.5, BOUND);
    }
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

static void end_tilt_follows_its_formula(void **state)
{
    (void)state;
    check_tilt(false);
}

static void end_tilt_of_an_old_record_follows_the_old_formula(void **state)
{
    (void)state;
    check_tilt(true);
}

/* Where nothing has ended, what ends beyond expectation says only that ends are rare. */
static void end_tilt_waits_for_a_response_that_has_ended(void **state)
{
    (void)state;
    for (int32_t ended = 0; ended < 2; ended++)
        for (int32_t is_old = 0; is_old < 2; is_old++) {
            struct mpo_estimator *estimator = open_estimator(NAN, NAN);
            struct mpo_estimator_state sums;
            struct mpo_responses responses;
            struct mpo_estimate estimate;
            if (is_old)
                load_old_tilt(estimator);
            responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
            responses_random(&responses, 7);
            memset(responses.ended, 0, PROMPTS * RESPONSES * sizeof *responses.ended);
            responses.ended[RESPONSES + 1] = ended;
            assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
            assert_true((mpo_estimator_end_bias(estimator) != 0.0) == (ended || is_old));
            mpo_estimator_save(estimator, &sums);
            if (!ended && !is_old)
                assert_same_bits(sums.tilt_squares, 1.0);
            responses_free(&responses);
            mpo_estimator_close(&estimator);
        }
}

/* Responses that all weigh the same, as those of identical policies do, say nothing. */
static void end_tilt_stays_where_all_responses_weigh_the_same(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    for (uint64_t step = 0; step < 50; step++) {
        responses_random(&responses, 200 + step);
        for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
            for (int32_t h = 1; h < H; h++)
                responses.log_policy[i * H + h] = responses.log_policy[i * H];
            responses.log_proposal[i] = responses.log_policy[i * H];
        }
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        assert_close(estimate.value, 0.0, 1e-13);
    }
    assert_close(mpo_estimator_end_bias(estimator), 0.0, 1e-13);
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

static void end_tilt_that_is_given_is_held(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(1.25, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    for (uint64_t step = 0; step < 5; step++) {
        responses_random(&responses, step);
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        assert_same_bits(estimate.end_bias, 1.25);
        assert_same_bits(mpo_estimator_end_bias(estimator), 1.25);
    }
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

static void end_tilt_stays_where_nothing_pulls_it(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    responses_make(&responses, 1, RESPONSES, H, LENGTH);
    responses_random(&responses, 1);
    memset(responses.end_surprise, 0, RESPONSES * sizeof *responses.end_surprise);
    assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
    assert_same_bits(mpo_estimator_end_bias(estimator), 0.0);
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

static void constants_added_to_every_policy_do_not_move_the_coefficient(void **state)
{
    (void)state;
    double coefficient[2];
    for (int32_t i = 0; i < 2; i++) {
        struct mpo_estimator *estimator = open_estimator(NAN, NAN);
        struct mpo_responses responses;
        struct mpo_estimate estimate;
        responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
        for (uint64_t step = 0; step < 6; step++) {
            responses_random(&responses, 70 + step);
            for (int32_t at = 0; at < PROMPTS * RESPONSES; at++)
                for (int32_t h = 0; h < H; h++) {
                    responses.control[at * H + h] += i * (3.0 + (double)(at / RESPONSES));
                    responses.log_policy[at * H + h] += i * 11.0;
                }
            assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        }
        coefficient[i] = estimate.coefficient;
        responses_free(&responses);
        mpo_estimator_close(&estimator);
    }
    assert_close(coefficient[1], coefficient[0], 1e-11);
}

static void assert_same_estimate(const struct mpo_estimate *a, const struct mpo_estimate *b)
{
    assert_same_bits(a->value, b->value);
    assert_same_bits(a->coefficient, b->coefficient);
    assert_same_bits(a->end_bias, b->end_bias);
    for (int32_t k = 0; k < K; k++)
        assert_same_bits(a->gradient[k], b->gradient[k]);
}

static void loaded_state_continues_bit_for_bit(void **state)
{
    (void)state;
    enum { STEPS = 9 };
    struct mpo_responses responses;
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    for (uint64_t cut = 0; cut < STEPS; cut++) {
        struct mpo_estimator *whole = open_estimator(NAN, NAN);
        struct mpo_estimator *resumed = open_estimator(NAN, NAN);
        struct mpo_estimate expected;
        struct mpo_estimate estimate;
        struct mpo_estimator_state kept;
        for (uint64_t step = 0; step < STEPS; step++) {
            if (step == cut) {
                mpo_estimator_save(whole, &kept);
                mpo_estimator_load(resumed, &kept);
            }
            responses_random(&responses, 30 + step);
            assert_ok(mpo_estimator_step(whole, weights, &responses, &expected));
            if (step < cut)
                continue;
            assert_ok(mpo_estimator_step(resumed, weights, &responses, &estimate));
            assert_same_estimate(&estimate, &expected);
        }
        assert_same_bits(mpo_estimator_end_bias(resumed), mpo_estimator_end_bias(whole));
        mpo_estimator_close(&resumed);
        mpo_estimator_close(&whole);
    }
    responses_free(&responses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coefficient_is_one_and_then_the_regression_of_earlier_steps),
        cmocka_unit_test(coefficient_recovers_a_known_slope),
        cmocka_unit_test(end_tilt_follows_its_formula),
        cmocka_unit_test(end_tilt_of_an_old_record_follows_the_old_formula),
        cmocka_unit_test(end_tilt_waits_for_a_response_that_has_ended),
        cmocka_unit_test(end_tilt_stays_where_all_responses_weigh_the_same),
        cmocka_unit_test(end_tilt_that_is_given_is_held),
        cmocka_unit_test(end_tilt_stays_where_nothing_pulls_it),
        cmocka_unit_test(constants_added_to_every_policy_do_not_move_the_coefficient),
        cmocka_unit_test(loaded_state_continues_bit_for_bit),
    };
    return run_cases("estimator learning", tests);
}
