/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard output, and values of JSON on it.
 *
 * A write may fail in any printf: stdio then drops the text and notes only that something
 * failed, and flushing what came after it succeeds. Output that is no terminal is therefore
 * collected in a large buffer, so that the errno of most failures is still known when the
 * buffer is flushed, and the note (ferror) is read each time.
 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/reason.h"
#include "commands/report/terminal.h"

#define BUFFER_BYTES (1 << 20)

/* Open what may only be read, so that writing to a closed stream goes on failing. */
static void occupy_descriptor(int descriptor)
{
    if (fcntl(descriptor, F_GETFD) != -1 || errno != EBADF)
        return;
    int taken = open("/dev/null", O_RDONLY);
    if (taken >= 0 && taken != descriptor) {
        dup2(taken, descriptor);
        close(taken);
    }
}

void output_begin(void)
{
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++)
        occupy_descriptor(descriptor);
    /* A run of hours is not lost with the program that shows its messages, and a file that
     * reaches its limit is a failure like any other. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (isatty(STDOUT_FILENO) != 1)
        setvbuf(stdout, NULL, _IOFBF, BUFFER_BYTES);
    terminal_filter_output();
}

/* A pipe whose reader is gone says so even when the failed write is long past. */
static bool is_broken_pipe(int error)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return error == EPIPE ||
           (error == 0 && poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0);
}

static void leave_quietly(void)
{
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
}

enum mpo_status output_flush(void)
{
    enum mpo_status status = MPO_OK;
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return MPO_OK;
    int error = errno;
    if (is_broken_pipe(error))
        leave_quietly();
    MPO_FAIL(mpo_reason_status(error, MPO_ERR_IO),
             "standard output: %s; it could not be written completely%s",
             error != 0 ? strerror(error) : "a write failed", mpo_reason_advice(error));
cleanup:
    return status;
}

json_t *output_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *output_text(const char *text)
{
    json_t *value = json_string(text);
    return value != NULL ? value : json_null();
}

enum mpo_status output_json(json_t *value)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(value != NULL, MPO_ERR_MEMORY, "no memory for a line of output");
    if (json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 &&
        !ferror(stdout))
        MPO_FAIL(MPO_ERR_MEMORY, "no memory for a line of output");
    putchar('\n');
cleanup:
    json_decref(value);
    return status;
}
