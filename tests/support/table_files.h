/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Table policy files and a temporary folder to keep them in.
 *
 *     mpo-table 1
 *     tokens a b c </s>
 *     row a    p p p p
 *     ...
 *     row <s>  p p p p        the start of a response to an empty state
 *
 * The last token ends a response. A prompt is token names separated by spaces, and its last
 * token is the state that the response starts from. Local; a failed write fails the test.
 */
#pragma once

#include <stdint.h>

#include "bigram.h"

#define TABLE_PATH_BYTES 512

/** Make an empty folder of its own under TMPDIR (or /tmp). */
void table_folder_make(char path[TABLE_PATH_BYTES]);

/** The same with up.table and down.table in it: two policies over a, b and </s>. */
void table_folder_make_two(char path[TABLE_PATH_BYTES]);

/** Remove the folder and the files in it; folders inside it are left. */
void table_folder_remove(const char *path);

/** Write a text file FOLDER/NAME; path receives where. */
void table_write_text(const char *folder, const char *name, const char *text,
                      char path[TABLE_PATH_BYTES]);

/**
 * Write a table FOLDER/NAME with tokens a, b, c, ... and </s> as the last of them.
 *
 * @param probability  [V + 1, V]: a row for each token, then the row of the start
 * @param vocab_size   V, 2..26
 * @param path         out: where it was written
 */
void table_write(const char *folder, const char *name, const double *probability,
                 int32_t vocab_size, char path[TABLE_PATH_BYTES]);

/** Policy k of bigrams with V + 1 states, the last of them the start, for table_write. */
void table_probability(const struct bigram *bigram, int32_t policy, int32_t vocab_size,
                       double *probability);
