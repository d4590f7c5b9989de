/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What evaluate prints: one line per quantity, with its 95 % interval.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "commands/report/output.h"
#include "evaluate_impl.h"

#define LABEL_COLUMNS 34

/* -log 0.05: by Markov's inequality the mean of R, which is unbiased for Z, exceeds Z / 0.05
 * with a probability of at most 0.05. */
#define MARKOV_NATS 2.9957322735539909

/* Names of a figure: in a record and for programs, and for people. */
struct quantity {
    const char *name;
    const char *label;
};

static const struct quantity quantities[RESULT_POLICY] = {
    [RESULT_IMBALANCE] = {"imbalance", "imbalance"},
    [RESULT_LENGTH] = {"length", "tokens of a response"},
    [RESULT_TRUNCATED] = {"truncated", "cut at max_tokens"},
    [RESULT_VALUE] = {"value_jackknife", "F"},
    [RESULT_PLAIN] = {"value", "F, no jackknife"},
    [RESULT_HALVING] = {"value_halving", "F less F of half of the rows"},
    [RESULT_GAP] = {"gap", "gap"},
    [RESULT_ESS] = {"ess", "ESS"},
};
static const struct quantity of_policy[POLICY_RESULTS] = {
    [SERVED_LOG_POLICY] = {"served_log_policy", "mean log pi"},
    [SERVED_DIVERGENCE] = {"served_divergence", "divergence"},
    [WHOLE_LOG_POLICY] = {"log_policy", "mean log pi"},
    [WHOLE_DIVERGENCE] = {"divergence", "divergence"},
};
static const struct quantity difference = {"value_jackknife_difference", "F difference"};

/* A line of any format; objective is "" for figures without one. */
struct figure {
    int32_t vector;
    struct quantity quantity;
    const char *objective;
    struct mpo_interval interval;
};

static struct figure make_figure(const struct evaluate *evaluate, int32_t vector,
                                 int32_t result)
{
    int32_t count = evaluate->objective_count;
    int32_t policy = result - RESULT_POLICY;
    const struct mpo_interval *of =
        evaluate->interval + vector * evaluate_result_count(evaluate);
    if (policy < 0)
        return (struct figure){vector, quantities[result], "", of[result]};
    return (struct figure){vector, of_policy[policy / count],
                           evaluate->config->policies[policy % count].name, of[result]};
}

static struct figure make_difference(const struct evaluate *evaluate, int32_t vector)
{
    int32_t first = evaluate->vector_count * evaluate_result_count(evaluate);
    return (struct figure){vector, difference, "", evaluate->interval[first + vector - 1]};
}

/* ---- text ---- */

static void print_text_figure(struct figure figure)
{
    char label[128] = "";
    snprintf(label, sizeof label, "  %s%s%s", figure.quantity.label,
             figure.objective[0] ? " " : "", figure.objective);
    mpo_text_pad(stdout, label, LABEL_COLUMNS);
    if (isfinite(figure.interval.low))
        printf(" %10.4f   [%.4f, %.4f]\n", figure.interval.estimate, figure.interval.low,
               figure.interval.high);
    else if (isfinite(figure.interval.estimate))
        printf(" %10.4f   -\n", figure.interval.estimate);
    else
        printf(" %10s   -\n", "-");
}

static void print_results(const struct evaluate *evaluate, int32_t vector, int32_t first,
                          int32_t end)
{
    for (int32_t r = first; r < end; r++)
        print_text_figure(make_figure(evaluate, vector, r));
}

static void print_policies(const struct evaluate *evaluate, int32_t vector, int first,
                           int last)
{
    for (int kind = first; kind <= last; kind++) {
        int32_t begin = evaluate_policy_result(evaluate, kind, 0);
        print_results(evaluate, vector, begin, begin + evaluate->objective_count);
    }
}

static void print_text(const struct evaluate *evaluate)
{
    printf("%lld prompts x %lld rows, ends integrated out\n",
           (long long)evaluate->prompt_count,
           (long long)evaluate->config->evaluate.responses);
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        const double *weights = evaluate->weights + a * evaluate->config->policy_count;
        printf("\nweights %s:", evaluate->name[a]);
        for (int32_t k = 0; k < evaluate->objective_count; k++)
            printf(" %s %.4f", evaluate->config->policies[k].name, weights[k]);
        printf("\n%-*s %10s   %s\n", LABEL_COLUMNS, "served (the token mixture), nat",
               "estimate", "95 % interval");
        print_results(evaluate, a, RESULT_IMBALANCE, RESULT_VALUE);
        print_policies(evaluate, a, SERVED_LOG_POLICY, SERVED_DIVERGENCE);
        printf(
            "whole responses, as far as these rows reach (95 %%: F is above %.4f), nat\n",
            make_figure(evaluate, a, RESULT_PLAIN).interval.estimate - MARKOV_NATS);
        print_results(evaluate, a, RESULT_VALUE, RESULT_POLICY);
        print_policies(evaluate, a, WHOLE_LOG_POLICY, WHOLE_DIVERGENCE);
        if (a > 0)
            print_text_figure(make_difference(evaluate, a));
    }
}

/* ---- tsv ---- */

static void print_tsv_figure(const struct evaluate *evaluate, struct figure figure)
{
    printf("%s\t%s\t%s\t%.17g\t%.17g\t%.17g\n", evaluate->name[figure.vector],
           figure.quantity.name, figure.objective, figure.interval.estimate,
           figure.interval.low, figure.interval.high);
}

static void print_tsv(const struct evaluate *evaluate)
{
    printf("weights\tquantity\tobjective\testimate\tlow\thigh\n");
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        for (int32_t r = 0; r < evaluate_result_count(evaluate); r++)
            print_tsv_figure(evaluate, make_figure(evaluate, a, r));
        if (a > 0)
            print_tsv_figure(evaluate, make_difference(evaluate, a));
    }
}

/* ---- json ---- */

static json_t *make_json_figure(struct figure figure)
{
    json_t *object = json_object();
    json_object_set_new(object, "quantity", json_string(figure.quantity.name));
    if (figure.objective[0] != '\0')
        json_object_set_new(object, "objective", json_string(figure.objective));
    json_object_set_new(object, "estimate", output_number(figure.interval.estimate));
    json_object_set_new(object, "low", output_number(figure.interval.low));
    json_object_set_new(object, "high", output_number(figure.interval.high));
    return object;
}

static json_t *make_vector(const struct evaluate *evaluate, int32_t vector)
{
    json_t *object = json_object();
    json_t *weights = json_object();
    json_t *results = json_array();
    for (int32_t k = 0; k < evaluate->objective_count; k++)
        json_object_set_new(
            weights, evaluate->config->policies[k].name,
            json_real(evaluate->weights[vector * evaluate->config->policy_count + k]));
    for (int32_t r = 0; r < evaluate_result_count(evaluate); r++)
        json_array_append_new(results, make_json_figure(make_figure(evaluate, vector, r)));
    if (vector > 0)
        json_array_append_new(results, make_json_figure(make_difference(evaluate, vector)));
    json_object_set_new(object, "name", json_string(evaluate->name[vector]));
    json_object_set_new(object, "weights", weights);
    json_object_set_new(object, "results", results);
    return object;
}

static enum mpo_status print_json(const struct evaluate *evaluate)
{
    json_t *root = json_object();
    json_t *vectors = json_array();
    for (int32_t a = 0; a < evaluate->vector_count; a++)
        json_array_append_new(vectors, make_vector(evaluate, a));
    json_object_set_new(root, "prompts", json_integer(evaluate->prompt_count));
    json_object_set_new(root, "responses",
                        json_integer(evaluate->config->evaluate.responses));
    json_object_set_new(root, "vectors", vectors);
    return output_json(root);
}

enum mpo_status evaluate_report(const struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    enum mpo_table_format format = evaluate->config->evaluate.format;
    if (format == MPO_TABLE_JSON)
        MPO_TRY(print_json(evaluate));
    else if (format == MPO_TABLE_TSV)
        print_tsv(evaluate);
    else
        print_text(evaluate);
    MPO_TRY(output_flush());
cleanup:
    return status;
}
