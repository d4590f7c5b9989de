/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Tokens into text, one after another: whole characters, and texts at which a response
 * stops. Adding a token costs its own bytes, however long the response is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/policy.h"
#include "mpo/status.h"

/** Maximum bytes of a text that ends a response. */
#define MPO_DECODE_STOP_BYTES_MAX 1024

/** Texts at which a response stops; borrowed. Empty ones stop nothing. */
struct mpo_decode_stops {
    const char *const *text; /* [count] */
    int32_t count;
};

/** The text of one response. Zero is none. */
struct mpo_decode_text {
    const struct mpo_policies *policies; /* borrowed */
    struct mpo_decode_stops stops;
    char *bytes; /* NUL-terminated; what a token ends in may be part of a character */
    size_t count;
    size_t capacity;
    size_t settled;  /* of them: characters that are whole, and stay */
    bool keeps_tail; /* in the room that it has; else all, in room that grows */
    bool has_tokens;
    bool is_stopped; /* a stop text was found, and the text ends before it */
    int32_t stop;    /* which one */
};

/** @return MPO_ERR_USAGE when a stop text is over MPO_DECODE_STOP_BYTES_MAX. Local. */
enum mpo_status mpo_decode_stops_check(const struct mpo_decode_stops *stops);

/** A text of which all is kept. Local; allocates as tokens are added. */
void mpo_decode_text_open(struct mpo_decode_text *text, const struct mpo_policies *policies,
                          const struct mpo_decode_stops *stops);

/** A text of which only the end is kept, as much as stop texts need: to know when one
 *  appears. Local; allocates here and never again. */
enum mpo_status mpo_decode_text_open_tail(struct mpo_decode_text *text,
                                          const struct mpo_policies *policies,
                                          const struct mpo_decode_stops *stops);
void mpo_decode_text_close(struct mpo_decode_text *text);

/** Begin the next response. Local. */
void mpo_decode_text_begin(struct mpo_decode_text *text);

/** Begin the next response, which other texts stop: none longer than MPO_DECODE_STOP_BYTES_MAX,
 *  or, of a text that keeps its end alone, than those that it was opened with. Local.
 *  @return MPO_ERR_USAGE */
enum mpo_status mpo_decode_text_begin_with(struct mpo_decode_text *text,
                                           const struct mpo_decode_stops *stops);

/** Add a token; nothing once it has stopped. Local. @return MPO_ERR_MEMORY */
enum mpo_status mpo_decode_text_add(struct mpo_decode_text *text, int32_t token);

/** Bytes that will stay as they are: whole characters, what is not UTF-8 replaced by U+FFFD,
 *  and nothing that may yet become a stop text. Needs all of the text. Local.
 *  @return MPO_ERR_MEMORY */
enum mpo_status mpo_decode_text_certain(struct mpo_decode_text *text, size_t *bytes);

/** The response is complete: all of it is certain, a character that has only begun is
 *  U+FFFD. Needs all of the text. Local. @return MPO_ERR_MEMORY */
enum mpo_status mpo_decode_text_finish(struct mpo_decode_text *text);

/** begin, add all, finish. Local. @return MPO_ERR_MEMORY */
enum mpo_status mpo_decode_text_set(struct mpo_decode_text *text, const int32_t *tokens,
                                    int32_t token_count);
