/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Text in columns of a terminal, and how figures and names are written.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- columns ---- */

/** Columns of UTF-8 text; invalid bytes count one column each. Local. */
int32_t mpo_text_columns(const char *text);

/** Bytes of the longest prefix of at most this many columns;
 *  no character is split. Local. */
size_t mpo_text_fit(const char *text, int32_t columns);

/** Print the text and spaces up to `columns`. Local. */
void mpo_text_pad(FILE *stream, const char *text, int32_t columns);

/**
 * Print words in lines of at most `width` columns. Local.
 *
 * Lines are broken at spaces only: a longer word has a line of its own and is not cut. The
 * text's own line ends stay, and are followed by the indent.
 *
 * @param column  where the cursor is
 * @param indent  where further lines begin
 */
void mpo_text_wrap(FILE *stream, const char *text, int32_t column, int32_t indent,
                   int32_t width);

/* ---- figures and names ---- */

/** Does the text end with the suffix? Local. */
bool mpo_text_ends_with(const char *text, const char *suffix);

#define MPO_TEXT_FIGURE_BYTES 32

struct mpo_text_figure {
    char text[MPO_TEXT_FIGURE_BYTES];
};

/** A figure with so many digits after the point (very large ones with as many in all): "-"
 *  where it is not finite, and a zero never has a sign. Local. */
struct mpo_text_figure mpo_text_figure(double value, int digits);

/** "" for one and "s" for any other number. Local. */
const char *mpo_text_plural(int64_t count);

/**
 * Shares of a sum in thousandths that add to 1000, as a table of them should. Local.
 *
 * Each is rounded down, and those with the largest remainders get what is left.
 *
 * @param part   [count] not negative
 * @param share  [count] out; all 0 where the sum is 0
 */
void mpo_text_shares(const double *part, int32_t count, int32_t *share);

/** Whole megabytes of 2^20 bytes, for %llu: what is free or taken, rounded down. Local. */
unsigned long long mpo_text_megabytes(uint64_t bytes);

/** The same rounded up, for what is needed, so that a need never prints as nothing, or as
 *  the amount that is free. */
unsigned long long mpo_text_megabytes_up(uint64_t bytes);

#define MPO_TEXT_HASH_BYTES 17

/** A hash of 64 bits as 16 hexadecimal digits. Local. */
void mpo_text_hash(uint64_t hash, char out[MPO_TEXT_HASH_BYTES]);

/** Bytes as hexadecimal digits. Local. @param out [2 count + 1] */
void mpo_text_hex(const unsigned char *bytes, size_t count, char *out);

#ifdef __cplusplus
}
#endif
