/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the run of a record has come: by its configuration, which is that of the first
 * start, and by the figures of its last step.
 */
#include "fit_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/config.h"

enum mpo_status mpo_fit_read_plan(const struct mpo_record *record, const char *path,
                                  struct mpo_fit_plan *out)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    struct mpo_config *config = NULL;
    bool is_there = false;
    *out = (struct mpo_fit_plan){0};
    MPO_TRY(mpo_record_has(record, "provenance/config", &is_there));
    if (!is_there)
        goto cleanup;
    MPO_TRY(mpo_record_read_config(record, &text));
    status = mpo_config_read_text(path, text, &config);
    if (status == MPO_ERR_DATA) {
        status = MPO_OK;
        goto cleanup;
    }
    MPO_TRY(status);
    if (mpo_config_is_given(config, "descent.steps"))
        out->steps = config->descent.steps;
    out->stop_gap = config->descent.stop_gap;
cleanup:
    mpo_config_close(&config);
    free(text);
    return status;
}

/* A figure of the last step, NAN where there is none. */
static double read_last(struct mpo_record *record, const char *path)
{
    int64_t steps = mpo_record_step_count(record);
    double value = NAN;
    if (steps == 0 || mpo_record_read(record, path, steps - 1, 1, &value) != MPO_OK)
        return NAN;
    return value;
}

/* The record has the last planned step, or stopped on the gap. */
static bool has_arrived(struct mpo_record *record, const struct mpo_fit_plan *plan)
{
    if (mpo_record_step_count(record) >= plan->steps)
        return true;
    if (!(plan->stop_gap > 0.0))
        return false;
    return strcmp(mpo_record_attribute(record, "target"), "served") == 0
               ? mpo_record_step_count(record) >= MPO_FIT_STOP_STEPS &&
                     read_last(record, "imbalance") +
                             read_last(record, "imbalance_error") <=
                         plan->stop_gap
               : read_last(record, "averaged_gap") <= plan->stop_gap;
}

const char *mpo_fit_state(struct mpo_record *record, const struct mpo_fit_plan *plan)
{
    bool is_extended = plan->steps > 0 && mpo_record_step_count(record) > plan->steps;
    if (mpo_record_is_complete(record))
        return is_extended                 ? "extended"
               : has_arrived(record, plan) ? "finished"
                                           : "stopped";
    return mpo_record_is_live(record) ? "being written" : "left by a crash";
}
