/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The incremental detokeniser. A token may end inside a character or inside what may become
 * a stop text, so the text so far has an end that is not certain yet; what was certain once
 * is never taken back, because text only grows.
 *
 * A stop text can end in any byte of the newest token and begin as many bytes before as it
 * is long: only those are searched.
 */
#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "base/utf8.h"

/* Bytes of a token's text at most. */
#define PIECE_BYTES 512

static size_t longest_stop(const struct mpo_decode_stops *stops)
{
    size_t longest = 0;
    for (int32_t i = 0; i < stops->count; i++)
        if (strlen(stops->text[i]) > longest)
            longest = strlen(stops->text[i]);
    return longest;
}

enum mpo_status mpo_decode_stops_check(const struct mpo_decode_stops *stops)
{
    enum mpo_status status = MPO_OK;
    size_t longest = longest_stop(stops);
    MPO_CHECK(longest <= MPO_DECODE_STOP_BYTES_MAX, MPO_ERR_USAGE,
              "a text to stop at has %zu bytes, expected at most %d", longest,
              MPO_DECODE_STOP_BYTES_MAX);
cleanup:
    return status;
}

void mpo_decode_text_open(struct mpo_decode_text *text, const struct mpo_policies *policies,
                          const struct mpo_decode_stops *stops)
{
    *text = (struct mpo_decode_text){.policies = policies, .stops = *stops};
}

enum mpo_status mpo_decode_text_open_tail(struct mpo_decode_text *text,
                                          const struct mpo_policies *policies,
                                          const struct mpo_decode_stops *stops)
{
    enum mpo_status status = MPO_OK;
    mpo_decode_text_open(text, policies, stops);
    text->keeps_tail = true;
    MPO_TRY(mpo_decode_stops_check(stops));
    text->capacity = longest_stop(stops) + PIECE_BYTES;
    MPO_NEW(text->capacity, &text->bytes);
cleanup:
    return status;
}

void mpo_decode_text_close(struct mpo_decode_text *text)
{
    free(text->bytes);
    *text = (struct mpo_decode_text){0};
}

void mpo_decode_text_begin(struct mpo_decode_text *text)
{
    text->count = 0;
    text->settled = 0;
    text->has_tokens = false;
    text->is_stopped = false;
    if (text->bytes != NULL)
        text->bytes[0] = '\0';
}

enum mpo_status mpo_decode_text_begin_with(struct mpo_decode_text *text,
                                           const struct mpo_decode_stops *stops)
{
    enum mpo_status status = MPO_OK;
    size_t longest = longest_stop(stops);
    MPO_TRY(mpo_decode_stops_check(stops));
    MPO_CHECK(!text->keeps_tail || longest + PIECE_BYTES <= text->capacity, MPO_ERR_USAGE,
              "a text to stop at has %zu bytes, expected at most %zu", longest,
              text->capacity - PIECE_BYTES);
    text->stops = *stops;
    mpo_decode_text_begin(text);
cleanup:
    return status;
}

/* Room for one more token, of all the text or after its end. */
static enum mpo_status make_piece_room(struct mpo_decode_text *text)
{
    enum mpo_status status = MPO_OK;
    size_t kept = longest_stop(&text->stops);
    if (!text->keeps_tail)
        return mpo_memory_grow((void **)&text->bytes, &text->capacity,
                               text->count + PIECE_BYTES, 1, "the text of a response");
    if (text->count > kept) {
        memmove(text->bytes, text->bytes + text->count - kept, kept + 1);
        text->count = kept;
    }
    return status;
}

/* End the text before the first stop text in it that ends after byte `before`. */
static void look_for_stops(struct mpo_decode_text *text, size_t before)
{
    char *first = NULL;
    for (int32_t i = 0; i < text->stops.count; i++) {
        size_t length = strlen(text->stops.text[i]);
        size_t from = before >= length ? before - length + 1 : 0;
        char *at = length > 0 ? strstr(text->bytes + from, text->stops.text[i]) : NULL;
        if (at != NULL && (first == NULL || at < first)) {
            first = at;
            text->stop = i;
        }
    }
    if (first == NULL)
        return;
    *first = '\0';
    text->count = (size_t)(first - text->bytes);
    if (text->settled > text->count)
        text->settled = text->count;
    text->is_stopped = true;
}

enum mpo_status mpo_decode_text_add(struct mpo_decode_text *text, int32_t token)
{
    enum mpo_status status = MPO_OK;
    if (text->is_stopped)
        return MPO_OK;
    MPO_TRY(make_piece_room(text));
    size_t before = text->count;
    int32_t bytes =
        mpo_policies_piece(text->policies, token, !text->has_tokens, text->bytes + before,
                           (int32_t)(text->capacity - before));
    MPO_CHECK(bytes >= 0, MPO_ERR_INTERNAL, "token %d has a text of over %d bytes", token,
              PIECE_BYTES - 1);
    text->has_tokens = text->has_tokens || bytes > 0;
    text->count += (size_t)bytes;
    text->bytes[text->count] = '\0';
    look_for_stops(text, before);
cleanup:
    return status;
}

/* Bytes without an incomplete character at the end. */
static size_t whole_characters(const struct mpo_decode_text *text)
{
    size_t most = text->count - text->settled;
    for (size_t back = 1; back <= 3 && back <= most; back++) {
        unsigned char lead = (unsigned char)text->bytes[text->count - back];
        if ((lead & 0xC0) == 0x80)
            continue; /* inside a character */
        return utf8proc_utf8class[lead] > (utf8proc_int8_t)back ? text->count - back
                                                                : text->count;
    }
    return text->count;
}

/* Characters up to a byte where one ends stay as they are, or become U+FFFD. */
static enum mpo_status finish_characters(struct mpo_decode_text *text, size_t end)
{
    enum mpo_status status = MPO_OK;
    char begun[4] = ""; /* of the character after them */
    size_t kept = text->count - end;
    size_t room = text->settled + MPO_UTF8_REPAIR_FACTOR * (end - text->settled) + kept + 1;
    MPO_TRY(mpo_memory_grow((void **)&text->bytes, &text->capacity, room, 1,
                            "the text of a response"));
    memcpy(begun, text->bytes + end, kept);
    int32_t bytes =
        mpo_utf8_repair(text->bytes + text->settled, (int32_t)(end - text->settled));
    text->settled += (size_t)bytes;
    text->count = text->settled + kept;
    memcpy(text->bytes + text->settled, begun, kept);
    text->bytes[text->count] = '\0';
cleanup:
    return status;
}

/* Of a beginning of `stop` with `matched` bytes, extended by a byte: how much of `stop` its end
 * is. border[i]: the longest beginning of `stop` that ends its first i + 1 bytes, and is less. */
static size_t extend_match(const char *stop, const uint16_t *border, size_t matched,
                           char byte)
{
    while (matched > 0 && stop[matched] != byte)
        matched = border[matched - 1];
    return matched + (stop[matched] == byte);
}

/* The longest beginning of a stop text, not all of it, in which the text ends. Linear in the
 * stop text's length: Knuth, Morris & Pratt, SIAM J. Comput. 6 (1977) 323-350. */
static size_t stop_begun(const struct mpo_decode_text *text, const char *stop)
{
    uint16_t border[MPO_DECODE_STOP_BYTES_MAX] = {0};
    size_t length = strlen(stop);
    size_t most = length > text->count ? text->count : length > 0 ? length - 1 : 0;
    size_t begun = 0;
    for (size_t i = 1; i < most; i++)
        border[i] = (uint16_t)extend_match(stop, border, border[i - 1], stop[i]);
    for (size_t at = text->count - most; at < text->count; at++)
        begun = extend_match(stop, border, begun, text->bytes[at]);
    return begun;
}

enum mpo_status mpo_decode_text_certain(struct mpo_decode_text *text, size_t *bytes)
{
    enum mpo_status status = MPO_OK;
    size_t begun = 0;
    if (text->is_stopped)
        MPO_TRY(finish_characters(text, text->count));
    else
        MPO_TRY(finish_characters(text, whole_characters(text)));
    for (int32_t i = 0; !text->is_stopped && i < text->stops.count; i++) {
        size_t back = stop_begun(text, text->stops.text[i]);
        begun = back > begun ? back : begun;
    }
    *bytes = text->count - begun < text->settled ? text->count - begun : text->settled;
cleanup:
    return status;
}

enum mpo_status mpo_decode_text_finish(struct mpo_decode_text *text)
{
    return finish_characters(text, text->count);
}

enum mpo_status mpo_decode_text_set(struct mpo_decode_text *text, const int32_t *tokens,
                                    int32_t token_count)
{
    enum mpo_status status = MPO_OK;
    mpo_decode_text_begin(text);
    for (int32_t i = 0; i < token_count; i++)
        MPO_TRY(mpo_decode_text_add(text, tokens[i]));
    MPO_TRY(mpo_decode_text_finish(text));
cleanup:
    return status;
}
