/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refit: the fit again, on the responses that a record stores, with no model.
 *
 *     F(l) = mean_x log (1/m_x) sum_j prod_h pi_h(y_j|x)^mu_h / q_j(y_j|x)
 *
 * over all responses to each prompt, each with the proposal that it was drawn from, and mu by
 * the strength and scales of the record. This is a convex function with an exact gradient, so
 * the descent has no noise; what limits it is how well the stored proposals cover the weights.
 * That is what the effective sample size says, at the output and at every point of the
 * frontier, and refit refuses weights that rest on few responses. The figures are of the
 * sample that the weights were chosen on; `mpo evaluate` gives them on fresh responses.
 *
 * Whatever the record was fitted for, the target is the mixture of whole responses: of a
 * response the record has its probability under each policy, and not what the token mixture
 * at other weights makes of each of its states (log Z_l(s_t)), which its probability there
 * depends on. Nor do responses that were drawn for target served certify F: draws without a
 * tilt can miss the short modes of whole responses, so its figures are then diagnostics.
 */
#include "refit_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"

#define ADVICE                                                                             \
    "run fit with these objectives and bounds, or give --min-ess=0 to see the weights"

/* ---- the stored responses ---- */

struct stored {
    int64_t prompt;
    int64_t index;
};

static int compare_stored(const void *a, const void *b)
{
    const struct stored *first = a;
    const struct stored *second = b;
    if (first->prompt != second->prompt)
        return first->prompt < second->prompt ? -1 : 1;
    return (first->index > second->index) - (first->index < second->index);
}

enum mpo_status refit_order_by_prompt(const int64_t *prompt, int64_t count, int64_t **order)
{
    enum mpo_status status = MPO_OK;
    struct stored *stored = NULL;
    MPO_NEW(count, &stored);
    MPO_NEW(count, order);
    for (int64_t i = 0; i < count; i++)
        stored[i] = (struct stored){prompt[i], i};
    qsort(stored, (size_t)count, sizeof *stored, compare_stored);
    for (int64_t i = 0; i < count; i++)
        (*order)[i] = stored[i].index;
cleanup:
    free(stored);
    return status;
}

/* The response that comes as number `to` in the order of prompts; a new prompt
 * begins where it changes. */
static void keep_response(struct refit *refit, const int64_t *order, int64_t to)
{
    int64_t from = order[to];
    int32_t policies = refit->exponents.policy_count;
    const double *stored = refit->scores.log_policy + from * refit->scores.policy_count;
    double *kept = refit->log_policy + to * policies;
    for (int32_t k = 0; k < refit->count; k++)
        kept[k] = stored[refit->objective[k]];
    if (policies > refit->count)
        kept[refit->count] = stored[refit->scores.policy_count - 1];
    refit->log_proposal[to] = refit->scores.log_proposal[from];
    if (to == 0 || refit->scores.prompt[from] != refit->scores.prompt[order[to - 1]])
        refit->prompt[refit->prompt_count++] =
            (struct mpo_sample){.policy_count = policies,
                                .log_proposal = refit->log_proposal + to,
                                .log_policy = kept};
    refit->prompt[refit->prompt_count - 1].count++;
}

static enum mpo_status group_by_prompt(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    int64_t *order = NULL;
    int64_t count = refit->scores.count;
    MPO_CHECK(
        count > 0, MPO_ERR_DATA,
        "%s: expected stored responses, found none (record.responses: false, or no step "
        "yet)",
        refit->path);
    MPO_CHECK(count <= INT32_MAX, MPO_ERR_DATA,
              "%s: expected at most %d responses, found %lld", refit->path, INT32_MAX,
              (long long)count);
    MPO_NEW(count * refit->exponents.policy_count, &refit->log_policy);
    MPO_NEW(count, &refit->log_proposal);
    MPO_NEW(count, &refit->prompt);
    MPO_NEW(2 * count, &refit->work);
    MPO_NEW(refit->exponents.policy_count, &refit->prompt_mean);
    MPO_NEW(refit->exponents.policy_count, &refit->mu);
    MPO_TRY(refit_order_by_prompt(refit->scores.prompt, count, &order));
    for (int64_t i = 0; i < count; i++)
        keep_response(refit, order, i);
cleanup:
    free(order);
    return status;
}

/* ---- F at any weights ---- */

/* What follows from F and the means of log pi_h. */
static void derive_point(const struct refit *refit, struct refit_point *point)
{
    double inner = 0.0;
    for (int32_t h = 0; h < refit->exponents.policy_count; h++)
        inner += refit->mu[h] * point->log_policy[h];
    for (int32_t k = 0; k < refit->count; k++) {
        point->gradient[k] = mpo_exponents_score(&refit->exponents, point->log_policy, k);
        point->divergence[k] = inner - point->value - point->log_policy[k];
    }
}

void refit_estimate(struct refit *refit, struct refit_point *point)
{
    int32_t policies = refit->exponents.policy_count;
    struct mpo_sample_query query = {
        .exponent_count = policies, .exponent = refit->mu, .objective_count = policies};
    struct mpo_sample_figures figures = {.log_weight = refit->work,
                                         .share = refit->work + refit->scores.count,
                                         .gradient = refit->prompt_mean};
    double prompts = refit->prompt_count;
    mpo_exponents_of(&refit->exponents, point->weights, refit->mu);
    point->value = point->ess = point->effective = 0.0;
    point->is_exact = false;
    memset(point->log_policy, 0, (size_t)policies * sizeof *point->log_policy);
    for (int32_t x = 0; x < refit->prompt_count; x++) {
        mpo_sample_estimate(&refit->prompt[x], &query, &figures);
        point->value += figures.value_jackknife / prompts;
        point->ess += figures.ess / prompts;
        point->effective += figures.ess * refit->prompt[x].count / prompts;
        for (int32_t h = 0; h < policies; h++)
            point->log_policy[h] += figures.gradient[h] / prompts;
    }
    derive_point(refit, point);
}

void refit_state_known_value(const struct refit *refit, struct refit_point *point)
{
    bool is_bounded = true;
    for (int32_t h = 0; h < refit->exponents.policy_count; h++)
        is_bounded = is_bounded && refit->mu[h] >= 0.0;
    if (is_bounded)
        point->value = fmin(point->value, 0.0);
    for (int32_t k = 0; k < refit->count; k++)
        if (point->weights[k] >= 1.0 &&
            refit->exponents.strength * refit->exponents.scale[k] == 1.0) {
            point->value = 0.0;
            point->is_exact = true;
        }
    derive_point(refit, point);
}

const char *refit_why_unknown(const struct refit *refit, const struct refit_point *point,
                              char *text)
{
    double responses = (double)refit->scores.count / refit->prompt_count;
    text[0] = '\0';
    if (point->is_exact)
        return text;
    return mpo_sample_why_unknown(mpo_record_target(refit->record), point->effective,
                                  responses, text);
}

bool refit_supports(const struct refit *refit, const struct refit_point *point)
{
    double least = refit->options->min_ess;
    return isfinite(point->value) && point->ess >= least &&
           (least <= 0.0 || point->effective >= MPO_SAMPLE_EFFECTIVE_MIN);
}

static enum mpo_status check_support(const struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const struct refit_point *result = &refit->result;
    char weights[512] = "";
    size_t used = 0;
    for (int32_t k = 0; k < refit->count && used < sizeof weights; k++)
        used +=
            (size_t)snprintf(weights + used, sizeof weights - used, "%s%s %.3f",
                             k > 0 ? ", " : "", refit_name(refit, k), result->weights[k]);
    if (refit_supports(refit, result))
        return MPO_OK;
    MPO_CHECK(
        result->ess >= refit->options->min_ess, MPO_ERR_DATA,
        "%s: the stored responses do not support the weights %s: expected an effective "
        "sample size of at least %g of the responses (--min-ess), found %.3g; " ADVICE,
        refit->path, weights, refit->options->min_ess, result->ess);
    MPO_CHECK(
        !isfinite(result->value), MPO_ERR_DATA,
        "%s: the stored responses do not support the weights %s: expected at least %g "
        "effective responses per prompt, found %.1f; " ADVICE,
        refit->path, weights, MPO_SAMPLE_EFFECTIVE_MIN, result->effective);
    MPO_FAIL(MPO_ERR_DATA, "%s: F at the weights %s is %g, expected a finite number",
             refit->path, weights, result->value);
cleanup:
    return status;
}

/* ---- the descent ---- */

static enum mpo_status find_weights(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_descent *descent = NULL;
    size_t bytes = (size_t)refit->count * sizeof(double);
    const struct mpo_config_descent *options = &refit->config->descent;
    struct mpo_descent_spec spec = {
        .map = options->map,
        .step_rule = options->step_rule,
        .averaging = options->average,
        .step_constant = options->step_constant,
        .steps = options->steps,
        .objective_count = refit->count,
        .initial = options->initial.count > 0 ? options->initial.value : NULL,
        .bounds = refit->bounds,
    };
    MPO_TRY(mpo_descent_open(&spec, &descent));
    bool has_arrived = false;
    for (int64_t step = 0; step < spec.steps && !has_arrived; step++) {
        memcpy(refit->result.weights, mpo_descent_weights(descent), bytes);
        refit_estimate(refit, &refit->result);
        MPO_TRY(mpo_descent_step(descent, refit->result.gradient));
        has_arrived = options->stop_gap > 0.0 &&
                      refit->exponents.strength * mpo_descent_averaged_gap(descent) <=
                          options->stop_gap;
    }
    memcpy(refit->result.weights, mpo_descent_average(descent), bytes);
    refit_estimate(refit, &refit->result);
    refit_state_known_value(refit, &refit->result);
    refit->gap = refit->exponents.strength * /* grad F = A g */
                 mpo_descent_gap(refit->result.weights, refit->result.gradient,
                                 refit->bounds, refit->count);
cleanup:
    mpo_descent_close(&descent);
    return status;
}

/* The record's own weights under the same estimate, for comparison. */
static enum mpo_status estimate_stored(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    int32_t all = mpo_record_objective_count(refit->record);
    double *average = NULL;
    MPO_NEW(all, &average);
    MPO_TRY(mpo_record_read(refit->record, "average",
                            mpo_record_step_count(refit->record) - 1, 1, average));
    if (refit->count < all)
        goto cleanup;
    for (int32_t k = 0; k < refit->count; k++)
        refit->stored.weights[k] = average[refit->objective[k]];
    refit_estimate(refit, &refit->stored);
    refit_state_known_value(refit, &refit->stored);
cleanup:
    free(average);
    return status;
}

/* ---- the command ---- */

static enum mpo_status allocate_point(const struct refit *refit, struct refit_point *point)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(refit->count, &point->weights);
    MPO_NEW(refit->exponents.policy_count, &point->log_policy);
    MPO_NEW(refit->count, &point->gradient);
    MPO_NEW(refit->count, &point->divergence);
cleanup:
    return status;
}

static void free_point(struct refit_point *point)
{
    free(point->divergence);
    free(point->gradient);
    free(point->log_policy);
    free(point->weights);
}

/* Stored responses are reweighted to other weights of a mixture of logits alone. */
static enum mpo_status check_mixture(const struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_fit_plan plan = {0};
    MPO_TRY(mpo_fit_read_plan(refit->record, refit->path, &plan));
    MPO_CHECK(plan.mixture == NULL ||
                  strcmp(plan.mixture, mpo_mixing_name(MPO_MIXING_LOGITS)) == 0,
              MPO_ERR_DATA,
              "%s: refit balances a mixture of logits, found a record of rollout.mixture: "
              "%s; fit again with the objectives and bounds that you want",
              refit->path, plan.mixture);
cleanup:
    return status;
}

static enum mpo_status open_refit(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_record_open(refit->path, &refit->record));
    MPO_TRY(refit_apply(refit));
    MPO_TRY(check_mixture(refit));
    MPO_TRY(mpo_record_read_scores(refit->record, &refit->scores));
    MPO_TRY(group_by_prompt(refit));
    MPO_TRY(allocate_point(refit, &refit->result));
    MPO_TRY(allocate_point(refit, &refit->stored));
cleanup:
    return status;
}

static void close_refit(struct refit *refit)
{
    free_point(&refit->stored);
    free_point(&refit->result);
    free(refit->mu);
    free(refit->prompt_mean);
    free(refit->work);
    free(refit->prompt);
    free(refit->log_proposal);
    free(refit->log_policy);
    free(refit->bounds);
    free(refit->scale);
    free(refit->objective);
    mpo_record_release_scores(&refit->scores);
    mpo_record_close(&refit->record);
    mpo_config_close(&refit->config);
}

/* The record's weights are of something else. */
static void warn_of_target(const struct refit *refit)
{
    if (mpo_record_target(refit->record) == MPO_TARGET_SERVED)
        mpo_log_warning("%s was fitted for target served, and stored responses do not "
                        "show what is served at other weights: this refit balances the "
                        "mixture of whole responses, as far as their drawn ends show it; "
                        "for target served run mpo fit",
                        refit->path);
}

enum mpo_status mpo_command_refit(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct refit refit = {0};
    MPO_TRY(refit_read(argc, argv, &refit));
    if (*refit.options->rewards != '\0') {
        MPO_TRY(mpo_record_open(refit.path, &refit.record));
        MPO_TRY(refit_apply(&refit));
        MPO_TRY(refit_by_rewards(&refit));
        goto cleanup;
    }
    MPO_TRY(open_refit(&refit));
    warn_of_target(&refit);
    if (refit.options->frontier > 0) {
        MPO_TRY(refit_frontier(&refit));
        goto cleanup;
    }
    MPO_TRY(find_weights(&refit));
    MPO_TRY(check_support(&refit));
    MPO_TRY(estimate_stored(&refit));
    MPO_TRY(refit_report(&refit));
cleanup:
    close_refit(&refit);
    return status;
}
