/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the library reports, and to whom.
 *
 * Nothing is printed unless a reporter is set: the program sets its log, another program its
 * own. The one exception is a failure that ends the process because no handler is set
 * (mpo_comm_fail): without a reporter it goes to standard error.
 */
#pragma once

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum mpo_report_level {
    MPO_REPORT_NOTE,    /* on every rank that it concerns */
    MPO_REPORT_WARNING, /* likewise, with what to change */
    MPO_REPORT_ERROR,   /* a failure that all ranks have agreed on: on rank zero */
    MPO_REPORT_FATAL    /* the process is about to end: on any rank */
};

/** One for the process. */
struct mpo_reporter {
    /** Called on the thread that has something to say, with a text without an end of line;
     *  an internal error has its trace in the lines after the first. NULL: reports are
     *  dropped. */
    void (*say)(void *self, enum mpo_report_level level, const char *text);
    void *self; /* borrowed */
};

/** Report to this one from now on. Local.
 *  @return the one before */
struct mpo_reporter mpo_report_to(struct mpo_reporter reporter);

/** Report a line. Local. */
void mpo_report(enum mpo_report_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Report a failure; an internal error with the trace and where to send it. Local.
 *  @param trace  as mpo_error_trace has it */
void mpo_report_failure(enum mpo_report_level level, enum mpo_status status,
                        const char *text, const char *trace);

#ifdef __cplusplus
}
#endif
