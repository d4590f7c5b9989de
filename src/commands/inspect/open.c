/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record in memory, as far as requested.
 *
 * A record of an older minor version of the schema lacks the series that were added since.
 * They read as NaN; views that print a series leave it out.
 */
#include "inspect_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static void release_steps(struct inspect *inspect)
{
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
        free(inspect->series[i]);
        inspect->series[i] = NULL;
    }
    free(inspect->step);
    inspect->step = NULL;
    inspect->step_count = 0;
}

void inspect_close(struct inspect *inspect)
{
    release_steps(inspect);
    json_decref(inspect->notes);
    inspect->notes = NULL;
    free(inspect->scale);
    mpo_record_close(&inspect->record);
}

static enum mpo_status load_series(struct inspect *inspect, int32_t i, int64_t first,
                                   int64_t count)
{
    enum mpo_status status = MPO_OK;
    const int64_t numbers = count * inspect->columns[i];
    MPO_NEW(numbers, &inspect->series[i]);
    if (inspect->is_there[i])
        MPO_TRY(mpo_record_read(inspect->record, mpo_record_field(i)->path, first, count,
                                inspect->series[i]));
    for (int64_t n = 0; n < numbers && !inspect->is_there[i]; n++)
        inspect->series[i][n] = NAN;
cleanup:
    return status;
}

enum mpo_status inspect_load(struct inspect *inspect, int64_t first, int64_t count)
{
    enum mpo_status status = MPO_OK;
    release_steps(inspect);
    MPO_NEW(count, &inspect->step);
    MPO_TRY(mpo_record_read(inspect->record, "step", first, count, inspect->step));
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++)
        MPO_TRY(load_series(inspect, i, first, count));
    inspect->step_count = count;
cleanup:
    return status;
}

/* An array of what the run noted; other lines are left out. */
static enum mpo_status read_notes(struct inspect *inspect)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    inspect->notes = json_array();
    MPO_TRY(mpo_record_read_notes(inspect->record, &text));
    for (const char *line = text; *line != '\0';) {
        size_t bytes = strcspn(line, "\n");
        json_t *note = json_loadb(line, bytes, 0, NULL);
        if (note != NULL)
            json_array_append_new(inspect->notes, note);
        line += bytes + (line[bytes] == '\n');
    }
cleanup:
    free(text);
    return status;
}

/* Strength, scales, and whether rewards are balanced. */
static enum mpo_status read_recipe(struct inspect *inspect)
{
    enum mpo_status status = MPO_OK;
    int32_t count = inspect->objective_count;
    double *numbers = NULL; /* [4, K] */
    bool is_there = false;
    MPO_NEW(4 * count, &numbers);
    struct mpo_record_rewards rewards = {
        .scale = {numbers, numbers + count, numbers + 2 * count, numbers + 3 * count}};
    MPO_NEW(count, &inspect->scale);
    MPO_TRY(mpo_record_read_exponents(inspect->record, &inspect->strength, inspect->scale));
    MPO_TRY(mpo_record_read_rewards(inspect->record, &rewards, &is_there));
    inspect->balances_rewards = is_there && rewards.is_objective;
cleanup:
    free(numbers);
    return status;
}

enum mpo_status inspect_open(const char *path, struct inspect *inspect)
{
    enum mpo_status status = MPO_OK;
    inspect->path = path;
    MPO_TRY(mpo_record_open(path, &inspect->record));
    inspect->objective_count = mpo_record_objective_count(inspect->record);
    MPO_TRY(read_recipe(inspect));
    MPO_TRY(mpo_fit_read_plan(inspect->record, path, &inspect->plan));
    MPO_TRY(read_notes(inspect));
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        const bool is_vector = strcmp(field->shape, "OBJECTIVE") == 0;
        inspect->columns[i] = is_vector ? inspect->objective_count : 1;
        MPO_TRY(mpo_record_has(inspect->record, field->path, &inspect->is_there[i]));
    }
cleanup:
    return status;
}

enum mpo_status inspect_open_whole(const char *path, struct inspect *inspect)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(inspect_open(path, inspect));
    if (!mpo_record_is_live(inspect->record))
        MPO_TRY(mpo_record_verify(inspect->record));
    MPO_TRY(inspect_load(inspect, 0, mpo_record_step_count(inspect->record)));
cleanup:
    return status;
}

struct mpo_exponents inspect_exponents(const struct inspect *inspect)
{
    int32_t most = inspect->objective_count + 1; /* with a reference */
    int32_t policies = mpo_record_policy_count(inspect->record);
    return (struct mpo_exponents){inspect->objective_count,
                                  policies < most ? policies : most, inspect->strength,
                                  inspect->scale};
}

const char *inspect_why_unknown(const struct inspect *inspect, char *text)
{
    double ess = inspect_sum(inspect, INSPECT_ess) / (double)inspect->step_count;
    return mpo_fit_why_unknown(inspect->record, &inspect->plan, ess, text);
}

const char *inspect_state(const struct inspect *inspect)
{
    return mpo_fit_state(inspect->record, &inspect->plan);
}
