/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect --compare: two records side by side.
 *
 * Objectives are matched by name, so that records of other objectives can be compared as
 * far as that makes sense. Of the configurations only what differs is shown, as the
 * section.key of the command line.
 */
#include "inspect_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "mpo/config.h"

#define LABEL_WIDTH 24
#define VALUE_WIDTH 18

/* ---- figures ---- */

static void print_label(const char *label)
{
    mpo_text_pad(stdout, label, LABEL_WIDTH);
}

static void print_cell(double value, int digits)
{
    printf("  %*s", VALUE_WIDTH, mpo_text_figure(value, digits).text);
}

static void print_numbers(const char *label, double first, double second, int digits)
{
    print_label(label);
    print_cell(first, digits);
    print_cell(second, digits);
    print_cell(second - first, digits);
    printf("\n");
}

static double last_value(const struct inspect *inspect, enum inspect_field field)
{
    return inspect->step_count > 0 ? inspect_last(inspect, field) : NAN;
}

static void print_last(const char *label, const struct inspect pair[2],
                       enum inspect_field field)
{
    print_numbers(label, last_value(&pair[0], field), last_value(&pair[1], field), 4);
}

/* The average weight of an objective after the last step;
 * NaN if the record does not have it. */
static double weight_of(const struct inspect *inspect, const char *objective)
{
    const int32_t count = inspect->objective_count;
    for (int32_t k = 0; k < count && inspect->step_count > 0; k++)
        if (strcmp(mpo_record_objective(inspect->record, k), objective) == 0)
            return inspect->series[INSPECT_average][(inspect->step_count - 1) * count + k];
    return NAN;
}

static bool has_objective(const struct inspect *inspect, const char *objective)
{
    for (int32_t k = 0; k < inspect->objective_count; k++)
        if (strcmp(mpo_record_objective(inspect->record, k), objective) == 0)
            return true;
    return false;
}

static void print_weights(const struct inspect pair[2])
{
    printf("\nobjective, final weight\n");
    for (int i = 0; i < 2; i++)
        for (int32_t k = 0; k < pair[i].objective_count; k++) {
            const char *name = mpo_record_objective(pair[i].record, k);
            if (i == 0 || !has_objective(&pair[0], name))
                print_numbers(name, weight_of(&pair[0], name), weight_of(&pair[1], name),
                              4);
        }
}

static double mean_ess(const struct inspect *inspect)
{
    return inspect_sum(inspect, INSPECT_ess) / (double)inspect->step_count;
}

/* F, and its standard error where it is known in both. */
static void print_value(const struct inspect pair[2])
{
    char reason[2][MPO_SAMPLE_REASON_BYTES] = {""};
    bool is_known = true;
    for (int i = 0; i < 2; i++)
        if (pair[i].step_count > 0 && *inspect_why_unknown(&pair[i], reason[i]) != '\0')
            is_known = false;
    print_last(is_known ? "F, nat" : "F of the draws, nat", pair, INSPECT_value);
    if (is_known)
        print_last("  standard error", pair, INSPECT_value_error);
}

static void print_figures(const struct inspect pair[2])
{
    printf("\n");
    print_value(pair);
    print_last("averaged gap, nat", pair, INSPECT_averaged_gap);
    print_numbers("sample size, mean", mean_ess(&pair[0]), mean_ess(&pair[1]), 4);
    print_last("  at the last step", pair, INSPECT_ess);
    print_last("end bias, nat", pair, INSPECT_end_bias);
    print_numbers("tokens", inspect_sum(&pair[0], INSPECT_tokens),
                  inspect_sum(&pair[1], INSPECT_tokens), 0);
    print_numbers("seconds", last_value(&pair[0], INSPECT_elapsed),
                  last_value(&pair[1], INSPECT_elapsed), 1);
}

static void print_head(const struct inspect pair[2])
{
    static const char *const names[] = {"run_id", "created_utc", "version", "git_commit"};
    for (int i = 0; i < 2; i++)
        printf("%s  %s, %s, %lld steps\n", i == 0 ? "first " : "second", pair[i].path,
               inspect_state(&pair[i]), (long long)pair[i].step_count);
    printf("\n");
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        const char *first = mpo_record_attribute(pair[0].record, names[n]);
        const char *second = mpo_record_attribute(pair[1].record, names[n]);
        if (strcmp(first, second) != 0)
            printf("%-*s%s | %s\n", LABEL_WIDTH, names[n], first, second);
    }
    print_label("");
    printf("  %*s  %*s  %*s\n", VALUE_WIDTH, "first", VALUE_WIDTH, "second", VALUE_WIDTH,
           "difference");
    print_numbers("steps", (double)pair[0].step_count, (double)pair[1].step_count, 0);
}

/* ---- configuration ---- */

static enum mpo_status read_config(const struct inspect *inspect,
                                   struct mpo_config **config)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    MPO_TRY(mpo_record_read_config(inspect->record, &text));
    MPO_TRY(mpo_config_read_text(inspect->path, text, config));
cleanup:
    free(text);
    return status;
}

static void print_setting(void *context, const char *key, const char *first,
                          const char *second)
{
    printf("  %s\n    first   %s\n    second  %s\n", key, first, second);
    *(bool *)context = true;
}

static enum mpo_status print_settings(struct mpo_config *const config[2])
{
    enum mpo_status status = MPO_OK;
    bool differs = false;
    printf("\nconfiguration, where it differs\n");
    MPO_TRY(mpo_config_compare(config[0], config[1], print_setting, &differs));
    if (!differs)
        printf("  nowhere\n");
cleanup:
    return status;
}

/* ---- all together ---- */

enum mpo_status inspect_compare(const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    struct inspect pair[2] = {0};
    struct mpo_config *config[2] = {NULL, NULL};
    const char *const path[2] = {request->path, request->other};
    for (int i = 0; i < 2; i++) {
        MPO_TRY(inspect_open_whole(path[i], &pair[i]));
        MPO_TRY(read_config(&pair[i], &config[i]));
    }
    print_head(pair);
    print_weights(pair);
    print_figures(pair);
    MPO_TRY(print_settings(config));
cleanup:
    for (int i = 0; i < 2; i++) {
        mpo_config_close(&config[i]);
        inspect_close(&pair[i]);
    }
    return status;
}
