/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What every test program begins with: CMocka, with or without MPI, and the assertions that
 * CMocka 1.1.5 lacks.
 *
 * Under mpirun a failed assertion on one rank would leave the others waiting for ever, so
 * run_cases_on_ranks() makes CMocka abort the process instead, and mpirun ends the job.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "mpo/status.h"

/** Run the cases in this process alone. @return the number of failures, for main */
#define run_cases(name, tests) cmocka_run_group_tests_name((name), (tests), NULL, NULL)

/** Start MPI, run the cases on every rank, end MPI. @return failures of this rank */
#define run_cases_on_ranks(argc, argv, name, tests)                                        \
    runner_run_on_ranks((argc), (argv), (name), (tests), sizeof(tests) / sizeof((tests)[0]))

int runner_run_on_ranks(int argc, char **argv, const char *name,
                        const struct CMUnitTest *tests, size_t count);

/* What was asserted, and where. */
struct runner_place {
    const char *what;
    const char *file;
    int line;
};
#define RUNNER_PLACE(what) ((struct runner_place){what, __FILE__, __LINE__})

/** |actual - expected| <= bound; NaN never passes. */
#define assert_close(actual, expected, bound)                                              \
    runner_assert_close((actual), (expected), (bound), RUNNER_PLACE(#actual))

/** The same bits, so that -0 differs from 0 and a NaN equals itself. */
#define assert_same_bits(actual, expected)                                                 \
    runner_assert_same_bits((actual), (expected), RUNNER_PLACE(#actual))

/** low <= actual <= high; NaN never passes. */
#define assert_between(actual, low, high)                                                  \
    runner_assert_between((actual), (low), (high), RUNNER_PLACE(#actual))

/** A call returns this status; when it does not, the error text is part of the message. */
#define assert_status(call, expected)                                                      \
    runner_assert_status((call), (expected), RUNNER_PLACE(#call))
#define assert_ok(call) assert_status((call), MPO_OK)

/** The last error text contains a word. */
#define assert_error_names(word) runner_assert_error_names((word), __FILE__, __LINE__)

void runner_assert_close(double actual, double expected, double bound,
                         struct runner_place place);
void runner_assert_same_bits(double actual, double expected, struct runner_place place);
void runner_assert_between(double actual, double low, double high,
                           struct runner_place place);
void runner_assert_status(enum mpo_status actual, enum mpo_status expected,
                          struct runner_place place);
void runner_assert_error_names(const char *word, const char *file, int line);

/** Add to the end of a text in an array, which must have room for it. */
#define append_text(text, ...) runner_append((text), sizeof(text), __VA_ARGS__)
void runner_append(char *text, size_t bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Zeroed memory that must be there; ends the program when it is not. */
void *runner_allocate(size_t count, size_t bytes);

/** The i-th of a fixed sequence of uniforms in (0, 1) for a seed (splitmix64). Tests do not
 *  draw their inputs from the generator that they test. */
double runner_uniform(uint64_t seed, uint64_t index);
