/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums over virtual responses, in one pass and in logarithms: w_t leaves the range of
 * doubles within some hundred tokens. Means under the whole mixture are updated by each
 * weight's share of the total so far, as a running mean is.
 */
#include "ends.h"

#include <math.h>

/* log(e^a + e^b) */
static double log_add(double a, double b)
{
    double top = fmax(a, b);
    if (top == -INFINITY)
        return top;
    return top + log1p(exp(fmin(a, b) - top));
}

/* log prod_h pi_h^mu_h of an end token. */
static double score_of(const struct mpo_ends_position *position, const double *log_policy,
                       int32_t policy_count)
{
    double score = 0.0;
    for (int32_t h = 0; h < policy_count; h++)
        score += position->mu[h] * log_policy[h];
    return score;
}

/* A virtual response of weight e^log_weight whose log pi_h is drawn + more (NULL: 0). */
static void add_whole(struct mpo_ends *ends, double log_weight, const double *more)
{
    ends->log_total = log_add(ends->log_total, log_weight);
    double share = exp(log_weight - ends->log_total);
    for (int32_t h = 0; h < ends->policy_count; h++) {
        double value = ends->drawn[h] + (more != NULL ? more[h] : 0.0);
        ends->whole[h] += share * (value - ends->whole[h]);
    }
}

/* E_q log pi_h and E_q log q at this state, which the row reaches with the probability
 * `survival`, from the moments without ends and the ends themselves. */
static void add_served(struct mpo_ends *ends, const struct mpo_ends_position *position,
                       double log_stay, double log_norm)
{
    double stay = exp(log_stay - log_norm);
    double negative_entropy =
        stay > 0.0 ? stay * (log_stay - log_norm - position->moments->entropy) : 0.0;
    for (int32_t e = 0; e < position->end_count; e++) {
        const double *end = position->end_log_policy + e * ends->policy_count;
        double log_q = score_of(position, end, ends->policy_count) - log_norm;
        negative_entropy += exp(log_q) * log_q;
    }
    for (int32_t h = 0; h < ends->policy_count; h++) {
        double expectation = stay > 0.0 ? stay * position->expectation[h] : 0.0;
        for (int32_t e = 0; e < position->end_count; e++) {
            const double *end = position->end_log_policy + e * ends->policy_count;
            double log_q = score_of(position, end, ends->policy_count) - log_norm;
            expectation += exp(log_q) * end[h];
        }
        ends->served[h] += ends->survival * expectation;
        ends->divergence[h] += ends->survival * (negative_entropy - expectation);
    }
}

void mpo_ends_add(struct mpo_ends *ends, const struct mpo_ends_position *position)
{
    double log_stay = position->moments->log_z + log1p(-position->moments->end_probability);
    double log_end = -INFINITY;
    for (int32_t e = 0; e < position->end_count; e++)
        log_end = log_add(
            log_end, score_of(position, position->end_log_policy + e * ends->policy_count,
                              ends->policy_count));
    double log_norm = log_add(log_stay, log_end);
    add_served(ends, position, log_stay, log_norm);
    for (int32_t e = 0; e < position->end_count; e++) {
        const double *end = position->end_log_policy + e * ends->policy_count;
        double score = score_of(position, end, ends->policy_count);
        add_whole(ends, ends->log_weight + score, end);
    }
    ends->length += ends->survival;
    ends->log_weight += log_stay;
    ends->survival *= exp(log_stay - log_norm);
    for (int32_t h = 0; h < ends->policy_count; h++)
        ends->drawn[h] += position->log_policy[h];
}

void mpo_ends_cut(struct mpo_ends *ends)
{
    add_whole(ends, ends->log_weight, NULL);
}
