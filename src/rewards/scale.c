/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scale of each reward: where it is 0 and where 1.
 *
 * A reward that its own policy hardly raises has no scale: noise would be divided by noise,
 * and the descent would follow it. So one - zero has to be above two standard errors.
 */
#include "rewards_impl.h"

#include <math.h>

#include "base/argument.h"

#define ERRORS_MIN 2.0

enum mpo_status mpo_rewards_check_size(const double *reward, int64_t count,
                                       const char *const *policy, int32_t objective_count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(reward, policy);
    for (int32_t k = 0; k < objective_count; k++) {
        double largest = 0.0;
        double square_sum = 0.0;
        for (int64_t i = 0; i < count; i++) {
            double value = reward[i * objective_count + k];
            square_sum += value * value;
            if (fabs(value) > fabs(largest))
                largest = value;
        }
        MPO_CHECK(isfinite(square_sum), MPO_ERR_DATA,
                  "the reward of '%s': expected numbers with a finite mean and a finite "
                  "scatter, found %g; let the program write smaller ones",
                  policy[k], largest);
    }
cleanup:
    return status;
}

/* A column of a table [units, K], less that of another unless it is NULL. */
struct column {
    const double *value; /* of the first unit */
    const double *less;
    int32_t stride; /* K */
    int32_t count;  /* units */
};

static double mean_of(struct column column, double *error)
{
    double mean = 0.0;
    double square_sum = 0.0;
    for (int32_t u = 0; u < column.count; u++) { /* Welford's update of mean and squares */
        int64_t at = (int64_t)u * column.stride;
        double value = column.value[at] - (column.less != NULL ? column.less[at] : 0.0);
        double off = value - mean;
        mean += off / (u + 1);
        square_sum += off * (value - mean);
    }
    *error = sqrt(square_sum / (column.count - 1.0) / column.count);
    return mean;
}

/* Zero and one of objective k, and the error of their difference. */
static double measure_scale(const struct mpo_rewards_measured *measured, int32_t k,
                            int32_t objective_count, struct mpo_rewards_scale *scale)
{
    bool needs_zero = isnan(scale->zero[k]);
    bool needs_one = isnan(scale->one[k]);
    struct column zero = {measured->zero + k, NULL, objective_count, measured->unit_count};
    struct column one = {measured->one + k, NULL, objective_count, measured->unit_count};
    double error = 0.0;
    if (needs_zero)
        scale->zero[k] = mean_of(zero, &scale->zero_error[k]);
    if (needs_one)
        scale->one[k] = mean_of(one, &scale->one_error[k]);
    if (!needs_zero || !needs_one)
        return needs_zero ? scale->zero_error[k] : scale->one_error[k];
    one.less = zero.value;
    mean_of(one, &error);
    return error;
}

enum mpo_status mpo_rewards_settle_scale(const struct mpo_rewards_measured *measured,
                                         const char *const *policy, int32_t objective_count,
                                         struct mpo_rewards_scale *scale)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(measured, policy, scale);
    for (int32_t k = 0; k < objective_count; k++) {
        bool is_given = !isnan(scale->zero[k]) && !isnan(scale->one[k]);
        scale->zero_error[k] = NAN;
        scale->one_error[k] = NAN;
        if (is_given)
            continue;
        double error = measure_scale(measured, k, objective_count, scale);
        double rise = scale->one[k] - scale->zero[k];
        MPO_CHECK(
            rise > ERRORS_MIN * error, MPO_ERR_DATA,
            "the reward of '%s': expected its own policy to raise it by more than two "
            "standard errors, found a mean of %g at zero and of %g of '%s' alone "
            "(difference %g +- %g, %d prompts); raise --rewards.calibration, give "
            "policies.%s.reward_zero and reward_one, or negate a reward that is better "
            "when it is smaller",
            policy[k], scale->zero[k], scale->one[k], policy[k], rise, error,
            measured->unit_count, policy[k]);
    }
cleanup:
    return status;
}
