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

#include "mpo/memory.h"

#define LABEL_WIDTH 24
#define VALUE_WIDTH 18
#define KEY_BYTES   192

/* ---- figures ---- */

static void print_label(const char *label)
{
    inspect_print_padded(label, LABEL_WIDTH);
}

static void print_cell(double value, int digits)
{
    if (isfinite(value))
        printf("  %*.*f", VALUE_WIDTH, digits, value);
    else
        printf("  %*s", VALUE_WIDTH, "-");
}

static void print_numbers(const char *label, double first, double second, int digits)
{
    print_label(label);
    print_cell(first, digits);
    print_cell(second, digits);
    print_cell(second - first, digits);
    printf("\n");
}

static double last(const struct inspect *inspect, enum inspect_field field)
{
    return inspect->step_count > 0 ? inspect_last(inspect, field) : NAN;
}

static void print_last(const char *label, const struct inspect pair[2],
                       enum inspect_field field)
{
    print_numbers(label, last(&pair[0], field), last(&pair[1], field), 4);
}

/* The average weight of an objective at the end; NaN when the record has no such one. */
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

static void print_figures(const struct inspect pair[2])
{
    printf("\n");
    print_last("F, nat", pair, INSPECT_value);
    print_last("  standard error", pair, INSPECT_value_error);
    print_last("averaged gap, nat", pair, INSPECT_averaged_gap);
    print_numbers("sample size, mean", mean_ess(&pair[0]), mean_ess(&pair[1]), 4);
    print_last("  at the last step", pair, INSPECT_ess);
    print_last("end bias, nat", pair, INSPECT_end_bias);
    print_numbers("tokens", inspect_sum(&pair[0], INSPECT_tokens),
                  inspect_sum(&pair[1], INSPECT_tokens), 0);
    print_numbers("seconds", last(&pair[0], INSPECT_elapsed),
                  last(&pair[1], INSPECT_elapsed), 1);
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

struct setting {
    char key[KEY_BYTES]; /* section.key or policies.NAME.key */
    const char *value;   /* in the text */
    bool is_common;
};

struct settings {
    char *text; /* owned; its line ends become NULs */
    struct setting *setting;
    size_t count;
    size_t capacity;
};

/* The configuration in a record is what the program printed: sections at the margin, keys
 * two columns in, policies as a list whose first key is the name. */
static enum mpo_status take_line(struct settings *settings, char *line, char *section,
                                 char *policy)
{
    enum mpo_status status = MPO_OK;
    const size_t indent = strspn(line, " -");
    char *key = line + indent;
    char *colon = strchr(key, ':');
    if (colon == NULL)
        goto cleanup;
    *colon = '\0';
    const char *value = colon + 1 + strspn(colon + 1, " ");
    if (indent == 0) {
        snprintf(section, KEY_BYTES / 3, "%s", key);
        policy[0] = '\0';
        goto cleanup;
    }
    if (strchr(line, '-') != NULL && strchr(line, '-') < key) {
        snprintf(policy, KEY_BYTES / 3, ".%.*s",
                 (int)strcspn(value + (*value == '"'), "\""), value + (*value == '"'));
        goto cleanup; /* its name is in every key */
    }
    MPO_TRY(mpo_memory_grow((void **)&settings->setting, &settings->capacity,
                            settings->count + 1, sizeof *settings->setting, "settings"));
    struct setting *setting = &settings->setting[settings->count++];
    snprintf(setting->key, sizeof setting->key, "%s%s.%.*s", section, policy, KEY_BYTES / 4,
             key);
    setting->value = value;
cleanup:
    return status;
}

static enum mpo_status read_settings(const struct inspect *inspect,
                                     struct settings *settings)
{
    enum mpo_status status = MPO_OK;
    char section[KEY_BYTES / 3] = "";
    char policy[KEY_BYTES / 3] = "";
    char *rest = NULL;
    MPO_TRY(mpo_record_read_config(inspect->record, &settings->text));
    for (char *line = strtok_r(settings->text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest))
        MPO_TRY(take_line(settings, line, section, policy));
cleanup:
    return status;
}

static struct setting *find_setting(const struct settings *settings, const char *key)
{
    for (size_t i = 0; i < settings->count; i++)
        if (strcmp(settings->setting[i].key, key) == 0)
            return &settings->setting[i];
    return NULL;
}

static void print_setting(const char *key, const char *first, const char *second)
{
    printf("  %s\n    first   %s\n    second  %s\n", key, first, second);
}

static void print_settings(const struct settings settings[2])
{
    bool differs = false;
    printf("\nconfiguration, where it differs\n");
    for (size_t i = 0; i < settings[0].count; i++) {
        const struct setting *first = &settings[0].setting[i];
        struct setting *second = find_setting(&settings[1], first->key);
        if (second != NULL)
            second->is_common = true;
        if (second != NULL && strcmp(first->value, second->value) == 0)
            continue;
        print_setting(first->key, first->value, second != NULL ? second->value : "-");
        differs = true;
    }
    for (size_t i = 0; i < settings[1].count; i++) {
        const struct setting *second = &settings[1].setting[i];
        if (second->is_common)
            continue;
        print_setting(second->key, "-", second->value);
        differs = true;
    }
    if (!differs)
        printf("  nowhere\n");
}

/* ---- all together ---- */

enum mpo_status inspect_compare(const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    struct inspect pair[2] = {0};
    struct settings settings[2] = {0};
    const char *const path[2] = {request->path, request->other};
    for (int i = 0; i < 2; i++) {
        MPO_TRY(inspect_open_whole(path[i], &pair[i]));
        MPO_TRY(read_settings(&pair[i], &settings[i]));
    }
    print_head(pair);
    print_weights(pair);
    print_figures(pair);
    print_settings(settings);
cleanup:
    for (int i = 0; i < 2; i++) {
        free(settings[i].setting);
        free(settings[i].text);
        inspect_close(&pair[i]);
    }
    return status;
}
