/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end tilt: where it begins, and its step. The step is stochastic gradient descent on
 * KL(pi_l || q) in b, with AdaGrad's step size, whose sum starts at 1 so that no step is
 * longer than half a nat. The plain mean of what ended beyond expectation has mean zero under
 * q, and is taken off: between identical policies nothing is left. Steps without an end say
 * only that ends are rare, so they do not count, and the tilt begins at the minimum of the
 * same KL over rows whose ends are integrated out (rollout/ends.h): a short mode that is
 * hardly ever drawn would give it no direction.
 *
 * Source: Duchi, Hazan & Singer, JMLR 12 (2011) 2121-2159.
 */
#include "estimator_impl.h"

#include <math.h>
#include <stdlib.h>

#include "base/argument.h"
#include "base/logarithm.h"
#include "base/memory.h"

void mpo_tilt_step(struct mpo_tilt *tilt, const struct mpo_tilt_pull *pull)
{
    double direction = tilt->is_old ? pull->weighted : pull->weighted - pull->plain;
    if (!tilt->adapt || !(pull->has_ended || tilt->is_old))
        return;
    tilt->squares += direction * direction;
    if (tilt->squares > 0.0)
        tilt->end_bias += 0.5 * direction / sqrt(tilt->squares);
}

/* ---- the beginning ---- */

#define BIAS_MAX 100.0

/* Halvings of [-100, 100] that leave neighbours among the doubles. */
#define HALVINGS 80

/* Rounding of the two sides of the equation, relative to them. */
#define ROUNDING 1e-9

/* Parts of pi in the rows of all prompts: each prompt's sum to 1. */
struct parts {
    const struct mpo_end_masses *masses;
    double *ended; /* [N, L] W_t / R_x */
    double *cut;   /* [N] w_L / R_x */
    double total;  /* of ended */
};

/* W_t and w_L of row i in logarithms, at the places of its parts; returns their sum's. */
static double weigh_row(const struct parts *parts, int64_t i)
{
    int32_t length = parts->masses->max_tokens;
    const double *stay = parts->masses->log_stay + i * length;
    const double *odds = parts->masses->log_odds + i * length;
    double weight = 0.0;
    double sum = -INFINITY;
    for (int32_t t = 0; t < length; t++) {
        weight += stay[t];
        parts->ended[i * length + t] = weight + odds[t];
        sum = mpo_log_add(sum, weight + odds[t]);
    }
    parts->cut[i] = weight;
    return mpo_log_add(sum, weight);
}

/* The rows first .. first + count - 1 are a prompt's. */
static void normalise_rows(struct parts *parts, int64_t first, int64_t count)
{
    int32_t length = parts->masses->max_tokens;
    double norm = -INFINITY;
    for (int64_t i = first; i < first + count; i++)
        norm = mpo_log_add(norm, weigh_row(parts, i));
    for (int64_t i = first; i < first + count; i++)
        parts->cut[i] = exp(parts->cut[i] - norm);
    for (int64_t at = first * length; at < (first + count) * length; at++) {
        parts->ended[at] = exp(parts->ended[at] - norm);
        parts->total += parts->ended[at];
    }
}

/* What pi expects sum_t q_b(end|s_t) to be, over the prompts. */
static double expected_ends(const struct parts *parts, double end_bias)
{
    const struct mpo_end_masses *masses = parts->masses;
    int64_t rows = (int64_t)masses->prompt_count * masses->responses;
    double sum = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        const double *odds = masses->log_odds + i * masses->max_tokens;
        const double *ended = parts->ended + i * masses->max_tokens;
        double ends = 0.0;
        for (int32_t t = 0; t < masses->max_tokens; t++) {
            ends += 1.0 / (1.0 + exp(-odds[t] - end_bias));
            sum += ended[t] * ends;
        }
        sum += parts->cut[i] * ends;
    }
    return sum;
}

static double find_root(const struct parts *parts)
{
    double low = -BIAS_MAX;
    double high = BIAS_MAX;
    if (fabs(parts->total - expected_ends(parts, 0.0)) <= ROUNDING * parts->total)
        return 0.0;
    for (int i = 0; i < HALVINGS; i++) {
        double middle = 0.5 * (low + high);
        if (parts->total > expected_ends(parts, middle))
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

/* log R of a row, which is that of its responses that end and of the one that is cut. */
static double log_total(const struct mpo_end_masses *masses, int64_t i)
{
    const double *stay = masses->log_stay + i * masses->max_tokens;
    const double *odds = masses->log_odds + i * masses->max_tokens;
    double weight = 0.0;
    double total = -INFINITY;
    for (int32_t t = 0; t < masses->max_tokens; t++) {
        weight += stay[t];
        total = mpo_log_add(total, weight + odds[t]);
    }
    return mpo_log_add(total, weight);
}

void mpo_estimator_log_z(const struct mpo_end_masses *masses, double *out)
{
    for (int32_t slot = 0; slot < masses->prompt_count; slot++) {
        int64_t first = (int64_t)slot * masses->responses;
        out[slot] = -INFINITY;
        for (int32_t j = 0; j < masses->responses; j++)
            out[slot] = mpo_log_add(out[slot], log_total(masses, first + j));
        out[slot] -= log(masses->responses);
    }
}

enum mpo_status mpo_estimator_end_bias_root(const struct mpo_end_masses *masses,
                                            double *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(masses, out);
    struct parts parts = {.masses = masses};
    int64_t rows = (int64_t)masses->prompt_count * masses->responses;
    MPO_NEW(rows * masses->max_tokens, &parts.ended);
    MPO_NEW(rows, &parts.cut);
    for (int64_t first = 0; first < rows; first += masses->responses)
        normalise_rows(&parts, first, masses->responses);
    *out = find_root(&parts);
cleanup:
    free(parts.cut);
    free(parts.ended);
    return status;
}
