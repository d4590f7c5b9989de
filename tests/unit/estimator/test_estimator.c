/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The estimator against sums over every response of tiny bigram policies. With log q exact,
 * expectations under q are finite sums, so unbiasedness is checked to rounding and not by
 * sampling. The proposal's figures come from the mixture, so this checks both together.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bigram.h"
#include "mpo/estimator.h"
#include "responses.h"
#include "runner.h"

/* Three objectives and a reference; a response has one to four tokens. */
enum { K = 3, H = 4, VOCAB = 3, LENGTH = 4 };

#define BOUND 1e-12

static const double weights[K] = {0.5, 0.3, 0.2};
static const double mixture_mu[H] = {0.5, 0.3, 0.2, 0.0};
static const double reference_mu[H] = {0.0, 0.0, 0.0, 1.0};

static const struct {
    const double *mu;
    double end_bias;
} proposals[] = {{mixture_mu, 0.0}, {mixture_mu, 1.5}, {reference_mu, 0.0}};
enum { PROPOSAL_COUNT = sizeof proposals / sizeof *proposals };

static float logits[H * VOCAB * VOCAB];
static const int32_t end_token[1] = {VOCAB - 1};
static const int32_t start[1] = {0};
static const struct bigram_spec spec = {.logits = logits,
                                        .end_token = end_token,
                                        .start = start,
                                        .policy_count = H,
                                        .vocab_size = VOCAB,
                                        .state_count = VOCAB,
                                        .end_count = 1,
                                        .start_count = 1,
                                        .max_tokens = LENGTH};

static struct bigram *open_bigram(void)
{
    bigram_random_logits(12, 2.0, H * VOCAB * VOCAB, logits);
    return bigram_open(&spec);
}

/* F and g of the K objectives by recursion; the reference takes part with weight 0. */
static double exact(const struct bigram *bigram, double *gradient)
{
    const double all[H] = {weights[0], weights[1], weights[2], 0.0};
    return bigram_gradient(bigram, all, gradient);
}

static struct mpo_estimator *open_estimator(int32_t responses_max, double control)
{
    struct mpo_estimator *estimator = NULL;
    const struct mpo_estimator_spec estimator_spec = {.objective_count = K,
                                                      .prompts_max = 1,
                                                      .responses_max = responses_max,
                                                      .end_bias = NAN,
                                                      .control = control};
    assert_ok(mpo_estimator_open(&estimator_spec, &estimator));
    return estimator;
}

static void proposal_is_a_distribution_over_responses(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    for (int32_t p = 0; p < PROPOSAL_COUNT; p++) {
        struct enumeration all;
        double total = 0.0;
        enumeration_make(&all, &spec, bigram, proposals[p].mu, proposals[p].end_bias);
        assert_int_equal(all.responses.responses, 1 + 2 + 4 + 8 * 3);
        for (int32_t i = 0; i < all.responses.responses; i++)
            total += exp(all.responses.log_proposal[i]);
        assert_close(total, 1.0, BOUND);
        enumeration_free(&all);
    }
    bigram_close(&bigram);
}

static void log_policies_of_responses_agree_with_the_bigrams(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    struct enumeration all;
    enumeration_make(&all, &spec, bigram, mixture_mu, 0.5);
    for (int32_t i = 0; i < all.responses.responses; i++)
        for (int32_t h = 0; h < H; h++)
            assert_close(all.responses.log_policy[i * H + h],
                         bigram_log_response(bigram, h, 0, all.responses.token + i * LENGTH,
                                             all.responses.token_count[i]),
                         BOUND);
    enumeration_free(&all);
    bigram_close(&bigram);
}

/* E_q C = 0 for each policy, and E_q sum_t ([y_t ends] - q(end)) = 0. */
static void control_variate_and_end_surprise_have_mean_zero(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    for (int32_t p = 0; p < PROPOSAL_COUNT; p++) {
        struct enumeration all;
        double control[H] = {0};
        double surprise = 0.0;
        enumeration_make(&all, &spec, bigram, proposals[p].mu, proposals[p].end_bias);
        for (int32_t i = 0; i < all.responses.responses; i++) {
            double q = exp(all.responses.log_proposal[i]);
            surprise += q * all.responses.end_surprise[i];
            for (int32_t h = 0; h < H; h++)
                control[h] += q * all.responses.control[i * H + h];
        }
        assert_close(surprise, 0.0, BOUND);
        for (int32_t h = 0; h < H; h++)
            assert_close(control[h], 0.0, BOUND);
        enumeration_free(&all);
    }
    bigram_close(&bigram);
}

/* E_q[w] = exp(F_x): every response alone, and every pair of responses. */
static void mean_weight_is_exp_of_f(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    double gradient[H];
    double value = exact(bigram, gradient);
    for (int32_t p = 0; p < PROPOSAL_COUNT; p++) {
        struct enumeration all;
        struct mpo_responses pair;
        struct mpo_estimate estimate;
        struct mpo_estimator *estimator = open_estimator(2, NAN);
        double mean = 0.0;
        enumeration_make(&all, &spec, bigram, proposals[p].mu, proposals[p].end_bias);
        responses_make(&pair, 1, 2, H, LENGTH);
        const double *log_q = all.responses.log_proposal;
        for (int32_t i = 0; i < all.responses.responses; i++)
            for (int32_t j = 0; j < all.responses.responses; j++) {
                responses_copy(&pair, 0, &all.responses, i);
                responses_copy(&pair, 1, &all.responses, j);
                assert_ok(mpo_estimator_step(estimator, weights, &pair, &estimate));
                mean += exp(log_q[i] + log_q[j] + estimate.value);
            }
        assert_close(log(mean), value, BOUND);
        mpo_estimator_close(&estimator);
        responses_free(&pair);
        enumeration_free(&all);
    }
    bigram_close(&bigram);
}

/* With one response the softmax is 1, so E_q g_k = E_q log pi_k whatever c is. */
static void control_variate_does_not_move_the_mean_of_the_gradient(void **state)
{
    (void)state;
    static const double held[3] = {0.0, 1.0, -0.7};
    struct bigram *bigram = open_bigram();
    struct enumeration all;
    double mean[3][K] = {{0}};
    enumeration_make(&all, &spec, bigram, mixture_mu, 0.8);
    for (int32_t c = 0; c < 3; c++) {
        struct mpo_responses one;
        struct mpo_estimate estimate;
        struct mpo_estimator *estimator = open_estimator(1, held[c]);
        responses_make(&one, 1, 1, H, LENGTH);
        for (int32_t i = 0; i < all.responses.responses; i++) {
            responses_copy(&one, 0, &all.responses, i);
            assert_ok(mpo_estimator_step(estimator, weights, &one, &estimate));
            assert_same_bits(estimate.coefficient, held[c]);
            for (int32_t k = 0; k < K; k++)
                mean[c][k] += exp(all.responses.log_proposal[i]) * estimate.gradient[k];
        }
        for (int32_t k = 0; k < K; k++)
            assert_close(mean[c][k], mean[0][k], BOUND);
        responses_free(&one);
        mpo_estimator_close(&estimator);
    }
    enumeration_free(&all);
    bigram_close(&bigram);
}

/* Each of the N responses once, as if drawn from a uniform proposal q = 1 / N: the weighted
 * sums then are the sums over all responses, and F and g are exact. */
static void every_response_once_gives_f_and_its_gradient_exactly(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    struct enumeration all;
    struct mpo_estimate estimate;
    double gradient[H];
    double value = exact(bigram, gradient);
    enumeration_make(&all, &spec, bigram, mixture_mu, 0.0);
    int32_t count = all.responses.responses;
    struct mpo_estimator *estimator = open_estimator(count, 0.0);
    for (int32_t i = 0; i < count; i++)
        all.responses.log_proposal[i] = -log(count);
    assert_ok(mpo_estimator_step(estimator, weights, &all.responses, &estimate));
    assert_close(estimate.value, value, BOUND);
    for (int32_t k = 0; k < K; k++) {
        assert_close(estimate.gradient[k], gradient[k], BOUND);
        assert_close(estimate.log_policy[k], gradient[k], BOUND);
    }
    mpo_estimator_close(&estimator);
    enumeration_free(&all);
    bigram_close(&bigram);
}

/* pi_l itself as the proposal: every weight is exp(F), so F is exact from any responses. */
static void perfect_proposal_has_no_error(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    struct enumeration all;
    struct mpo_estimate estimate;
    double gradient[H];
    double value = exact(bigram, gradient);
    enumeration_make(&all, &spec, bigram, mixture_mu, 0.0);
    int32_t count = all.responses.responses;
    struct mpo_estimator *estimator = open_estimator(count, 0.0);
    for (int32_t i = 0; i < count; i++) {
        all.responses.log_proposal[i] = -value;
        for (int32_t k = 0; k < K; k++)
            all.responses.log_proposal[i] +=
                weights[k] * all.responses.log_policy[i * H + k];
    }
    assert_ok(mpo_estimator_step(estimator, weights, &all.responses, &estimate));
    assert_close(estimate.value, value, BOUND);
    assert_close(estimate.value_jackknife, value, 1e-11);
    assert_close(estimate.value_error, 0.0, 1e-11);
    assert_close(estimate.ess, 1.0, BOUND);
    mpo_estimator_close(&estimator);
    enumeration_free(&all);
    bigram_close(&bigram);
}

static void value_at_a_vertex_is_zero(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    for (int32_t vertex = 0; vertex < K; vertex++) {
        struct enumeration all;
        struct mpo_estimate estimate;
        double mu[H] = {0};
        mu[vertex] = 1.0;
        enumeration_make(&all, &spec, bigram, mu, 0.0);
        struct mpo_estimator *estimator = open_estimator(all.responses.responses, NAN);
        assert_ok(mpo_estimator_step(estimator, mu, &all.responses, &estimate));
        assert_close(estimate.value, 0.0, BOUND);
        assert_close(estimate.value_jackknife, 0.0, 1e-11);
        assert_close(estimate.ess, 1.0, BOUND);
        mpo_estimator_close(&estimator);
        enumeration_free(&all);
    }
    bigram_close(&bigram);
}

/* The tilt's step is the gradient of the cross-entropy KL(pi_l || q): at the sum over every
 * response with its probability under pi_l, d is minus the derivative of that in b. */
static void tilt_direction_is_the_derivative_of_the_cross_entropy(void **state)
{
    (void)state;
    struct bigram *bigram = open_bigram();
    double gradient[H];
    double value = exact(bigram, gradient);
    double cross_entropy[3] = {0};
    double direction = 0.0;
    for (int32_t i = 0; i < 3; i++) {
        struct enumeration all;
        enumeration_make(&all, &spec, bigram, mixture_mu, 0.5 + 1e-5 * (i - 1));
        for (int32_t y = 0; y < all.responses.responses; y++) {
            double log_target = -value;
            for (int32_t k = 0; k < K; k++)
                log_target += weights[k] * all.responses.log_policy[y * H + k];
            cross_entropy[i] -= exp(log_target) * all.responses.log_proposal[y];
            if (i == 1)
                direction += exp(log_target) * all.responses.end_surprise[y];
        }
        enumeration_free(&all);
    }
    assert_close(-(cross_entropy[2] - cross_entropy[0]) / 2e-5, direction, 1e-8);
    assert_true(fabs(direction) > 1e-2);
    bigram_close(&bigram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proposal_is_a_distribution_over_responses),
        cmocka_unit_test(log_policies_of_responses_agree_with_the_bigrams),
        cmocka_unit_test(control_variate_and_end_surprise_have_mean_zero),
        cmocka_unit_test(mean_weight_is_exp_of_f),
        cmocka_unit_test(control_variate_does_not_move_the_mean_of_the_gradient),
        cmocka_unit_test(every_response_once_gives_f_and_its_gradient_exactly),
        cmocka_unit_test(perfect_proposal_has_no_error),
        cmocka_unit_test(value_at_a_vertex_is_zero),
        cmocka_unit_test(tilt_direction_is_the_derivative_of_the_cross_entropy),
    };
    return run_cases("estimator against enumeration", tests);
}
