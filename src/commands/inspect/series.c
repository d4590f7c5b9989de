/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect for programs: any series as TSV or JSON.
 *
 * Numbers have 17 digits: they read back exactly.
 */
#include "inspect_impl.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands/report/output.h"

static const char *const provenance[] = {
    "version", "git_commit", "cmdline", "config_sha256", "seed",  "slurm_job_id",
    "mpi",     "nccl",       "cuda",    "hdf5",          "llama", "compiler"};

#define PROVENANCE_COUNT (sizeof provenance / sizeof provenance[0])

enum mpo_status inspect_check_series(const struct inspect *inspect,
                                     const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
        if (strcmp(mpo_record_field(i)->path, "rewards") == 0)
            MPO_CHECK(!request->chosen || !request->wanted[i] || inspect->is_there[i],
                      MPO_ERR_DATA,
                      "%s: no series \"rewards\"; its run had no reward program",
                      inspect->path);
        MPO_CHECK(
            !request->chosen || !request->wanted[i] || inspect->is_there[i], MPO_ERR_DATA,
            "%s: no series \"%s\"; its schema \"%s\" did not have it yet", inspect->path,
            mpo_record_field(i)->path, mpo_record_attribute(inspect->record, "log_schema"));
    }
cleanup:
    return status;
}

static bool is_shown(const struct inspect *inspect, const struct inspect_request *request,
                     int32_t field)
{
    return request->wanted[field] && inspect->is_there[field];
}

/* ---- tsv ---- */

void inspect_print_tsv_head(const struct inspect *inspect,
                            const struct inspect_request *request, FILE *out)
{
    fprintf(out, "step");
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        if (!is_shown(inspect, request, i))
            continue;
        if (strcmp(field->shape, "OBJECTIVE") != 0) {
            fprintf(out, "\t%s", field->path);
            continue;
        }
        for (int32_t k = 0; k < inspect->objective_count; k++)
            fprintf(out, "\t%s.%s", field->path, mpo_record_objective(inspect->record, k));
    }
    fprintf(out, "\n");
}

void inspect_print_tsv_steps(const struct inspect *inspect,
                             const struct inspect_request *request, FILE *out)
{
    for (int64_t n = 0; n < inspect->step_count; n++) {
        fprintf(out, "%.0f", inspect->step[n]);
        for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
            const int32_t columns = is_shown(inspect, request, i) ? inspect->columns[i] : 0;
            for (int32_t k = 0; k < columns; k++)
                fprintf(out, "\t%.17g", inspect->series[i][n * columns + k]);
        }
        fprintf(out, "\n");
    }
}

/* ---- json ---- */

static json_t *make_number(double value, bool whole)
{
    return whole && isfinite(value) ? json_integer((json_int_t)value)
                                    : output_number(value);
}

static json_t *make_series(const struct inspect *inspect, int32_t field)
{
    const bool whole = strcmp(mpo_record_field(field)->type, "I64") == 0;
    const bool is_vector = strcmp(mpo_record_field(field)->shape, "OBJECTIVE") == 0;
    const int32_t columns = inspect->columns[field];
    json_t *steps = json_array();
    for (int64_t n = 0; n < inspect->step_count; n++) {
        const double *value = inspect->series[field] + n * columns;
        json_t *step = is_vector ? json_array() : make_number(value[0], whole);
        for (int32_t k = 0; is_vector && k < columns; k++)
            json_array_append_new(step, make_number(value[k], whole));
        json_array_append_new(steps, step);
    }
    return steps;
}

static json_t *make_names(const struct inspect *inspect, int32_t count,
                          const char *(*name)(const struct mpo_record *, int32_t))
{
    json_t *names = json_array();
    for (int32_t i = 0; i < count; i++)
        json_array_append_new(names, output_text(name(inspect->record, i)));
    return names;
}

/* What the exponents are made of, and what the figures of the steps say. */
static void put_recipe(const struct inspect *inspect, json_t *root)
{
    char reason[MPO_SAMPLE_REASON_BYTES] = "";
    json_t *scale = json_object();
    for (int32_t k = 0; k < inspect->objective_count; k++)
        json_object_set_new(scale, mpo_record_objective(inspect->record, k),
                            output_number(inspect->scale[k]));
    json_object_set_new(root, "target",
                        output_text(mpo_target_name(mpo_record_target(inspect->record))));
    if (inspect->plan.mixture != NULL)
        json_object_set_new(root, "mixture", output_text(inspect->plan.mixture));
    json_object_set_new(root, "strength", output_number(inspect->strength));
    json_object_set_new(root, "scale", scale);
    json_object_set_new(root, "balances_rewards", json_boolean(inspect->balances_rewards));
    if (inspect->step_count > 0 && *inspect_why_unknown(inspect, reason) != '\0')
        json_object_set_new(root, "value_unknown", output_text(reason));
}

static json_t *make_attributes(const struct inspect *inspect)
{
    json_t *object = json_object();
    for (size_t i = 0; i < PROVENANCE_COUNT; i++)
        json_object_set_new(
            object, provenance[i],
            output_text(mpo_record_attribute(inspect->record, provenance[i])));
    return object;
}

enum mpo_status inspect_print_json(const struct inspect *inspect,
                                   const struct inspect_request *request)
{
    const struct mpo_record *record = inspect->record;
    json_t *root = json_object();
    json_t *steps = json_array();
    json_t *series = json_object();
    for (int64_t n = 0; n < inspect->step_count; n++)
        json_array_append_new(steps, make_number(inspect->step[n], true));
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++)
        if (is_shown(inspect, request, i))
            json_object_set_new(series, mpo_record_field(i)->path, make_series(inspect, i));
    json_object_set_new(root, "path", output_text(inspect->path));
    json_object_set_new(root, "state", output_text(inspect_state(inspect)));
    if (inspect->plan.steps > 0)
        json_object_set_new(root, "planned_steps",
                            json_integer((json_int_t)inspect->plan.steps));
    json_object_set_new(root, "log_schema",
                        output_text(mpo_record_attribute(record, "log_schema")));
    json_object_set_new(root, "run_id",
                        output_text(mpo_record_attribute(record, "run_id")));
    json_object_set_new(root, "created_utc",
                        output_text(mpo_record_attribute(record, "created_utc")));
    json_object_set_new(
        root, "objective",
        make_names(inspect, mpo_record_objective_count(record), mpo_record_objective));
    json_object_set_new(
        root, "policy",
        make_names(inspect, mpo_record_policy_count(record), mpo_record_policy));
    put_recipe(inspect, root);
    json_object_set_new(root, "provenance", make_attributes(inspect));
    if (json_array_size(inspect->notes) > 0)
        json_object_set(root, "notes", inspect->notes);
    json_object_set_new(root, "step", steps);
    json_object_set_new(root, "series", series);
    return output_json(root);
}
