/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Importance sampling at any weights: jackknives against leaving out each response, the
 * estimator against the same responses' own figures.
 */
#include <math.h>
#include <string.h>

#include "estimator/sample.h"
#include "mpo/estimator.h"
#include "responses.h"
#include "runner.h"

enum { M = 7, K = 2, H = 3, LENGTH = 5 };

static const double weights[K] = {0.3, 0.7};

struct scores {
    double log_proposal[M];
    double log_policy[M * H];
    double control[M * H];
};

/* The first response has a share of more than half when it is heavy. */
static struct scores make_scores(uint64_t seed, bool heavy)
{
    struct scores scores;
    for (uint64_t j = 0; j < M; j++) {
        scores.log_proposal[j] = -5.0 - runner_uniform(seed, j);
        for (uint64_t h = 0; h < H; h++) {
            scores.log_policy[j * H + h] =
                -6.0 + 2.0 * runner_uniform(seed, 100 + j * H + h);
            scores.control[j * H + h] = runner_uniform(seed, 200 + j * H + h) - 0.5;
        }
    }
    if (heavy)
        scores.log_proposal[0] -= 12.0;
    return scores;
}

/* F and g by the formulas, without response `left_out`. */
static double plain(const struct scores *scores, int32_t left_out, double gradient[K])
{
    double sum = 0.0;
    int32_t count = 0;
    memset(gradient, 0, K * sizeof *gradient);
    for (int32_t j = 0; j < M; j++) {
        if (j == left_out)
            continue;
        const double *row = scores->log_policy + (ptrdiff_t)j * H;
        double w = exp(weights[0] * row[0] + weights[1] * row[1] - scores->log_proposal[j]);
        sum += w;
        count++;
        for (int32_t k = 0; k < K; k++)
            gradient[k] += w * row[k];
    }
    for (int32_t k = 0; k < K; k++)
        gradient[k] /= sum;
    return log(sum / count);
}

static void check_jackknife(bool heavy)
{
    struct scores scores = make_scores(heavy ? 2 : 1, heavy);
    double log_weight[M];
    double share[M];
    double found[K];
    double control[K];
    double whole[K];
    struct mpo_sample sample = {.count = M,
                                .policy_count = H,
                                .log_proposal = scores.log_proposal,
                                .log_policy = scores.log_policy,
                                .control = scores.control};
    struct mpo_sample_query query = {K, weights, K, true, MPO_TARGET_WHOLE, NULL};
    struct mpo_sample_figures figures = {
        .log_weight = log_weight, .share = share, .gradient = found, .control = control};
    mpo_sample_estimate(&sample, &query, &figures);
    for (int32_t k = 0; k < K; k++)
        found[k] -= 0.5 * control[k];
    double value = plain(&scores, -1, whole);
    double value_jackknife = M * value;
    double gradient_jackknife[K] = {M * whole[0], M * whole[1]};
    for (int32_t j = 0; j < M; j++) {
        double without[K];
        value_jackknife -= (M - 1.0) / M * plain(&scores, j, without);
        for (int32_t k = 0; k < K; k++)
            gradient_jackknife[k] -= (M - 1.0) / M * without[k];
    }
    assert_close(figures.value, value, 1e-12);
    assert_close(figures.value_jackknife, value_jackknife, 1e-11);
    for (int32_t k = 0; k < K; k++) {
        double mean_control = 0.0;
        for (int32_t j = 0; j < M; j++)
            mean_control += scores.control[j * H + k] / M;
        assert_close(found[k], gradient_jackknife[k] - 0.5 * mean_control, 1e-11);
    }
    assert_between(figures.ess, 1.0 / M, heavy ? 0.2 : 1.0);
}

static void jackknives_leave_out_each_response(void **state)
{
    (void)state;
    check_jackknife(false);
    check_jackknife(true);
}

static void one_response_has_no_jackknife(void **state)
{
    (void)state;
    double log_proposal = -2.0;
    double log_policy[K] = {-3.0, -1.0};
    double log_weight = 0.0;
    double share = 0.0;
    double gradient[K];
    struct mpo_sample sample = {.count = 1,
                                .policy_count = K,
                                .log_proposal = &log_proposal,
                                .log_policy = log_policy};
    struct mpo_sample_query query = {K, weights, K, true, MPO_TARGET_WHOLE, NULL};
    struct mpo_sample_figures figures = {
        .log_weight = &log_weight, .share = &share, .gradient = gradient};
    mpo_sample_estimate(&sample, &query, &figures);
    assert_close(figures.value, 0.3 * -3.0 + 0.7 * -1.0 + 2.0, 1e-15);
    assert_close(figures.value_jackknife, figures.value, 0.0);
    assert_close(gradient[0], -3.0, 1e-15);
}

/* One answer to one question: what fit prints of a step and what evaluate, refit and inspect
 * print of its responses are the same doubles, and not only close. */
static void estimates_of_a_step_are_the_figures_of_its_responses(void **state)
{
    (void)state;
    struct mpo_estimator *estimator = NULL;
    struct mpo_estimator_spec spec = {.objective_count = K,
                                      .prompts_max = 1,
                                      .responses_max = M,
                                      .end_bias = NAN,
                                      .control = 0.7,
                                      .target = MPO_TARGET_WHOLE,
                                      .proposal = MPO_PROPOSAL_MIXTURE};
    assert_ok(mpo_estimator_open(&spec, &estimator));
    for (uint64_t seed = 1; seed <= 20; seed++) {
        double log_weight[M];
        double share[M];
        double gradient[K];
        double control[K];
        struct mpo_responses responses;
        struct mpo_estimate estimate;
        struct mpo_sample_query query = {K, weights, K, false, MPO_TARGET_WHOLE, NULL};
        struct mpo_sample_figures figures = {.log_weight = log_weight,
                                             .share = share,
                                             .gradient = gradient,
                                             .control = control};
        responses_make(&responses, 1, M, H, LENGTH);
        responses_random(&responses, seed);
        if (seed % 2 == 0) /* one of them has nearly all the weight */
            responses.log_proposal[seed % M] -= 12.0;
        struct mpo_sample sample = mpo_sample_of_step(&responses, 0, M);
        assert_ok(mpo_estimator_step(estimator, weights, &responses, &estimate));
        mpo_sample_estimate(&sample, &query, &figures);
        assert_same_bits(estimate.value, figures.value);
        assert_same_bits(estimate.value_jackknife, figures.value_jackknife);
        assert_same_bits(estimate.value_error, figures.value_error);
        assert_same_bits(estimate.ess, figures.ess);
        for (int32_t j = 0; j < M; j++)
            assert_same_bits(log_weight[j], mpo_sample_log_weight(&sample, weights, K, j));
        for (int32_t k = 0; k < K; k++)
            assert_same_bits(estimate.gradient[k], gradient[k] - 0.7 * control[k]);
        responses_free(&responses);
    }
    mpo_estimator_close(&estimator);
}

/* Weights too far apart for a double lose nothing: a response that has all of the weight is
 * left out by the log weights of the others. */
static void jackknife_survives_weights_that_underflow(void **state)
{
    (void)state;
    double log_proposal[3] = {-2000.0, 0.0, 0.0};
    double log_policy[3 * K] = {-1.0, -1.0, -2.0, -2.0, -4.0, -4.0};
    double log_weight[3];
    double share[3];
    double gradient[K];
    struct mpo_sample sample = {.count = 3,
                                .policy_count = K,
                                .log_proposal = log_proposal,
                                .log_policy = log_policy};
    struct mpo_sample_query query = {K, weights, K, true, MPO_TARGET_WHOLE, NULL};
    struct mpo_sample_figures figures = {
        .log_weight = log_weight, .share = share, .gradient = gradient};
    mpo_sample_estimate(&sample, &query, &figures);
    double value = 1999.0 - log(3.0);
    double without_first = log(exp(-2.0) + exp(-4.0)) - log(2.0);
    double mean = (without_first + 2.0 * (1999.0 - log(2.0))) / 3.0;
    assert_close(figures.value, value, 1e-12 * value);
    assert_close(figures.value_jackknife, 3.0 * value - 2.0 * mean, 1e-12 * value);
    double pair = (exp(-2.0) * -2.0 + exp(-4.0) * -4.0) / (exp(-2.0) + exp(-4.0));
    assert_close(gradient[0], 3.0 * -1.0 - 2.0 * (pair - 1.0 - 1.0) / 3.0, 1e-12);
}

static void divergence_of_a_mixture_follows_from_its_means(void **state)
{
    (void)state;
    const double gradient[K] = {-7.0, -5.0};
    double out[K];
    mpo_sample_divergence(weights, gradient, -1.5, K, out);
    assert_close(out[0], 0.3 * -7.0 + 0.7 * -5.0 + 1.5 + 7.0, 1e-14);
    assert_close(out[1], 0.3 * -7.0 + 0.7 * -5.0 + 1.5 + 5.0, 1e-14);
}

static void picks_follow_the_shares(void **state)
{
    (void)state;
    const double share[3] = {0.25, 0.0, 0.75};
    assert_int_equal(mpo_sample_pick(share, 3, 0.0), 0);
    assert_int_equal(mpo_sample_pick(share, 3, 0.2499), 0);
    assert_int_equal(mpo_sample_pick(share, 3, 0.25), 2);
    assert_int_equal(mpo_sample_pick(share, 3, nextafter(1.0, 0.0)), 2);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(jackknives_leave_out_each_response),
        cmocka_unit_test(one_response_has_no_jackknife),
        cmocka_unit_test(estimates_of_a_step_are_the_figures_of_its_responses),
        cmocka_unit_test(jackknife_survives_weights_that_underflow),
        cmocka_unit_test(divergence_of_a_mixture_follows_from_its_means),
        cmocka_unit_test(picks_follow_the_shares),
    };
    return run_cases("scored responses", tests);
}
