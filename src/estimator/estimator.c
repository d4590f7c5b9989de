/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The estimator of F and its gradient: means over prompts of the figures of sample.h, and
 * what is learnt from a step. Rank zero only; sums run over prompts and responses in a fixed
 * order, in double.
 */
#include "estimator_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"
#include "sample.h"

struct mpo_estimator {
    struct mpo_estimator_spec spec;
    struct mpo_control control;
    struct mpo_tilt tilt;
    double *log_weight;        /* [m] of one prompt */
    double *share;             /* [m] softmax of log_weight */
    double *value;             /* [prompts_max] F_x */
    double *half;              /* [prompts_max] of half of the responses */
    double *prompt_gradient;   /* [prompts_max, K] before the control variate */
    double *prompt_control;    /* [prompts_max, K] */
    double *prompt_divergence; /* [K] */
    double *divergence;        /* [K] */
    double *gradient;          /* [K] */
    double *mean_control;      /* [K] */
    double *log_policy;        /* [K] */
    double *prompt_log_policy; /* [K] of one prompt */
    double *mu;                /* [mu_count] */
    int32_t mu_count;
    double *influence; /* [K] of one response */
    double *deviation; /* [K] of one response's control */
    double *score;     /* [K] of one response */
    double *slope;     /* [K, K]; NULL: target whole */
};

static enum mpo_status check_spec(const struct mpo_estimator_spec *spec)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_exponents *exponents = spec->exponents;
    MPO_CHECK(
        spec->objective_count >= 1 && spec->prompts_max >= 1 && spec->responses_max >= 1,
        MPO_ERR_USAGE,
        "an estimator: expected objective_count, prompts_max and responses_max of 1 or "
        "more, found %d, %d and %d",
        spec->objective_count, spec->prompts_max, spec->responses_max);
    if (exponents == NULL)
        return MPO_OK;
    MPO_CHECK(
        exponents->objective_count == spec->objective_count &&
            exponents->policy_count >= exponents->objective_count,
        MPO_ERR_USAGE,
        "an estimator: expected exponents of its %d objectives, found those of %d and "
        "%d policies",
        spec->objective_count, exponents->objective_count, exponents->policy_count);
    MPO_CHECK(
        exponents->strength > 0.0 && exponents->strength <= MPO_STRENGTH_MAX, MPO_ERR_USAGE,
        "an estimator: expected exponents of a strength above 0 and at most %g, found "
        "%g",
        MPO_STRENGTH_MAX, exponents->strength);
    for (int32_t k = 0; exponents->scale != NULL && k < exponents->objective_count; k++)
        MPO_CHECK(
            exponents->scale[k] > 0.0 && exponents->scale[k] <= MPO_SCALE_MAX,
            MPO_ERR_USAGE,
            "an estimator: expected exponents of scales above 0 and at most %g, found "
            "%g as number %d",
            MPO_SCALE_MAX, exponents->scale[k], k + 1);
cleanup:
    return status;
}

enum mpo_status mpo_estimator_open(const struct mpo_estimator_spec *spec,
                                   struct mpo_estimator **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    struct mpo_estimator *estimator = NULL;
    size_t objectives = (size_t)spec->objective_count;
    size_t prompts = (size_t)spec->prompts_max;
    int32_t mu_count =
        spec->exponents != NULL ? spec->exponents->policy_count : spec->objective_count;
    MPO_TRY(check_spec(spec));
    MPO_NEW(1, &estimator);
    estimator->spec = *spec;
    estimator->mu_count = mu_count;
    estimator->tilt.adapt = isnan(spec->end_bias);
    estimator->tilt.end_bias = estimator->tilt.adapt ? 0.0 : spec->end_bias;
    estimator->tilt.squares = 1.0;
    estimator->control.fixed = spec->control;
    estimator->control.early = spec->has_scores ? 0.0 : 1.0;
    MPO_NEW(spec->responses_max, &estimator->log_weight);
    MPO_NEW(spec->responses_max, &estimator->share);
    MPO_NEW(prompts, &estimator->value);
    MPO_NEW(prompts, &estimator->half);
    MPO_NEW(prompts * objectives, &estimator->prompt_gradient);
    MPO_NEW(prompts * objectives, &estimator->prompt_control);
    MPO_NEW(objectives, &estimator->prompt_divergence);
    MPO_NEW(objectives, &estimator->divergence);
    MPO_NEW(objectives, &estimator->gradient);
    MPO_NEW(objectives, &estimator->mean_control);
    MPO_NEW(objectives, &estimator->log_policy);
    MPO_NEW(objectives, &estimator->prompt_log_policy);
    MPO_NEW(mu_count, &estimator->mu);
    MPO_NEW(objectives, &estimator->influence);
    MPO_NEW(objectives, &estimator->deviation);
    MPO_NEW(objectives, &estimator->score);
    if (spec->target == MPO_TARGET_SERVED)
        MPO_NEW(objectives * objectives, &estimator->slope);
cleanup:
    if (status != MPO_OK)
        mpo_estimator_close(&estimator);
    *out = estimator;
    return status;
}

void mpo_estimator_close(struct mpo_estimator **out)
{
    struct mpo_estimator *estimator = out != NULL ? *out : NULL;
    if (estimator == NULL)
        return;
    free(estimator->slope);
    free(estimator->score);
    free(estimator->deviation);
    free(estimator->influence);
    free(estimator->mu);
    free(estimator->prompt_log_policy);
    free(estimator->log_policy);
    free(estimator->mean_control);
    free(estimator->gradient);
    free(estimator->divergence);
    free(estimator->prompt_divergence);
    free(estimator->prompt_control);
    free(estimator->prompt_gradient);
    free(estimator->half);
    free(estimator->value);
    free(estimator->share);
    free(estimator->log_weight);
    free(estimator);
    *out = NULL;
}

double mpo_estimator_end_bias(const struct mpo_estimator *estimator)
{
    return estimator->tilt.end_bias;
}

/* F_x from the first half of the responses; uses the room of the figures of all. */
static double estimate_half(const struct mpo_estimator *estimator,
                            const struct mpo_sample *all,
                            const struct mpo_sample_query *query)
{
    struct mpo_sample half = *all;
    struct mpo_sample_figures figures = {.log_weight = estimator->log_weight,
                                         .share = estimator->share};
    half.count /= 2;
    if (half.count == 0)
        return NAN;
    mpo_sample_estimate(&half, query, &figures);
    return figures.value;
}

/* Figures of one prompt, into its places among the prompts'. */
static void estimate_prompt(struct mpo_estimator *estimator,
                            const struct mpo_responses *responses, int32_t slot,
                            struct mpo_sample_figures *figures)
{
    int32_t m = responses->responses;
    int32_t objectives = estimator->spec.objective_count;
    struct mpo_sample sample = mpo_sample_of_step(responses, slot * m, m);
    struct mpo_sample_query query = {
        .exponent_count = estimator->mu_count,
        .exponent = estimator->mu,
        .objective_count = objectives,
        .target = estimator->spec.target,
        .scores = estimator->spec.exponents,
    };
    *figures = (struct mpo_sample_figures){
        .log_weight = estimator->log_weight,
        .share = estimator->share,
        .gradient = estimator->prompt_gradient + (size_t)slot * (size_t)objectives,
        .control = estimator->prompt_control + (size_t)slot * (size_t)objectives,
        .log_policy = estimator->prompt_log_policy,
        .divergence = estimator->prompt_divergence,
    };
    estimator->half[slot] = estimate_half(estimator, &sample, &query);
    mpo_sample_estimate(&sample, &query, figures);
    estimator->value[slot] = figures->value;
    for (int32_t k = 0; k < objectives; k++) {
        estimator->log_policy[k] +=
            estimator->prompt_log_policy[k] / responses->prompt_count;
        estimator->divergence[k] +=
            estimator->prompt_divergence[k] / responses->prompt_count;
    }
}

/* Add what one prompt contributes to the tilt. */
static void pull_tilt(const struct mpo_responses *responses, int32_t slot,
                      const double *share, struct mpo_tilt_pull *pull)
{
    int32_t m = responses->responses;
    double weighted = 0.0;
    double plain = 0.0;
    for (int32_t j = 0; j < m; j++) {
        double surprise = responses->end_surprise[slot * m + j];
        weighted += share[j] * surprise;
        plain += surprise / m;
        if (responses->ended[slot * m + j] && share[j] > 0.0)
            pull->has_ended = true;
    }
    pull->weighted += weighted / responses->prompt_count;
    pull->plain += plain / responses->prompt_count;
}

/* Mean and standard error of F over prompts; a single prompt keeps the jackknife's. */
static void value_over_prompts(const struct mpo_estimator *estimator, int32_t prompt_count,
                               struct mpo_estimate *out)
{
    double mean = 0.0;
    double square_sum = 0.0;
    for (int32_t slot = 0; slot < prompt_count; slot++)
        mean += estimator->value[slot] / prompt_count;
    for (int32_t slot = 0; slot < prompt_count; slot++)
        square_sum += (estimator->value[slot] - mean) * (estimator->value[slot] - mean);
    out->value = mean;
    out->value_half = 0.0;
    for (int32_t slot = 0; slot < prompt_count; slot++)
        out->value_half += estimator->half[slot] / prompt_count;
    if (prompt_count > 1)
        out->value_error = sqrt(square_sum / (prompt_count - 1.0) / prompt_count);
}

static void gradient_over_prompts(struct mpo_estimator *estimator, int32_t prompt_count,
                                  double coefficient)
{
    int32_t objectives = estimator->spec.objective_count;
    for (int32_t k = 0; k < objectives; k++) {
        double score = 0.0;
        double control = 0.0;
        for (int32_t slot = 0; slot < prompt_count; slot++) {
            size_t at = (size_t)slot * (size_t)objectives + (size_t)k;
            score += estimator->prompt_gradient[at] / prompt_count;
            control += estimator->prompt_control[at] / prompt_count;
        }
        estimator->mean_control[k] = control;
        estimator->gradient[k] = score - coefficient * control;
    }
}

/* Statistics of the responses: share cut, entropy per token, tokens. */
static void describe_responses(const struct mpo_responses *responses,
                               struct mpo_estimate *out)
{
    int32_t count = responses->prompt_count * responses->responses;
    int32_t cut = 0;
    double entropy = 0.0;
    out->tokens = 0;
    for (int32_t i = 0; i < count; i++) {
        cut += !responses->ended[i];
        entropy += responses->entropy[i];
        out->tokens += responses->token_count[i];
    }
    out->truncated = (double)cut / count;
    out->entropy = entropy / (double)out->tokens;
}

/* Add a response to dg_k / dl_h: deviations from the prompt's means, of score and control. */
static void add_slope(struct mpo_estimator *estimator,
                      const struct mpo_responses *responses, const double *mean)
{
    int32_t objectives = estimator->spec.objective_count;
    const struct mpo_exponents *exponents = estimator->spec.exponents;
    double factor = (exponents != NULL ? exponents->strength : 1.0) /
                    (responses->responses - 1.0) / responses->prompt_count;
    for (int32_t k = 0; k < objectives; k++)
        for (int32_t h = 0; h < objectives; h++)
            estimator->slope[k * objectives + h] +=
                factor * (estimator->score[k] - mean[k]) * estimator->deviation[h];
}

/* Let the regression see each response of one prompt, while its shares are at hand. */
static void observe_prompt(struct mpo_estimator *estimator,
                           const struct mpo_responses *responses, int32_t slot,
                           const struct mpo_sample_figures *figures)
{
    int32_t m = responses->responses;
    int32_t objectives = estimator->spec.objective_count;
    struct mpo_sample sample = mpo_sample_of_step(responses, slot * m, m);
    struct mpo_sample_query query = {.scores = estimator->spec.exponents};
    for (int32_t j = 0; j < m; j++) {
        for (int32_t k = 0; k < objectives; k++) {
            double score = mpo_sample_score(&sample, &query, j, k);
            double control = mpo_sample_control(&sample, &query, j, k);
            estimator->influence[k] =
                m * figures->share[j] * (score - figures->gradient[k]);
            estimator->deviation[k] = control - figures->control[k];
            estimator->score[k] = score;
        }
        if (estimator->slope != NULL && m > 1)
            add_slope(estimator, responses, figures->gradient);
        mpo_control_observe(&estimator->control, estimator->influence, estimator->deviation,
                            objectives);
    }
}

/* Sums over prompts start anew, and mu follows the weights. */
static void begin_step(struct mpo_estimator *estimator, const double *weights)
{
    size_t bytes = (size_t)estimator->spec.objective_count * sizeof(double);
    memset(estimator->log_policy, 0, bytes);
    memset(estimator->divergence, 0, bytes);
    if (estimator->slope != NULL)
        memset(estimator->slope, 0, bytes * (size_t)estimator->spec.objective_count);
    if (estimator->spec.exponents != NULL)
        mpo_exponents_of(estimator->spec.exponents, weights, estimator->mu);
    else
        memcpy(estimator->mu, weights, bytes);
}

enum mpo_status mpo_estimator_step(struct mpo_estimator *estimator, const double *weights,
                                   const struct mpo_responses *responses,
                                   struct mpo_estimate *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(estimator, weights, responses, out);
    int32_t prompt_count = responses->prompt_count;
    struct mpo_tilt_pull pull = {0};
    MPO_CHECK(prompt_count <= estimator->spec.prompts_max &&
                  responses->responses <= estimator->spec.responses_max &&
                  responses->policy_count >= estimator->spec.objective_count,
              MPO_ERR_USAGE, "an estimate of %d prompts x %d responses under %d policies",
              prompt_count, responses->responses, responses->policy_count);
    *out = (struct mpo_estimate){
        .coefficient = mpo_control_coefficient(&estimator->control),
        .end_bias = estimator->tilt.end_bias,
        .gradient = estimator->gradient,
        .control = estimator->mean_control,
        .log_policy = estimator->log_policy,
        .divergence = estimator->divergence,
        .slope = responses->responses > 1 ? estimator->slope : NULL,
    };
    begin_step(estimator, weights);
    for (int32_t slot = 0; slot < prompt_count; slot++) {
        struct mpo_sample_figures figures;
        estimate_prompt(estimator, responses, slot, &figures);
        pull_tilt(responses, slot, figures.share, &pull);
        out->ess += figures.ess / prompt_count;
        out->value_jackknife += figures.value_jackknife / prompt_count;
        out->value_error = figures.value_error;
        observe_prompt(estimator, responses, slot, &figures);
    }
    if (estimator->spec.proposal == MPO_PROPOSAL_REFERENCE)
        for (int32_t k = 0; k < estimator->spec.objective_count; k++)
            estimator->divergence[k] = NAN;
    value_over_prompts(estimator, prompt_count, out);
    gradient_over_prompts(estimator, prompt_count, out->coefficient);
    describe_responses(responses, out);
    mpo_control_end_step(&estimator->control);
    mpo_tilt_step(&estimator->tilt, &pull);
cleanup:
    return status;
}

void mpo_estimator_save(const struct mpo_estimator *estimator,
                        struct mpo_estimator_state *out)
{
    *out = (struct mpo_estimator_state){
        .end_bias = estimator->tilt.end_bias,
        .tilt_squares = estimator->tilt.squares,
        .tilt_is_old = estimator->tilt.is_old,
        .regression_steps = estimator->control.steps,
        .regression_cross = estimator->control.cross,
        .regression_square = estimator->control.square,
    };
}

void mpo_estimator_load(struct mpo_estimator *estimator,
                        const struct mpo_estimator_state *state)
{
    estimator->tilt.end_bias = state->end_bias;
    estimator->tilt.squares = state->tilt_squares;
    estimator->tilt.is_old = state->tilt_is_old;
    estimator->control.steps = state->regression_steps;
    estimator->control.cross = state->regression_cross;
    estimator->control.square = state->regression_square;
}
