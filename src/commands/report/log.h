/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Messages on standard error. Standard output is data and belongs to the commands.
 *
 * Only rank zero talks: the other ranks call mpo_log_silence() once after MPI is up.
 * On a terminal there is colour unless NO_COLOR is set, messages are wrapped to its
 * width, and progress is a live line; in a file or a pipe a message is one line.
 * TERM=dumb is no terminal.
 */
#pragma once

#include <stdbool.h>

#include "mpo/report.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Say what the library reports from now on. */
void mpo_log_listen(void);

/** Print nothing from now on (ranks other than zero; --quiet keeps errors and warnings). */
void mpo_log_silence(void);

/** Leave out progress and notes, keep warnings and errors. */
void mpo_log_quiet(void);

/** True when a live line would be seen: a terminal, not silenced, not quiet. */
bool mpo_log_is_live(void);

/** A line of progress or information. */
void mpo_log_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** "warning: ..." with what to change. */
void mpo_log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** "mpo: ..." one message of a failure. */
void mpo_log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/**
 * Show the live line, in place of the one before: as many of the parts as fit the
 * terminal's width, the first ones first, and of the first as much as fits.
 *
 * The cursor waits on the line below, so the program always ends with a complete line. Call
 * mpo_log_clear_progress() before printing to standard output; notes, warnings and errors
 * do so themselves.
 */
void mpo_log_progress(const char *const *part, int part_count);

/** Take the live line away. */
void mpo_log_clear_progress(void);

#ifdef __cplusplus
}
#endif
