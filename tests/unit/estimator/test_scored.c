/*
 * Importance sampling at any weights and the bootstrap over prompts: jackknives against
 * leaving out each response, intervals against the normal theory of a mean.
 */
#include <math.h>
#include <string.h>

#include "estimator/bootstrap.h"
#include "estimator/scored.h"
#include "runner.h"

enum { M = 7, K = 2, H = 3, UNITS = 400 };

static const double weights[K] = {0.3, 0.7};

struct sample {
    double log_proposal[M];
    double log_policy[M * H];
    double control[M * H];
};

/* The first response has a share of more than half when it is heavy. */
static struct sample make_sample(uint64_t seed, bool heavy)
{
    struct sample sample;
    for (uint64_t j = 0; j < M; j++) {
        sample.log_proposal[j] = -5.0 - runner_uniform(seed, j);
        for (uint64_t h = 0; h < H; h++) {
            sample.log_policy[j * H + h] =
                -6.0 + 2.0 * runner_uniform(seed, 100 + j * H + h);
            sample.control[j * H + h] = runner_uniform(seed, 200 + j * H + h) - 0.5;
        }
    }
    if (heavy)
        sample.log_proposal[0] -= 12.0;
    return sample;
}

/* F and g by the formulas, without response `left_out`. */
static double plain(const struct sample *sample, int32_t left_out, double gradient[K])
{
    double sum = 0.0;
    int32_t count = 0;
    memset(gradient, 0, K * sizeof *gradient);
    for (int32_t j = 0; j < M; j++) {
        if (j == left_out)
            continue;
        const double *row = sample->log_policy + (ptrdiff_t)j * H;
        double w = exp(weights[0] * row[0] + weights[1] * row[1] - sample->log_proposal[j]);
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
    struct sample sample = make_sample(heavy ? 2 : 1, heavy);
    double work[M];
    double found[K];
    double whole[K];
    struct mpo_scored scored = {M, H, sample.log_proposal, sample.log_policy,
                                sample.control};
    struct mpo_scored_query query = {K, weights, 0.5, true, work};
    struct mpo_scored_answer answer = {.gradient = found};
    mpo_scored_estimate(&scored, &query, &answer);
    double value = plain(&sample, -1, whole);
    double value_jackknife = M * value;
    double gradient_jackknife[K] = {M * whole[0], M * whole[1]};
    for (int32_t j = 0; j < M; j++) {
        double without[K];
        value_jackknife -= (M - 1.0) / M * plain(&sample, j, without);
        for (int32_t k = 0; k < K; k++)
            gradient_jackknife[k] -= (M - 1.0) / M * without[k];
    }
    assert_close(answer.value, value, 1e-12);
    assert_close(answer.value_jackknife, value_jackknife, 1e-11);
    for (int32_t k = 0; k < K; k++) {
        double control = 0.0;
        for (int32_t j = 0; j < M; j++)
            control += sample.control[j * H + k] / M;
        assert_close(found[k], gradient_jackknife[k] - 0.5 * control, 1e-11);
    }
    assert_between(answer.ess, 1.0 / M, heavy ? 0.2 : 1.0);
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
    double work = 0.0;
    double gradient[K];
    struct mpo_scored scored = {1, K, &log_proposal, log_policy, NULL};
    struct mpo_scored_query query = {K, weights, 1.0, true, &work};
    struct mpo_scored_answer answer = {.gradient = gradient};
    mpo_scored_estimate(&scored, &query, &answer);
    assert_close(answer.value, 0.3 * -3.0 + 0.7 * -1.0 + 2.0, 1e-15);
    assert_close(answer.value_jackknife, answer.value, 0.0);
    assert_close(gradient[0], -3.0, 1e-15);
}

/* The mean, its exponential, and the difference of two columns that are the same but for 1.
 */
static void derive(const void *context, const double *mean, double *result)
{
    (void)context;
    result[0] = mean[0];
    result[1] = exp(20.0 * (mean[0] - 0.5));
    result[2] = mean[1] - mean[0];
}

static void intervals_of_a_mean_are_those_of_normal_theory(void **state)
{
    (void)state;
    static double value[UNITS * 2];
    struct mpo_interval out[3];
    double mean = 0.0;
    double square = 0.0;
    for (uint64_t i = 0; i < UNITS; i++) {
        value[2 * i] = runner_uniform(9, i);
        value[2 * i + 1] = value[2 * i] + 1.0;
        mean += value[2 * i] / UNITS;
    }
    for (int32_t i = 0; i < UNITS; i++)
        square += (value[2 * i] - mean) * (value[2 * i] - mean);
    double error = sqrt(square / (UNITS - 1.0) / UNITS);
    struct mpo_bootstrap_spec spec = {5, 8000, UNITS, 2, 3, value, derive, NULL};
    assert_ok(mpo_bootstrap_run(&spec, out));
    assert_close(out[0].estimate, mean, 1e-12);
    assert_close(out[0].low, mean - 1.96 * error, 0.1 * error);
    assert_close(out[0].high, mean + 1.96 * error, 0.1 * error);
    /* The basic interval mirrors: its lower end is the estimate's way to the upper tail. */
    double middle = exp(20.0 * (mean - 0.5));
    double upper = exp(20.0 * (mean + 1.96 * error - 0.5));
    assert_close(out[1].low, 2.0 * middle - upper, 0.1 * middle);
    assert_close(out[2].low, 1.0, 1e-12); /* paired: no scatter at all */
    assert_close(out[2].high, 1.0, 1e-12);
}

static void a_single_unit_has_no_interval(void **state)
{
    (void)state;
    static const double value[2] = {3.0, 4.0};
    struct mpo_interval out[3];
    struct mpo_bootstrap_spec spec = {5, 100, 1, 2, 3, value, derive, NULL};
    assert_ok(mpo_bootstrap_run(&spec, out));
    assert_close(out[0].estimate, 3.0, 0.0);
    assert_true(isnan(out[0].low) && isnan(out[0].high));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(jackknives_leave_out_each_response),
        cmocka_unit_test(one_response_has_no_jackknife),
        cmocka_unit_test(intervals_of_a_mean_are_those_of_normal_theory),
        cmocka_unit_test(a_single_unit_has_no_interval),
    };
    return run_cases("scored responses and the bootstrap", tests);
}
