/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner. Assertions print both values with all their digits, because a difference in
 * the last one is what most of these tests are about.
 */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/comm.h"
#include "mpo/report.h"

/* As the program does. */
static void say(void *self, enum mpo_report_level level, const char *text)
{
    (void)self;
    fprintf(stderr, "%s%s\n", level == MPO_REPORT_NOTE ? "" : "mpo: ", text);
}

int runner_run_on_ranks(int argc, char **argv, const char *name,
                        const struct CMUnitTest *tests, size_t count)
{
    mpo_report_to((struct mpo_reporter){.say = say});
    if (mpo_comm_start(&argc, &argv) != MPO_OK) {
        fprintf(stderr, "MPI did not start: %s\n", mpo_error_text());
        return 1;
    }
    if (mpo_comm_job_size() > 1)
        setenv("CMOCKA_TEST_ABORT", "1", 1);
    int failures = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
    mpo_comm_stop();
    return failures;
}

void runner_assert_close(double actual, double expected, double bound,
                         struct runner_place place)
{
    if (fabs(actual - expected) <= bound)
        return;
    print_error("%s is %.17g, expected %.17g within %.3g, differs by %.3g\n", place.what,
                actual, expected, bound, actual - expected);
    _fail(place.file, place.line);
}

void runner_assert_same_bits(double actual, double expected, struct runner_place place)
{
    if (memcmp(&actual, &expected, sizeof actual) == 0)
        return;
    print_error("%s is %.17g (%a), expected the bits of %.17g (%a)\n", place.what, actual,
                actual, expected, expected);
    _fail(place.file, place.line);
}

void runner_assert_between(double actual, double low, double high,
                           struct runner_place place)
{
    if (actual >= low && actual <= high)
        return;
    print_error("%s is %.17g, expected between %.17g and %.17g\n", place.what, actual, low,
                high);
    _fail(place.file, place.line);
}

void runner_assert_status(enum mpo_status actual, enum mpo_status expected,
                          struct runner_place place)
{
    if (actual == expected)
        return;
    print_error("%s returned \"%s\" (%s), expected \"%s\"\n", place.what,
                mpo_status_sentence(actual), mpo_error_text(),
                mpo_status_sentence(expected));
    _fail(place.file, place.line);
}

void runner_assert_error_names(const char *word, const char *file, int line)
{
    if (strstr(mpo_error_text(), word) != NULL)
        return;
    print_error("the error text \"%s\" does not name \"%s\"\n", mpo_error_text(), word);
    _fail(file, line);
}

void *runner_allocate(size_t count, size_t bytes)
{
    void *memory = calloc(count > 0 ? count : 1, bytes);
    if (memory == NULL) {
        fputs("no memory for a test\n", stderr);
        abort();
    }
    return memory;
}

void runner_append(char *text, size_t bytes, const char *format, ...)
{
    va_list arguments;
    size_t before = strlen(text);
    va_start(arguments, format);
    int added = vsnprintf(text + before, bytes - before, format, arguments);
    va_end(arguments);
    if (added < 0 || (size_t)added >= bytes - before)
        fail_msg("expected %d bytes more than %zu to fit into %zu", added, before, bytes);
}

double runner_uniform(uint64_t seed, uint64_t index)
{
    uint64_t z = seed * 0xd1342543de82ef95u + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return ((double)(z >> 12) + 0.5) * 0x1p-52;
}
