/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a user typed, in messages: quoted, and what may have been meant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define MPO_QUOTE_BYTES 88

/** The beginning of a user's text, made safe for one line of a message. Local. */
const char *mpo_quote(const char *text, char quoted[MPO_QUOTE_BYTES]);

/** Edit distance: letters to change, add or remove, and neighbours to swap. Local. */
size_t mpo_spelling_distance(const char *a, const char *b);

/** Whether a name at this distance may have been meant. Local. */
bool mpo_spelling_is_near(const char *name, size_t distance);
