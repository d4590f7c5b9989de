/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A prompt as a policy gets it: its text from its own tokens, special ones visible.
 */
#pragma once

#include <jansson.h>

#include "mpo/policy.h"

/** Zero is none. */
struct prompt_view {
    int32_t token_count;
    int32_t special_count;
    char *text; /* owned; special tokens in square brackets */
};

/** See a prompt of a slot. Local. */
enum mpo_status prompt_view_make(const struct mpo_policy *policy, int32_t slot,
                                 struct prompt_view *out);
void prompt_view_free(struct prompt_view *view);

/** Copy a text; if it is too long, leave out its middle and say how many bytes that is.
 *  Local. */
void prompt_view_shorten(const char *text, size_t capacity, char *out);

/** Print a text, each line indented. Local. */
void prompt_view_print(const char *text);

/** A slot's tokens: a list of {"id", "text", "special"}, whose texts are null where they are
 *  parts of a character. NULL: no memory. Local. */
json_t *prompt_view_tokens(const struct mpo_policy *policy, int32_t slot);
