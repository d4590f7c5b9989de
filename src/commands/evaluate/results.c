/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results from the columns of the prompts (estimator/certificate.h): the means of columns,
 * and of each kind of excess the largest one, which is the imbalance or the gap. Upper bounds
 * U_k of all excesses at once give one of the gap within policies.NAME.min and .max, too:
 * sum_k u_k (l.g - g_k) <= sum_k u_k U_k for every u.
 *
 * Ends integrated out find short modes that are hardly ever drawn; other modes that no row
 * reaches stay hidden. The mean of R is unbiased for Z, and R is not negative, so by Markov's
 * inequality F of the rows exceeds F of these prompts by less than 3 nat at 95 %.
 *
 * A new figure is a row of `quantities`, and of a new kind a case in add_quantity.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/simplex.h"
#include "evaluate_impl.h"

/* -log 0.05 */
#define MARKOV_NATS 2.9957322735539909

enum quantity_kind {
    OF_COLUMN,   /* the mean of a column */
    OF_BLOCK,    /* those of each column of a block */
    LARGEST_OF,  /* the largest of a block of excesses */
    VALUE_BOUND, /* F, whatever the rows missed */
};

struct quantity {
    const char *name;
    const char *label;
    enum evaluate_part part;
    enum quantity_kind kind;
    int index;        /* of the kind: an mpo_certificate_column or _block */
    bool is_compared; /* between vectors; has to be linear in the prompts */
};

#define SERVED   EVALUATE_SERVED
#define WHOLE    EVALUATE_WHOLE
#define PROGRAMS EVALUATE_PROGRAMS

static const struct quantity quantities[] = {
    {"imbalance", "imbalance", SERVED, LARGEST_OF, MPO_BLOCK_SERVED_EXCESS, false},
    {"length", "tokens of a response", SERVED, OF_COLUMN, MPO_COLUMN_LENGTH, true},
    {"truncated", "cut at max_tokens", SERVED, OF_COLUMN, MPO_COLUMN_TRUNCATED, true},
    {"served_score", "score", SERVED, OF_BLOCK, MPO_BLOCK_SERVED_SCORE, true},
    {"served_divergence", "divergence", SERVED, OF_BLOCK, MPO_BLOCK_SERVED_DIVERGENCE,
     true},
    {"value_jackknife", "F", WHOLE, OF_COLUMN, MPO_COLUMN_VALUE, true},
    {"value_bound", "F, hidden modes included", WHOLE, VALUE_BOUND, 0, false},
    {"value", "F, no jackknife", WHOLE, OF_COLUMN, MPO_COLUMN_PLAIN, false},
    {"value_halving", "F minus F of half of the rows", WHOLE, OF_COLUMN, MPO_COLUMN_HALVING,
     false},
    {"gap", "gap", WHOLE, LARGEST_OF, MPO_BLOCK_WHOLE_EXCESS, false},
    {"ess", "ESS", WHOLE, OF_COLUMN, MPO_COLUMN_ESS, false},
    {"score", "score", WHOLE, OF_BLOCK, MPO_BLOCK_WHOLE_SCORE, true},
    {"divergence", "divergence", WHOLE, OF_BLOCK, MPO_BLOCK_WHOLE_DIVERGENCE, true},
    {"served_log_policy", "", PROGRAMS, OF_BLOCK, MPO_BLOCK_SERVED_LOG_POLICY, true},
    {"log_policy", "", PROGRAMS, OF_BLOCK, MPO_BLOCK_WHOLE_LOG_POLICY, true},
};

/* ---- what the weights allow ---- */

const char *evaluate_why_no_imbalance(const struct evaluate *evaluate,
                                      const struct evaluate_vector *vector)
{
    const double *weights = vector->recipe.weights;
    double sum = 0.0;
    double least = 0.0;
    for (int32_t k = 0; k < evaluate->objective_count; k++) {
        sum += weights[k];
        least = fmin(least, weights[k]);
    }
    if (least < 0.0 || !mpo_sums_to_one(sum))
        return "the weights of the objectives are not on the simplex (at least 0, sum 1)";
    return NULL;
}

/* The name of a policy and exponents given as such need not be A a_k l_k. */
static bool are_of_recipe(const struct evaluate *evaluate,
                          const struct evaluate_vector *vector)
{
    int32_t count = evaluate->objective_count;
    const struct mpo_weights_recipe *recipe = &vector->recipe;
    double left = 1.0;
    for (int32_t k = 0; k < count; k++) {
        double mu = recipe->strength * recipe->scale[k] * recipe->weights[k];
        if (fabs(mu - vector->mu[k]) > MPO_SUM_TOLERANCE)
            return false;
        left -= mu;
    }
    return !evaluate->has_reference || fabs(left - vector->mu[count]) <= MPO_SUM_TOLERANCE;
}

static bool are_within_bounds(const struct evaluate *evaluate,
                              const struct evaluate_vector *vector)
{
    int32_t count = evaluate->objective_count;
    for (int32_t k = 0; evaluate->bounds != NULL && k < count; k++) {
        double weight = vector->recipe.weights[k];
        if (weight < evaluate->bounds[k] - MPO_SUM_TOLERANCE ||
            weight > evaluate->bounds[count + k] + MPO_SUM_TOLERANCE)
            return false;
    }
    return true;
}

const char *evaluate_why_no_gap(const struct evaluate *evaluate,
                                const struct evaluate_vector *vector)
{
    const char *reason = evaluate_why_no_imbalance(evaluate, vector);
    if (reason == NULL && !are_within_bounds(evaluate, vector))
        reason = "the weights are outside of policies.NAME.min and .max";
    if (reason == NULL && !are_of_recipe(evaluate, vector))
        reason = "its exponents are not those that weights have by policies.NAME.scale";
    return reason;
}

/* ---- results ---- */

static void add_result(struct evaluate_vector *vector, const struct evaluate_result *result)
{
    vector->result[vector->result_count++] = *result;
}

/* Without a reference a score is log pi_k, and is called so. */
static const char *label_of(const struct evaluate *evaluate,
                            const struct quantity *quantity)
{
    bool is_score =
        quantity->kind == OF_BLOCK && (quantity->index == MPO_BLOCK_SERVED_SCORE ||
                                       quantity->index == MPO_BLOCK_WHOLE_SCORE);
    return is_score && !evaluate->has_reference ? "mean log pi" : quantity->label;
}

/* The results of the columns of a quantity, from intervals [columns]. */
static void add_columns(const struct evaluate *evaluate, struct evaluate_vector *vector,
                        struct evaluate_result result, const struct quantity *quantity,
                        const struct mpo_interval *interval)
{
    if (quantity->kind == OF_COLUMN) {
        result.interval = interval[quantity->index];
        add_result(vector, &result);
        return;
    }
    enum mpo_certificate_block block = quantity->index;
    int32_t first = mpo_certificate_block_first(&vector->certificate, block);
    int32_t length = mpo_certificate_block_length(&vector->certificate, block);
    for (int32_t h = 0; h < length; h++) {
        result.policy = evaluate->config->policies[h].name;
        result.interval = interval[first + h];
        add_result(vector, &result);
    }
}

/* max over feasible u of sum_k u_k excess_k, which room holds and loses */
static double greatest_excess(double *room, const double *bounds, int32_t count)
{
    for (int32_t k = 0; k < count; k++)
        room[k] = -room[k];
    return -mpo_descent_least(room, bounds, count);
}

/* The largest excess of a block: what it is, and a bound of what it may be. */
static struct mpo_interval largest_of(const struct evaluate *evaluate,
                                      const struct evaluate_vector *vector,
                                      enum mpo_certificate_block block)
{
    bool is_gap = block == MPO_BLOCK_WHOLE_EXCESS;
    int32_t count = evaluate->objective_count;
    int32_t first = mpo_certificate_block_first(&vector->certificate, block);
    double factor = is_gap ? vector->recipe.strength : 1.0;
    const double *bounds = is_gap ? evaluate->bounds : NULL;
    struct mpo_interval largest = {NAN, NAN, NAN};
    if ((is_gap ? evaluate_why_no_gap(evaluate, vector)
                : evaluate_why_no_imbalance(evaluate, vector)) != NULL)
        return largest;
    for (int32_t k = 0; k < count; k++)
        evaluate->room[k] = vector->interval[first + k].estimate;
    largest.estimate = fmax(factor * greatest_excess(evaluate->room, bounds, count), 0.0);
    if (isnan(vector->upper[first]))
        return largest;
    memcpy(evaluate->room, vector->upper + first, (size_t)count * sizeof *vector->upper);
    largest.low = 0.0;
    largest.high =
        fmax(factor * greatest_excess(evaluate->room, bounds, count), largest.estimate);
    return largest;
}

/* Markov's bound is of these prompts; it never says more than the interval over prompts. */
static struct mpo_interval value_bound_of(const struct evaluate_vector *vector)
{
    const struct mpo_interval *value = &vector->interval[MPO_COLUMN_VALUE];
    double least = vector->interval[MPO_COLUMN_PLAIN].estimate - MARKOV_NATS;
    double most = mpo_certificate_is_bounded(&vector->certificate) ? 0.0 : INFINITY;
    return (struct mpo_interval){NAN, fmin(least, value->low), /* NAN: unknown */
                                 fmax(most, value->high)};
}

static void add_quantity(const struct evaluate *evaluate, struct evaluate_vector *vector,
                         const struct quantity *quantity)
{
    struct evaluate_result result = {.part = quantity->part,
                                     .name = quantity->name,
                                     .label = label_of(evaluate, quantity),
                                     .policy = "",
                                     .is_bound = quantity->kind == LARGEST_OF};
    switch (quantity->kind) {
    case OF_COLUMN:
    case OF_BLOCK:
        add_columns(evaluate, vector, result, quantity, vector->interval);
        break;
    case LARGEST_OF:
        result.interval = largest_of(evaluate, vector, quantity->index);
        add_result(vector, &result);
        break;
    case VALUE_BOUND:
        result.interval = value_bound_of(vector);
        add_result(vector, &result);
        break;
    }
}

/* What is drawn from adapters has no whole mixture. */
static bool has_quantity(const struct evaluate_vector *vector,
                         const struct quantity *quantity)
{
    bool is_whole =
        quantity->part == WHOLE ||
        (quantity->kind == OF_BLOCK && quantity->index == MPO_BLOCK_WHOLE_LOG_POLICY);
    return !is_whole || !vector->certificate.of_blend;
}

/* ---- differences from the first vector ---- */

enum mpo_status evaluate_find_differences(const struct evaluate *evaluate,
                                          const struct mpo_bootstrap_spec *spec,
                                          const struct evaluate_vector *vector,
                                          struct mpo_interval **out)
{
    enum mpo_status status = MPO_OK;
    int64_t count = evaluate->prompt_count * evaluate->column_count;
    struct mpo_bootstrap_spec run = *spec;
    double *value = NULL;
    MPO_NEW(count, &value);
    MPO_NEW(evaluate->column_count, out);
    for (int64_t i = 0; i < count; i++)
        value[i] = vector->value[i] - evaluate->vector[0].value[i];
    run.value = value;
    MPO_TRY(mpo_bootstrap_run(&run, *out, NULL));
cleanup:
    free(value);
    return status;
}

/* Unknown where one of the two is. */
static enum mpo_status add_differences(const struct evaluate *evaluate,
                                       const struct mpo_bootstrap_spec *spec,
                                       struct evaluate_vector *vector)
{
    enum mpo_status status = MPO_OK;
    const struct evaluate_vector *base = &evaluate->vector[0];
    struct mpo_interval *interval = NULL;
    MPO_TRY(evaluate_find_differences(evaluate, spec, vector, &interval));
    for (int32_t c = 0; c < evaluate->column_count; c++)
        if (isnan(vector->interval[c].low) || isnan(base->interval[c].low))
            interval[c].low = interval[c].high = NAN;
    for (size_t i = 0; i < sizeof quantities / sizeof *quantities; i++) {
        struct evaluate_result result = {.part = quantities[i].part,
                                         .name = quantities[i].name,
                                         .is_difference = true,
                                         .label = label_of(evaluate, &quantities[i])};
        result.policy = "";
        if (quantities[i].is_compared && has_quantity(vector, &quantities[i]) &&
            has_quantity(base, &quantities[i]))
            add_columns(evaluate, vector, result, &quantities[i], interval);
    }
cleanup:
    free(interval);
    return status;
}

/* ---- all together ---- */

enum mpo_status evaluate_allocate_results(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    int32_t columns = evaluate->column_count;
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        struct evaluate_vector *vector = &evaluate->vector[a];
        MPO_NEW(evaluate->prompt_count * columns, &vector->value);
        MPO_NEW(columns, &vector->interval);
        MPO_NEW(columns, &vector->upper);
        MPO_NEW(2 * columns, &vector->result); /* each column, and its difference */
        vector->warnings = json_array();
        MPO_CHECK(vector->warnings != NULL, MPO_ERR_MEMORY, "no memory for warnings");
    }
cleanup:
    return status;
}

enum mpo_status evaluate_find_results(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    struct mpo_bootstrap_spec spec = {
        .seed = (uint64_t)evaluate->config->run.seed,
        .replicates = (int32_t)evaluate->config->evaluate.replicates,
        .unit_count = evaluate->prompt_count,
        .column_count = evaluate->column_count,
    };
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        struct evaluate_vector *vector = &evaluate->vector[a];
        spec.value = vector->value;
        MPO_TRY(mpo_certificate_intervals(&vector->certificate, &spec, vector->interval,
                                          vector->upper));
        evaluate_warn(evaluate, vector);
        for (size_t i = 0; i < sizeof quantities / sizeof *quantities; i++)
            if (has_quantity(vector, &quantities[i]))
                add_quantity(evaluate, vector, &quantities[i]);
        if (a > 0)
            MPO_TRY(add_differences(evaluate, &spec, vector));
    }
    evaluate_warn_of_prompts(evaluate);
cleanup:
    return status;
}
