/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Continuing a record.
 *
 * One that was closed properly is opened for SWMR writing as it is: from the first byte on
 * nothing but appending happens to it, so that it is never worse off than a record that a
 * crash left. One that its writer left open is repaired on a copy beside it, which then
 * takes its name: at any moment the name belongs to a whole record.
 */
#include "record_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "mpo/report.h"
#include "base/argument.h"
#include "base/memory.h"
#include "base/reason.h"

#define REPAIRED_SUFFIX ".repaired"

enum mpo_status mpo_record_check_repair(const char *path)
{
    enum mpo_status status = MPO_OK;
    struct stat record;
    struct statvfs disk;
    MPO_ARGUMENTS(path);
    MPO_CHECK(stat(path, &record) == 0, MPO_ERR_INPUT, "%s: %s", path, strerror(errno));
    if (statvfs(path, &disk) != 0)
        return MPO_OK; /* the copy will tell */
    double needed = (double)record.st_size;
    double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    MPO_CHECK(
        needed <= free_bytes, MPO_ERR_IO,
        "%s was left open by a killed run and is repaired on a copy beside it: expected "
        "%.1f MB free on that disk, found %.1f MB; free some, or give `mpo recover` an "
        "--output on another disk and resume that one",
        path, needed / 1e6, free_bytes / 1e6);
cleanup:
    return status;
}

/* The lock is held, so a file of this name was left by a killed repair. */
static enum mpo_status close_properly(const char *path)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_recovery recovery = {0};
    char *repaired = NULL;
    const size_t bytes = strlen(path) + sizeof REPAIRED_SUFFIX;
    MPO_NEW(bytes, &repaired);
    snprintf(repaired, bytes, "%s%s", path, REPAIRED_SUFFIX);
    MPO_CHECK(unlink(repaired) == 0 || errno == ENOENT,
              mpo_reason_status(errno, MPO_ERR_OUTPUT), "cannot remove %s: %s", repaired,
              strerror(errno));
    MPO_TRY(mpo_record_repair(path, repaired, &recovery));
    if (!recovery.repaired)
        goto cleanup;
    MPO_CHECK(rename(repaired, path) == 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "cannot move %s to %s: %s", repaired, path, strerror(errno));
    mpo_report(MPO_REPORT_NOTE, "%s was left open by a killed run; kept its %lld steps",
               path, (long long)recovery.step_count);
cleanup:
    free(repaired);
    return status;
}

static enum mpo_status open_for_appending(struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    hid_t access = H5I_INVALID_HID;
    MPO_TRY_HDF5(access = H5Pcreate(H5P_FILE_ACCESS), "access properties");
    MPO_TRY_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110),
                 "access properties");
    MPO_TRY_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "access properties");
    MPO_TRY(mpo_record_set_chunk_cache(access));
    MPO_TRY_HDF5(H5Pset_file_locking(access, !writer->lock.is_refused, true),
                 "access properties");
    writer->schema.file = H5Fopen(writer->path, H5F_ACC_RDWR | H5F_ACC_SWMR_WRITE, access);
    MPO_TRY_HDF5(writer->schema.file, "opening %s", writer->path);
    MPO_TRY(mpo_record_open_columns(writer->schema.file, &writer->schema));
cleanup:
    mpo_record_hdf5_release(&access);
    return status;
}

/* Every data set has the rows of the acknowledged steps and no more. */
static enum mpo_status check_rows(struct mpo_record_writer *writer, int64_t step_count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_schema *schema = &writer->schema;
    htri_t names_target = 0; /* not in schema mpo-1.0 */
    MPO_TRY_HDF5(names_target = H5Aexists(schema->file, "target"), "attributes");
    MPO_CHECK(schema->step.rows == (hsize_t)step_count, MPO_ERR_OUTPUT,
              "%s has %llu steps, but had %lld a moment ago: another run is writing it",
              writer->path, (unsigned long long)schema->step.rows, (long long)step_count);
    for (int32_t i = 0; i < MPO_RECORD_FIELD_COUNT; i++) {
        const struct mpo_record_column *field = &schema->field[i];
        if (field->id < 0 && names_target == 0 &&
            mpo_record_came_later((enum mpo_record_field_index)i))
            continue;
        if (field->id < 0 && mpo_record_is_of_rewards((enum mpo_record_field_index)i))
            continue; /* resuming compares configurations */
        MPO_CHECK(
            field->id >= 0 && field->rows == schema->step.rows, MPO_ERR_DATA,
            "%s: %s has %llu rows, expected %lld; `mpo recover` copies the complete steps",
            writer->path, field->path, (unsigned long long)field->rows,
            (long long)step_count);
    }
    writer->objective_count = (int32_t)schema->field[MPO_RECORD_FIELD_weights].columns;
    writer->policy_count =
        (int32_t)schema->response[MPO_RECORD_RESPONSE_log_policy].columns;
    writer->last_step = step_count - 1;
cleanup:
    return status;
}

enum mpo_status mpo_record_resume(const char *path,
                                  const struct mpo_record_segment *segment,
                                  int64_t step_count, struct mpo_record_writer **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, path, segment);
    struct mpo_record_writer *writer = NULL;
    /* A link is resolved, else the lock and the repaired copy would be beside the link and
     * not the record. */
    char *target = realpath(path, NULL);
    mpo_record_hdf5_prepare();
    MPO_CHECK(target != NULL, mpo_reason_of_input(errno), "%s: %s", path, strerror(errno));
    MPO_TRY(mpo_record_writer_new(target, segment->job_id, &writer));
    MPO_TRY(close_properly(target));
    MPO_TRY(open_for_appending(writer));
    MPO_TRY(check_rows(writer, step_count));
    if (segment->note != NULL)
        MPO_TRY(mpo_record_append_note(writer->schema.file, segment->note));
    MPO_TRY(mpo_record_append_segment(writer->schema.file, step_count, segment));
    mpo_record_guard_note(writer);
    *out = writer;
    writer = NULL;
cleanup:
    if (writer != NULL)
        writer->broken = status == MPO_ERR_IO;
    mpo_record_writer_free(&writer);
    free(target);
    return status;
}
