/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Widths of text, from utf8proc's table: two columns for wide characters, none for
 * combining marks. Also numbers and hashes, spelled the same everywhere.
 */
#include "text.h"

#include <math.h>
#include <string.h>

#include <utf8proc.h>

#define MEGABYTE_BITS 20

/* Figures from here on have an exponent. */
#define FIGURE_FIXED_MAX 1e12

/* Bytes of the first character, and its columns. */
static size_t measure_character(const char *text, int32_t *columns)
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
        at += measure_character(text + at, &columns);
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
        size_t bytes = measure_character(text + at, &width);
        if (width > columns)
            break;
        columns -= width;
        at += bytes;
    }
    return at;
}

void mpo_text_pad(FILE *stream, const char *text, int32_t columns)
{
    int32_t left = columns - mpo_text_columns(text);
    fprintf(stream, "%s%*s", text, left > 0 ? left : 0, "");
}

void mpo_text_wrap(FILE *stream, const char *text, int32_t column, int32_t indent,
                   int32_t width)
{
    bool begins = true; /* at the beginning of a line no word needs a new one */
    while (*text != '\0') {
        size_t gap = strspn(text, " ");
        size_t word = strcspn(text + gap, " \n");
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
        begins = *text == '\n';
        if (begins) {
            fprintf(stream, "\n%*s", indent, "");
            column = indent;
            text++;
        }
    }
}

bool mpo_text_ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text);
    size_t end = strlen(suffix);
    return length >= end && strcmp(text + length - end, suffix) == 0;
}

struct mpo_text_figure mpo_text_figure(double value, int digits)
{
    struct mpo_text_figure out = {"-"};
    if (!isfinite(value))
        return out;
    snprintf(out.text, sizeof out.text, fabs(value) < FIGURE_FIXED_MAX ? "%.*f" : "%.*g",
             digits, value);
    size_t digits_end = strspn(out.text + 1, "0.") + 1;
    if (out.text[0] == '-' && out.text[digits_end] == '\0')
        memmove(out.text, out.text + 1, digits_end);
    return out;
}

const char *mpo_text_plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

unsigned long long mpo_text_megabytes(uint64_t bytes)
{
    return (unsigned long long)(bytes >> MEGABYTE_BITS);
}

unsigned long long mpo_text_megabytes_up(uint64_t bytes)
{
    return (unsigned long long)((bytes >> MEGABYTE_BITS) +
                                ((bytes & ((1U << MEGABYTE_BITS) - 1)) != 0));
}

void mpo_text_hash(uint64_t hash, char out[MPO_TEXT_HASH_BYTES])
{
    snprintf(out, MPO_TEXT_HASH_BYTES, "%016llx", (unsigned long long)hash);
}

void mpo_text_hex(const unsigned char *bytes, size_t count, char *out)
{
    out[0] = '\0';
    for (size_t i = 0; i < count; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* What is cut off of a share by rounding it down. */
static double remainder_of(double part, double sum, int32_t share)
{
    return 1000.0 * part / sum - share;
}

void mpo_text_shares(const double *part, int32_t count, int32_t *share)
{
    double sum = 0.0;
    int32_t left = 1000;
    memset(share, 0, (size_t)count * sizeof *share);
    for (int32_t i = 0; i < count; i++)
        sum += part[i];
    if (!(sum > 0.0) || !isfinite(sum))
        return;
    for (int32_t i = 0; i < count; i++)
        left -= share[i] = (int32_t)(1000.0 * part[i] / sum);
    for (; left > 0; left--) {
        int32_t most = 0;
        for (int32_t i = 1; i < count; i++)
            if (remainder_of(part[i], sum, share[i]) >
                remainder_of(part[most], sum, share[most]))
                most = i;
        share[most]++;
    }
}
