/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reporter. There is one per process, because a stage that reports (a record, a device)
 * has no session.
 */
#include "mpo/report.h"

#include <stdarg.h>
#include <stdio.h>

#define TEXT_BYTES (2 * MPO_ERROR_TEXT_BYTES + 256) /* error text, trace and advice */

static struct mpo_reporter reporter;

struct mpo_reporter mpo_report_to(struct mpo_reporter next)
{
    struct mpo_reporter before = reporter;
    reporter = next;
    return before;
}

static void deliver_report(enum mpo_report_level level, const char *text)
{
    if (reporter.say != NULL)
        reporter.say(reporter.self, level, text);
    else if (level == MPO_REPORT_FATAL)
        fprintf(stderr, "mpo: %s\n", text);
}

void mpo_report(enum mpo_report_level level, const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    deliver_report(level, text);
}

void mpo_report_failure(enum mpo_report_level level, enum mpo_status status,
                        const char *text, const char *trace)
{
    if (status == MPO_ERR_INTERNAL)
        mpo_report(level, "%s\n%s  %s, with these lines", text, trace,
                   mpo_status_sentence(status));
    else
        mpo_report(level, "%s", text);
}
