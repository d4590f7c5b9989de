/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Importance sampling of one prompt at any weights, in double and in a fixed order.
 *
 * The jackknife costs m: what is left without response j is the sum of the shares minus its
 * own. Only where a single response has half of the weight or more would that subtract
 * nearly equal numbers; there, at most twice a prompt, the others are summed anew from
 * their log w. The sum of the shares is 1 but for rounding, which the jackknife would
 * multiply by m; so it divides by the sum itself.
 *
 * Source: Owen, Monte Carlo theory, methods and examples (2013), chapter 9 (self-normalised
 * importance sampling); Kong, Tech. Rep. 348, Univ. of Chicago (1992) (effective sample
 * size); Efron & Stein, Ann. Statist. 9 (1981) 586-596 (jackknife).
 */
#include "sample.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NONE (-1)

#define EFFECTIVE_PART 0.75

struct mpo_sample mpo_sample_of_step(const struct mpo_responses *responses, int32_t first,
                                     int32_t count)
{
    int64_t policies = responses->policy_count;
    return (struct mpo_sample){
        .count = count,
        .policy_count = responses->policy_count,
        .log_proposal = responses->log_proposal + first,
        .log_policy = responses->log_policy + first * policies,
        .control = responses->control + first * policies,
        .entropy = responses->entropy + first,
        .score = responses->score != NULL
                     ? responses->score + (int64_t)first * responses->score_count
                     : NULL,
        .score_count = responses->score_count,
    };
}

struct mpo_sample mpo_sample_of_integrals(const struct mpo_integrals *integrals,
                                          int32_t first, int32_t count)
{
    int64_t policies = integrals->policy_count;
    return (struct mpo_sample){
        .count = count,
        .policy_count = integrals->policy_count,
        .log_policy = integrals->whole + first * policies,
        .log_weight = integrals->log_total + first,
    };
}

double mpo_sample_log_weight(const struct mpo_sample *sample, const double *exponent,
                             int32_t exponent_count, int32_t index)
{
    const double *log_policy = sample->log_policy + (int64_t)index * sample->policy_count;
    double log_weight = -sample->log_proposal[index];
    for (int32_t h = 0; h < exponent_count; h++)
        log_weight += exponent[h] * log_policy[h];
    return log_weight;
}

/* ---- one pass over the responses ---- */

/* The largest log w_j over j != left_out. */
static double greatest_weight(const double *log_weight, int32_t count, int32_t left_out)
{
    double top = -INFINITY;
    for (int32_t j = 0; j < count; j++)
        if (j != left_out && log_weight[j] > top)
            top = log_weight[j];
    return top;
}

/* log sum_j w_j over j != left_out. */
static double log_sum_weights(const double *log_weight, int32_t count, int32_t left_out)
{
    double top = greatest_weight(log_weight, count, left_out);
    double sum = 0.0;
    for (int32_t j = 0; j < count; j++)
        if (j != left_out)
            sum += exp(log_weight[j] - top);
    return top + log(sum);
}

/* log w, its softmax, F and the effective sample size. */
static void weigh_responses(const struct mpo_sample *sample,
                            const struct mpo_sample_query *query,
                            struct mpo_sample_figures *out)
{
    int32_t m = sample->count;
    double square_sum = 0.0;
    for (int32_t j = 0; j < m; j++)
        out->log_weight[j] =
            sample->log_weight != NULL
                ? sample->log_weight[j]
                : mpo_sample_log_weight(sample, query->exponent, query->exponent_count, j);
    double total = log_sum_weights(out->log_weight, m, NONE);
    for (int32_t j = 0; j < m; j++) {
        out->share[j] = exp(out->log_weight[j] - total);
        square_sum += out->share[j] * out->share[j];
    }
    out->value = total - log(m);
    out->ess = 1.0 / (m * square_sum);
}

static double sum_shares(const struct mpo_sample_figures *figures, int32_t count)
{
    double sum = 0.0;
    for (int32_t j = 0; j < count; j++)
        sum += figures->share[j];
    return sum;
}

/* Of a table [m, H]. */
static double table_score(const struct mpo_sample *sample,
                          const struct mpo_sample_query *query, const double *table,
                          int32_t j, int32_t k)
{
    const double *figure = table + (int64_t)j * sample->policy_count;
    return query->scores != NULL ? mpo_exponents_score(query->scores, figure, k)
                                 : figure[k];
}

double mpo_sample_score(const struct mpo_sample *sample,
                        const struct mpo_sample_query *query, int32_t j, int32_t k)
{
    if (sample->score != NULL)
        return sample->score[(int64_t)j * sample->score_count + k];
    return table_score(sample, query, sample->log_policy, j, k);
}

double mpo_sample_control(const struct mpo_sample *sample,
                          const struct mpo_sample_query *query, int32_t j, int32_t k)
{
    return table_score(sample, query, sample->control, j, k);
}

static void average_scores(const struct mpo_sample *sample,
                           const struct mpo_sample_query *query, const double *share,
                           double *gradient)
{
    memset(gradient, 0, (size_t)query->objective_count * sizeof *gradient);
    for (int32_t j = 0; j < sample->count; j++)
        for (int32_t k = 0; k < query->objective_count; k++)
            gradient[k] += share[j] * mpo_sample_score(sample, query, j, k);
}

static void average_control(const struct mpo_sample *sample,
                            const struct mpo_sample_query *query, double *out)
{
    memset(out, 0, (size_t)query->objective_count * sizeof *out);
    for (int32_t j = 0; sample->control != NULL && j < sample->count; j++)
        for (int32_t k = 0; k < query->objective_count; k++)
            out[k] += mpo_sample_control(sample, query, j, k) / sample->count;
}

/* E_q log pi_k is log pi_k of what was drawn less its control. */
static void average_divergence(const struct mpo_sample *sample, int32_t objective_count,
                               double *out)
{
    memset(out, 0, (size_t)objective_count * sizeof *out);
    for (int32_t j = 0; j < sample->count; j++) {
        int64_t first = (int64_t)j * sample->policy_count;
        for (int32_t k = 0; k < objective_count; k++)
            out[k] += (sample->control[first + k] - sample->log_policy[first + k] -
                       sample->entropy[j]) /
                      sample->count;
    }
}

/* ---- the jackknife ---- */

/* F without response j, less F. */
static double value_change(const struct mpo_sample_figures *figures, int32_t count,
                           double share_sum, int32_t j)
{
    if (figures->share[j] < 0.5)
        return log((share_sum - figures->share[j]) / share_sum * count / (count - 1.0));
    return log_sum_weights(figures->log_weight, count, j) - log(count - 1) - figures->value;
}

static void jackknife_value(int32_t count, struct mpo_sample_figures *out)
{
    double share_sum = sum_shares(out, count);
    double mean = 0.0; /* over j of F without response j, less F */
    double square_sum = 0.0;
    out->value_jackknife = out->value;
    out->value_error = NAN;
    if (count < 2)
        return;
    for (int32_t j = 0; j < count; j++) { /* Welford's update of mean and squares */
        double change = value_change(out, count, share_sum, j);
        double deviation = change - mean;
        mean += deviation / (j + 1);
        square_sum += deviation * (change - mean);
    }
    out->value_jackknife = out->value - (count - 1.0) * mean;
    out->value_error = sqrt((count - 1.0) / count * square_sum);
}

/* g_k of the responses but one, from their log w. */
static double average_without(const struct mpo_sample *sample,
                              const struct mpo_sample_query *query,
                              const double *log_weight, int32_t left_out, int32_t k)
{
    double top = greatest_weight(log_weight, sample->count, left_out);
    double weight_sum = 0.0;
    double sum = 0.0;
    for (int32_t j = 0; j < sample->count; j++) {
        if (j == left_out)
            continue;
        double weight = exp(log_weight[j] - top);
        weight_sum += weight;
        sum += weight * mpo_sample_score(sample, query, j, k);
    }
    return sum / weight_sum;
}

/* m g_k - (m - 1) mean_j g_k without j, in the place of g_k. */
static void jackknife_gradient(const struct mpo_sample *sample,
                               const struct mpo_sample_query *query,
                               struct mpo_sample_figures *out)
{
    double m = sample->count;
    double share_sum = sum_shares(out, sample->count);
    for (int32_t k = 0; k < query->objective_count; k++) {
        double without = 0.0;
        for (int32_t j = 0; j < sample->count; j++) {
            double share = out->share[j];
            double own = mpo_sample_score(sample, query, j, k);
            without +=
                (share < 0.5 ? (out->gradient[k] - share * own) / (share_sum - share)
                             : average_without(sample, query, out->log_weight, j, k)) /
                m;
        }
        out->gradient[k] = m * (out->gradient[k] / share_sum) - (m - 1.0) * without;
    }
}

/* ---- all together, and what follows from it ---- */

void mpo_sample_estimate(const struct mpo_sample *sample,
                         const struct mpo_sample_query *query,
                         struct mpo_sample_figures *out)
{
    weigh_responses(sample, query, out);
    jackknife_value(sample->count, out);
    if (query->target == MPO_TARGET_SERVED)
        for (int32_t j = 0; j < sample->count; j++)
            out->share[j] = 1.0 / sample->count;
    if (out->gradient != NULL) {
        average_scores(sample, query, out->share, out->gradient);
        bool is_mean = query->target == MPO_TARGET_SERVED; /* has no bias to take out */
        if (query->jackknife && sample->count > 1 && !is_mean)
            jackknife_gradient(sample, query, out);
    }
    if (out->control != NULL)
        average_control(sample, query, out->control);
    if (out->log_policy != NULL) {
        struct mpo_sample_query plain = *query;
        struct mpo_sample bare = *sample;
        plain.scores = NULL;
        bare.score = NULL;
        average_scores(&bare, &plain, out->share, out->log_policy);
    }
    if (out->divergence != NULL)
        average_divergence(sample, query->objective_count, out->divergence);
}

void mpo_sample_divergence(const double *weights, const double *gradient, double value,
                           int32_t objective_count, double *out)
{
    double inner = 0.0;
    for (int32_t k = 0; k < objective_count; k++)
        inner += weights[k] * gradient[k];
    for (int32_t k = 0; k < objective_count; k++)
        out[k] = inner - value - gradient[k];
}

bool mpo_sample_is_known(double effective, double count)
{
    return count > 1.0 &&
           effective >= fmin(MPO_SAMPLE_EFFECTIVE_MIN, EFFECTIVE_PART * count);
}

bool mpo_sample_may_certify(enum mpo_target target)
{
    return target == MPO_TARGET_WHOLE;
}

const char *mpo_sample_why_unknown(enum mpo_target target, double effective, double count,
                                   char *text)
{
    text[0] = '\0';
    if (!mpo_sample_may_certify(target))
        snprintf(text, MPO_SAMPLE_REASON_BYTES,
                 "drawn ends do not certify it; mpo evaluate integrates them out");
    else if (count <= 1.0)
        snprintf(text, MPO_SAMPLE_REASON_BYTES, "needs several responses per prompt");
    else if (!mpo_sample_is_known(effective, count))
        snprintf(text, MPO_SAMPLE_REASON_BYTES,
                 "%.1f of %.0f responses to a prompt are effective", effective, count);
    return text;
}

int32_t mpo_sample_pick(const double *share, int32_t count, double uniform)
{
    double total = 0.0;
    double sum = 0.0;
    for (int32_t j = 0; j < count; j++)
        total += share[j];
    for (int32_t j = 0; j < count; j++) {
        sum += share[j];
        if (sum > uniform * total)
            return j;
    }
    return count - 1;
}
