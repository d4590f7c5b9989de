/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The estimator's figures against their formulas, written out a second time, on responses
 * with made-up figures.
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

static void figures_follow_their_formulas(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, 0.6);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct mpo_responses responses;
        struct mpo_estimate estimate;
        struct formulas mean = {0};
        responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
        responses_random(&responses, seed);
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        for (int32_t p = 0; p < PROMPTS; p++) {
            struct formulas one;
            formulas_evaluate(&responses, p, weights, K, &one);
            mean.value += one.value / PROMPTS;
            mean.jackknife += one.jackknife / PROMPTS;
            mean.ess += one.ess / PROMPTS;
            for (int32_t k = 0; k < K; k++) {
                mean.log_policy[k] += one.log_policy[k] / PROMPTS;
                mean.control[k] += one.control[k] / PROMPTS;
            }
        }
        assert_close(estimate.value, mean.value, BOUND);
        assert_close(estimate.value_jackknife, mean.jackknife, 10.0 * BOUND);
        assert_close(estimate.ess, mean.ess, BOUND);
        assert_same_bits(estimate.coefficient, 0.6);
        for (int32_t k = 0; k < K; k++) {
            assert_close(estimate.log_policy[k], mean.log_policy[k], BOUND);
            assert_close(estimate.control[k], mean.control[k], BOUND);
            assert_close(estimate.gradient[k], mean.log_policy[k] - 0.6 * mean.control[k],
                         BOUND);
        }
        responses_free(&responses);
    }
    mpo_estimator_close(&estimator);
}

/* Target served: plain means over the responses, and KL(q || pi_k) from their moments. F and
 * ESS stay those of the whole mixture. */
static void served_figures_are_plain_means(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = NULL;
    const struct mpo_estimator_spec spec = {.objective_count = K,
                                            .prompts_max = PROMPTS,
                                            .responses_max = RESPONSES,
                                            .control = 0.6,
                                            .target = MPO_TARGET_SERVED};
    struct mpo_responses responses;
    struct mpo_estimate served;
    struct formulas one;
    double value = 0.0;
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    responses_random(&responses, 12);
    assert_ok(mpo_estimator_open(&spec, &estimator));
    assert_ok(mpo_estimator_step(estimator, weights, &responses, &served));
    for (int32_t p = 0; p < PROMPTS; p++) {
        formulas_evaluate(&responses, p, weights, K, &one);
        value += one.value / PROMPTS;
    }
    assert_close(served.value, value, BOUND);
    for (int32_t k = 0; k < K; k++) {
        double mean = 0.0;
        double control = 0.0;
        double divergence = 0.0;
        for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
            double of_policy = responses.log_policy[i * H + k] / (PROMPTS * RESPONSES);
            double of_control = responses.control[i * H + k] / (PROMPTS * RESPONSES);
            mean += of_policy;
            control += of_control;
            divergence -=
                responses.entropy[i] / (PROMPTS * RESPONSES) + of_policy - of_control;
        }
        assert_close(served.log_policy[k], mean, BOUND);
        assert_close(served.gradient[k], mean - 0.6 * control, BOUND);
        assert_close(served.divergence[k], divergence, BOUND);
    }
    assert_same_bits(mpo_estimator_end_bias(estimator), 0.0);
    mpo_estimator_close(&estimator);
    responses_free(&responses);
}

/* Over several prompts the spread of F_x, for a single one the jackknife's. */
static void error_of_the_value_is_over_prompts_or_by_the_jackknife(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    for (int32_t prompt_count = 1; prompt_count <= PROMPTS; prompt_count++) {
        struct mpo_responses responses;
        struct mpo_estimate estimate;
        struct formulas one;
        double value[PROMPTS] = {0};
        double mean = 0.0;
        double squares = 0.0;
        responses_make(&responses, prompt_count, RESPONSES, H, LENGTH);
        responses_random(&responses, 5);
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        for (int32_t p = 0; p < prompt_count; p++) {
            formulas_evaluate(&responses, p, weights, K, &one);
            value[p] = one.value;
            mean += one.value / prompt_count;
        }
        for (int32_t p = 0; p < prompt_count; p++)
            squares += pow(value[p] - mean, 2.0);
        double expected = prompt_count == 1
                              ? one.jackknife_error
                              : sqrt(squares / (prompt_count - 1) / prompt_count);
        assert_close(estimate.value_error, expected, BOUND);
        assert_true(estimate.value_error > 0.0);
        responses_free(&responses);
    }
    mpo_estimator_close(&estimator);
}

static void responses_are_counted_as_they_are(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(0.25, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    int64_t tokens = 0;
    int32_t cut = 0;
    double entropy = 0.0;
    responses_make(&responses, PROMPTS, RESPONSES, H, LENGTH);
    responses_random(&responses, 9);
    for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
        tokens += responses.token_count[i];
        cut += responses.ended[i] ? 0 : 1;
        entropy += responses.entropy[i];
    }
    assert_true(cut > 0 && cut < PROMPTS * RESPONSES);
    assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
    assert_int_equal(estimate.tokens, tokens);
    assert_close(estimate.truncated, (double)cut / (PROMPTS * RESPONSES), BOUND);
    assert_close(estimate.entropy, entropy / (double)tokens, BOUND);
    assert_same_bits(estimate.end_bias, 0.25);
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

static void figures_do_not_depend_on_the_scale_of_the_weights(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, 0.0);
    struct mpo_responses responses;
    struct mpo_estimate far;
    double gradient[K];
    responses_make(&responses, 1, RESPONSES, H, LENGTH);
    responses_random(&responses, 3);
    assert_ok(mpo_estimator_step(estimator, weights, &responses, &far));
    double value = far.value;
    double ess = far.ess;
    memcpy(gradient, far.gradient, sizeof gradient);
    /* Weights of exp(+-2000) neither overflow nor underflow. */
    for (int32_t sign = -1; sign <= 1; sign += 2) {
        for (int32_t j = 0; j < RESPONSES; j++)
            responses.log_proposal[j] += sign * 2000.0;
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &far));
        assert_close(far.value, value - sign * 2000.0, 1e-11);
        assert_close(far.ess, ess, 1e-11);
        for (int32_t k = 0; k < K; k++)
            assert_close(far.gradient[k], gradient[k], 1e-11);
        for (int32_t j = 0; j < RESPONSES; j++)
            responses.log_proposal[j] -= sign * 2000.0;
    }
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

static void one_response_has_no_error_to_speak_of(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    struct formulas one;
    responses_make(&responses, 1, 1, H, LENGTH);
    responses_random(&responses, 3);
    formulas_evaluate(&responses, 0, weights, K, &one);
    assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
    assert_close(estimate.value, one.value, BOUND);
    assert_close(estimate.value_jackknife, one.value, BOUND);
    assert_true(isnan(estimate.value_error));
    assert_close(estimate.ess, 1.0, BOUND);
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

static void one_objective_has_weight_one_and_value_zero(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = NULL;
    const struct mpo_estimator_spec spec = {.objective_count = 1,
                                            .prompts_max = PROMPTS,
                                            .responses_max = RESPONSES,
                                            .end_bias = NAN,
                                            .control = NAN};
    const double all = 1.0;
    assert_ok(mpo_estimator_open(&spec, &estimator));
    for (uint64_t step = 0; step < 6; step++) {
        struct mpo_responses responses;
        struct mpo_estimate estimate;
        double mean = 0.0;
        responses_make(&responses, PROMPTS, RESPONSES, 1, LENGTH);
        responses_random(&responses, step);
        for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
            responses.log_proposal[i] = responses.log_policy[i];
            mean += responses.log_policy[i] / (PROMPTS * RESPONSES);
        }
        assert_ok(mpo_estimator_step(estimator, &all, &responses, &estimate));
        assert_close(estimate.value, 0.0, BOUND);
        assert_close(estimate.ess, 1.0, BOUND);
        assert_close(estimate.log_policy[0], mean, BOUND);
        assert_same_bits(estimate.coefficient, 1.0);
        responses_free(&responses);
    }
    mpo_estimator_close(&estimator);
}

static void steps_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = open_estimator(NAN, NAN);
    struct mpo_responses responses;
    struct mpo_estimate estimate;
    responses_make(&responses, PROMPTS + 1, RESPONSES, H, LENGTH);
    assert_status(mpo_estimator_step(estimator, weights, &responses, &estimate),
                  MPO_ERR_USAGE);
    responses_free(&responses);
    mpo_estimator_close(&estimator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_follow_their_formulas),
        cmocka_unit_test(served_figures_are_plain_means),
        cmocka_unit_test(error_of_the_value_is_over_prompts_or_by_the_jackknife),
        cmocka_unit_test(responses_are_counted_as_they_are),
        cmocka_unit_test(figures_do_not_depend_on_the_scale_of_the_weights),
        cmocka_unit_test(one_response_has_no_error_to_speak_of),
        cmocka_unit_test(one_objective_has_weight_one_and_value_zero),
        cmocka_unit_test(steps_that_do_not_fit_are_refused),
    };
    return run_cases("estimator formulas", tests);
}
