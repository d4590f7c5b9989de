/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard output is filtered in one place, beneath stdio, so that no command can forget.
 */
#define _GNU_SOURCE /* fopencookie */
#include "terminal.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utf8proc.h>

#define BLOCK_BYTES 1024

bool terminal_shows(int descriptor)
{
    char path[64] = "";
    char target[64] = "";
    if (getenv("OMPI_COMM_WORLD_SIZE") == NULL)
        return isatty(descriptor) == 1;
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getppid(), descriptor);
    return readlink(path, target, sizeof target - 1) > 0 &&
           (strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0);
}

static bool is_control(utf8proc_int32_t letter)
{
    return (letter < 0x20 && letter != '\n' && letter != '\t') ||
           (letter >= 0x7f && letter < 0xa0);
}

/* The first bytes of a character whose others are still to come. */
static bool is_begun(const char *text, size_t bytes)
{
    const unsigned char first = (unsigned char)text[0];
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1;
    for (size_t i = 1; i < bytes; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80)
            return false;
    return first < 0xf5 && bytes < length;
}

size_t terminal_escape(const char *text, size_t bytes, char *out, size_t *taken)
{
    size_t at = 0;
    size_t used = 0;
    while (at < bytes) {
        char code[TERMINAL_ESCAPE_BYTES + 2] = "";
        utf8proc_int32_t letter = 0;
        utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                   (utf8proc_ssize_t)(bytes - at), &letter);
        if (length <= 0 && is_begun(text + at, bytes - at))
            break;
        if (length <= 0)
            snprintf(code, sizeof code, "\\x%02x", (unsigned)(unsigned char)text[at]);
        else if (is_control(letter))
            snprintf(code, sizeof code, "\\u%04x", (unsigned)letter & 0xffffu);
        size_t step = length > 0 ? (size_t)length : 1;
        size_t count = code[0] != '\0' ? strlen(code) : step;
        memcpy(out + used, code[0] != '\0' ? code : text + at, count);
        used += count;
        at += step;
    }
    *taken = at;
    return used;
}

/* ---- standard output ---- */

/* What a write ended with inside of a character. */
static char pending[BLOCK_BYTES];
static size_t pending_bytes;

static bool write_out(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        bytes += written;
        count -= (size_t)written;
    }
    return true;
}

static ssize_t filter_output(void *cookie, const char *bytes, size_t count)
{
    char shown[TERMINAL_ESCAPE_BYTES * BLOCK_BYTES];
    size_t done = 0;
    (void)cookie;
    while (done < count) {
        size_t room = sizeof pending - pending_bytes;
        size_t part = count - done < room ? count - done : room;
        size_t taken = 0;
        memcpy(pending + pending_bytes, bytes + done, part);
        pending_bytes += part;
        done += part;
        size_t used = terminal_escape(pending, pending_bytes, shown, &taken);
        pending_bytes -= taken;
        memmove(pending, pending + taken, pending_bytes);
        if (!write_out(shown, used))
            return 0;
    }
    return (ssize_t)count;
}

void terminal_filter_output(void)
{
    if (!terminal_shows(STDOUT_FILENO))
        return;
    FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = filter_output});
    if (stream == NULL)
        return;
    setvbuf(stream, NULL, _IOLBF, BUFSIZ);
    stdout = stream; /* glibc allows it */
}
