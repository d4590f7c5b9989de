/* SPDX-License-Identifier: Apache-2.0 */
#include "spelling.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define NAME_LETTERS_MAX 64 /* longer names are not compared */

const char *mpo_quote(const char *text, char quoted[MPO_QUOTE_BYTES])
{
    const size_t room = MPO_QUOTE_BYTES - sizeof "...";
    size_t bytes = strnlen(text, MPO_QUOTE_BYTES);
    bool cut = bytes > room;
    if (cut)
        bytes = room;
    /* Do not split a character: continuation bytes are 10xxxxxx. */
    while (cut && bytes > 0 && ((unsigned char)text[bytes] & 0xC0) == 0x80)
        bytes--;
    for (size_t i = 0; i < bytes; i++)
        quoted[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7F ? ' ' : text[i];
    snprintf(quoted + bytes, MPO_QUOTE_BYTES - bytes, "%s", cut ? "..." : "");
    return quoted;
}

static size_t smaller_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t mpo_spelling_distance(const char *a, const char *b)
{
    size_t rows[3][NAME_LETTERS_MAX + 1]; /* row i: from i letters of a to j letters of b */
    size_t height = strnlen(a, NAME_LETTERS_MAX + 1);
    size_t width = strnlen(b, NAME_LETTERS_MAX + 1);
    if (width > NAME_LETTERS_MAX || height > NAME_LETTERS_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= width; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= height; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= width; j++) {
            size_t changed = above[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = smaller_size(changed, 1 + smaller_size(row[j - 1], above[j]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = smaller_size(row[j], 1 + rows[(i - 2) % 3][j - 2]);
        }
    }
    return rows[height % 3][width];
}

bool mpo_spelling_is_near(const char *name, size_t distance)
{
    return distance < strlen(name) && distance <= 1 + strlen(name) / 3;
}
