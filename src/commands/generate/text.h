/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The text of a response: where it stops, and how it is printed on a terminal.
 */
#pragma once

#include <jansson.h>

#include "decode/text.h"
#include "session/parts.h"

#define STOP_COUNT_MAX 16

/** Texts that end a response. */
struct stops {
    json_t *list; /* NULL for one text or none */
    const char *text[STOP_COUNT_MAX];
    int32_t count;
};

/** From the option: one text, or a JSON list of texts; "" for none. Local. */
enum mpo_status stops_open(const char *option, struct stops *out);
void stops_close(struct stops *stops);

/** One response on its way to a terminal. */
struct stream {
    struct mpo_decode_text *text; /* borrowed */
    const char *prefill;          /* borrowed; shown before the first token */
    size_t shown;                 /* bytes of the response */
    bool begun;
    bool is_cut; /* by a request to stop */
};

/** Print the certain part of these tokens' text, until a request to stop: complete
 *  characters, and nothing that may become a stop text. A watch of mpo/rollout.h; the
 *  watcher is the stream. */
bool stream_watch(void *watcher, const int32_t *token, int32_t token_count);
