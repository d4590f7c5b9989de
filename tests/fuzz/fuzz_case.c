/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memfd_create */
#include "fuzz_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARK "#! "

static struct {
    long accepted;
    long refused;
} verdicts;

/* Freed memory is kept long enough to catch its use, and not so long that every input gets
 * fresh pages; what cannot be allocated is an answer that a parser must cope with. */
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8:allocator_may_return_null=1";
}

void fuzz_check(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "fuzz: %s; the last error was: %s\n", what, mpo_error_text());
    abort();
}

/* ---- the input ---- */

static char *copy_bytes(const uint8_t *data, size_t bytes)
{
    char *copy = calloc(bytes + 1, 1);
    fuzz_check(copy != NULL, "no memory for a copy of the input");
    if (bytes > 0)
        memcpy(copy, data, bytes);
    return copy;
}

void fuzz_input_open(const uint8_t *data, size_t bytes, struct fuzz_input *out)
{
    const size_t mark = strlen(MARK);
    size_t used = 0;
    *out = (struct fuzz_input){0};
    if (bytes >= mark && memcmp(data, MARK, mark) == 0) {
        const uint8_t *end = memchr(data, '\n', bytes);
        used = end != NULL ? (size_t)(end - data) + 1 : bytes;
        out->line = copy_bytes(data + mark, used - mark);
        out->line[strcspn(out->line, "\n")] = '\0';
        char *rest = out->line;
        while (rest != NULL && out->argument_count < FUZZ_ARGUMENTS_MAX)
            out->argument[out->argument_count++] = strsep(&rest, "\t");
    }
    out->body_bytes = bytes - used;
    out->body = copy_bytes(data + used, out->body_bytes);
}

void fuzz_input_close(struct fuzz_input *input)
{
    free(input->body);
    free(input->line);
    *input = (struct fuzz_input){0};
}

const char *fuzz_argument(const struct fuzz_input *input, int index, const char *otherwise)
{
    return index < input->argument_count ? input->argument[index] : otherwise;
}

/* ---- the file ---- */

const char *fuzz_file(const void *data, size_t bytes)
{
    static int descriptor = -1;
    static char path[64];
    if (descriptor < 0)
        descriptor = memfd_create("fuzz", MFD_CLOEXEC);
    /* Opening this path opens the file anew, at its beginning. */
    snprintf(path, sizeof path, FUZZ_FOLDER "%d", descriptor);
    fuzz_check(ftruncate(descriptor, 0) == 0 &&
                   pwrite(descriptor, data, bytes, 0) == (ssize_t)bytes,
               "the file in memory takes no data");
    return path;
}

/* ---- the outcome ---- */

static void print_verdicts(void)
{
    fprintf(stderr, "stat::accepted_units: %ld\nstat::refused_units: %ld\n",
            verdicts.accepted, verdicts.refused);
}

void fuzz_verdict(enum mpo_status status)
{
    const char *expected = getenv("MPO_FUZZ_EXPECT");
    const char *found = status == MPO_OK ? "accepted" : "refused";
    if (verdicts.accepted + verdicts.refused == 0)
        atexit(print_verdicts);
    verdicts.accepted += status == MPO_OK;
    verdicts.refused += status != MPO_OK;
    fuzz_check(status == MPO_OK || *mpo_error_text() != '\0', "refused without a reason");
    fuzz_check(status != MPO_ERR_INTERNAL, "bad data taken for a bug of the program");
    fuzz_check(status != MPO_ERR_MEMORY, "more memory wanted than so few bytes can need");
    fuzz_check(expected == NULL || strcmp(expected, found) == 0,
               "MPO_FUZZ_EXPECT says the opposite of what the parser said");
}

void fuzz_touch(const void *data, size_t bytes)
{
    static volatile unsigned char sum;
    for (size_t i = 0; i < bytes; i++)
        sum = (unsigned char)(sum + ((const unsigned char *)data)[i]);
}
