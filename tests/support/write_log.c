/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LD_PRELOAD: a log of every write to the record, and a disk that fills up.
 *
 *     WRITE_LOG=FILE    log of what reaches files named *.h5 (or *.h5.part, while they
 *                      are made) that are opened for writing
 *     ENOSPC_AT=N       from the N-th write on, fail with "No space left on device"
 *     ENOSPC_KIND=grow  only where the file would grow, as on a real disk: blocks that it
 *                       has already can still be written (default: every write fails)
 *
 * An entry is one letter, then two little-endian 64-bit numbers, then data:
 *     W offset length data   T length 0 (truncate)   S 0 0 (synchronise)   M steps 0 (mark)
 * A mark says that so many steps were acknowledged; the program under test sets it through
 * the weak symbol write_log_mark. Replaying the log up to any entry gives the file as a
 * crash at that moment leaves it. One thread, one record: no locks.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int record_descriptor = -1;
static int log_descriptor = -1;
static long write_count;

void write_log_mark(long steps);

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static void log_entry(char kind, uint64_t first, uint64_t second, const void *data)
{
    char head[17] = {kind};
    if (log_descriptor < 0)
        return;
    memcpy(head + 1, &first, sizeof first);
    memcpy(head + 9, &second, sizeof second);
    if (write(log_descriptor, head, sizeof head) != (ssize_t)sizeof head)
        abort();
    if (data != NULL && write(log_descriptor, data, second) != (ssize_t)second)
        abort();
}

static int open_logged(const char *name, const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...) = NULL;
    *(void **)&next = real(name);
    const int descriptor = next(path, flags, mode);
    const char *suffix = strstr(path, ".h5");
    const bool is_record =
        suffix != NULL && (strcmp(suffix, ".h5") == 0 || strcmp(suffix, ".h5.part") == 0);
    if (descriptor < 0 || !is_record || (flags & O_ACCMODE) != O_RDWR)
        return descriptor;
    record_descriptor = descriptor;
    if (log_descriptor < 0 && getenv("WRITE_LOG") != NULL)
        log_descriptor = next(getenv("WRITE_LOG"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    return descriptor;
}

/* True when this write must fail. */
static bool disk_is_full(int descriptor, uint64_t end)
{
    const char *at = getenv("ENOSPC_AT");
    const char *kind = getenv("ENOSPC_KIND");
    struct stat found;
    write_count++;
    if (at == NULL || write_count < strtol(at, NULL, 10))
        return false;
    if (kind == NULL || strcmp(kind, "grow") != 0)
        return true;
    return fstat(descriptor, &found) == 0 && end > (uint64_t)found.st_size;
}

static ssize_t pwrite_logged(const char *name, int descriptor, const void *data,
                             size_t bytes, off_t offset)
{
    ssize_t (*next)(int, const void *, size_t, off_t) = NULL;
    *(void **)&next = real(name);
    if (descriptor == record_descriptor) {
        if (disk_is_full(descriptor, (uint64_t)offset + bytes)) {
            errno = ENOSPC;
            return -1;
        }
        log_entry('W', (uint64_t)offset, bytes, data);
    }
    return next(descriptor, data, bytes, offset);
}

static int truncate_logged(const char *name, int descriptor, off_t length)
{
    int (*next)(int, off_t) = NULL;
    *(void **)&next = real(name);
    if (descriptor == record_descriptor)
        log_entry('T', (uint64_t)length, 0, NULL);
    return next(descriptor, length);
}

static int synchronise_logged(const char *name, int descriptor)
{
    int (*next)(int) = NULL;
    *(void **)&next = real(name);
    if (descriptor == record_descriptor)
        log_entry('S', 0, 0, NULL);
    return next(descriptor);
}

/* The mode is there only when a file may be made; reading it always is harmless here. */
#define OPEN_LOGGED(name)                                                                  \
    int name(const char *path, int flags, ...)                                             \
    {                                                                                      \
        va_list arguments;                                                                 \
        va_start(arguments, flags);                                                        \
        const mode_t mode = (mode_t)va_arg(arguments, int);                                \
        va_end(arguments);                                                                 \
        return open_logged(#name, path, flags, mode);                                      \
    }
OPEN_LOGGED(open)
OPEN_LOGGED(open64)

ssize_t pwrite(int descriptor, const void *data, size_t bytes, off_t offset)
{
    return pwrite_logged("pwrite", descriptor, data, bytes, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t bytes, off64_t offset)
{
    return pwrite_logged("pwrite64", descriptor, data, bytes, offset);
}

int ftruncate(int descriptor, off_t length)
{
    return truncate_logged("ftruncate", descriptor, length);
}

int ftruncate64(int descriptor, off64_t length)
{
    return truncate_logged("ftruncate64", descriptor, length);
}

int fsync(int descriptor)
{
    return synchronise_logged("fsync", descriptor);
}

int fdatasync(int descriptor)
{
    return synchronise_logged("fdatasync", descriptor);
}

void write_log_mark(long steps)
{
    log_entry('M', (uint64_t)steps, 0, NULL);
}
