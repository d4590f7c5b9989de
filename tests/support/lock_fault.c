/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LD_PRELOAD: a file system without locks, as some network and parallel ones are.
 *
 *     LOCK_FAULT=E    flock fails with this errno, e.g. 37 (ENOLCK) or 95 (EOPNOTSUPP)
 *
 * HDF5 locks by flock too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/file.h>

int flock(int descriptor, int operation)
{
    const char *error = getenv("LOCK_FAULT");
    if (error == NULL) {
        int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
        return real(descriptor, operation);
    }
    errno = (int)strtol(error, NULL, 10);
    return -1;
}
