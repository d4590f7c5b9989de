/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repairing a record that its writer left open, on a copy.
 *
 * A crashed record is whole as far as /step counts, but marked as open, so that programs
 * refuse it unless they are asked to read beside a writer; and what an unfinished step had
 * written is still there, longer in some data sets than in others. The repair opens a copy
 * with HDF5's private file access properties that `h5clear` uses, "clear_status_flags" and
 * "skip_eof_check", and sets the end of the file to what is there
 * (H5Fincrement_filesize(file, 0)); `h5clear -s` alone leaves that out and cuts such a file
 * to nothing. Then the growing data sets are cut to the acknowledged rows and the copy is
 * closed as any file is.
 *
 * Nothing is believed: the copy is opened again as a reader does, and every acknowledged
 * row of every data set is compared with the original, bit by bit. The original is only
 * ever opened for reading. Until the copy is closed it is itself marked as open, so a
 * repair that is killed leaves nothing that passes for a finished record.
 */
#include "record_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mpo/report.h"
#include "base/argument.h"
#include "base/memory.h"
#include "base/reason.h"

#define COPY_BYTES  (1 << 20)
#define BLOCK_BYTES (1 << 20)

struct repair {
    const char *path;
    const char *output;
    struct mpo_record *source;
    struct mpo_record *copy;
    struct mpo_record_kept kept;
    bool claimed; /* the file at `output` is ours */
    bool owned;   /* the caller holds the record's lock */
};

static enum mpo_status look_at_source(struct repair *repair,
                                      struct mpo_record_recovery *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_schema schema;
    mpo_record_invalidate(&schema);
    MPO_TRY(mpo_record_open_columns(repair->source->file, &schema));
    repair->kept.steps = mpo_record_step_count(repair->source);
    MPO_TRY(mpo_record_count_kept(&schema, &repair->kept));
    out->step_count = repair->kept.steps;
    out->response_count = repair->kept.responses;
    for (int32_t i = 0; i < MPO_RECORD_COLUMN_COUNT; i++) {
        const struct mpo_record_column *column = mpo_record_column_at(&schema, i);
        const int64_t surplus =
            (int64_t)column->rows - mpo_record_rows_to_keep(&repair->kept, i);
        int64_t *most =
            i < MPO_RECORD_FIRST_RESPONSE ? &out->surplus_steps : &out->surplus_responses;
        const int32_t response = i - MPO_RECORD_FIRST_RESPONSE;
        if (response != MPO_RECORD_RESPONSE_token && response != MPO_RECORD_RESPONSE_text &&
            surplus > *most)
            *most = surplus;
    }
cleanup:
    mpo_record_close_columns(&schema);
    return status;
}

/* ---- the copy ---- */

static enum mpo_status refuse_live(const char *path)
{
    enum mpo_status status = MPO_OK;
    char holder[MPO_RECORD_HOLDER_BYTES] = "";
    MPO_CHECK(
        !mpo_record_lock_names_holder(path, holder), MPO_ERR_OUTPUT,
        "%s is being written by a run (%s) and needs no repair while the run continues",
        path, holder);
cleanup:
    return status;
}

static enum mpo_status write_all(int descriptor, const char *data, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    while (bytes > 0) {
        const ssize_t written = write(descriptor, data, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        MPO_CHECK(written > 0, mpo_reason_status(errno, MPO_ERR_IO), "%s", strerror(errno));
        data += written;
        bytes -= (size_t)written;
    }
cleanup:
    return status;
}

static enum mpo_status copy_bytes(int from, int to)
{
    enum mpo_status status = MPO_OK;
    char *block = NULL;
    ssize_t bytes = 0;
    MPO_NEW(COPY_BYTES, &block);
    do {
        bytes = read(from, block, COPY_BYTES);
        MPO_CHECK(bytes >= 0 || errno == EINTR, MPO_ERR_IO, "%s", strerror(errno));
        if (bytes > 0)
            MPO_TRY(write_all(to, block, (size_t)bytes));
    } while (bytes != 0);
cleanup:
    free(block);
    return status;
}

static enum mpo_status make_copy(struct repair *repair)
{
    enum mpo_status status = MPO_OK;
    int to = -1;
    const int from = open(repair->path, O_RDONLY | O_CLOEXEC);
    MPO_CHECK(from >= 0, mpo_reason_of_input(errno), "%s: %s", repair->path,
              strerror(errno));
    to = open(repair->output, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    MPO_CHECK(to >= 0 || errno != EEXIST, MPO_ERR_OUTPUT,
              "%s exists already; name another file with --output, or move it aside",
              repair->output);
    MPO_CHECK(to >= 0, mpo_reason_status(errno, MPO_ERR_OUTPUT), "cannot make %s: %s",
              repair->output, strerror(errno));
    repair->claimed = true;
    status = copy_bytes(from, to);
    if (status != MPO_OK)
        MPO_FAIL(status, "copying %s to %s: %s", repair->path, repair->output,
                 mpo_error_text());
cleanup:
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return status;
}

/* ---- the repair ---- */

static enum mpo_status open_marked_file(const char *path, hid_t *file)
{
    enum mpo_status status = MPO_OK;
    const hbool_t yes = true;
    hid_t access = H5I_INVALID_HID;
    MPO_TRY_HDF5(access = H5Pcreate(H5P_FILE_ACCESS), "access properties");
    MPO_TRY_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110),
                 "access properties");
    MPO_TRY_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "access properties");
    MPO_TRY_HDF5(H5Pset_file_locking(access, false, true), "access properties");
    MPO_TRY_HDF5(H5Pset(access, "clear_status_flags", &yes),
                 "HDF5 %s cannot clear the mark of an open file",
                 mpo_record_library_version());
    MPO_TRY_HDF5(H5Pset(access, "skip_eof_check", &yes),
                 "HDF5 %s cannot open a file whose size differs from the size it noted",
                 mpo_record_library_version());
    MPO_TRY_HDF5(*file = H5Fopen(path, H5F_ACC_RDWR, access), "opening the copy");
    MPO_TRY_HDF5(H5Fincrement_filesize(*file, 0), "end of the copy");
cleanup:
    mpo_record_hdf5_release(&access);
    return status;
}

static enum mpo_status trim_columns(struct mpo_record_schema *schema,
                                    const struct mpo_record_kept *kept)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < MPO_RECORD_COLUMN_COUNT; i++) {
        const struct mpo_record_column *column = mpo_record_column_at(schema, i);
        const hsize_t extent[2] = {(hsize_t)mpo_record_rows_to_keep(kept, i),
                                   column->columns};
        if (column->id >= 0 && column->rows > extent[0])
            MPO_TRY_HDF5(H5Dset_extent(column->id, extent), "%s", column->path);
    }
cleanup:
    return status;
}

static enum mpo_status repair_copy(const struct repair *repair)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_schema schema;
    hid_t file = H5I_INVALID_HID;
    int descriptor = -1;
    mpo_record_invalidate(&schema);
    MPO_TRY(open_marked_file(repair->output, &file));
    MPO_TRY(mpo_record_open_columns(file, &schema));
    MPO_TRY(trim_columns(&schema, &repair->kept));
    mpo_record_close_columns(&schema);
    MPO_TRY_HDF5(H5Fflush(file, H5F_SCOPE_GLOBAL), "writing the copy");
    const hid_t closing = file;
    file = H5I_INVALID_HID;
    MPO_TRY_HDF5(H5Fclose(closing), "closing the copy");
    descriptor = open(repair->output, O_RDONLY | O_CLOEXEC);
    MPO_CHECK(descriptor >= 0 && fsync(descriptor) == 0, MPO_ERR_IO, "fsync: %s",
              strerror(errno));
cleanup:
    if (descriptor >= 0)
        close(descriptor);
    mpo_record_close_columns(&schema);
    if (file >= 0)
        H5Fclose(file);
    return status;
}

/* ---- the check ---- */

static enum mpo_status compare_column(const struct mpo_record_column *original,
                                      const struct mpo_record_column *copy, int64_t rows)
{
    enum mpo_status status = MPO_OK;
    const size_t row_bytes = H5Tget_size(original->memory_type) *
                             (original->columns > 0 ? original->columns : 1);
    const int64_t most = row_bytes < BLOCK_BYTES ? (int64_t)(BLOCK_BYTES / row_bytes) : 1;
    const int64_t block = rows < most ? rows : most;
    char *first = NULL;
    char *second = NULL;
    MPO_CHECK(copy->id >= 0 && copy->rows == (hsize_t)rows, MPO_ERR_DATA,
              "%s has %llu rows in the copy, expected %lld", original->path,
              (unsigned long long)copy->rows, (long long)rows);
    MPO_NEW((size_t)block * row_bytes, &first);
    MPO_NEW((size_t)block * row_bytes, &second);
    for (int64_t at = 0; at < rows; at += block) {
        const int64_t count = rows - at < block ? rows - at : block;
        MPO_TRY(mpo_record_read_column(original, (hsize_t)at, (hsize_t)count, first));
        MPO_TRY(mpo_record_read_column(copy, (hsize_t)at, (hsize_t)count, second));
        MPO_CHECK(memcmp(first, second, (size_t)count * row_bytes) == 0, MPO_ERR_DATA,
                  "%s differs between the record and its copy", original->path);
    }
cleanup:
    free(second);
    free(first);
    return status;
}

static enum mpo_status check_copy(struct repair *repair)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_schema original;
    struct mpo_record_schema copy;
    mpo_record_invalidate(&original);
    mpo_record_invalidate(&copy);
    MPO_TRY(mpo_record_open(repair->output, &repair->copy));
    MPO_CHECK(mpo_record_is_complete(repair->copy), MPO_ERR_DATA,
              "%s is still marked as open", repair->output);
    MPO_TRY(mpo_record_open_columns(repair->source->file, &original));
    MPO_TRY(mpo_record_open_columns(repair->copy->file, &copy));
    for (int32_t i = 0; i < MPO_RECORD_COLUMN_COUNT; i++)
        if (mpo_record_column_at(&original, i)->id >= 0)
            MPO_TRY(compare_column(mpo_record_column_at(&original, i),
                                   mpo_record_column_at(&copy, i),
                                   mpo_record_rows_to_keep(&repair->kept, i)));
cleanup:
    mpo_record_close_columns(&copy);
    mpo_record_close_columns(&original);
    return status;
}

/* ---- all together ---- */

static enum mpo_status recover_record(struct repair *repair,
                                      struct mpo_record_recovery *out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_record_reword(repair->source, look_at_source(repair, out)));
    MPO_TRY(make_copy(repair));
    if (!repair->owned)
        MPO_TRY(refuse_live(repair->path)); /* no run has begun to write meanwhile */
    status = repair_copy(repair);
    if (status == MPO_OK)
        status = check_copy(repair);
    if (status != MPO_OK)
        MPO_FAIL(status,
                 "repairing %s as %s: %s; the record itself is unchanged, and its steps "
                 "can be read",
                 repair->path, repair->output, mpo_error_text());
cleanup:
    return status;
}

static enum mpo_status open_and_recover(struct repair *repair,
                                        struct mpo_record_recovery *out)
{
    enum mpo_status status = MPO_OK;
    *out = (struct mpo_record_recovery){0};
    MPO_TRY(mpo_record_open(repair->path, &repair->source));
    MPO_TRY(mpo_record_verify(repair->source));
    out->repaired = !mpo_record_is_complete(repair->source);
    out->step_count = mpo_record_step_count(repair->source);
    if (out->repaired && repair->owned) /* else the output may be on another disk */
        MPO_TRY(mpo_record_check_repair(repair->path));
    if (out->repaired)
        MPO_TRY(recover_record(repair, out));
cleanup:
    mpo_record_close(&repair->copy);
    mpo_record_close(&repair->source);
    if (status != MPO_OK && repair->claimed)
        unlink(repair->output);
    return status;
}

enum mpo_status mpo_record_repair(const char *path, const char *output,
                                  struct mpo_record_recovery *out)
{
    struct repair repair = {.path = path, .output = output, .owned = true};
    return open_and_recover(&repair, out);
}

enum mpo_status mpo_record_recover(const char *path, const char *output,
                                   struct mpo_record_recovery *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(path, output, out);
    struct repair repair = {.path = path, .output = output};
    mpo_record_hdf5_prepare();
    if (access(path, F_OK) == 0)
        MPO_TRY(refuse_live(path));
    MPO_TRY(open_and_recover(&repair, out));
cleanup:
    return status;
}
