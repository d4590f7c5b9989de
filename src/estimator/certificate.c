/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything but the two largest excesses is linear in the prompts, so a prompt's columns
 * need its own rows alone, and the bootstrap needs nothing but the columns.
 *
 * F of the rows is cut off at 0 for the mean, not for a prompt: a jackknife that goes above
 * makes up for others that stay below.
 */
#include "certificate.h"

#include <math.h>

#include "base/simplex.h"
#include "estimator/sample.h"

/* ---- columns ---- */

int32_t mpo_certificate_block_length(const struct mpo_certificate *certificate,
                                     enum mpo_certificate_block block)
{
    return block < MPO_BLOCK_SERVED_SCORE ? certificate->exponents.policy_count
                                          : certificate->exponents.objective_count;
}

int32_t mpo_certificate_block_first(const struct mpo_certificate *certificate,
                                    enum mpo_certificate_block block)
{
    int32_t first = MPO_COLUMN_SINGLES;
    for (int before = 0; before < (int)block; before++)
        first +=
            mpo_certificate_block_length(certificate, (enum mpo_certificate_block)before);
    return first;
}

static double *block_of(const struct mpo_certificate *certificate, double *column,
                        enum mpo_certificate_block block)
{
    return column + mpo_certificate_block_first(certificate, block);
}

/* ---- a prompt ---- */

static double mean_of(const double *value, int32_t count, int32_t stride)
{
    double sum = 0.0;
    for (int32_t j = 0; j < count; j++)
        sum += value[(int64_t)j * stride];
    return sum / count;
}

static void keep_served(const struct mpo_certificate *certificate,
                        const struct mpo_integrals *integrals, int32_t slot, double *column)
{
    int32_t m = integrals->responses;
    int32_t policies = certificate->exponents.policy_count;
    int32_t stride = integrals->policy_count;
    int64_t first = (int64_t)slot * m;
    double *score = block_of(certificate, column, MPO_BLOCK_SERVED_LOG_POLICY);
    double *divergence = block_of(certificate, column, MPO_BLOCK_SERVED_DIVERGENCE);
    column[MPO_COLUMN_LENGTH] = mean_of(integrals->length + first, m, 1);
    column[MPO_COLUMN_TRUNCATED] = mean_of(integrals->truncated + first, m, 1);
    for (int32_t h = 0; h < policies; h++) {
        score[h] = mean_of(integrals->served + first * stride + h, m, stride);
        divergence[h] = mean_of(integrals->divergence + first * stride + h, m, stride);
    }
}

static void keep_whole(const struct mpo_certificate *certificate,
                       const struct mpo_integrals *integrals, int32_t slot, double *column)
{
    int32_t m = integrals->responses;
    int32_t policies = certificate->exponents.policy_count;
    double *mean = block_of(certificate, column, MPO_BLOCK_WHOLE_LOG_POLICY);
    struct mpo_sample sample = mpo_sample_of_integrals(integrals, slot * m, m);
    struct mpo_sample_query query = {.objective_count = policies, .jackknife = true};
    struct mpo_sample_figures figures = {.log_weight = certificate->room,
                                         .share = certificate->room + m};
    sample.count = m / 2;
    mpo_sample_estimate(&sample, &query, &figures);
    double half = figures.value;
    sample.count = m;
    figures.gradient = mean;
    mpo_sample_estimate(&sample, &query, &figures);
    column[MPO_COLUMN_VALUE] = figures.value_jackknife;
    column[MPO_COLUMN_PLAIN] = figures.value;
    column[MPO_COLUMN_HALVING] = figures.value - half;
    column[MPO_COLUMN_ESS] = figures.ess;
    double *divergence = block_of(certificate, column, MPO_BLOCK_WHOLE_DIVERGENCE);
    double inner = 0.0;
    for (int32_t h = 0; h < policies; h++)
        inner += certificate->mu[h] * mean[h];
    for (int32_t h = 0; h < policies; h++)
        divergence[h] = inner - figures.value_jackknife - mean[h];
}

/* s_k of means of log pi_h, and l.s - s_k. */
static void keep_scores(const struct mpo_certificate *certificate, const double *mean,
                        double *score, double *excess)
{
    const struct mpo_exponents *exponents = &certificate->exponents;
    int32_t count = exponents->objective_count;
    double inner = 0.0;
    for (int32_t k = 0; k < count; k++) {
        double scale = exponents->scale != NULL ? exponents->scale[k] : 1.0;
        score[k] =
            exponents->policy_count > count ? scale * (mean[k] - mean[count]) : mean[k];
        inner += certificate->weights[k] * score[k];
    }
    for (int32_t k = 0; k < count; k++)
        excess[k] = inner - score[k];
}

static void forget_whole(const struct mpo_certificate *certificate, double *column)
{
    static const enum mpo_certificate_block whole[] = {MPO_BLOCK_WHOLE_LOG_POLICY,
                                                       MPO_BLOCK_WHOLE_DIVERGENCE};
    for (int32_t c = MPO_COLUMN_VALUE; c < MPO_COLUMN_SINGLES; c++)
        column[c] = NAN;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        for (int32_t h = 0; h < certificate->exponents.policy_count; h++)
            block_of(certificate, column, whole[i])[h] = NAN;
}

void mpo_certificate_keep(const struct mpo_certificate *certificate,
                          const struct mpo_integrals *integrals, int32_t slot,
                          double *column)
{
    keep_served(certificate, integrals, slot, column);
    if (certificate->of_blend)
        forget_whole(certificate, column);
    else
        keep_whole(certificate, integrals, slot, column);
    keep_scores(certificate, block_of(certificate, column, MPO_BLOCK_SERVED_LOG_POLICY),
                block_of(certificate, column, MPO_BLOCK_SERVED_SCORE),
                block_of(certificate, column, MPO_BLOCK_SERVED_EXCESS));
    keep_scores(certificate, block_of(certificate, column, MPO_BLOCK_WHOLE_LOG_POLICY),
                block_of(certificate, column, MPO_BLOCK_WHOLE_SCORE),
                block_of(certificate, column, MPO_BLOCK_WHOLE_EXCESS));
}

/* ---- all prompts ---- */

bool mpo_certificate_is_bounded(const struct mpo_certificate *certificate)
{
    double sum = 0.0;
    for (int32_t h = 0; h < certificate->exponents.policy_count; h++) {
        if (certificate->mu[h] < 0.0)
            return false;
        sum += certificate->mu[h];
    }
    return sum >= 1.0 || mpo_sums_to_one(sum);
}

static void clip_interval(struct mpo_interval *of, double least, double most)
{
    of->estimate = fmin(fmax(of->estimate, least), most);
    if (isnan(of->low))
        return;
    of->low = fmin(fmax(of->low, least), of->estimate);
    of->high = fmax(fmin(of->high, most), of->estimate);
}

static void clip_columns(const struct mpo_certificate *certificate, struct mpo_interval *of)
{
    static const enum mpo_certificate_block at_least_zero[] = {MPO_BLOCK_SERVED_DIVERGENCE,
                                                               MPO_BLOCK_WHOLE_DIVERGENCE};
    double most = mpo_certificate_is_bounded(certificate) ? 0.0 : INFINITY;
    clip_interval(&of[MPO_COLUMN_LENGTH], 1.0, certificate->max_tokens);
    clip_interval(&of[MPO_COLUMN_TRUNCATED], 0.0, 1.0);
    clip_interval(&of[MPO_COLUMN_VALUE], -INFINITY, most);
    clip_interval(&of[MPO_COLUMN_PLAIN], -INFINITY, most);
    clip_interval(&of[MPO_COLUMN_ESS], 0.0, 1.0);
    for (size_t i = 0; i < sizeof at_least_zero / sizeof *at_least_zero; i++) {
        int32_t first = mpo_certificate_block_first(certificate, at_least_zero[i]);
        for (int32_t h = 0; h < certificate->exponents.policy_count; h++)
            clip_interval(&of[first + h], 0.0, INFINITY);
    }
}

enum mpo_status mpo_certificate_intervals(const struct mpo_certificate *certificate,
                                          const struct mpo_bootstrap_spec *spec,
                                          struct mpo_interval *out, double *upper)
{
    enum mpo_status status = MPO_OK;
    int32_t count = certificate->exponents.objective_count;
    struct mpo_bootstrap_family family[] = {
        {mpo_certificate_block_first(certificate, MPO_BLOCK_SERVED_EXCESS), count},
        {mpo_certificate_block_first(certificate, MPO_BLOCK_WHOLE_EXCESS), count},
    };
    struct mpo_bootstrap_spec run = *spec;
    run.column_count = mpo_certificate_block_first(certificate, MPO_BLOCK_COUNT);
    run.family = family;
    run.family_count = sizeof family / sizeof *family;
    MPO_TRY(mpo_bootstrap_run(&run, out, upper));
    clip_columns(certificate, out);
cleanup:
    return status;
}
