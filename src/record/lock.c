/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may write where: the lock, and room at the path.
 *
 * One run, one file. A second SWMR writer can cut a live record short, and HDF5's own lock
 * is given up when SWMR starts, so a run holds flock on PATH.lock from before the record
 * exists until it is closed. The kernel releases the lock when the process dies, however it
 * dies: a lock file that no process holds means nothing and is taken over. Its line names
 * the holder.
 *
 * Some file systems refuse locks (ENOLCK, EOPNOTSUPP). A run then continues with a warning,
 * HDF5's own lock off as well, and a holder that its line names counts while its process is
 * alive on this host.
 */
#include "record_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "mpo/report.h"
#include "base/argument.h"
#include "base/memory.h"
#include "base/reason.h"

#define TRIES_MAX 20
#define TRY_NANOS 10000000L
#define ASIDE_MAX 9999

/* statfs types of network file systems (statfs(2)). */
#define NFS_MAGIC  0x6969u
#define SMB_MAGIC  0x517Bu
#define CIFS_MAGIC 0xFF534D42u
#define SMB2_MAGIC 0xFE534D42u

static enum mpo_status lock_path(const char *path, char **out)
{
    enum mpo_status status = MPO_OK;
    const size_t bytes = strlen(path) + sizeof ".lock";
    MPO_NEW(bytes, out);
    snprintf(*out, bytes, "%s.lock", path);
cleanup:
    return status;
}

/* The first line of the lock file. */
static void read_holder(int descriptor, char holder[MPO_RECORD_HOLDER_BYTES])
{
    ssize_t bytes = pread(descriptor, holder, MPO_RECORD_HOLDER_BYTES - 1, 0);
    holder[bytes > 0 ? bytes : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    if (holder[0] == '\0')
        snprintf(holder, MPO_RECORD_HOLDER_BYTES, "an unnamed process");
}

/* Whether the process that a holder's line names runs on this host; another one than ours. */
static bool is_alive(const char *holder)
{
    char host[128] = "";
    char named[128] = "";
    long process = 0;
    gethostname(host, sizeof host - 1);
    return sscanf(holder, "host %127[^,], process %ld", named, &process) == 2 &&
           strcmp(host, named) == 0 && process > 0 && process != (long)getpid() &&
           (kill((pid_t)process, 0) == 0 || errno == EPERM);
}

static enum mpo_status write_holder(const struct mpo_record_lock *lock, const char *job_id)
{
    enum mpo_status status = MPO_OK;
    char host[128] = "unknown";
    char line[MPO_RECORD_HOLDER_BYTES] = "";
    const bool has_job = job_id != NULL && job_id[0] != '\0';
    gethostname(host, sizeof host - 1);
    snprintf(line, sizeof line, "host %s, process %ld, job %.64s\n", host, (long)getpid(),
             has_job ? job_id : "none");
    MPO_CHECK(ftruncate(lock->descriptor, 0) == 0, MPO_ERR_IO, "%s: %s", lock->path,
              strerror(errno));
    /* A full disk or a limit may take a part of it; the next try has the reason. */
    for (size_t at = 0, bytes = strlen(line); at < bytes;) {
        ssize_t written = pwrite(lock->descriptor, line + at, bytes - at, (off_t)at);
        MPO_CHECK(written > 0, mpo_reason_status(errno, MPO_ERR_IO), "%s: %s", lock->path,
                  strerror(errno));
        at += (size_t)written;
    }
cleanup:
    return status;
}

/* The holder removes the file before it unlocks, so the locked file may no longer have a
 * name; a lock on it would exclude no one. */
static bool is_still_named(int descriptor, const char *path)
{
    struct stat locked;
    struct stat named;
    return fstat(descriptor, &locked) == 0 && stat(path, &named) == 0 &&
           locked.st_ino == named.st_ino && locked.st_dev == named.st_dev;
}

/* The file system has no locks: the line in the file has to do. */
static void go_without(struct mpo_record_lock *lock, int error, bool *again)
{
    char holder[MPO_RECORD_HOLDER_BYTES] = "";
    read_holder(lock->descriptor, holder);
    *again = is_alive(holder);
    if (*again || lock->is_refused)
        return;
    lock->is_refused = true;
    mpo_report(MPO_REPORT_WARNING,
               "this file system does not support locks (%s: %s); make sure that no "
               "other run writes the same record",
               lock->path, strerror(error));
}

/* One attempt; *again: worth another one. */
static enum mpo_status try_lock(struct mpo_record_lock *lock, bool *again)
{
    enum mpo_status status = MPO_OK;
    *again = false;
    lock->descriptor = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    MPO_CHECK(lock->descriptor >= 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "cannot make the lock file %s: %s%s", lock->path, strerror(errno),
              errno == ENOENT ? "; make the directory first" : "");
    if (flock(lock->descriptor, LOCK_EX | LOCK_NB) == 0) {
        *again = !is_still_named(lock->descriptor, lock->path);
        goto cleanup;
    }
    if (errno == EWOULDBLOCK || errno == EINTR)
        *again = true;
    else
        go_without(lock, errno, again);
cleanup:
    return status;
}

/* A reader that tests the lock holds it for an instant, so one refusal does not prove
 * another writer. */
static enum mpo_status lock_patiently(const char *path, struct mpo_record_lock *lock)
{
    enum mpo_status status = MPO_OK;
    char holder[MPO_RECORD_HOLDER_BYTES] = "";
    bool again = true;
    for (int try = 0; try < TRIES_MAX; try++) {
        MPO_TRY(try_lock(lock, &again));
        if (!again)
            goto cleanup;
        read_holder(lock->descriptor, holder);
        close(lock->descriptor);
        lock->descriptor = -1;
        nanosleep(&(struct timespec){.tv_nsec = TRY_NANOS}, NULL);
    }
    MPO_FAIL(MPO_ERR_OUTPUT,
             "%s is being written by another run (%s); wait for it, or name "
             "another file with --record.file",
             path, holder);
cleanup:
    return status;
}

enum mpo_status mpo_record_lock_take(const char *path, const char *job_id,
                                     struct mpo_record_lock *lock)
{
    enum mpo_status status = MPO_OK;
    lock->descriptor = -1;
    MPO_TRY(lock_path(path, &lock->path));
    MPO_TRY(lock_patiently(path, lock));
    MPO_TRY(write_holder(lock, job_id));
cleanup:
    if (status != MPO_OK)
        mpo_record_lock_drop(lock);
    return status;
}

void mpo_record_lock_drop(struct mpo_record_lock *lock)
{
    if (lock->path != NULL && lock->descriptor >= 0) {
        unlink(lock->path);
        close(lock->descriptor);
    }
    free(lock->path);
    lock->path = NULL;
    lock->descriptor = -1;
}

bool mpo_record_lock_names_holder(const char *path, char holder[MPO_RECORD_HOLDER_BYTES])
{
    char name[PATH_MAX] = ""; /* must work without memory */
    bool held = false;
    snprintf(name, sizeof name, "%s.lock", path);
    int descriptor = open(name, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) {
        bool is_refused = flock(descriptor, LOCK_SH | LOCK_NB) != 0;
        int error = errno;
        read_holder(descriptor, holder);
        held = is_refused && (error == EWOULDBLOCK || is_alive(holder));
        close(descriptor);
    }
    return held;
}

bool mpo_record_lock_is_held(const char *path)
{
    char holder[MPO_RECORD_HOLDER_BYTES] = "";
    return mpo_record_lock_names_holder(path, holder);
}

/* ---- the path ---- */

static enum mpo_status move_aside(const char *path)
{
    enum mpo_status status = MPO_OK;
    struct stat found;
    char *aside = NULL;
    const size_t bytes = strlen(path) + 16;
    MPO_NEW(bytes, &aside);
    for (int32_t i = 1; i <= ASIDE_MAX; i++) {
        snprintf(aside, bytes, "%s.%d", path, i);
        if (lstat(aside, &found) == 0)
            continue;
        MPO_CHECK(rename(path, aside) == 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
                  "cannot move %s aside to %s: %s", path, aside, strerror(errno));
        mpo_report(MPO_REPORT_NOTE, "moved the existing %s to %s", path, aside);
        goto cleanup;
    }
    MPO_FAIL(MPO_ERR_OUTPUT, "%s exists, and so do %s.1 to %s.%d; remove some", path, path,
             path, ASIDE_MAX);
cleanup:
    free(aside);
    return status;
}

/* What a run leaves that ended before its first step holds nothing to keep. The lock is
 * held, so no run is about to write it. */
static bool holds_no_step(const char *path, const struct stat *found)
{
    struct mpo_record *record = NULL;
    bool is_empty = S_ISREG(found->st_mode) && mpo_record_open(path, &record) == MPO_OK &&
                    mpo_record_step_count(record) == 0;
    mpo_record_close(&record);
    return is_empty;
}

/* Check that the path is free, or that what is there may be moved or removed. */
static enum mpo_status look_at_path(const char *path, bool force, bool *occupied,
                                    bool *is_empty)
{
    enum mpo_status status = MPO_OK;
    struct stat found;
    *occupied = lstat(path, &found) == 0;
    *is_empty = *occupied && !force && holds_no_step(path, &found);
    if (!*occupied) {
        MPO_CHECK(errno == ENOENT, mpo_reason_status(errno, MPO_ERR_OUTPUT), "%s: %s", path,
                  strerror(errno));
        goto cleanup;
    }
    if (S_ISLNK(found.st_mode))
        MPO_CHECK(
            stat(path, &found) == 0, MPO_ERR_OUTPUT,
            "%s is a symbolic link that leads nowhere; remove it, or name another file",
            path);
    MPO_CHECK(!S_ISDIR(found.st_mode), MPO_ERR_OUTPUT,
              "%s is a directory; name a file in it, for instance %s/mpo.h5", path, path);
    MPO_CHECK(S_ISREG(found.st_mode), MPO_ERR_OUTPUT,
              "%s is not a regular file; name another one", path);
    MPO_CHECK(force || *is_empty, MPO_ERR_OUTPUT,
              "%s exists already; name another file with --record.file, or give --force to "
              "move it aside",
              path);
cleanup:
    return status;
}

enum mpo_status mpo_record_make_room(const char *path, bool force)
{
    enum mpo_status status = MPO_OK;
    bool occupied = false;
    bool is_empty = false;
    MPO_TRY(look_at_path(path, force, &occupied, &is_empty));
    if (occupied && !is_empty)
        MPO_TRY(move_aside(path));
    if (!is_empty)
        goto cleanup;
    MPO_CHECK(unlink(path) == 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "cannot remove %s: %s", path, strerror(errno));
    mpo_report(MPO_REPORT_NOTE, "removed %s, in which a run had left no step", path);
cleanup:
    return status;
}

/* "runs/" of "runs/x.h5", "." of "x.h5"; longer paths are cut and then name nothing. */
static void folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int length = slash != NULL ? (int)(slash + 1 - path) : 1;
    snprintf(folder, PATH_MAX, "%.*s", length, slash != NULL ? path : ".");
}

enum mpo_status mpo_record_check(const char *path, bool force)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(path);
    struct mpo_record_lock lock = {.descriptor = -1};
    char folder[PATH_MAX] = "";
    char *target = realpath(path, NULL); /* a run that resumes follows a link */
    bool occupied = false;
    bool is_empty = false;
    mpo_record_hdf5_prepare();
    folder_of(path, folder);
    MPO_CHECK(access(folder, W_OK | X_OK) == 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "no file can be made in %s: %s%s", folder, strerror(errno),
              errno == ENOENT ? "; make the directory first" : "");
    MPO_TRY(mpo_record_lock_take(target != NULL ? target : path, NULL, &lock));
    MPO_TRY(look_at_path(path, force, &occupied, &is_empty));
cleanup:
    mpo_record_lock_drop(&lock);
    free(target);
    return status;
}

bool mpo_record_is_on_network(const char *path)
{
    struct statfs system;
    char folder[PATH_MAX] = "";
    folder_of(path, folder);
    bool known = statfs(folder, &system) == 0;
    const uint32_t magic = known ? (uint32_t)system.f_type : 0;
    return magic == NFS_MAGIC || magic == SMB_MAGIC || magic == CIFS_MAGIC ||
           magic == SMB2_MAGIC;
}
