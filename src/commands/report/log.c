/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log. It remembers a live progress line, so that the next message clears it first.
 */
#include "log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/stop.h"
#include "base/text.h"
#include "commands/report/terminal.h"

#define LINE_BYTES    8192 /* more than an error text and its trace have */
#define SAFE_BYTES    (TERMINAL_ESCAPE_BYTES * LINE_BYTES)
#define COLUMNS_USUAL 80
#define COLUMNS_MIN   20 /* narrower terminals are not wrapped for */
#define COLUMNS_MAX   1000

enum log_level { LOG_ALL, LOG_WARNINGS, LOG_NOTHING };

static enum log_level log_level = LOG_ALL;
static bool progress_shown;

void mpo_log_silence(void)
{
    log_level = LOG_NOTHING;
}

void mpo_log_quiet(void)
{
    if (log_level < LOG_WARNINGS)
        log_level = LOG_WARNINGS;
}

static bool is_terminal(void)
{
    const char *kind = getenv("TERM");
    return isatty(STDERR_FILENO) && (kind == NULL || strcmp(kind, "dumb") != 0);
}

static bool is_colored(void)
{
    const char *no_color = getenv("NO_COLOR");
    return is_terminal() && (no_color == NULL || no_color[0] == '\0');
}

/* The width from the terminal, else from the shell. */
static int32_t terminal_columns(void)
{
    struct winsize size = {0};
    const char *columns = getenv("COLUMNS");
    long count = columns != NULL ? strtol(columns, NULL, 10) : 0;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        count = size.ws_col;
    if (count < COLUMNS_MIN || count > COLUMNS_MAX)
        count = count > COLUMNS_MAX ? COLUMNS_MAX : count > 0 ? COLUMNS_MIN : COLUMNS_USUAL;
    return (int32_t)count;
}

bool mpo_log_is_live(void)
{
    return log_level == LOG_ALL && is_terminal();
}

/* ---- lines ---- */

/* The answer to a signal is below the live line, which stays where it is. */
static void leave_line_to_answer(void)
{
    static bool is_left;
    if (!is_left && mpo_stop_signal() != 0) {
        is_left = true;
        progress_shown = false;
    }
}

/* The text as a terminal may show it, else as it is. */
static void make_safe(const char *text, char safe[SAFE_BYTES])
{
    size_t bytes = strlen(text);
    size_t taken = 0;
    if (!terminal_shows(STDERR_FILENO)) {
        memcpy(safe, text, bytes + 1);
        return;
    }
    safe[terminal_escape(text, bytes, safe, &taken)] = '\0';
}

static void print_line(const char *color, const char *prefix, const char *format,
                       va_list arguments)
{
    char given[LINE_BYTES];
    char text[SAFE_BYTES];
    bool colored = is_colored();
    int32_t indent = mpo_text_columns(prefix);
    mpo_log_clear_progress();
    vsnprintf(given, sizeof given, format, arguments);
    make_safe(given, text);
    /* Notes are tables and other lines already laid out by the caller. */
    if (is_terminal() && prefix[0] != '\0') {
        fprintf(stderr, "%s%s%s", colored ? color : "", prefix, colored ? "\033[0m" : "");
        size_t first = strcspn(text, "\n"); /* the lines of a trace stay as they are */
        const char *rest = text + first + (text[first] == '\n');
        text[first] = '\0';
        mpo_text_wrap(stderr, text, indent, indent, terminal_columns());
        fprintf(stderr, "\n%s%s", rest, rest[0] != '\0' ? "\n" : "");
    } else {
        /* One write, so that no line of another rank cuts into this one. */
        fprintf(stderr, "%s%s\n", prefix, text);
    }
    fflush(stderr);
}

void mpo_log_note(const char *format, ...)
{
    if (log_level > LOG_ALL)
        return;
    va_list arguments;
    va_start(arguments, format);
    print_line("", "", format, arguments);
    va_end(arguments);
}

void mpo_log_warning(const char *format, ...)
{
    if (log_level > LOG_WARNINGS)
        return;
    va_list arguments;
    va_start(arguments, format);
    print_line("\033[33m", "warning: ", format, arguments);
    va_end(arguments);
}

void mpo_log_error(const char *format, ...)
{
    if (log_level == LOG_NOTHING)
        return;
    va_list arguments;
    va_start(arguments, format);
    print_line("\033[31m", "mpo: ", format, arguments);
    va_end(arguments);
}

/* ---- what the library says ---- */

static void log_report(void *self, enum mpo_report_level level, const char *text)
{
    (void)self;
    if (level == MPO_REPORT_NOTE)
        mpo_log_note("%s", text);
    else if (level == MPO_REPORT_WARNING)
        mpo_log_warning("%s", text);
    else if (level == MPO_REPORT_ERROR)
        mpo_log_error("%s", text);
    if (level != MPO_REPORT_FATAL)
        return;
    /* On ranks other than zero the log is silent, but these are last words. */
    char safe[SAFE_BYTES];
    char given[LINE_BYTES];
    snprintf(given, sizeof given, "%s", text);
    make_safe(given, safe);
    mpo_log_clear_progress();
    fprintf(stderr, "mpo: %s\n", safe);
}

void mpo_log_listen(void)
{
    mpo_report_to((struct mpo_reporter){.say = log_report});
}

/* ---- the live line ---- */

/* One write per change, so that a killed program leaves no partial line. */
void mpo_log_progress(const char *const *part, int part_count)
{
    char line[LINE_BYTES] = "";
    if (!mpo_log_is_live() || part_count == 0)
        return;
    leave_line_to_answer();
    int32_t left = terminal_columns() - 1;
    int at = snprintf(line, sizeof line, "%s%.*s", progress_shown ? "\033[A\r" : "",
                      (int)mpo_text_fit(part[0], left), part[0]);
    left -= mpo_text_columns(part[0]);
    for (int i = 1; i < part_count; i++) {
        int32_t columns = mpo_text_columns(part[i]) + 2;
        if (columns > left || (size_t)at + strlen(part[i]) + 16 > sizeof line)
            continue;
        left -= columns;
        at += snprintf(line + at, sizeof line - (size_t)at, "  %s", part[i]);
    }
    fprintf(stderr, "%s\033[K\n", line);
    fflush(stderr);
    progress_shown = true;
}

void mpo_log_clear_progress(void)
{
    leave_line_to_answer();
    if (progress_shown)
        fputs("\033[A\r\033[K", stderr);
    progress_shown = false;
}
