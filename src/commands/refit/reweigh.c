/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Predicting rewards at other weights.
 *
 * What is served is the token mixture q, with a normaliser at each position that stored
 * responses do not have for other exponents than theirs. But the derivative of log q(y|x) in
 * mu_h is the control variate C_h of the response, and the second one is minus the covariance
 * of the log pi_h at each position, so with d = mu' - mu
 *
 *     log q'(y|x) - log q(y|x) = sum_h d_h C_h(y) - (1/2) sum_t d . Cov_t d + ...
 *
 * Cov_t is not stored. The C_h are sums of differences of a martingale, so their mean square is
 * the mean of sum_t Cov_t: S = sum_j C_j C_j' / sum_j n_j takes its place, n tokens times.
 * Without it long responses would count for too much. A prediction is for weights near those
 * that were drawn with, and says so. How near is what the effective sample size of the
 * weights w = exp(...), normalised within each prompt, measures.
 */
#include "reweigh.h"

#include <math.h>
#include <string.h>

double reweigh_normalise(const struct reweigh *reweigh, int32_t k, double reward)
{
    const struct mpo_rewards_scale *scale = &reweigh->rewards.scale;
    return (reward - scale->zero[k]) / (scale->one[k] - scale->zero[k]);
}

void reweigh_measure_covariance(struct reweigh *reweigh)
{
    int32_t policies = reweigh->policy_count;
    double tokens = 0.0;
    for (int64_t i = 0; i < reweigh->count; i++) {
        const double *control = reweigh->control + i * policies;
        tokens += (double)reweigh->tokens[i];
        for (int32_t h = 0; h < policies; h++)
            for (int32_t g = 0; g < policies; g++)
                reweigh->covariance[h * policies + g] += control[h] * control[g];
    }
    for (int32_t at = 0; at < policies * policies; at++)
        reweigh->covariance[at] /= fmax(tokens, 1.0);
}

static double log_weight(const struct reweigh *reweigh, const double *mu, int64_t i)
{
    int32_t policies = reweigh->policy_count;
    const double *base = reweigh->base + i * policies;
    const double *control = reweigh->control + i * policies;
    double first = 0.0;
    double second = 0.0;
    for (int32_t h = 0; h < policies; h++) {
        first += (mu[h] - base[h]) * control[h];
        for (int32_t g = 0; g < policies; g++)
            second += (mu[h] - base[h]) * reweigh->covariance[h * policies + g] *
                      (mu[g] - base[g]);
    }
    return first - 0.5 * (double)reweigh->tokens[i] * second;
}

/* The responses order[first .. end - 1] to one prompt, into its means; their ESS. */
static double predict_prompt(const struct reweigh *reweigh, int64_t first, int64_t end,
                             double *mean)
{
    double *weight = reweigh->work;
    double top = -INFINITY;
    double sum = 0.0;
    double square_sum = 0.0;
    memset(mean, 0, (size_t)reweigh->objective_count * sizeof *mean);
    for (int64_t j = first; j < end; j++) {
        weight[j] = log_weight(reweigh, reweigh->work + reweigh->count, reweigh->order[j]);
        top = fmax(top, weight[j]);
    }
    for (int64_t j = first; j < end; j++) {
        weight[j] = exp(weight[j] - top);
        sum += weight[j];
        square_sum += weight[j] * weight[j];
    }
    for (int64_t j = first; j < end; j++)
        for (int32_t k = 0; k < reweigh->objective_count; k++)
            mean[k] += weight[j] / sum *
                       reweigh->reward[reweigh->order[j] * reweigh->objective_count + k];
    return sum * sum / ((double)(end - first) * square_sum);
}

/* Means and standard errors over prompts. */
static void summarise_prompts(const struct reweigh *reweigh, int64_t prompts,
                              struct reweigh_point *point)
{
    for (int32_t k = 0; k < reweigh->objective_count; k++) {
        double mean = 0.0;
        double square_sum = 0.0;
        for (int64_t x = 0; x < prompts; x++) {
            double off = reweigh->prompt_mean[x * reweigh->objective_count + k] - mean;
            mean += off / (double)(x + 1);
            square_sum +=
                off * (reweigh->prompt_mean[x * reweigh->objective_count + k] - mean);
        }
        point->mean[k] = mean;
        point->error[k] = prompts > 1
                              ? sqrt(square_sum / ((double)prompts - 1.0) / (double)prompts)
                              : NAN;
    }
    point->ess /= (double)prompts;
    point->effective /= (double)prompts;
}

void reweigh_predict(struct reweigh *reweigh, struct reweigh_point *point)
{
    int64_t prompts = 0;
    point->ess = point->effective = 0.0;
    mpo_exponents_of(&reweigh->target, point->weights, reweigh->work + reweigh->count);
    for (int64_t first = 0, end = 0; first < reweigh->count; first = end, prompts++) {
        int64_t prompt = reweigh->prompt[reweigh->order[first]];
        while (end < reweigh->count && reweigh->prompt[reweigh->order[end]] == prompt)
            end++;
        double ess = predict_prompt(
            reweigh, first, end, reweigh->prompt_mean + prompts * reweigh->objective_count);
        point->ess += ess;
        point->effective += ess * (double)(end - first);
    }
    summarise_prompts(reweigh, prompts, point);
}
