/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending a step and closing the record.
 *
 * A step is committed in two moves: every data set but /step is written and the file is
 * flushed; then /step grows by one and is flushed by itself. A reader that sees n rows of
 * /step finds n rows everywhere. Other data sets may be longer for a moment, or after a
 * crash; the surplus means nothing.
 *
 * After a refused write (usually a full disk) the file on disk is a consistent SWMR file
 * with all acknowledged steps. Closing it would let HDF5 try the rest of its cache once
 * more, and H5Fclose returns 0 even when that goes wrong: the file could be marked as
 * closed with pieces missing. So the descriptor is first exchanged for a read-only one.
 */
#include "record_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/argument.h"
#include "base/memory.h"

/* What a person does first, where the acknowledged steps are safe. */
static const char *name_remedy(const struct mpo_record_writer *writer, const char *reason,
                               bool is_full)
{
    if (writer->guard.moved_to != NULL)
        return "move it back";
    if (is_full)
        return "free space on that disk";
    if (strstr(reason, strerror(EFBIG)) != NULL)
        return "raise the limit of file sizes (ulimit -f)";
    return "remove the cause";
}

/* Reword the current failure for a person and stop writing. Steps are called safe only
 * where they were read back. */
static enum mpo_status give_up(struct mpo_record_writer *writer, const char *doing,
                               enum mpo_status found)
{
    /* Missing memory is not a fault of the disk. */
    enum mpo_status status = found == MPO_ERR_MEMORY ? MPO_ERR_MEMORY : MPO_ERR_IO;
    char reason[MPO_RECORD_TEXT_BYTES] = "";
    const char *moved_to = writer->guard.moved_to;
    writer->broken = true;
    snprintf(reason, sizeof reason, "%s", mpo_error_text());
    int64_t safe = -1;
    if (mpo_record_read_back(writer, &safe) != MPO_OK || safe < 0)
        return mpo_error_raise(
            status, __FILE__, __LINE__,
            "%s %s: %s; its steps cannot be read back: fit again, into another file", doing,
            writer->path, reason);
    bool is_full = strstr(reason, strerror(ENOSPC)) != NULL ||
                   strstr(reason, strerror(EDQUOT)) != NULL;
    return mpo_error_raise(
        status, __FILE__, __LINE__,
        "%s %s: %s; %lld steps are safe %s; %s, then continue with --resume; `mpo "
        "recover %s%s` makes a closed copy",
        doing, writer->path, reason, (long long)safe,
        moved_to != NULL ? "there" : "in the file", name_remedy(writer, reason, is_full),
        moved_to != NULL ? moved_to : writer->path,
        is_full ? " --output=FILE_ON_ANOTHER_DISK" : "");
}

/* Rows of the step that is being written. */
static enum mpo_status append_summed(struct mpo_record_writer *writer,
                                     struct mpo_record_column *column, size_t rows,
                                     const void *source)
{
    mpo_record_sum_add(column, rows, source, &writer->sum);
    return mpo_record_append_rows(column, rows, source);
}

/* ---- responses ---- */

/* Source of one step's responses. */
struct gather {
    struct mpo_record_writer *writer;
    const struct mpo_record_responses *batch;
    int64_t step;
    size_t count; /* N */
};

static enum mpo_status append_response(const struct gather *gather,
                                       enum mpo_record_response_index index, size_t rows,
                                       const void *source)
{
    struct mpo_record_writer *writer = gather->writer;
    return append_summed(writer, &writer->schema.response[index], rows, source);
}

/* Room for `count` elements, valid until the next call. */
static enum mpo_status allocate_room(const struct gather *gather, size_t count, void **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_writer *writer = gather->writer;
    /* Counted in the widest element, so that one buffer serves every column. */
    MPO_TRY(mpo_memory_grow(&writer->gather, &writer->gather_capacity, count,
                            sizeof(int64_t), "responses of a step"));
    *out = writer->gather;
cleanup:
    return status;
}

static enum mpo_status append_indices(const struct gather *gather)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_responses *responses = gather->batch->responses;
    int64_t *value = NULL;
    MPO_TRY(allocate_room(gather, gather->count, (void **)&value));
    const int64_t first =
        (int64_t)gather->writer->schema.response[MPO_RECORD_RESPONSE_response].rows;
    for (size_t i = 0; i < gather->count; i++)
        value[i] = first + (int64_t)i;
    MPO_TRY(append_response(gather, MPO_RECORD_RESPONSE_response, gather->count, value));
    for (size_t i = 0; i < gather->count; i++)
        value[i] = gather->step;
    MPO_TRY(append_response(gather, MPO_RECORD_RESPONSE_step, gather->count, value));
    for (size_t i = 0; i < gather->count; i++)
        value[i] = responses->prompt[i / (size_t)responses->responses];
    MPO_TRY(append_response(gather, MPO_RECORD_RESPONSE_prompt, gather->count, value));
cleanup:
    return status;
}

static enum mpo_status append_tokens(const struct gather *gather)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_responses *responses = gather->batch->responses;
    const struct mpo_record_column *token =
        &gather->writer->schema.response[MPO_RECORD_RESPONSE_token];
    int64_t *offset = NULL;
    int32_t *packed = NULL;
    size_t total = 0;
    MPO_TRY(allocate_room(gather, gather->count, (void **)&offset));
    for (size_t i = 0; i < gather->count; i++) {
        offset[i] = (int64_t)(token->rows + total);
        total += (size_t)responses->token_count[i];
    }
    MPO_TRY(
        append_response(gather, MPO_RECORD_RESPONSE_token_offset, gather->count, offset));
    MPO_TRY(allocate_room(gather, total, (void **)&packed));
    for (size_t i = 0; i < gather->count; i++) {
        const size_t tokens = (size_t)responses->token_count[i];
        memcpy(packed, responses->token + i * (size_t)responses->max_tokens,
               tokens * sizeof *packed);
        packed += tokens;
    }
    MPO_TRY(append_response(gather, MPO_RECORD_RESPONSE_token, total, packed - total));
cleanup:
    return status;
}

static enum mpo_status append_text(const struct gather *gather)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_responses *batch = gather->batch;
    const struct mpo_record_column *text =
        &gather->writer->schema.response[MPO_RECORD_RESPONSE_text];
    int64_t *offset = NULL;
    size_t total = 0;
    MPO_TRY(allocate_room(gather, gather->count, (void **)&offset));
    for (size_t i = 0; i < gather->count; i++) {
        offset[i] = (int64_t)(text->rows + total);
        total += (size_t)batch->text_bytes[i];
    }
    MPO_TRY(
        append_response(gather, MPO_RECORD_RESPONSE_text_offset, gather->count, offset));
    MPO_TRY(append_response(gather, MPO_RECORD_RESPONSE_text_bytes, gather->count,
                            batch->text_bytes));
    MPO_TRY(append_response(gather, MPO_RECORD_RESPONSE_text, total, batch->text));
cleanup:
    return status;
}

static enum mpo_status append_responses(struct mpo_record_writer *writer, int64_t step,
                                        const struct mpo_record_responses *batch)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_responses *responses = batch->responses;
    const size_t count = (size_t)responses->prompt_count * (size_t)responses->responses;
    const struct gather gather = {writer, batch, step, count};
    MPO_TRY(append_indices(&gather));
    MPO_TRY(append_response(&gather, MPO_RECORD_RESPONSE_token_count, count,
                            responses->token_count));
    MPO_TRY(append_response(&gather, MPO_RECORD_RESPONSE_ended, count, responses->ended));
    MPO_TRY(append_response(&gather, MPO_RECORD_RESPONSE_log_proposal, count,
                            responses->log_proposal));
    MPO_TRY(append_response(&gather, MPO_RECORD_RESPONSE_log_policy, count,
                            responses->log_policy));
    if (batch->reward != NULL) {
        MPO_TRY(append_response(&gather, MPO_RECORD_RESPONSE_control, count,
                                responses->control));
        MPO_TRY(append_response(&gather, MPO_RECORD_RESPONSE_reward, count, batch->reward));
    }
    MPO_TRY(append_tokens(&gather));
    MPO_TRY(append_text(&gather));
cleanup:
    return status;
}

/* ---- a step ---- */

static enum mpo_status append_fields(struct mpo_record_writer *writer,
                                     const struct mpo_record_row *row)
{
    enum mpo_status status = MPO_OK;
    const void *const source[] = {
#define SOURCE_SCALAR(member)                                  &row->member
#define SOURCE_OBJECTIVE(member)                               row->member
#define MPO_FIELD(path, member, type, shape, units, long_name) SOURCE_##shape(member),
#include "mpo/record.def"
#undef MPO_FIELD
#undef SOURCE_SCALAR
#undef SOURCE_OBJECTIVE
    };
    for (int32_t i = 0; i < MPO_RECORD_FIELD_COUNT; i++)
        MPO_TRY(append_summed(writer, &writer->schema.field[i], 1, source[i]));
cleanup:
    return status;
}

static enum mpo_status commit_step(struct mpo_record_writer *writer, int64_t step)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_column *column = &writer->schema.step;
    const hsize_t rows = column->rows;
    MPO_TRY(mpo_record_append_rows(&writer->schema.checksum, 1, &writer->sum));
    MPO_TRY_HDF5(H5Fflush(writer->schema.file, H5F_SCOPE_LOCAL), "flush");
    MPO_TRY(mpo_record_append_rows(column, 1, &step));
    MPO_TRY_HDF5(H5Dflush(column->id), "step");
cleanup:
    /* Not flushed is not acknowledged, so it is not counted. */
    if (status != MPO_OK)
        column->rows = rows;
    return status;
}

enum mpo_status mpo_record_append(struct mpo_record_writer *writer,
                                  const struct mpo_record_row *row,
                                  const struct mpo_record_responses *responses)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(writer, row);
    char doing[64] = "";
    mpo_record_hdf5_prepare();
    MPO_CHECK(!writer->broken, MPO_ERR_IO, "%s: an earlier write failed", writer->path);
    MPO_CHECK(row->step > writer->last_step, MPO_ERR_USAGE,
              "%s: step %lld does not follow step %lld", writer->path, (long long)row->step,
              (long long)writer->last_step);
    snprintf(doing, sizeof doing, "writing step %lld to", (long long)row->step);
    status = mpo_record_guard_check(writer);
    writer->sum = 0;
    if (status == MPO_OK)
        status = append_fields(writer, row);
    if (status == MPO_OK && responses != NULL)
        status = append_responses(writer, row->step, responses);
    if (status == MPO_OK)
        status = commit_step(writer, row->step);
    if (status != MPO_OK) {
        status = give_up(writer, doing, status);
        goto cleanup;
    }
    writer->last_step = row->step;
    mpo_record_guard_note(writer);
cleanup:
    return status;
}

/* ---- the end ---- */

void mpo_record_writer_free(struct mpo_record_writer **writer)
{
    struct mpo_record_writer *self = writer != NULL ? *writer : NULL;
    if (self == NULL)
        return;
    /* The file closes everything that is open in it (H5F_CLOSE_STRONG). */
    if (self->schema.file >= 0 && !self->broken)
        H5Fclose(self->schema.file);
    H5Eclear2(H5E_DEFAULT);
    mpo_record_lock_drop(&self->lock);
    if (self->guard.by_name >= 0)
        close(self->guard.by_name);
    free(self->guard.moved_to);
    free(self->gather);
    free(self->path);
    free(self);
    *writer = NULL;
}

/* Sync to disk, or report an error that HDF5 hides: its close returns 0 on a full disk, and
 * network file systems report a lost write only here. */
static enum mpo_status flush_to_disk(const struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_HDF5(H5Fflush(writer->schema.file, H5F_SCOPE_GLOBAL), "flush");
    const int descriptor = mpo_record_descriptor(writer->schema.file);
    MPO_CHECK(descriptor >= 0, MPO_ERR_IO, "HDF5 returned no file descriptor");
    MPO_CHECK(fsync(descriptor) == 0, MPO_ERR_IO, "fsync: %s", strerror(errno));
cleanup:
    return status;
}

/* Open the closed file as any reader would: HDF5 then compares its size with what it should
 * be, and the superblock says whether it was closed. All rows are read unless that takes
 * long. */
static enum mpo_status check_closed(const struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    const int64_t steps = (int64_t)writer->schema.step.rows;
    MPO_TRY(mpo_record_open(writer->path, &record));
    MPO_CHECK(mpo_record_is_complete(record), MPO_ERR_IO, "it is still marked as open");
    MPO_CHECK(mpo_record_step_count(record) == steps, MPO_ERR_IO,
              "it has %lld steps, not %lld", (long long)mpo_record_step_count(record),
              (long long)steps);
    if (writer->guard.look_seconds <= MPO_RECORD_LOOK_SECONDS_MAX)
        MPO_TRY(mpo_record_verify(record));
cleanup:
    mpo_record_close(&record);
    return status;
}

/* Close is not retried, whatever it returns. */
static enum mpo_status close_file(struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_record_guard_check(writer));
    MPO_TRY(flush_to_disk(writer));
    writer->broken = true;
    MPO_TRY_HDF5(H5Fclose(writer->schema.file), "close");
    MPO_TRY(check_closed(writer));
cleanup:
    return status;
}

void mpo_record_discard(struct mpo_record_writer **writer)
{
    struct mpo_record_writer *self = writer != NULL ? *writer : NULL;
    struct stat named;
    if (self == NULL)
        return;
    const struct stat *left = &self->guard.left;
    if (!self->broken && self->schema.step.rows == 0 && self->guard.is_set &&
        stat(self->path, &named) == 0 && named.st_ino == left->st_ino &&
        named.st_dev == left->st_dev)
        unlink(self->path);
    mpo_record_writer_free(writer);
}

enum mpo_status mpo_record_finish(struct mpo_record_writer **writer)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_writer *self = writer != NULL ? *writer : NULL;
    if (self == NULL)
        return MPO_OK;
    mpo_record_hdf5_prepare();
    if (self->broken) {
        status = MPO_ERR_IO; /* the message of the failed append is kept */
        goto cleanup;
    }
    status = close_file(self);
    if (status != MPO_OK)
        status = give_up(self, "closing", status);
cleanup:
    mpo_record_writer_free(writer);
    return status;
}
