/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LD_PRELOAD: a log of every write to the record, a disk that fills up, and damage.
 *
 *     WRITE_LOG=FILE    log of what reaches files named *.h5 (or *.h5.part, while they
 *                      are made) that are opened for writing
 *     ENOSPC_AT=N       from the N-th write on, fail with "No space left on device"
 *     ENOSPC_KIND=grow  only where the file would grow, as on a real disk: blocks that it
 *                       has already can still be written (default: every write fails)
 *     DAMAGE_AT=N       a byte of the N-th write to a record that is made is turned over as
 *                       soon as it is on disk, as another program could do: the first one
 *                       where N is odd, else one in the middle
 *
 * An entry is one letter, then two little-endian 64-bit numbers, then data:
 *     W offset length data   T length 0 (truncate)   S 0 0 (synchronise)   M steps 0 (mark)
 *     P 0 0 (the record is made: it is not *.h5.part any more)
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
static long made_count;  /* of them, those to a record that is made */
static char draft[4096]; /* path of the last *.h5.part, "": none or it is gone */

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
    draft[0] = '\0';
    if (suffix[3] != '\0')
        strncpy(draft, path, sizeof draft - 1);
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

/* One more write; the first after the record got its name is told. */
static void count_made(void)
{
    if (draft[0] != '\0' && access(draft, F_OK) == 0)
        return;
    draft[0] = '\0';
    if (made_count++ == 0)
        log_entry('P', 0, 0, NULL);
}

/* With `next`, which writes; the log does not have it. */
static void damage(ssize_t (*next)(int, const void *, size_t, off_t), int descriptor,
                   const unsigned char *data, size_t bytes, off_t offset)
{
    const char *at = getenv("DAMAGE_AT");
    if (at == NULL || draft[0] != '\0' || made_count != strtol(at, NULL, 10))
        return;
    const size_t place = made_count % 2 == 0 ? bytes / 2 : 0;
    const unsigned char turned = data[place] ^ 0xff;
    if (next(descriptor, &turned, 1, offset + (off_t)place) != 1)
        abort();
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
        count_made();
        log_entry('W', (uint64_t)offset, bytes, data);
    }
    const ssize_t written = next(descriptor, data, bytes, offset);
    if (descriptor == record_descriptor && written == (ssize_t)bytes && bytes > 0)
        damage(next, descriptor, data, bytes, offset);
    return written;
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
