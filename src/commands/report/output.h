/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Standard output for programs: JSON, the same for every command.
 *
 * One document or one line of JSONL each; numbers have the 17 digits that read back to the
 * same double, and what JSON cannot say is null.
 */
#pragma once

#include <jansson.h>

#include "mpo/status.h"

/** A number; null for NaN and infinities. */
json_t *output_number(double value);

/** A text; null for NULL and invalid UTF-8. */
json_t *output_text(const char *text);

/** Print a value and a line end; the value is released. NULL stands for a value without
 *  memory. @return MPO_ERR_MEMORY or MPO_ERR_IO */
enum mpo_status output_json(json_t *value);
