/**
 * What the program says on standard error. Standard output is data and belongs to commands.
 *
 * Only rank zero talks: the other ranks call mpo_log_silence() once after MPI is up. Colour
 * is used on a terminal when NO_COLOR is not set.
 */
#pragma once

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Say nothing from now on (ranks other than zero; --quiet keeps errors and warnings). */
void mpo_log_silence(void);

/** Leave out progress and notes, keep warnings and errors. */
void mpo_log_quiet(void);

/** True when standard error is a terminal that may be coloured. */
bool mpo_log_is_terminal(void);

/** A line of progress or information. */
void mpo_log_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** "warning: ..." with what to change. */
void mpo_log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** "mpo: ..." one message of a failure. */
void mpo_log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** A live line that the next line overwrites; nothing when not on a terminal. */
void mpo_log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif
