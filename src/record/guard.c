/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the file under a writer is still the one that it left after the last step.
 *
 * A file that is removed, moved, cut short or overwritten still accepts writes, so the loss
 * would not show before the end. So before each step its links, the file at its path, its
 * size and its first bytes are compared with what they were. A newer time of change alone
 * may be a harmless `touch`, or bytes that were overwritten in place: then the file is read
 * back as a reader would. So it is from time to time, for what happened within a step,
 * seldom enough to cost a fiftieth of the run, as long as it takes a second at most.
 *
 * A file that was moved is whole where it is now, which Linux tells of an open file.
 */
#define _GNU_SOURCE /* O_PATH */
#include "record_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/timing.h"
#include "mpo/report.h"

/* Between two looks, in units of what the last one took. */
#define LOOK_EVERY 50.0

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

static bool same_time(const struct stat *a, const struct stat *b)
{
    return a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

void mpo_record_guard_note(struct mpo_record_writer *writer)
{
    struct mpo_record_guard *guard = &writer->guard;
    const ssize_t bytes = (ssize_t)sizeof guard->head;
    int descriptor = mpo_record_descriptor(writer->schema.file);
    bool is_first = !guard->is_set && guard->by_name < 0;
    guard->is_set = descriptor >= 0 && fstat(descriptor, &guard->left) == 0;
    /* HDF5's own descriptor has the name that the file was made under. */
    if (is_first)
        guard->by_name = open(writer->path, O_PATH | O_CLOEXEC);
    /* Until HDF5 closes the file it leaves these bytes alone. */
    if (is_first && guard->is_set)
        guard->is_set = pread(descriptor, guard->head, sizeof guard->head, 0) == bytes;
}

static enum mpo_status read_beside(const struct mpo_record_writer *writer, int64_t *steps)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    if (writer->guard.is_foreign) /* even a whole record there is another run's */
        return MPO_OK;
    const char *moved_to = writer->guard.moved_to;
    MPO_TRY(mpo_record_open_beside(moved_to != NULL ? moved_to : writer->path, &record));
    if (writer->guard.is_set && !same_file(&record->identity, &writer->guard.left))
        goto cleanup;
    MPO_TRY(mpo_record_verify(record));
    /* A step may be whole whose last write was refused; other numbers are of another run. */
    const int64_t found = mpo_record_step_count(record);
    const int64_t known = (int64_t)writer->schema.step.rows;
    if (found == known || found == known + 1)
        *steps = found;
cleanup:
    mpo_record_close(&record);
    return status;
}

enum mpo_status mpo_record_read_back(const struct mpo_record_writer *writer, int64_t *steps)
{
    struct mpo_error error;
    *steps = -1;
    mpo_error_keep(&error);
    enum mpo_status status = read_beside(writer, steps);
    mpo_error_restore(&error);
    return status;
}

/* A reader without memory says nothing of the file. */
static enum mpo_status expect_whole(const struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    int64_t steps = -1;
    status = read_beside(writer, &steps);
    if (status == MPO_ERR_MEMORY)
        MPO_TRY(status);
    MPO_CHECK(steps == (int64_t)writer->schema.step.rows, MPO_ERR_IO,
              "another program wrote into the file");
cleanup:
    return status;
}

/* The time of change is newer, and nothing else tells. */
static enum mpo_status look_closer(struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_guard *guard = &writer->guard;
    MPO_TRY(expect_whole(writer));
    if (!guard->is_told)
        mpo_report(MPO_REPORT_WARNING,
                   "%s was touched by another program during the run; its %lld "
                   "steps can be read",
                   writer->path, (long long)writer->schema.step.rows);
    guard->is_told = true;
cleanup:
    return status;
}

/* What happened while a step was written is in the figures that were noted after it. */
static enum mpo_status look_at_times(struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_guard *guard = &writer->guard;
    const double begun = mpo_timing_now();
    if (begun < guard->next_look || guard->look_seconds > MPO_RECORD_LOOK_SECONDS_MAX)
        return MPO_OK;
    MPO_TRY(expect_whole(writer));
    const double now = mpo_timing_now();
    guard->look_seconds = now - begun;
    guard->next_look = now + LOOK_EVERY * guard->look_seconds;
cleanup:
    return status;
}

/* Where the file is now, as the kernel knows it; "" if unknown. */
static void find_file(int descriptor, const struct stat *file, char path[PATH_MAX])
{
    char link[64] = "";
    struct stat named = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t bytes = readlink(link, path, PATH_MAX - 1);
    path[bytes > 0 ? bytes : 0] = '\0';
    /* Of a file with several names the kernel may know one that was removed. */
    if (stat(path, &named) != 0 || !same_file(&named, file))
        path[0] = '\0';
}

/* Its name leads to this file. */
static enum mpo_status check_name(struct mpo_record_writer *writer, const struct stat *file)
{
    enum mpo_status status = MPO_OK;
    char path[PATH_MAX] = "";
    struct stat named = {0};
    MPO_CHECK(file->st_nlink > 0, MPO_ERR_IO, "the file was removed during the run");
    bool is_there = stat(writer->path, &named) == 0;
    if (is_there && same_file(file, &named))
        return MPO_OK;
    const char *other = is_there ? ", and another file is in its place" : "";
    find_file(writer->guard.by_name, file, path);
    MPO_CHECK(path[0] != '\0', MPO_ERR_IO,
              "the file was moved or lost this name during the run%s", other);
    MPO_TRY(mpo_memory_copy_text(path, &writer->guard.moved_to));
    MPO_FAIL(MPO_ERR_IO, "the file was moved to %s during the run%s", path, other);
cleanup:
    return status;
}

enum mpo_status mpo_record_guard_check(struct mpo_record_writer *writer)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_guard *guard = &writer->guard;
    char head[sizeof guard->head] = "";
    struct stat found = {0};
    if (!guard->is_set)
        return MPO_OK;
    int descriptor = mpo_record_descriptor(writer->schema.file);
    MPO_CHECK(fstat(descriptor, &found) == 0, MPO_ERR_IO, "%s", strerror(errno));
    MPO_TRY(check_name(writer, &found));
    writer->guard.is_foreign =
        pread(descriptor, head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head, guard->head, sizeof head) != 0;
    MPO_CHECK(found.st_size == guard->left.st_size, MPO_ERR_IO,
              "another program changed the file: expected %lld bytes, found %lld",
              (long long)guard->left.st_size, (long long)found.st_size);
    MPO_CHECK(!guard->is_foreign, MPO_ERR_IO, "another program wrote over the file");
    if (!same_time(&found, &guard->left))
        MPO_TRY(look_closer(writer));
    MPO_TRY(look_at_times(writer));
cleanup:
    return status;
}
