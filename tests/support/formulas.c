/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formulas of the estimator as they are written in the design, with no care for
 * overflow: tests keep log w moderate, and long double carries the sums.
 */
#include "formulas.h"

#include <math.h>

#include "runner.h"

static double log_mean_exp_without(const double *value, int32_t count, int32_t left_out)
{
    long double sum = 0.0L;
    for (int32_t j = 0; j < count; j++)
        if (j != left_out)
            sum += expl((long double)value[j]);
    return (double)logl(sum / (left_out < 0 ? count : count - 1));
}

static void jackknife(const double *log_weight, int32_t count, struct formulas *out)
{
    double without[FORMULAS_RESPONSE_MAX] = {0};
    double mean = 0.0;
    double squares = 0.0;
    for (int32_t j = 0; j < count; j++) {
        without[j] = log_mean_exp_without(log_weight, count, j);
        mean += without[j] / count;
    }
    for (int32_t j = 0; j < count; j++)
        squares += pow(without[j] - mean, 2.0);
    out->jackknife = count * out->value - (count - 1) * mean;
    out->jackknife_error = sqrt((count - 1.0) / count * squares);
}

void formulas_evaluate(const struct mpo_responses *responses, int32_t slot,
                       const double *weights, int32_t objective_count, struct formulas *out)
{
    int32_t count = responses->responses;
    int32_t policy_count = responses->policy_count;
    double log_weight[FORMULAS_RESPONSE_MAX] = {0};
    double sum = 0.0;
    double squares = 0.0;
    assert_in_range(count, 1, FORMULAS_RESPONSE_MAX);
    *out = (struct formulas){0};
    for (int32_t j = 0; j < count; j++) {
        int32_t at = slot * count + j;
        log_weight[j] = -responses->log_proposal[at];
        for (int32_t k = 0; k < objective_count; k++)
            log_weight[j] += weights[k] * responses->log_policy[at * policy_count + k];
        sum += exp(log_weight[j]);
        squares += exp(2.0 * log_weight[j]);
    }
    for (int32_t j = 0; j < count; j++) {
        int32_t at = slot * count + j;
        double weight = exp(log_weight[j]) / sum;
        out->weight[j] = weight;
        out->direction += weight * responses->end_surprise[at];
        out->surprise += responses->end_surprise[at] / count;
        for (int32_t k = 0; k < objective_count; k++) {
            out->log_policy[k] += weight * responses->log_policy[at * policy_count + k];
            out->control[k] += responses->control[at * policy_count + k] / count;
        }
    }
    out->value = log_mean_exp_without(log_weight, count, -1);
    out->ess = sum * sum / (count * squares);
    if (count > 1)
        jackknife(log_weight, count, out);
}
