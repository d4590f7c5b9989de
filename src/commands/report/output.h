/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Standard output: whether it was taken, and JSON, the same for every command.
 *
 * Commands print with stdio and need not look at what it returns: output_flush, which main
 * calls after every command, looks at all of it. JSON is one document or one line of JSONL
 * each; numbers have the 17 digits that read back to the same double, and what JSON cannot
 * say is null.
 */
#pragma once

#include <jansson.h>

#include "mpo/status.h"

/**
 * Before anything is opened: no file of the program gets a number of the standard streams,
 * should they be closed, and a pipe that its reader leaves is seen by output_flush. Local.
 */
void output_begin(void);

/**
 * Hand on what was printed, and look back at everything printed so far. Local.
 *
 * A pipe whose reader has left (`| head`) ends the process by SIGPIPE, without a word, as it
 * ends other programs.
 *
 * @return MPO_ERR_IO where something is missing; MPO_ERR_MEMORY beyond a limit of the
 *     process (ulimit -f)
 */
enum mpo_status output_flush(void);

/** A number; null for NaN and infinities. */
json_t *output_number(double value);

/** A text; null for NULL and invalid UTF-8. */
json_t *output_text(const char *text);

/** Print a value and a line end; the value is released. NULL stands for a value without
 *  memory. @return MPO_ERR_MEMORY */
enum mpo_status output_json(json_t *value);
