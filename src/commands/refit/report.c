/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output of refit: the result as a table, as JSON in a file, and the frontier.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/reason.h"
#include "base/text.h"
#include "commands/report/output.h"
#include "commands/report/plot.h"
#include "refit_impl.h"

#define NAME_COLUMNS 24

/* Parts of a grid and bounds as they are typed differ in their rounding. */
#define ROUNDING 1e-9

/* ---- the result ---- */

/* F and the gap; where they are unknown, what the draws say of them is a diagnostic. */
static void print_values(const struct refit *refit)
{
    char reason[MPO_SAMPLE_REASON_BYTES] = "";
    bool is_known = *refit_why_unknown(refit, &refit->result, reason) == '\0';
    printf("\n");
    if (!is_known)
        printf("F             %10s: %s\n", "unknown", reason);
    printf("%-13s %10s nat%s", is_known ? "F" : "  of the draws",
           mpo_text_figure(refit->result.value, 4).text, is_known ? "" : ", a diagnostic");
    if (refit->count == mpo_record_objective_count(refit->record))
        printf(", at the record's weights %s nat",
               mpo_text_figure(refit->stored.value, 4).text);
    printf("\ngap           %10s nat%s\n", mpo_text_figure(refit->gap, 4).text,
           is_known ? "" : ", which bounds nothing, because F is unknown");
}

static void print_table(const struct refit *refit)
{
    const struct refit_point *result = &refit->result;
    char reason[MPO_SAMPLE_REASON_BYTES] = "";
    bool is_whole = refit->count == mpo_record_objective_count(refit->record);
    bool is_known = *refit_why_unknown(refit, result, reason) == '\0';
    printf("%-*s %10s %10s %14s %12s\n", NAME_COLUMNS, "objective", "weight", "record",
           "mean log pi", "divergence");
    for (int32_t k = 0; k < refit->count; k++) {
        mpo_text_pad(stdout, refit_name(refit, k), NAME_COLUMNS);
        printf(" %10.4f %10s %14s %12s\n", result->weights[k],
               mpo_text_figure(is_whole ? refit->stored.weights[k] : NAN, 4).text,
               mpo_text_figure(result->log_policy[k], 4).text,
               mpo_text_figure(is_known ? result->divergence[k] : NAN, 4).text);
    }
    print_values(refit);
    if (refit->exponents.strength != 1.0)
        printf("strength      %10g\n", refit->exponents.strength);
    printf("ESS           %10.4f of the responses, %.1f per prompt\n", result->ess,
           result->effective);
    printf("prompts       %10d with %lld responses\n", refit->prompt_count,
           (long long)refit->scores.count);
}

/* F and related figures at some weights. */
static json_t *make_figures(const struct refit *refit, const struct refit_point *point)
{
    char reason[MPO_SAMPLE_REASON_BYTES] = "";
    json_t *root = json_object();
    json_t *weights = json_object();
    json_t *log_policy = json_object();
    for (int32_t k = 0; k < refit->count; k++) {
        json_object_set_new(weights, refit_name(refit, k),
                            output_number(point->weights[k]));
        json_object_set_new(log_policy, refit_name(refit, k),
                            output_number(point->log_policy[k]));
    }
    json_object_set_new(root, "weights", weights);
    json_object_set_new(root, "log_policy", log_policy);
    if (*refit_why_unknown(refit, point, reason) == '\0') {
        json_object_set_new(root, "value_jackknife", output_number(point->value));
    } else {
        json_object_set_new(root, "value_jackknife", json_null());
        json_object_set_new(root, "value_unknown", output_text(reason));
        json_object_set_new(
            root, "diagnostic",
            json_pack("{s:o}", "value_jackknife", output_number(point->value)));
    }
    json_object_set_new(root, "ess", output_number(point->ess));
    return root;
}

static json_t *make_result(const struct refit *refit)
{
    json_t *root = make_figures(refit, &refit->result);
    json_t *diagnostic = json_object_get(root, "diagnostic"); /* where F is unknown */
    json_object_set_new(root, "record", output_text(refit->path));
    json_object_set_new(root, "target", output_text(mpo_target_name(MPO_TARGET_WHOLE)));
    json_object_set_new(root, "strength", output_number(refit->exponents.strength));
    json_object_set_new(root, "gap",
                        diagnostic == NULL ? output_number(refit->gap) : json_null());
    if (diagnostic != NULL)
        json_object_set_new(diagnostic, "gap", output_number(refit->gap));
    json_object_set_new(root, "responses", json_integer(refit->scores.count));
    return root;
}

/* Like a record, a result never overwrites a file. */
static enum mpo_status write_result(const struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const char *path = refit->options->output;
    json_t *root = NULL;
    FILE *file = fopen(path, "wx");
    MPO_CHECK(file != NULL, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "%s: cannot be created: %s", path, strerror(errno));
    root = make_result(refit);
    errno = 0;
    int failed = json_dumpf(root, file, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    failed |= fputc('\n', file) == EOF;
    failed |= fclose(file) != 0;
    MPO_CHECK(failed == 0, mpo_reason_status(errno, MPO_ERR_IO), "%s: writing failed: %s%s",
              path, strerror(errno), mpo_reason_advice(errno));
    mpo_log_note("wrote %s", path);
cleanup:
    json_decref(root);
    return status;
}

enum mpo_status refit_report(const struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    if (*refit->options->output != '\0')
        MPO_TRY(write_result(refit));
    if (refit->options->format == MPO_REPORT_JSON)
        MPO_TRY(output_json(make_result(refit)));
    else
        print_table(refit);
cleanup:
    return status;
}

/* ---- the frontier ---- */

/* The next way to deal N parts to K objectives, in lexical order; false after the last. */
static bool next_parts(int32_t *parts, int32_t count)
{
    int32_t last = parts[count - 1];
    int32_t k = count - 2;
    while (k >= 0 && parts[k] == 0)
        k--;
    if (k < 0)
        return false;
    parts[count - 1] = 0;
    parts[k]--;
    parts[k + 1] = last + 1;
    return true;
}

static void print_head(const struct refit *refit, FILE *out)
{
    for (int32_t k = 0; k < refit->count; k++)
        fprintf(out, "weights.%s\t", refit_name(refit, k));
    fprintf(out, "%s\t",
            mpo_sample_may_certify(mpo_record_target(refit->record)) ? "value_jackknife"
                                                                     : "value_draws");
    for (int32_t k = 0; k < refit->count; k++)
        fprintf(out, "log_policy.%s\t", refit_name(refit, k));
    fprintf(out, "ess\tsupported\n");
}

static void print_point(const struct refit *refit, const struct refit_point *point,
                        FILE *out)
{
    for (int32_t k = 0; k < refit->count; k++)
        fprintf(out, "%.17g\t", point->weights[k]);
    fprintf(out, "%.17g\t", point->value);
    for (int32_t k = 0; k < refit->count; k++)
        fprintf(out, "%.17g\t", point->log_policy[k]);
    fprintf(out, "%.17g\t%d\n", point->ess, refit_supports(refit, point));
}

static json_t *make_point(const struct refit *refit, const struct refit_point *point)
{
    json_t *root = make_figures(refit, point);
    json_object_set_new(root, "supported", json_boolean(refit_supports(refit, point)));
    return root;
}

static enum mpo_status open_plot(const struct refit *refit, struct plot *plot)
{
    enum mpo_status status = MPO_OK;
    const char **objective = NULL; /* [K] */
    MPO_CHECK(refit->count >= 2, MPO_ERR_USAGE,
              "--plot: expected two objectives or more, found one");
    MPO_TRY(plot_open(PLOT_FRONTIER, refit->options->plot, plot));
    MPO_NEW(refit->count, &objective);
    for (int32_t k = 0; k < refit->count; k++)
        objective[k] = refit_name(refit, k);
    plot_put_list(plot, "objective", objective, refit->count);
cleanup:
    free(objective);
    return status;
}

static enum mpo_status draw_plot(struct plot *plot, const char *table)
{
    plot_begin_table(plot);
    fputs(table, plot->input);
    return plot_draw(plot);
}

static bool is_within_bounds(const struct refit *refit, const double *weights)
{
    const double *bounds = refit->bounds;
    for (int32_t k = 0; bounds != NULL && k < refit->count; k++)
        if (weights[k] < bounds[k] - ROUNDING ||
            weights[k] > bounds[refit->count + k] + ROUNDING)
            return false;
    return true;
}

static enum mpo_status walk_grid(struct refit *refit, int32_t *parts, FILE *out,
                                 json_t *list)
{
    enum mpo_status status = MPO_OK;
    int32_t divisions = (int32_t)refit->options->frontier;
    int64_t points = 0;
    parts[0] = divisions;
    print_head(refit, out);
    do {
        for (int32_t k = 0; k < refit->count; k++)
            refit->result.weights[k] = (double)parts[k] / divisions;
        if (!is_within_bounds(refit, refit->result.weights))
            continue;
        points++;
        refit_estimate(refit, &refit->result);
        refit_state_known_value(refit, &refit->result);
        print_point(refit, &refit->result, out);
        if (list != NULL)
            json_array_append_new(list, make_point(refit, &refit->result));
    } while (next_parts(parts, refit->count));
    MPO_CHECK(
        points > 0, MPO_ERR_USAGE,
        "--frontier=%d: expected points within --min and --max, found none; give more "
        "divisions",
        divisions);
cleanup:
    return status;
}

enum mpo_status refit_frontier(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    int32_t *parts = NULL; /* [K] */
    char *table = NULL;
    size_t bytes = 0;
    bool is_json = refit->options->format == MPO_REPORT_JSON;
    json_t *list = is_json ? json_array() : NULL;
    struct plot plot = {0};
    FILE *out = open_memstream(&table, &bytes);
    MPO_CHECK(out != NULL, MPO_ERR_MEMORY, "no memory for the frontier");
    if (*refit->options->plot != '\0')
        MPO_TRY(open_plot(refit, &plot));
    MPO_NEW(refit->count, &parts);
    MPO_TRY(walk_grid(refit, parts, out, list));
    MPO_CHECK(fflush(out) == 0, MPO_ERR_MEMORY, "no memory for the frontier");
    if (list != NULL)
        MPO_TRY(output_json(json_pack("{s:O}", "frontier", list)));
    else
        fputs(table, stdout);
    if (*refit->options->plot != '\0')
        MPO_TRY(draw_plot(&plot, table));
cleanup:
    plot_close(&plot);
    json_decref(list);
    if (out != NULL)
        fclose(out);
    free(table);
    free(parts);
    return status;
}
