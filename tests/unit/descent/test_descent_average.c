/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The average of a descent and what else is weighted by omega, against sums written out.
 */
#include <math.h>

#include "mpo/descent.h"
#include "runner.h"

enum { K = 3, STEPS = 40 };

static struct mpo_descent *open_descent(enum mpo_averaging averaging, int32_t count)
{
    struct mpo_descent *descent = NULL;
    assert_ok(
        mpo_descent_open(&(struct mpo_descent_spec){.map = "entropy",
                                                    .step_rule = MPO_STEP_RULE_ADAPTIVE,
                                                    .averaging = averaging,
                                                    .steps = STEPS,
                                                    .objective_count = count},
                         &descent));
    return descent;
}

static void check_sums(enum mpo_averaging averaging)
{
    struct mpo_descent *descent = open_descent(averaging, K);
    double weights_sum[K] = {0};
    double gradient_sum[K] = {0};
    double inner_sum = 0.0;
    double omega_sum = 0.0;
    for (int64_t step = 0; step < STEPS; step++) {
        double omega = averaging == MPO_AVERAGING_LINEAR ? (double)(step + 1) : 1.0;
        double gradient[K];
        for (int32_t k = 0; k < K; k++) {
            gradient[k] = 4.0 * runner_uniform(5, (uint64_t)(step * K + k)) - 2.0;
            weights_sum[k] += omega * mpo_descent_weights(descent)[k];
            gradient_sum[k] += omega * gradient[k];
            inner_sum += omega * mpo_descent_weights(descent)[k] * gradient[k];
        }
        omega_sum += omega;
        assert_ok(mpo_descent_step(descent, gradient));
        double least = fmin(gradient_sum[0], fmin(gradient_sum[1], gradient_sum[2]));
        for (int32_t k = 0; k < K; k++)
            assert_close(mpo_descent_average(descent)[k], weights_sum[k] / omega_sum,
                         1e-14);
        assert_close(mpo_descent_averaged_gap(descent), (inner_sum - least) / omega_sum,
                     1e-12);
        assert_same_bits(mpo_descent_omega_sum(averaging, step + 1), omega_sum);
    }
    mpo_descent_close(&descent);
}

static void a_uniform_average_weighs_all_steps_alike(void **state)
{
    (void)state;
    check_sums(MPO_AVERAGING_UNIFORM);
}

static void a_linear_average_weighs_step_t_by_t(void **state)
{
    (void)state;
    check_sums(MPO_AVERAGING_LINEAR);
}

/* log l_{t+1} = log l_1 - eta_t sum omega g, eta_t = sqrt(log K / sum (omega range / 2)^2) */
static void dual_averaging_weighs_its_gradients_by_omega(void **state)
{
    (void)state;
    static const double gradient[2][2] = {{1.0, 3.0}, {2.0, -1.0}};
    struct mpo_descent *descent = open_descent(MPO_AVERAGING_LINEAR, 2);
    assert_ok(mpo_descent_step(descent, gradient[0]));
    assert_ok(mpo_descent_step(descent, gradient[1]));
    double eta = sqrt(log(2.0) / (1.0 * 1.0 + 3.0 * 3.0));
    double difference = (1.0 + 2.0 * 2.0) - (3.0 - 2.0 * 1.0);
    assert_close(mpo_descent_step_size(descent), eta, 1e-15);
    const double *weights = mpo_descent_weights(descent);
    assert_close(weights[0] / weights[1], exp(-eta * difference), 1e-14);
    mpo_descent_close(&descent);
}

static void a_state_that_was_loaded_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    struct mpo_descent *whole = open_descent(MPO_AVERAGING_LINEAR, K);
    struct mpo_descent *loaded = open_descent(MPO_AVERAGING_LINEAR, K);
    for (int64_t step = 0; step < STEPS; step++) {
        double gradient[K];
        for (int32_t k = 0; k < K; k++)
            gradient[k] = runner_uniform(9, (uint64_t)(step * K + k));
        assert_ok(mpo_descent_step(whole, gradient));
        if (step > STEPS / 2)
            assert_ok(mpo_descent_step(loaded, gradient));
        if (step == STEPS / 2) {
            struct mpo_descent_state kept = {0};
            mpo_descent_save(whole, &kept);
            mpo_descent_load(loaded, &kept);
        }
    }
    for (int32_t k = 0; k < K; k++) {
        assert_same_bits(mpo_descent_average(loaded)[k], mpo_descent_average(whole)[k]);
        assert_same_bits(mpo_descent_weights(loaded)[k], mpo_descent_weights(whole)[k]);
    }
    assert_same_bits(mpo_descent_averaged_gap(loaded), mpo_descent_averaged_gap(whole));
    mpo_descent_close(&loaded);
    mpo_descent_close(&whole);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_uniform_average_weighs_all_steps_alike),
        cmocka_unit_test(a_linear_average_weighs_step_t_by_t),
        cmocka_unit_test(dual_averaging_weighs_its_gradients_by_omega),
        cmocka_unit_test(a_state_that_was_loaded_goes_on_to_the_same_bits),
    };
    return run_cases("average of the descent", tests);
}
