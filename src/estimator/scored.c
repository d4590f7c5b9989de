/*
 * Importance sampling of one prompt at any weights.
 *
 * What is left without response j is one minus its share; only where a single response has
 * more than half of the weight would that subtract nearly equal numbers, and there, at most
 * once a prompt, the others are summed anew.
 *
 * Source: Owen, Monte Carlo theory, methods and examples (2013), chapter 9; Efron & Stein,
 * Ann. Statist. 9 (1981) 586-596 (jackknife).
 */
#include "scored.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

/* softmax(log w) into query->work; returns log sum w. */
static double weigh(const struct mpo_scored *scored, const struct mpo_scored_query *query)
{
    double *weight = query->work;
    double top = -INFINITY;
    double sum = 0.0;
    for (int32_t j = 0; j < scored->count; j++) {
        const double *log_policy = scored->log_policy + (int64_t)j * scored->policy_count;
        weight[j] = -scored->log_proposal[j];
        for (int32_t k = 0; k < query->objective_count; k++)
            weight[j] += query->weights[k] * log_policy[k];
        top = fmax(top, weight[j]);
    }
    for (int32_t j = 0; j < scored->count; j++) {
        weight[j] = exp(weight[j] - top);
        sum += weight[j];
    }
    for (int32_t j = 0; j < scored->count; j++)
        weight[j] /= sum;
    return top + log(sum);
}

/* sum over i != j of the weights, or of the weights times column k. */
static double sum_without(const struct mpo_scored *scored, const double *weight,
                          int32_t left_out, int32_t column)
{
    double sum = 0.0;
    for (int32_t j = 0; j < scored->count; j++)
        if (j != left_out)
            sum += weight[j] *
                   (column < 0
                        ? 1.0
                        : scored->log_policy[(int64_t)j * scored->policy_count + column]);
    return sum;
}

static double rest_of(const struct mpo_scored *scored, const double *weight, int32_t j)
{
    double rest = weight[j] < 0.5 ? 1.0 - weight[j] : sum_without(scored, weight, j, -1);
    return fmax(rest, DBL_MIN);
}

/* m g - (m - 1) mean_j g without j, for column k whose weighted mean is `mean`. */
static double jackknifed_mean(const struct mpo_scored *scored, const double *weight,
                              int32_t column, double mean)
{
    double m = scored->count;
    double without = 0.0;
    for (int32_t j = 0; j < scored->count; j++) {
        double own = scored->log_policy[(int64_t)j * scored->policy_count + column];
        double sum = weight[j] < 0.5 ? mean - weight[j] * own
                                     : sum_without(scored, weight, j, column);
        without += sum / rest_of(scored, weight, j) / m;
    }
    return m * mean - (m - 1.0) * without;
}

static double control_of(const struct mpo_scored *scored, int32_t column)
{
    double sum = 0.0;
    if (scored->control == NULL)
        return 0.0;
    for (int32_t j = 0; j < scored->count; j++)
        sum += scored->control[(int64_t)j * scored->policy_count + column];
    return sum / scored->count;
}

void mpo_scored_estimate(const struct mpo_scored *scored,
                         const struct mpo_scored_query *query,
                         struct mpo_scored_answer *out)
{
    double m = scored->count;
    const double *weight = query->work;
    double square_sum = 0.0;
    double without = 0.0; /* mean over j of F without j, less F */
    out->value = weigh(scored, query) - log(m);
    for (int32_t j = 0; j < scored->count; j++) {
        square_sum += weight[j] * weight[j];
        if (scored->count > 1)
            without += log(rest_of(scored, weight, j) * m / (m - 1.0)) / m;
    }
    out->ess = 1.0 / (m * square_sum);
    out->value_jackknife = out->value - (m - 1.0) * without;
    for (int32_t k = 0; k < query->objective_count; k++) {
        double mean = 0.0;
        for (int32_t j = 0; j < scored->count; j++)
            mean += weight[j] * scored->log_policy[(int64_t)j * scored->policy_count + k];
        if (query->jackknife && scored->count > 1)
            mean = jackknifed_mean(scored, weight, k, mean);
        out->gradient[k] = mean - query->coefficient * control_of(scored, k);
    }
}
