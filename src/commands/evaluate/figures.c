/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from the rows of all prompts. Of what is served, the token mixture q:
 *
 *     E_q log pi_k,   KL(q || pi_k),   imbalance = max_k KL(q || pi_k) - l . KL(q || pi)
 *
 * and of the whole mixture pi_l:
 *
 *     F,   gap = l . g - min_u u . g,   KL(pi_l || pi_k) = l . g - F - g_k
 *
 * All are functions of means over prompts, so one bootstrap over prompts gives every
 * interval. Ends are integrated out, which finds short modes that are hardly ever drawn;
 * other modes that no row reaches stay hidden. Because the mean of R is unbiased for Z, and R
 * is not negative, Markov's inequality makes F of the rows less 3 nat a lower bound at 95 %.
 */
#include "evaluate_impl.h"

#include <math.h>
#include <string.h>

#include "base/simplex.h"
#include "commands/report/log.h"
#include "estimator/sample.h"

/* With fewer prompts the bootstrap's intervals are too narrow. */
#define PROMPTS_FEW 30

/* Fewer effective rows say nothing: Kish's figure cannot fall below one. */
#define EFFECTIVE_MIN  4.0
#define EFFECTIVE_PART 0.75

#define TRUNCATED_MANY 0.25
#define HALVING_FAR    0.1
#define VALUE_LOW      (-10.0)

int32_t evaluate_column_count(const struct evaluate *evaluate)
{
    return COLUMN_POLICY + 3 * evaluate->objective_count;
}

int32_t evaluate_result_count(const struct evaluate *evaluate)
{
    return RESULT_POLICY + POLICY_RESULTS * evaluate->objective_count;
}

int32_t evaluate_policy_result(const struct evaluate *evaluate,
                               enum evaluate_policy_result kind, int32_t k)
{
    return RESULT_POLICY + (int32_t)kind * evaluate->objective_count + k;
}

static const double *weights_of(const struct evaluate *evaluate, int32_t vector)
{
    return evaluate->weights + vector * evaluate->config->policy_count;
}

/* ---- a prompt ---- */

static double mean_of(const double *value, int32_t count, int32_t stride)
{
    double sum = 0.0;
    for (int32_t j = 0; j < count; j++)
        sum += value[(int64_t)j * stride];
    return sum / count;
}

static void keep_prompt(struct evaluate *evaluate, const struct mpo_integrals *integrals,
                        int32_t slot, double *statistic)
{
    int32_t m = integrals->responses;
    int32_t count = evaluate->objective_count;
    int64_t first = (int64_t)slot * m;
    int32_t policies = integrals->policy_count;
    struct mpo_sample sample = mpo_sample_of_integrals(integrals, slot * m, m);
    struct mpo_sample_query query = {.objective_count = count, .jackknife = true};
    struct mpo_sample_figures figures = {
        .log_weight = evaluate->work,
        .share = evaluate->work + m,
    };
    sample.count = m / 2;
    mpo_sample_estimate(&sample, &query, &figures);
    statistic[COLUMN_HALF] = figures.value;
    sample.count = m;
    figures.gradient = statistic + COLUMN_POLICY;
    mpo_sample_estimate(&sample, &query, &figures);
    statistic[COLUMN_VALUE] = figures.value_jackknife;
    statistic[COLUMN_PLAIN] = figures.value;
    statistic[COLUMN_ESS] = figures.ess;
    statistic[COLUMN_LENGTH] = mean_of(integrals->length + first, m, 1);
    statistic[COLUMN_TRUNCATED] = mean_of(integrals->truncated + first, m, 1);
    for (int32_t k = 0; k < count; k++) {
        int64_t at = first * policies + k;
        statistic[COLUMN_POLICY + count + k] = mean_of(integrals->served + at, m, policies);
        statistic[COLUMN_POLICY + 2 * count + k] =
            mean_of(integrals->divergence + at, m, policies);
    }
}

void evaluate_keep(struct evaluate *evaluate, int64_t first,
                   const struct mpo_integrals *integrals)
{
    int32_t columns = evaluate_column_count(evaluate);
    for (int32_t slot = 0; slot < integrals->prompt_count; slot++)
        keep_prompt(evaluate, integrals, slot,
                    evaluate->value +
                        ((first + slot) * evaluate->vector_count + evaluate->vector) *
                            columns);
}

/* ---- what follows from the means ---- */

static bool is_on_simplex(const double *weights, int32_t count)
{
    double sum = 0.0;
    bool is_positive = true;
    for (int32_t k = 0; k < count; k++) {
        is_positive = is_positive && weights[k] >= 0.0;
        sum += weights[k];
    }
    return is_positive && mpo_sums_to_one(sum);
}

/* Within the configured bounds, where a gap is what F loses at most. */
static bool is_feasible(const struct evaluate *evaluate, const double *weights)
{
    int32_t count = evaluate->objective_count;
    bool is_within = is_on_simplex(weights, count);
    for (int32_t k = 0; evaluate->bounds != NULL && k < count; k++)
        is_within = is_within && weights[k] >= evaluate->bounds[k] - MPO_SUM_TOLERANCE &&
                    weights[k] <= evaluate->bounds[count + k] + MPO_SUM_TOLERANCE;
    return is_within;
}

/* l . g - min g with g = -KL(q || pi_k), which is E_q log pi_k but for a constant and has
 * less noise. */
static double imbalance_of(const double *weights, const double *divergence, int32_t count)
{
    double greatest = divergence[0];
    double inner = 0.0;
    for (int32_t k = 0; k < count; k++) {
        greatest = fmax(greatest, divergence[k]);
        inner += weights[k] * divergence[k];
    }
    return greatest - inner;
}

static void derive_vector(const struct evaluate *evaluate, const double *weights,
                          const double *mean, double *result)
{
    int32_t count = evaluate->objective_count;
    size_t bytes = (size_t)count * sizeof *mean;
    const double *whole = mean + COLUMN_POLICY;
    const double *served = whole + count;
    const double *divergence = served + count;
    bool is_certified = is_feasible(evaluate, weights);
    result[RESULT_IMBALANCE] = NAN;
    if (is_on_simplex(weights, count))
        result[RESULT_IMBALANCE] = imbalance_of(weights, divergence, count);
    result[RESULT_LENGTH] = mean[COLUMN_LENGTH];
    result[RESULT_TRUNCATED] = mean[COLUMN_TRUNCATED];
    result[RESULT_VALUE] = mean[COLUMN_VALUE];
    result[RESULT_PLAIN] = mean[COLUMN_PLAIN];
    result[RESULT_HALVING] = mean[COLUMN_PLAIN] - mean[COLUMN_HALF];
    result[RESULT_GAP] =
        is_certified ? mpo_descent_gap(weights, whole, evaluate->bounds, count) : NAN;
    result[RESULT_ESS] = mean[COLUMN_ESS];
    memcpy(result + evaluate_policy_result(evaluate, SERVED_LOG_POLICY, 0), served, bytes);
    memcpy(result + evaluate_policy_result(evaluate, SERVED_DIVERGENCE, 0), divergence,
           bytes);
    memcpy(result + evaluate_policy_result(evaluate, WHOLE_LOG_POLICY, 0), whole, bytes);
    mpo_sample_divergence(weights, whole, mean[COLUMN_VALUE], count,
                          result + evaluate_policy_result(evaluate, WHOLE_DIVERGENCE, 0));
}

static void derive_results(const void *context, const double *mean, double *result)
{
    const struct evaluate *evaluate = context;
    int32_t columns = evaluate_column_count(evaluate);
    int32_t results = evaluate_result_count(evaluate);
    for (int32_t a = 0; a < evaluate->vector_count; a++)
        derive_vector(evaluate, weights_of(evaluate, a), mean + a * columns,
                      result + a * results);
    double *difference = result + evaluate->vector_count * results;
    for (int32_t a = 1; a < evaluate->vector_count; a++)
        difference[a - 1] = result[a * results + RESULT_VALUE] - result[RESULT_VALUE];
}

/* ---- intervals ---- */

/* What cannot be is cut off, but never the estimate. */
static void clip(struct mpo_interval *of, double least, double most)
{
    if (isnan(of->estimate)) {
        of->low = of->high = NAN;
        return;
    }
    of->low = fmin(of->estimate, fmax(of->low, least));
    of->high = fmax(of->estimate, fmin(of->high, most));
}

static void clip_vector(const struct evaluate *evaluate, int32_t vector,
                        struct mpo_interval *of)
{
    bool is_simplex =
        is_on_simplex(weights_of(evaluate, vector), evaluate->objective_count);
    for (int32_t r = 0; r < evaluate_result_count(evaluate); r++)
        clip(&of[r], -INFINITY, INFINITY);
    clip(&of[RESULT_IMBALANCE], 0.0, INFINITY);
    clip(&of[RESULT_LENGTH], 1.0, (double)evaluate->config->rollout.max_tokens);
    clip(&of[RESULT_TRUNCATED], 0.0, 1.0);
    clip(&of[RESULT_VALUE], -INFINITY, is_simplex ? 0.0 : INFINITY);
    clip(&of[RESULT_PLAIN], -INFINITY, is_simplex ? 0.0 : INFINITY);
    clip(&of[RESULT_GAP], 0.0, INFINITY);
    clip(&of[RESULT_ESS], 0.0, 1.0);
    for (int32_t k = 0; k < evaluate->objective_count; k++) {
        clip(&of[evaluate_policy_result(evaluate, SERVED_DIVERGENCE, k)], 0.0, INFINITY);
        clip(&of[evaluate_policy_result(evaluate, WHOLE_DIVERGENCE, k)], 0.0, INFINITY);
    }
}

/* Whole figures that rest on too few rows have no interval. */
static void forget_whole(const struct evaluate *evaluate, struct mpo_interval *of)
{
    for (int32_t r = RESULT_VALUE; r < RESULT_POLICY; r++)
        of[r].low = of[r].high = NAN;
    for (int32_t k = 0; k < evaluate->objective_count; k++)
        for (int kind = WHOLE_LOG_POLICY; kind <= WHOLE_DIVERGENCE; kind++) {
            int32_t r = evaluate_policy_result(evaluate, kind, k);
            of[r].low = of[r].high = NAN;
        }
}

/* ---- warnings ---- */

static void warn_of_whole(const struct evaluate *evaluate, int32_t vector,
                          struct mpo_interval *of)
{
    const char *name = evaluate->name[vector];
    double m = (double)evaluate->config->evaluate.responses;
    double effective = m * of[RESULT_ESS].estimate;
    if (effective < fmin(EFFECTIVE_MIN, EFFECTIVE_PART * m)) {
        mpo_log_warning(
            "%s: %.1f of %.0f rows of a prompt are effective, so nothing is known "
            "of the mixture of whole responses; raise --responses",
            name, effective, m);
        forget_whole(evaluate, of);
    }
    if (of[RESULT_HALVING].low > HALVING_FAR)
        mpo_log_warning(
            "%s: F is %.2f nat higher than with half of the rows, so it is still "
            "far too low; raise --responses",
            name, of[RESULT_HALVING].estimate);
    if (of[RESULT_VALUE].estimate < VALUE_LOW)
        mpo_log_warning("%s: F is %.1f nat, so the mixture of whole responses is far from "
                        "anything that is served; what ends at once may have most of it",
                        name, of[RESULT_VALUE].estimate);
}

static void warn_of_vector(const struct evaluate *evaluate, int32_t vector,
                           struct mpo_interval *of)
{
    const double *weights = weights_of(evaluate, vector);
    double truncated = of[RESULT_TRUNCATED].estimate;
    warn_of_whole(evaluate, vector, of);
    if (truncated > TRUNCATED_MANY)
        mpo_log_warning("%s: %.0f %% of the responses are cut at %lld tokens; raise "
                        "rollout.max_tokens",
                        evaluate->name[vector], 100.0 * truncated,
                        (long long)evaluate->config->rollout.max_tokens);
    if (!is_feasible(evaluate, weights))
        mpo_log_warning("%s: no gap%s, because the weights are %s", evaluate->name[vector],
                        isnan(of[RESULT_IMBALANCE].estimate) ? " and no imbalance" : "",
                        isnan(of[RESULT_IMBALANCE].estimate)
                            ? "not on the simplex (at least 0, sum 1)"
                            : "outside of policies.NAME.min and .max");
}

/* ---- all together ---- */

enum mpo_status evaluate_find_intervals(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    int32_t vectors = evaluate->vector_count;
    struct mpo_bootstrap_spec spec = {
        .seed = (uint64_t)evaluate->config->run.seed,
        .replicates = (int32_t)evaluate->config->evaluate.replicates,
        .unit_count = evaluate->prompt_count,
        .column_count = vectors * evaluate_column_count(evaluate),
        .result_count = vectors * evaluate_result_count(evaluate) + vectors - 1,
        .value = evaluate->value,
        .derive = derive_results,
        .context = evaluate,
    };
    MPO_NEW(spec.result_count, &evaluate->interval);
    MPO_TRY(mpo_bootstrap_run(&spec, evaluate->interval));
    for (int32_t a = 0; a < vectors; a++) {
        struct mpo_interval *of = evaluate->interval + a * evaluate_result_count(evaluate);
        if (evaluate->prompt_count > 1)
            clip_vector(evaluate, a, of);
        warn_of_vector(evaluate, a, of);
    }
    if (evaluate->prompt_count < PROMPTS_FEW)
        mpo_log_warning("%lld prompts are few for a bootstrap over prompts: the intervals "
                        "are too narrow; use %d or more",
                        (long long)evaluate->prompt_count, PROMPTS_FEW);
cleanup:
    return status;
}
