/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repairing UTF-8 in place.
 */
#include "utf8.h"

#include <string.h>

#include <utf8proc.h>

/* U+FFFD in place of a byte that is no character. */
#define REPLACEMENT       "\xef\xbf\xbd"
#define REPLACEMENT_BYTES 3

int32_t mpo_utf8_repair(char *text, int32_t bytes)
{
    for (int32_t at = 0; at < bytes;) {
        utf8proc_int32_t codepoint = 0;
        char *here = text + at;
        int32_t left = bytes - at;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)here, left, &codepoint);
        if (length > 0) {
            at += (int32_t)length;
            continue;
        }
        memmove(here + REPLACEMENT_BYTES, here + 1, (size_t)(left - 1));
        memcpy(here, REPLACEMENT, REPLACEMENT_BYTES);
        bytes += REPLACEMENT_BYTES - 1;
        at += REPLACEMENT_BYTES;
    }
    text[bytes] = '\0';
    return bytes;
}
