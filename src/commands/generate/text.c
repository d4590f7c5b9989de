/*
 * Stop texts, and responses that appear as they are made.
 *
 * A token may end inside a character or inside what may become a stop text; the terminal
 * gets neither half. What was shown is never taken back, because text only grows.
 */
#include "text.h"

#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"

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
                  "--stop: expected texts in the list, found something else as number %zu",
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

bool stops_cut(const struct stops *stops, char *text)
{
    char *first = NULL;
    for (int32_t i = 0; i < stops->count; i++) {
        char *at = strstr(text, stops->text[i]);
        if (at != NULL && (first == NULL || at < first))
            first = at;
    }
    if (first != NULL)
        *first = '\0';
    return first != NULL;
}

/* Bytes without a character that has only begun. */
static int32_t whole_characters(const char *text, int32_t bytes)
{
    for (int32_t back = 1; back <= 3 && back <= bytes; back++) {
        unsigned char lead = (unsigned char)text[bytes - back];
        if ((lead & 0xC0) == 0x80)
            continue; /* inside a character */
        return utf8proc_utf8class[lead] > back ? bytes - back : bytes;
    }
    return bytes;
}

/* Bytes without an end that a stop text begins with. */
static int32_t certain_bytes(const struct stops *stops, const char *text, int32_t bytes)
{
    int32_t certain = bytes;
    for (int32_t i = 0; i < stops->count; i++) {
        int32_t length = (int32_t)strlen(stops->text[i]);
        for (int32_t back = length - 1 < bytes ? length - 1 : bytes; back > 0; back--)
            if (memcmp(text + bytes - back, stops->text[i], (size_t)back) == 0) {
                certain = bytes - back < certain ? bytes - back : certain;
                break;
            }
    }
    return certain;
}

bool stream_watch(void *watcher, const int32_t *token, int32_t token_count)
{
    struct stream *stream = watcher;
    struct mpo_session_text *said = stream->text;
    if (mpo_session_token_text(stream->session, token, token_count, said) != MPO_OK)
        return true; /* without memory for it now, the text appears at the end */
    said->bytes = whole_characters(said->text, said->bytes);
    said->bytes = mpo_utf8_repair(said->text, said->bytes);
    int32_t bytes = stops_cut(stream->stops, said->text)
                        ? (int32_t)strlen(said->text)
                        : certain_bytes(stream->stops, said->text, said->bytes);
    if (!stream->begun)
        fputs(stream->prefill, stdout);
    stream->begun = true;
    if (bytes > stream->shown) {
        fwrite(said->text + stream->shown, 1, (size_t)(bytes - stream->shown), stdout);
        stream->shown = bytes;
    }
    fflush(stdout);
    stream->is_cut = mpo_stop_signal() != 0;
    return !stream->is_cut;
}
