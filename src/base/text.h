/**
 * Text in columns of a terminal, and what is asked of names.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Does the text end with the suffix? Local. */
bool mpo_text_ends_with(const char *text, const char *suffix);

/** Columns that UTF-8 text takes; what is not UTF-8 takes one a byte. Local. */
int32_t mpo_text_columns(const char *text);

/** Bytes of the longest beginning of the text that takes at most so many columns; no letter
 *  is cut in two. Local. */
size_t mpo_text_fit(const char *text, int32_t columns);

/**
 * Print words in lines of at most `width` columns. Local.
 *
 * Lines are broken at spaces only: a longer word has a line of its own and is not cut.
 *
 * @param column  where the cursor is
 * @param indent  where further lines begin
 */
void mpo_text_wrap(FILE *stream, const char *text, int32_t column, int32_t indent,
                   int32_t width);

#ifdef __cplusplus
}
#endif
