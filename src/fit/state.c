/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the run of a record has come: by its configuration, which is that of the first
 * start, and by the figures of its last step.
 */
#include "fit_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "estimator/sample.h"
#include "mpo/config.h"

enum mpo_status mpo_fit_read_plan(const struct mpo_record *record, const char *path,
                                  struct mpo_fit_plan *out)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    struct mpo_config *config = NULL;
    bool is_there = false;
    MPO_ARGUMENTS(record, path, out);
    *out = (struct mpo_fit_plan){.responses = NAN};
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
    out->responses = (double)config->rollout.responses;
    out->mixture = mpo_mixing_name(config->rollout.mixture);
cleanup:
    mpo_config_close(&config);
    free(text);
    return status;
}

_Static_assert(MPO_FIT_REASON_BYTES == MPO_SAMPLE_REASON_BYTES, "one rule, one length");

const char *mpo_fit_why_unknown(const struct mpo_record *record,
                                const struct mpo_fit_plan *plan, double ess, char *text)
{
    enum mpo_target target = mpo_record_target(record);
    if (isnan(plan->responses)) /* a record without a readable configuration */
        return mpo_sample_why_unknown(target, 2.0, 2.0, text);
    return mpo_sample_why_unknown(target, ess * plan->responses, plan->responses, text);
}

/* Whether F is known from all steps; a fit stops on no other gap. */
static bool knows_value(struct mpo_record *record, const struct mpo_fit_plan *plan)
{
    char reason[MPO_SAMPLE_REASON_BYTES] = "";
    int64_t count = mpo_record_step_count(record);
    double *ess = calloc((size_t)count + 1, sizeof *ess);
    double sum = 0.0;
    bool is_known = false;
    if (ess != NULL && mpo_record_read(record, "ess", 0, count, ess) == MPO_OK) {
        for (int64_t i = 0; i < count; i++)
            sum += ess[i];
        is_known = *mpo_fit_why_unknown(record, plan, sum / (double)count, reason) == '\0';
    }
    free(ess);
    return is_known;
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
    if (mpo_record_target(record) == MPO_TARGET_SERVED)
        return mpo_record_step_count(record) >= MPO_FIT_STOP_STEPS &&
               read_last(record, "imbalance") + read_last(record, "imbalance_error") <=
                   plan->stop_gap;
    return read_last(record, "averaged_gap") <= plan->stop_gap && knows_value(record, plan);
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
