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
#include "mpo/config.h"
#include "mpo/fit.h"

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

/* A record without a readable configuration has no planned number of steps. */
static enum mpo_status read_plan(struct inspect *inspect)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    struct mpo_config *config = NULL;
    bool is_there = false;
    MPO_TRY(mpo_record_has(inspect->record, "provenance/config", &is_there));
    if (!is_there)
        goto cleanup;
    MPO_TRY(mpo_record_read_config(inspect->record, &text));
    status = mpo_config_read_text(inspect->path, text, &config);
    if (status == MPO_ERR_DATA) {
        status = MPO_OK;
        goto cleanup;
    }
    MPO_TRY(status);
    if (mpo_config_is_given(config, "descent.steps"))
        inspect->planned_step_count = config->descent.steps;
    inspect->stop_gap = config->descent.stop_gap;
cleanup:
    mpo_config_close(&config);
    free(text);
    return status;
}

enum mpo_status inspect_open(const char *path, struct inspect *inspect)
{
    enum mpo_status status = MPO_OK;
    inspect->path = path;
    MPO_TRY(mpo_record_open(path, &inspect->record));
    inspect->objective_count = mpo_record_objective_count(inspect->record);
    MPO_TRY(read_plan(inspect));
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

static bool is_extended(const struct inspect *inspect)
{
    return inspect->planned_step_count > 0 &&
           mpo_record_step_count(inspect->record) > inspect->planned_step_count;
}

/* A figure of the last step, NAN where there is none. */
static double read_last(const struct inspect *inspect, const char *path)
{
    int64_t steps = mpo_record_step_count(inspect->record);
    double value = NAN;
    if (steps == 0 ||
        mpo_record_read(inspect->record, path, steps - 1, 1, &value) != MPO_OK)
        return NAN;
    return value;
}

/* The record has the last planned step, or stopped on the gap. */
static bool has_arrived(const struct inspect *inspect)
{
    if (mpo_record_step_count(inspect->record) >= inspect->planned_step_count)
        return true;
    if (!(inspect->stop_gap > 0.0))
        return false;
    return strcmp(mpo_record_attribute(inspect->record, "target"), "served") == 0
               ? mpo_record_step_count(inspect->record) >= MPO_FIT_STOP_STEPS &&
                     read_last(inspect, "imbalance") +
                             read_last(inspect, "imbalance_error") <=
                         inspect->stop_gap
               : read_last(inspect, "averaged_gap") <= inspect->stop_gap;
}

const char *inspect_state(const struct inspect *inspect)
{
    if (mpo_record_is_complete(inspect->record))
        return is_extended(inspect)   ? "extended"
               : has_arrived(inspect) ? "finished"
                                      : "stopped";
    return mpo_record_is_live(inspect->record) ? "being written" : "left by a crash";
}
