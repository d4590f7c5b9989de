/*
 * Reading /responses: the scores that importance sampling needs, with no model.
 *
 * After a crash, or beside a writer, the data sets may be longer than what is acknowledged
 * and of different lengths: a response counts when its row is in all of them and its step
 * is one that /step counts.
 */
#include "record_impl.h"

#include <stdlib.h>

#include "mpo/memory.h"

/* A column to read; rows is how many there are. */
struct column {
    const char *path;
    hid_t type;
    hid_t id;
    hsize_t extent[2];
};

static enum mpo_status read_column(const struct column *column, int64_t rows, void *values)
{
    enum mpo_status status = MPO_OK;
    hid_t file_space = H5I_INVALID_HID;
    hid_t memory_space = H5I_INVALID_HID;
    const hsize_t start[2] = {0, 0};
    const hsize_t block[2] = {(hsize_t)rows, column->extent[1]};
    const hsize_t total = block[0] * block[1];
    MPO_TRY_HDF5(file_space = H5Dget_space(column->id), "%s", column->path);
    MPO_TRY_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, block, NULL),
                 "%s", column->path);
    MPO_TRY_HDF5(memory_space = H5Screate_simple(1, &total, NULL), "%s", column->path);
    MPO_TRY_HDF5(
        H5Dread(column->id, column->type, memory_space, file_space, H5P_DEFAULT, values),
        "%s", column->path);
cleanup:
    mpo_record_hdf5_release(&memory_space);
    mpo_record_hdf5_release(&file_space);
    return status;
}

/* Steps only go up, so the first row that goes down was never written. */
int64_t mpo_record_acknowledged_rows(const int64_t *step, int64_t rows, int64_t last)
{
    int64_t before = 0;
    int64_t count = 0;
    while (count < rows && step[count] >= before && step[count] <= last)
        before = step[count++];
    return count;
}

/* Rows of steps that are not acknowledged are at the end. */
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

static enum mpo_status read_all(const struct mpo_record *record, struct column column[4],
                                struct mpo_record_scores *out)
{
    enum mpo_status status = MPO_OK;
    for (int i = 0; i < 4; i++) {
        MPO_TRY(mpo_record_open_current(record, column[i].path, &column[i].id,
                                        column[i].extent));
        if (i == 0 || (int64_t)column[i].extent[0] < out->count)
            out->count = (int64_t)column[i].extent[0];
    }
    MPO_CHECK(column[3].extent[1] == (hsize_t)record->policy_count, MPO_ERR_DATA,
              "%s has %llu columns, expected one a policy, %d", column[3].path,
              (unsigned long long)column[3].extent[1], record->policy_count);
    for (int i = 0; i < 3; i++)
        MPO_CHECK(column[i].extent[1] == 1, MPO_ERR_DATA, "%s has %llu columns, expected 1",
                  column[i].path, (unsigned long long)column[i].extent[1]);
    out->policy_count = record->policy_count;
    MPO_NEW(out->count, &out->step);
    MPO_NEW(out->count, &out->prompt);
    MPO_NEW(out->count, &out->log_proposal);
    MPO_NEW((size_t)out->count * (size_t)out->policy_count, &out->log_policy);
    if (out->count == 0)
        goto cleanup;
    MPO_TRY(read_column(&column[0], out->count, out->step));
    MPO_TRY(read_column(&column[1], out->count, out->prompt));
    MPO_TRY(read_column(&column[2], out->count, out->log_proposal));
    MPO_TRY(read_column(&column[3], out->count, out->log_policy));
    MPO_TRY(drop_unacknowledged(record, out));
cleanup:
    return status;
}

enum mpo_status mpo_record_read_scores(const struct mpo_record *record,
                                       struct mpo_record_scores *out)
{
    enum mpo_status status = MPO_OK;
    mpo_record_hdf5_prepare();
    struct column column[4] = {
        {"responses/step", H5T_NATIVE_INT64, H5I_INVALID_HID, {0, 1}},
        {"responses/prompt", H5T_NATIVE_INT64, H5I_INVALID_HID, {0, 1}},
        {"responses/log_proposal", H5T_NATIVE_DOUBLE, H5I_INVALID_HID, {0, 1}},
        {"responses/log_policy", H5T_NATIVE_DOUBLE, H5I_INVALID_HID, {0, 1}},
    };
    *out = (struct mpo_record_scores){0};
    status = read_all(record, column, out);
    for (int i = 0; i < 4; i++)
        mpo_record_hdf5_release(&column[i].id);
    if (status != MPO_OK) {
        mpo_record_release_scores(out);
        status = mpo_record_reword(record, status);
    }
    return status;
}

void mpo_record_release_scores(struct mpo_record_scores *scores)
{
    free(scores->log_policy);
    free(scores->log_proposal);
    free(scores->prompt);
    free(scores->step);
    *scores = (struct mpo_record_scores){0};
}
