/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the tests of the configuration share: a folder of their own, which is also the
 * working directory, so that messages can be compared in full, and a small valid file.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mpo/config.h"
#include "runner.h"

#define FLAGS(...) ((char *[]){__VA_ARGS__, NULL})
#define NO_FLAGS   ((char *[]){NULL})
#define FILE_PART  "prompts: {file: p.txt}\n"
#define TWO        "policies:\n  - {name: a, model: a.gguf}\n  - {name: b, model: b.gguf}\n"
#define MINIMAL    FILE_PART TWO /* four lines */
#define REFERENCE  "  - {name: r, model: r.gguf, role: reference}\n"

static char folder[] = "/tmp/mpo_config_XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL || chdir(folder) != 0 || mkdir("sub", 0700) != 0;
}

static int remove_folder(void **state)
{
    (void)state;
    remove("c.yaml");
    remove("sub/c.yaml");
    return rmdir("sub") != 0 || chdir("/") != 0 || rmdir(folder) != 0;
}

static inline void write_bytes(const char *path, const char *text, size_t bytes)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(text, 1, bytes, stream), bytes);
    assert_int_equal(fclose(stream), 0);
}

/* Open `path` with flags, which end with NULL. */
static inline enum mpo_status open_path(const char *command, const char *path, char **flags,
                                        struct mpo_config **config)
{
    char *argv[16] = {(char *)path};
    int argc = 1;
    for (; flags[argc - 1] != NULL; argc++)
        argv[argc] = flags[argc - 1];
    return mpo_config_open(command, argc, argv, config);
}

static inline enum mpo_status open_yaml(const char *command, const char *yaml, char **flags,
                                        struct mpo_config **config)
{
    write_bytes("c.yaml", yaml, strlen(yaml));
    return open_path(command, "c.yaml", flags, config);
}

static inline struct mpo_config *opened(const char *yaml, char **flags)
{
    struct mpo_config *config = NULL;
    assert_ok(open_yaml("fit", yaml, flags, &config));
    assert_non_null(config);
    return config;
}

static inline void assert_refused(const char *yaml, char **flags, enum mpo_status expected,
                                  const char *words)
{
    struct mpo_config *config = NULL;
    assert_status(open_yaml("fit", yaml, flags, &config), expected);
    assert_null(config);
    assert_error_names(words);
}

static inline void assert_file_refused(const char *yaml, const char *words)
{
    assert_refused(yaml, NO_FLAGS, MPO_ERR_CONFIG, words);
}

static inline void assert_flag_refused(char *flag, const char *words)
{
    assert_refused(MINIMAL, FLAGS(flag), MPO_ERR_USAGE, words);
}
