/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop texts, and responses printed while they are generated.
 *
 * A token may end inside a character or inside what may become a stop text; neither part is
 * printed until it is complete. Printed text is never taken back, because text only grows.
 */
#include "text.h"

#include <stdio.h>
#include <string.h>

#include "base/stop.h"

enum mpo_status stops_open(const char *option, struct stops *out)
{
    enum mpo_status status = MPO_OK;
    *out = (struct stops){0};
    if (*option == '\0')
        return MPO_OK;
    if (*option != '[') {
        out->text[out->count++] = option;
        return MPO_OK;
    }
    out->list = json_loads(option, 0, NULL);
    MPO_CHECK(
        json_is_array(out->list) && json_array_size(out->list) <= STOP_COUNT_MAX,
        MPO_ERR_USAGE,
        "--stop: expected one text, or a JSON list of at most %d texts, found '%.80s'",
        STOP_COUNT_MAX, option);
    for (size_t i = 0; i < json_array_size(out->list); i++) {
        const char *text = json_string_value(json_array_get(out->list, i));
        MPO_CHECK(text != NULL && *text != '\0', MPO_ERR_USAGE,
                  "--stop: expected a list of texts, found something else as item %zu",
                  i + 1);
        out->text[out->count++] = text;
    }
cleanup:
    return status;
}

void stops_close(struct stops *stops)
{
    json_decref(stops->list);
    *stops = (struct stops){0};
}

bool stream_watch(void *watcher, const int32_t *token, int32_t token_count)
{
    struct stream *stream = watcher;
    struct mpo_decode_text *text = stream->text;
    size_t bytes = 0;
    if (token_count == 1)
        mpo_decode_text_begin(text);
    stream->is_cut = mpo_stop_signal() != 0;
    if (mpo_decode_text_add(text, token[token_count - 1]) != MPO_OK ||
        mpo_decode_text_certain(text, &bytes) != MPO_OK)
        return !stream->is_cut; /* without memory for it, the text is printed at the end */
    if (!stream->begun)
        fputs(stream->prefill, stdout);
    stream->begun = true;
    if (bytes > stream->shown) {
        fwrite(text->bytes + stream->shown, 1, bytes - stream->shown, stdout);
        stream->shown = bytes;
    }
    fflush(stdout);
    return !stream->is_cut;
}
