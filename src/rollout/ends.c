/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums over virtual responses, in one pass and in logarithms: w_t leaves the range of
 * doubles within some hundred tokens. Means under the whole mixture are updated by each
 * weight's share of the total so far, as a running mean is.
 */
#include "ends.h"

#include <math.h>
#include <stddef.h>

#include "base/logarithm.h"

/* A masked token reads about MPO_MASKED_LOGIT under every policy; no probability is so low. */
#define MASKED_BELOW (-1e20)

/* log pi_h [H] of end token e, and log prod_h pi_h^mu_h; -INFINITY where it is masked. */
static double score_of(const struct mpo_ends_position *position, int32_t policy_count,
                       int32_t e, const double **log_policy)
{
    const double *end = position->end_log_policy + (ptrdiff_t)e * policy_count;
    double score = 0.0;
    *log_policy = end;
    for (int32_t h = 0; h < policy_count; h++) {
        if (end[h] < MASKED_BELOW)
            return -INFINITY;
        score += position->mu[h] * end[h];
    }
    return score;
}

/* A virtual response of weight e^log_weight whose log pi_h is drawn + more (NULL: 0). */
static void add_whole(struct mpo_ends *ends, double log_weight, const double *more)
{
    ends->log_total = mpo_log_add(ends->log_total, log_weight);
    double share = exp(log_weight - ends->log_total);
    for (int32_t h = 0; h < ends->policy_count; h++) {
        double value = ends->drawn[h] + (more != NULL ? more[h] : 0.0);
        ends->whole[h] += share * (value - ends->whole[h]);
    }
}

/* A part of q at this state: its probability, its E log q and its E log pi_h; the row reaches
 * the state with the probability `survival`. */
static void add_served(struct mpo_ends *ends, double probability, double log_q,
                       const double *log_policy)
{
    double weight = ends->survival * probability;
    for (int32_t h = 0; weight > 0.0 && h < ends->policy_count; h++) {
        ends->served[h] += weight * log_policy[h];
        ends->divergence[h] += weight * (log_q - log_policy[h]);
    }
}

void mpo_ends_add(struct mpo_ends *ends, const struct mpo_ends_position *position)
{
    int32_t policies = ends->policy_count;
    const double *end = NULL;
    double log_stay = position->moments->log_z + log1p(-position->moments->end_probability);
    double log_norm = log_stay;
    for (int32_t e = 0; e < position->end_count; e++)
        log_norm = mpo_log_add(log_norm,
                               position->end_bias + score_of(position, policies, e, &end));
    double stay = exp(log_stay - log_norm);
    add_served(ends, stay, log_stay - log_norm - position->moments->entropy,
               position->expectation);
    for (int32_t e = 0; e < position->end_count; e++) {
        double score = score_of(position, policies, e, &end);
        if (score == -INFINITY)
            continue;
        double log_q = position->end_bias + score - log_norm;
        add_served(ends, exp(log_q), log_q, end);
        add_whole(ends, ends->log_weight + score, end);
    }
    ends->length += ends->survival;
    ends->log_weight += log_stay;
    ends->survival *= stay;
    for (int32_t h = 0; h < policies; h++)
        ends->drawn[h] += position->log_policy[h];
}

void mpo_ends_cut(struct mpo_ends *ends)
{
    add_whole(ends, ends->log_weight, NULL);
}
