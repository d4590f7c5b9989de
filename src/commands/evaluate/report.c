/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What evaluate prints: one line per result, with its 95 % interval or bound.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "commands/report/output.h"
#include "evaluate_impl.h"

#define LABEL_COLUMNS 34

/* ---- text ---- */

static void print_result(const struct evaluate_result *result)
{
    const struct mpo_interval *of = &result->interval;
    char label[128] = "";
    snprintf(label, sizeof label, "  %s%s%s", result->label, result->policy[0] ? " " : "",
             result->policy);
    mpo_text_pad(stdout, label, LABEL_COLUMNS);
    const struct mpo_text_figure low = mpo_text_figure(of->low, 4);
    printf(" %10s", mpo_text_figure(of->estimate, 4).text);
    if (!isfinite(of->low))
        printf("   -\n");
    else if (result->is_bound)
        printf("   at most %s\n", mpo_text_figure(of->high, 4).text);
    else if (isfinite(of->high))
        printf("   [%s, %s]\n", low.text, mpo_text_figure(of->high, 4).text);
    else
        printf("   at least %s\n", low.text);
}

static void print_part(const struct evaluate_vector *vector, enum evaluate_part part,
                       bool are_differences)
{
    for (int32_t r = 0; r < vector->result_count; r++)
        if (vector->result[r].part == part &&
            vector->result[r].is_difference == are_differences)
            print_result(&vector->result[r]);
}

/* Exponents are printed where they are not the weights. */
static void print_weights(const struct evaluate *evaluate,
                          const struct evaluate_vector *vector)
{
    const struct mpo_config *config = evaluate->config;
    bool is_same = true;
    printf("\nweights %s:", vector->name);
    for (int32_t k = 0; k < evaluate->objective_count; k++) {
        printf(" %s %.4f", config->policies[k].name, vector->recipe.weights[k]);
        is_same = is_same && fabs(vector->mu[k] - vector->recipe.weights[k]) < 1e-12;
    }
    if (evaluate->has_reference)
        is_same = is_same && fabs(vector->mu[evaluate->objective_count]) < 1e-12;
    if (!is_same)
        printf("\nstrength %g, exponents:", vector->recipe.strength);
    for (int32_t h = 0; !is_same && h < config->policy_count; h++)
        printf(" %s %.4f", config->policies[h].name, vector->mu[h]);
    if (vector->mixture == MPO_MIXING_ADAPTERS)
        printf("\none policy: the model with all adapters");
    if (vector->end_bias != 0.0)
        printf("\nserved with an end tilt of %+.4f nat", vector->end_bias);
    printf("\n");
}

static void print_differences(const struct evaluate *evaluate,
                              const struct evaluate_vector *vector)
{
    printf("served, minus that of %s on the same prompts\n", evaluate->vector[0].name);
    print_part(vector, EVALUATE_SERVED, true);
    if (vector->certificate.of_blend || evaluate->vector[0].certificate.of_blend)
        return;
    printf("whole responses likewise, as far as the rows of both reach\n");
    print_part(vector, EVALUATE_WHOLE, true);
}

/* "30 prompts x 16 rows" */
static void print_size(const struct evaluate *evaluate, const char *what)
{
    int64_t responses = evaluate->config->evaluate.responses;
    printf("%lld prompt%s x %lld %s%s", (long long)evaluate->prompt_count,
           mpo_text_plural(evaluate->prompt_count), (long long)responses, what,
           mpo_text_plural(responses));
}

static void print_rewards(const struct evaluate *evaluate)
{
    print_size(evaluate, "response");
    printf(" of what is served\n");
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        print_weights(evaluate, &evaluate->vector[a]);
        printf("%-*s %10s   %s\n", LABEL_COLUMNS, "rewards", "mean",
               "95 % interval or bound");
        print_part(&evaluate->vector[a], EVALUATE_SERVED, false);
        if (evaluate->column_count > evaluate->objective_count)
            printf(
                "normalised: intervals take zero and one as given, without their errors\n");
        if (a > 0)
            printf("minus those of %s on the same prompts\n", evaluate->vector[0].name);
        print_part(&evaluate->vector[a], EVALUATE_SERVED, true);
    }
}

static void print_text(const struct evaluate *evaluate)
{
    if (evaluate->config->evaluate.rewards) {
        print_rewards(evaluate);
        return;
    }
    print_size(evaluate, "row");
    printf(", ends integrated out\n");
    if (evaluate->has_reference)
        printf("score: scale times mean log (pi / pi of the reference)\n");
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        const struct evaluate_vector *vector = &evaluate->vector[a];
        print_weights(evaluate, vector);
        bool has_whole = !vector->certificate.of_blend;
        printf("%-*s %10s   %s\n", LABEL_COLUMNS,
               has_whole ? "served (the token mixture), nat" : "served, nat", "estimate",
               "95 % interval or bound");
        print_part(vector, EVALUATE_SERVED, false);
        if (has_whole)
            printf("whole responses, as far as these rows reach, nat\n");
        print_part(vector, EVALUATE_WHOLE, false);
        if (a > 0)
            print_differences(evaluate, vector);
    }
}

/* ---- tsv ---- */

static const char *suffix_of(const struct evaluate_result *result)
{
    return result->is_difference ? "_difference" : "";
}

static void print_tsv(const struct evaluate *evaluate)
{
    printf("weights\tquantity\tobjective\testimate\tlow\thigh\n");
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        const struct evaluate_vector *vector = &evaluate->vector[a];
        for (int32_t r = 0; r < vector->result_count; r++) {
            const struct evaluate_result *result = &vector->result[r];
            printf("%s\t%s%s\t%s\t%.17g\t%.17g\t%.17g\n", vector->name, result->name,
                   suffix_of(result), result->policy, result->interval.estimate,
                   result->interval.low, result->interval.high);
        }
    }
}

/* ---- json ---- */

static json_t *make_result(const struct evaluate_result *result)
{
    json_t *object = json_object();
    char name[64] = "";
    snprintf(name, sizeof name, "%s%s", result->name, suffix_of(result));
    json_object_set_new(object, "quantity", json_string(name));
    if (result->policy[0] != '\0')
        json_object_set_new(object, "objective", json_string(result->policy));
    json_object_set_new(object, "estimate", output_number(result->interval.estimate));
    json_object_set_new(object, "low", output_number(result->interval.low));
    json_object_set_new(object, "high", output_number(result->interval.high));
    return object;
}

/* {policy: number} of the first policies. */
static json_t *make_numbers(const struct evaluate *evaluate, const double *value,
                            int32_t count)
{
    json_t *object = json_object();
    for (int32_t h = 0; h < count; h++)
        json_object_set_new(object, evaluate->config->policies[h].name,
                            output_number(value[h]));
    return object;
}

static json_t *make_vector(const struct evaluate *evaluate,
                           const struct evaluate_vector *vector)
{
    int32_t count = evaluate->objective_count;
    json_t *object = json_object();
    json_t *results = json_array();
    for (int32_t r = 0; r < vector->result_count; r++)
        json_array_append_new(results, make_result(&vector->result[r]));
    json_object_set_new(object, "name", json_string(vector->name));
    if (evaluate->config->rollout.mixture == MPO_MIXING_ADAPTERS) /* both are there */
        json_object_set_new(object, "mixture",
                            json_string(mpo_mixing_name(vector->mixture)));
    json_object_set_new(object, "weights",
                        make_numbers(evaluate, vector->recipe.weights, count));
    json_object_set_new(object, "strength", output_number(vector->recipe.strength));
    json_object_set_new(object, "scale",
                        make_numbers(evaluate, vector->recipe.scale, count));
    json_object_set_new(object, "exponents",
                        make_numbers(evaluate, vector->mu, evaluate->config->policy_count));
    json_object_set_new(object, "end_bias", output_number(vector->end_bias));
    json_object_set_new(object, "results", results);
    json_object_set(object, "warnings", vector->warnings);
    return object;
}

static enum mpo_status print_json(const struct evaluate *evaluate)
{
    json_t *root = json_object();
    json_t *vectors = json_array();
    for (int32_t a = 0; a < evaluate->vector_count; a++)
        json_array_append_new(vectors, make_vector(evaluate, &evaluate->vector[a]));
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
