/*
 * Widths of text, by utf8proc's table: letters of two columns, combining marks of none.
 */
#include "text.h"

#include <string.h>

#include <utf8proc.h>

bool mpo_text_ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text);
    size_t end = strlen(suffix);
    return length >= end && strcmp(text + length - end, suffix) == 0;
}

/* Bytes of the letter at the beginning, and its columns. */
static size_t measure(const char *text, int32_t *columns)
{
    utf8proc_int32_t letter = 0;
    utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &letter);
    *columns = bytes > 0 ? utf8proc_charwidth(letter) : 1;
    return bytes > 0 ? (size_t)bytes : 1;
}

static int32_t columns_of(const char *text, size_t bytes)
{
    int32_t sum = 0;
    int32_t columns = 0;
    for (size_t at = 0; at < bytes; sum += columns)
        at += measure(text + at, &columns);
    return sum;
}

int32_t mpo_text_columns(const char *text)
{
    return columns_of(text, strlen(text));
}

size_t mpo_text_fit(const char *text, int32_t columns)
{
    size_t at = 0;
    while (text[at] != '\0') {
        int32_t width = 0;
        size_t bytes = measure(text + at, &width);
        if (width > columns)
            break;
        columns -= width;
        at += bytes;
    }
    return at;
}

void mpo_text_wrap(FILE *stream, const char *text, int32_t column, int32_t indent,
                   int32_t width)
{
    bool begins = true;
    while (*text != '\0') {
        size_t gap = strspn(text, " ");
        size_t word = strcspn(text + gap, " ");
        int32_t columns = columns_of(text + gap, word);
        if (!begins && word > 0 && column + (int32_t)gap + columns > width) {
            fprintf(stream, "\n%*s", indent, "");
            column = indent;
        } else {
            fprintf(stream, "%.*s", (int)gap, text);
            column += (int32_t)gap;
        }
        fprintf(stream, "%.*s", (int)word, text + gap);
        column += columns;
        text += gap + word;
        begins = false;
    }
}
