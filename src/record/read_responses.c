/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading /responses: the scores that importance sampling needs, with no model.
 *
 * After a crash, or beside a writer, the data sets may be longer than what is acknowledged
 * and of different lengths: a response counts when its row is in all of them and its step
 * is one that /step counts.
 */
#include "record_impl.h"

#include <stdlib.h>

#include "base/argument.h"
#include "base/memory.h"

/* Steps only increase, so the first row that decreases was never written. */
int64_t mpo_record_acknowledged_rows(const int64_t *step, int64_t rows, int64_t last)
{
    int64_t before = 0;
    int64_t count = 0;
    while (count < rows && step[count] >= before && step[count] <= last)
        before = step[count++];
    return count;
}

/* Rows of unacknowledged steps are at the end. */
static enum mpo_status drop_unacknowledged(const struct mpo_record *record,
                                           struct mpo_record_scores *scores)
{
    enum mpo_status status = MPO_OK;
    double last = -1.0;
    if (record->step_count > 0)
        MPO_TRY(mpo_record_read((struct mpo_record *)record, "step", record->step_count - 1,
                                1, &last));
    scores->count =
        mpo_record_acknowledged_rows(scores->step, scores->count, (int64_t)last);
cleanup:
    return status;
}

/* A response counts if all columns have its row. */
static enum mpo_status count_responses(const struct mpo_record *record,
                                       const struct mpo_record_rows *column,
                                       size_t column_count, int64_t *out)
{
    enum mpo_status status = MPO_OK;
    int64_t count = 0;
    *out = INT64_MAX;
    for (size_t i = 0; i < column_count; i++) {
        MPO_TRY(mpo_record_count_rows(record, column[i].path, &count));
        if (count < *out)
            *out = count;
    }
cleanup:
    return status;
}

static enum mpo_status read_all(const struct mpo_record *record,
                                struct mpo_record_scores *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_rows column[] = {
        {"responses/step", H5T_NATIVE_INT64, 1, 0, 0},
        {"responses/prompt", H5T_NATIVE_INT64, 1, 0, 0},
        {"responses/log_proposal", H5T_NATIVE_DOUBLE, 1, 0, 0},
        {"responses/log_policy", H5T_NATIVE_DOUBLE, (hsize_t)record->policy_count, 0, 0},
    };
    const size_t column_count = sizeof column / sizeof column[0];
    out->policy_count = record->policy_count;
    MPO_TRY(count_responses(record, column, column_count, &out->count));
    MPO_NEW(out->count, &out->step);
    MPO_NEW(out->count, &out->prompt);
    MPO_NEW(out->count, &out->log_proposal);
    MPO_NEW((size_t)out->count * (size_t)out->policy_count, &out->log_policy);
    void *const values[] = {out->step, out->prompt, out->log_proposal, out->log_policy};
    for (size_t i = 0; i < column_count; i++) {
        column[i].count = out->count;
        MPO_TRY(mpo_record_read_rows(record, &column[i], values[i]));
    }
    MPO_TRY(drop_unacknowledged(record, out));
cleanup:
    return status;
}

enum mpo_status mpo_record_read_scores(const struct mpo_record *record,
                                       struct mpo_record_scores *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, out);
    mpo_record_hdf5_prepare();
    *out = (struct mpo_record_scores){0};
    status = read_all(record, out);
    if (status != MPO_OK) {
        mpo_record_release_scores(out);
        status = mpo_record_reword(record, status);
    }
    return status;
}

enum mpo_status mpo_record_read_response_rewards(const struct mpo_record *record,
                                                 int64_t count, double *reward,
                                                 double *control, int64_t *tokens)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, reward, control, tokens);
    const struct mpo_record_rows column[] = {
        {"responses/reward", H5T_NATIVE_DOUBLE, (hsize_t)record->objective_count, 0, count},
        {"responses/control", H5T_NATIVE_DOUBLE, (hsize_t)record->policy_count, 0, count},
        {"responses/token_count", H5T_NATIVE_INT64, 1, 0, count},
    };
    mpo_record_hdf5_prepare();
    MPO_TRY(mpo_record_read_rows(record, &column[2], tokens));
    MPO_TRY(mpo_record_read_rows(record, &column[0], reward));
    MPO_TRY(mpo_record_read_rows(record, &column[1], control));
cleanup:
    return mpo_record_reword(record, status);
}

void mpo_record_release_scores(struct mpo_record_scores *scores)
{
    if (scores == NULL)
        return;
    free(scores->log_policy);
    free(scores->log_proposal);
    free(scores->prompt);
    free(scores->step);
    *scores = (struct mpo_record_scores){0};
}
