/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A folder of its own for every case of the record's tests, and what they expect of calls.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record_example.h"

#define PATH_BYTES 256

static char folder[PATH_BYTES];
static char path[PATH_BYTES + 16];
static char other[PATH_BYTES + 16];

static inline int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    snprintf(folder, sizeof folder, "%s/mpo-record-XXXXXX", base);
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/run.h5", folder);
    snprintf(other, sizeof other, "%s/run.h5.1", folder);
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    const char *const names[] = {"run.h5",    "run.h5.1",        "run.h5.2",
                                 "second.h5", "run.h5.lock",     "other.txt",
                                 "directory", "run.recovered.h5"};
    char name[PATH_BYTES + 32] = "";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(name, sizeof name, "%s/%s", folder, names[i]);
        remove(name);
    }
    return rmdir(folder);
}

static inline void expect_ok(enum mpo_status status)
{
    if (status != MPO_OK)
        fail_msg("%s", mpo_error_text());
}

static inline void expect_failure(enum mpo_status status, enum mpo_status wanted,
                                  const char *text)
{
    if (status != wanted || strstr(mpo_error_text(), text) == NULL)
        fail_msg("expected status %d and \"%s\", found %d and \"%s\"", wanted, text, status,
                 mpo_error_text());
}

static inline enum mpo_status write_example(const char *file, int64_t steps)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_writer *writer = NULL;
    const struct mpo_record_spec spec = example_spec(file);
    MPO_TRY(mpo_record_create(&spec, &writer));
    MPO_TRY(example_append(writer, 0, steps));
    MPO_TRY(mpo_record_finish(&writer));
cleanup:
    mpo_record_finish(&writer);
    return status;
}

static inline enum mpo_status try_create(bool force)
{
    struct mpo_record_writer *writer = NULL;
    struct mpo_record_spec spec = example_spec(path);
    spec.force = force;
    const enum mpo_status status = mpo_record_create(&spec, &writer);
    if (status == MPO_OK)
        mpo_record_finish(&writer);
    return status;
}

static inline bool exists(const char *file)
{
    struct stat found;
    return lstat(file, &found) == 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
