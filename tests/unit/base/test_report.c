/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said, to whom, and how much: an internal error carries its trace, and the end of a
 * process is never silent.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mpo/comm.h"
#include "mpo/report.h"
#include "runner.h"

#define TEXT_BYTES 8192

struct heard {
    int count;
    enum mpo_report_level level;
    char text[TEXT_BYTES];
};

static void hear(void *self, enum mpo_report_level level, const char *text)
{
    struct heard *heard = self;
    heard->count++;
    heard->level = level;
    snprintf(heard->text, sizeof heard->text, "%s", text);
}

/* ---- failures that pass through three functions ---- */

static enum mpo_status count_to_three(enum mpo_status code)
{
    enum mpo_status status = MPO_OK;
    MPO_FAIL(code, "expected 3, found %d", 4);
cleanup:
    return status;
}

static enum mpo_status relay_once(enum mpo_status code)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(count_to_three(code));
cleanup:
    return status;
}

static enum mpo_status relay_twice(enum mpo_status code)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(relay_once(code));
cleanup:
    return status;
}

static void report_failure_of(enum mpo_status code)
{
    enum mpo_status status = relay_twice(code);
    mpo_report_failure(MPO_REPORT_ERROR, status, mpo_error_text(), mpo_error_trace());
}

/* ---- cases ---- */

static void a_report_goes_to_the_reporter_that_is_set(void **state)
{
    (void)state;
    struct heard first = {0};
    struct heard second = {0};
    mpo_report(MPO_REPORT_NOTE, "nobody hears this");
    struct mpo_reporter nobody = mpo_report_to((struct mpo_reporter){hear, &first});
    assert_null(nobody.say);
    mpo_report(MPO_REPORT_WARNING, "%d of %s", 3, "them");
    assert_int_equal(first.count, 1);
    assert_int_equal(first.level, MPO_REPORT_WARNING);
    assert_string_equal(first.text, "3 of them");
    struct mpo_reporter before = mpo_report_to((struct mpo_reporter){hear, &second});
    mpo_report(MPO_REPORT_NOTE, "again");
    assert_int_equal(first.count, 1);
    assert_string_equal(second.text, "again");
    mpo_report_to(before);
    mpo_report(MPO_REPORT_NOTE, "back");
    assert_string_equal(first.text, "back");
    mpo_report_to(nobody);
}

static void an_internal_error_is_reported_with_its_trace(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct mpo_reporter before = mpo_report_to((struct mpo_reporter){hear, &heard});
    report_failure_of(MPO_ERR_INTERNAL);
    mpo_report_to(before);
    const char *raised = strstr(heard.text, "raised at tests/unit/base/test_report.c:");
    const char *once = strstr(heard.text, "through relay_once at tests/unit/");
    const char *twice = strstr(heard.text, "through relay_twice at tests/unit/");
    assert_int_equal(strncmp(heard.text, "expected 3, found 4\n", 20), 0);
    assert_true(raised != NULL && once > raised && twice > once);
    assert_non_null(strstr(twice, "report"));
}

static void any_other_failure_is_one_line(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct mpo_reporter before = mpo_report_to((struct mpo_reporter){hear, &heard});
    report_failure_of(MPO_ERR_DATA);
    mpo_report_to(before);
    assert_string_equal(heard.text, "expected 3, found 4");
}

static void a_trace_is_kept_while_something_else_fails(void **state)
{
    (void)state;
    struct mpo_error kept;
    assert_int_equal(relay_twice(MPO_ERR_INTERNAL), MPO_ERR_INTERNAL);
    mpo_error_keep(&kept);
    mpo_error_set("raised on another rank");
    assert_string_equal(mpo_error_trace(), "");
    assert_int_equal(count_to_three(MPO_ERR_IO), MPO_ERR_IO);
    mpo_error_restore(&kept);
    assert_non_null(strstr(mpo_error_trace(), "relay_twice"));
    assert_string_equal(mpo_error_text(), "expected 3, found 4");
}

/* Exit code of a process that fails in step 4 of fit; what it says on standard error. */
static int end_with(enum mpo_status code, char text[TEXT_BYTES])
{
    int ends[2];
    int result = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        mpo_comm_expect("fit", 3, 0.0);
        mpo_comm_fail(relay_twice(code));
        _exit(1); /* it does not return */
    }
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    size_t length = fread(text, 1, TEXT_BYTES - 1, said);
    text[length] = '\0';
    fclose(said);
    assert_int_equal(waitpid(child, &result, 0), child);
    return WIFEXITED(result) ? WEXITSTATUS(result) : -1;
}

static void the_end_of_a_process_is_never_silent_and_says_where(void **state)
{
    (void)state;
    char text[TEXT_BYTES];
    assert_int_equal(end_with(MPO_ERR_DATA, text), 65);
    assert_string_equal(text, "mpo: expected 3, found 4 (in step 4 of fit)\n");
    assert_int_equal(end_with(MPO_ERR_INTERNAL, text), 70);
    assert_int_equal(strncmp(text, "mpo: expected 3, found 4 (in step 4 of fit)", 43), 0);
    assert_non_null(strstr(text, "\n  raised at tests/unit/base/test_report.c:"));
    assert_non_null(strstr(text, "\n  through relay_twice at tests/unit/"));
    assert_non_null(strstr(text, "please report it"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_goes_to_the_reporter_that_is_set),
        cmocka_unit_test(an_internal_error_is_reported_with_its_trace),
        cmocka_unit_test(any_other_failure_is_one_line),
        cmocka_unit_test(a_trace_is_kept_while_something_else_fails),
        cmocka_unit_test(the_end_of_a_process_is_never_silent_and_says_where),
    };
    return run_cases("report", tests);
}
