/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statuses and the error text. The text is the one piece of global state beside the log:
 * one buffer per thread, so raising a failure never allocates and never fails.
 */
#include "mpo/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char error_text[MPO_ERROR_TEXT_BYTES];
static _Thread_local char error_trace[MPO_ERROR_TEXT_BYTES];

static const struct {
    int exit_code;
    const char *sentence;
} statuses[MPO_STATUS_COUNT] = {
#define STATUS_ROW(name, code, text) [MPO_##name] = {code, text},
    MPO_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

int mpo_status_exit_code(enum mpo_status status)
{
    return (unsigned)status < MPO_STATUS_COUNT ? statuses[status].exit_code : 70;
}

const char *mpo_status_sentence(enum mpo_status status)
{
    return (unsigned)status < MPO_STATUS_COUNT ? statuses[status].sentence
                                               : "unknown status";
}

const char *mpo_error_text(void)
{
    return error_text;
}

const char *mpo_error_trace(void)
{
    return error_trace;
}

void mpo_error_set(const char *text)
{
    size_t bytes = text != NULL ? strnlen(text, sizeof error_text - 1) : 0;
    if (bytes > 0)
        memmove(error_text, text, bytes); /* it may be a part of the present one */
    error_text[bytes] = '\0';
    error_trace[0] = '\0';
}

void mpo_error_keep(struct mpo_error *error)
{
    memcpy(error->text, error_text, sizeof error_text);
    memcpy(error->trace, error_trace, sizeof error_trace);
}

void mpo_error_restore(const struct mpo_error *error)
{
    memcpy(error_text, error->text, sizeof error_text);
    memcpy(error_trace, error->trace, sizeof error_trace);
}

void mpo_failure_keep(struct mpo_failure *failure, enum mpo_status status)
{
    failure->status = status;
    snprintf(failure->text, sizeof failure->text, "%.*s", (int)sizeof failure->text - 1,
             status == MPO_OK ? "" : error_text);
}

enum mpo_status mpo_failure_raise(const struct mpo_failure *failure)
{
    enum mpo_status status = MPO_OK;
    if (failure->status != MPO_OK)
        MPO_FAIL(failure->status, "%s", failure->text);
cleanup:
    return status;
}

enum mpo_status mpo_error_raise(enum mpo_status status, const char *file, int line,
                                const char *format, ...)
{
    /* The arguments may point into the current text, so format into another buffer. */
    char text[MPO_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mpo_error_set(text);
    snprintf(error_trace, sizeof error_trace, "  raised at %s:%d\n", file, line);
    return status;
}

void mpo_error_relay(const char *function, const char *file, int line)
{
    size_t length = strlen(error_trace);
    snprintf(error_trace + length, sizeof error_trace - length, "  through %s at %s:%d\n",
             function, file, line);
}
