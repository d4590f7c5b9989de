/*
 * The log. A live progress line is remembered so that the next real line clears it first.
 */
#include "mpo/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

bool mpo_log_is_terminal(void)
{
    const char *no_color = getenv("NO_COLOR");
    return isatty(STDERR_FILENO) && (no_color == NULL || no_color[0] == '\0');
}

static void clear_progress(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = false;
}

static void print_line(const char *color, const char *prefix, const char *format,
                       va_list arguments)
{
    bool colored = mpo_log_is_terminal();
    clear_progress();
    if (prefix[0] != '\0')
        fprintf(stderr, "%s%s%s", colored ? color : "", prefix, colored ? "\033[0m" : "");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
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

void mpo_log_progress(const char *format, ...)
{
    if (log_level > LOG_ALL || !mpo_log_is_terminal())
        return;
    va_list arguments;
    va_start(arguments, format);
    clear_progress();
    vfprintf(stderr, format, arguments);
    fflush(stderr);
    va_end(arguments);
    progress_shown = true;
}
