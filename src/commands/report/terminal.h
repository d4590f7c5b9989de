/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Text of others on a terminal. A response, a prompt, a name in a record may hold escape
 * sequences, which a terminal would obey: recolour, retitle, overwrite what it shows.
 *
 * Shown are: line ends and tabs as they are, other control characters (C0, DEL, C1) as
 * \u001b, and bytes that are no UTF-8 as \x9b. A pipe or a file gets every byte as it is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "mpo/status.h"

/** Bytes that one byte becomes, at most. */
#define TERMINAL_ESCAPE_BYTES 6

/**
 * Whether people see what is written to a descriptor. Under mpirun, which puts a terminal
 * of its own between, that is where mpirun's own output goes. Local.
 */
bool terminal_shows(int descriptor);

/**
 * Replace control characters. Local.
 *
 * @param out    [TERMINAL_ESCAPE_BYTES * bytes] not terminated
 * @param taken  bytes of the text that were used: all, but for a character that the end of
 *               the text cuts
 * @return bytes of the result
 */
size_t terminal_escape(const char *text, size_t bytes, char *out, size_t *taken);

/** Escape what is printed to standard output from now on, if terminal_shows it. Local. */
void terminal_filter_output(void);
