/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the fuzz targets share: how an input is cut, the file a parser reads it from, and
 * what every parser owes.
 *
 * An input may begin with a line of arguments, separated by tabs; the rest is the file:
 *
 *     #! fit<TAB>--run.seed=3
 *     prompts: {file: p.txt}
 *
 * Environment:
 *   MPO_FUZZ_EXPECT   "accepted" or "refused": a parser that says the other of an input
 *                     fails. Seeds are run so, for a target that never gets past the first
 *                     check of its parser finds nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/status.h"

#define FUZZ_ARGUMENTS_MAX 16

/** One input; all texts are owned by it. */
struct fuzz_input {
    char *argument[FUZZ_ARGUMENTS_MAX]; /* [argument_count] */
    int argument_count;
    char *line; /* what the arguments point into */
    char *body; /* [body_bytes + 1] the file, ended by a NUL */
    size_t body_bytes;
};

void fuzz_input_open(const uint8_t *data, size_t bytes, struct fuzz_input *out);
void fuzz_input_close(struct fuzz_input *input);

/** Argument `index`, or `otherwise` when there are fewer. */
const char *fuzz_argument(const struct fuzz_input *input, int index, const char *otherwise);

/** Where the file of fuzz_file lies. */
#define FUZZ_FOLDER "/proc/self/fd/"

/** The path of a file in memory that has these bytes until the next call. */
const char *fuzz_file(const void *data, size_t bytes);

/** What came of an input: counted, and compared with MPO_FUZZ_EXPECT. A refusal has a text,
 *  is not a bug of ours, and did not come from running out of memory. */
void fuzz_verdict(enum mpo_status status);

/** Stop as a crash does, with the input kept, unless the condition holds. */
void fuzz_check(bool condition, const char *what);

/** Read every byte, so that the sanitizer sees what a caller would. */
void fuzz_touch(const void *data, size_t bytes);

const char *__asan_default_options(void);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
