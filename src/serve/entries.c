/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens of an answer: their names, their text, and where in the text they are.
 *
 * The text of a choice is settled character by character (mpo_decode_text_certain), and a
 * byte that is no UTF-8 becomes three when it is. The borders between tokens are noted in
 * bytes when a token comes, and walked past the same characters when those are settled: a
 * token that begins inside a character has that character's offset.
 */
#include "answer_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "mpo/texts.h"

/* What a client can read that takes no infinities. */
#define LOG_LEAST (-9999.0)

#define REPLACEMENT       "\xef\xbf\xbd"
#define REPLACEMENT_BYTES 3

/* Bytes of text that are not settled: of a character that has begun, and of one token. */
#define UNSETTLED_BYTES (ANSWER_PIECE_BYTES + 4)

/* ---- tokens ---- */

static bool is_utf8(const char *bytes, int32_t count)
{
    for (int32_t at = 0; at < count;) {
        utf8proc_int32_t codepoint = 0;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)bytes + at, count - at, &codepoint);
        if (length <= 0)
            return false;
        at += (int32_t)length;
    }
    return true;
}

/* As OpenAI writes it: `bytes:` and \x of what is no ASCII; of a backslash too, so that no
 * two tokens have one name. */
static void name_bytes(const char *bytes, int32_t count, struct answer_token *out)
{
    static const char digits[] = "0123456789abcdef";
    char *to = out->name;
    memcpy(to, "bytes:", 6);
    to += 6;
    for (int32_t i = 0; i < count; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte < 0x80 && byte != '\\') {
            *to++ = (char)byte;
            continue;
        }
        *to++ = '\\';
        *to++ = 'x';
        *to++ = digits[byte >> 4];
        *to++ = digits[byte & 15];
    }
    out->name_bytes = (int32_t)(to - out->name);
}

static void name_token(const char *bytes, int32_t count, struct answer_token *out)
{
    if (!is_utf8(bytes, count)) {
        name_bytes(bytes, count, out);
        return;
    }
    memcpy(out->name, bytes, (size_t)count);
    out->name_bytes = count;
}

/* The text of a special token, by which a person knows it. */
static void name_special(const struct mpo_policies *policies, int32_t token,
                         struct answer_token *out)
{
    char text[ANSWER_PIECE_BYTES] = "";
    int32_t count = mpo_policies_show(policies, token, text, sizeof text);
    name_token(text, count > 0 ? count : 0, out);
}

void answer_token_make(const struct mpo_answer *answer, int32_t token, bool first,
                       struct answer_token *out)
{
    const struct mpo_policies *policies = answer->catalog->policies;
    int32_t count = mpo_policies_piece(policies, token, first, out->text, sizeof out->text);
    out->token = token;
    out->first = first;
    out->text_bytes = count > 0 ? count : 0;
    if (out->text_bytes > 0)
        name_token(out->text, out->text_bytes, out);
    else
        name_special(policies, token, out);
}

/* ---- figures ---- */

json_t *answer_log(double log_probability)
{
    if (!(log_probability < INFINITY))
        return json_null();
    return json_real(log_probability < LOG_LEAST ? LOG_LEAST : log_probability);
}

void answer_put_log(struct mpo_serve_buffer *out, double log_probability)
{
    mpo_serve_buffer_json(out, answer_log(log_probability));
}

int32_t answer_top_count(const struct mpo_answer *answer,
                         const struct mpo_serve_event *event)
{
    int32_t wanted = answer->request->top_logprobs;
    int32_t count = 0;
    while (count < event->top_count && count < wanted && event->top_token[count] >= 0)
        count++;
    return count;
}

void answer_put_scores(const struct mpo_answer *answer, const struct mpo_serve_event *event,
                       struct mpo_serve_buffer *out)
{
    mpo_serve_buffer_put(out, "{\"policy\":{");
    for (int32_t h = 0; h < answer->catalog->policy_count; h++) {
        const char *name = mpo_serve_hosted_name(answer->catalog, h);
        mpo_serve_buffer_put(out, h > 0 ? "," : "");
        mpo_serve_buffer_string(out, name, strlen(name));
        mpo_serve_buffer_put(out, ":");
        answer_put_log(out, event->log_policy[h]);
    }
    mpo_serve_buffer_put(out, "},\"log_z\":");
    mpo_serve_buffer_number(out, event->log_z);
    mpo_serve_buffer_put(out, "}");
}

void answer_put_column(const struct answer_parts *parts, enum answer_column column,
                       struct mpo_serve_buffer *out)
{
    bool is_first = true;
    mpo_serve_buffer_put(out, "[");
    for (int32_t i = 0; i < 2; i++) {
        const struct answer_entries *part = parts->part[i];
        if (part == NULL || part->released[column] == 0)
            continue;
        mpo_serve_buffer_add(out, part->column[column].bytes + is_first,
                             part->released[column] - is_first);
        is_first = false;
    }
    mpo_serve_buffer_put(out, "]");
}

/* ---- entries ---- */

void answer_entries_close(struct answer_entries *entries)
{
    for (int32_t i = 0; i < ANSWER_COLUMN_COUNT; i++)
        mpo_serve_buffer_close(&entries->column[i]);
    free(entries->pending);
    *entries = (struct answer_entries){0};
}

bool answer_entries_are_lost(const struct answer_entries *entries)
{
    bool is_lost = entries->is_lost;
    for (int32_t i = 0; i < ANSWER_COLUMN_COUNT; i++)
        is_lost = is_lost || entries->column[i].is_lost;
    return is_lost;
}

void answer_entries_push(struct answer_entries *entries, struct answer_border border)
{
    if (mpo_memory_grow((void **)&entries->pending, &entries->pending_capacity,
                        entries->pending_count + 1, sizeof *entries->pending,
                        "an answer") != MPO_OK) {
        entries->is_lost = true;
        return;
    }
    struct answer_pending *entry = &entries->pending[entries->pending_count++];
    entry->border = border;
    for (int32_t i = 0; i < ANSWER_COLUMN_COUNT; i++)
        entry->column_end[i] = entries->column[i].count;
}

void answer_entries_release(struct answer_entries *entries, size_t certain, int64_t before,
                            int64_t characters)
{
    struct mpo_serve_buffer *offsets = &entries->column[ANSWER_OFFSETS];
    size_t count = 0;
    for (; count < entries->pending_count; count++) {
        const struct answer_pending *entry = &entries->pending[count];
        if (!entry->border.is_settled || entry->border.end > certain)
            break;
        int64_t offset = entries->border.characters;
        offset = before + (offset < characters ? offset : characters);
        mpo_serve_buffer_print(offsets, ",%lld", (long long)offset);
        for (int32_t i = 0; i < ANSWER_OFFSETS; i++)
            entries->released[i] = entry->column_end[i];
        entries->border = entry->border;
    }
    entries->released[ANSWER_OFFSETS] = offsets->count;
    entries->pending_count -= count;
    if (count > 0 && entries->pending_count > 0)
        memmove(entries->pending, entries->pending + count,
                entries->pending_count * sizeof *entries->pending);
}

void answer_entries_drop(struct answer_entries *entries)
{
    for (int32_t i = 0; i < ANSWER_COLUMN_COUNT; i++) {
        for (size_t j = 0; j < entries->pending_count; j++)
            entries->pending[j].column_end[i] -=
                i != ANSWER_OFFSETS ? entries->released[i] : 0;
        mpo_serve_buffer_drop(&entries->column[i], entries->released[i]);
        entries->released[i] = 0;
    }
}

/* ---- a prompt's ---- */

/* Step over the bytes of a token that are in the text: as they are, or as U+FFFD. What the
 * text lacks, such as a space that a tokenizer puts first, is passed over. */
static void walk_piece(struct answer_prompt *prompt, const char *bytes, int32_t count)
{
    const char *text = prompt->given->text;
    for (int32_t i = 0; i < count; i++) {
        const char *here = text + prompt->cursor;
        size_t step = 0;
        if (*here != '\0' && *here == bytes[i])
            step = 1;
        else if ((bytes[i] & 0x80) != 0 && strncmp(here, REPLACEMENT, 3) == 0)
            step = REPLACEMENT_BYTES;
        prompt->cursor += step;
        /* a character is counted when the next one begins */
        if (step > 0 && (text[prompt->cursor] & 0xC0) != 0x80)
            prompt->characters++;
    }
}

/* Where a prompt's token ends in its text. That of a special token is there or is not: a
 * client may have written it, but not the beginning of a sequence. */
static void walk_prompt(struct answer_prompt *prompt, const struct answer_token *made)
{
    const char *here = prompt->given->text + prompt->cursor;
    if (made->text_bytes > 0)
        walk_piece(prompt, made->text, made->text_bytes);
    else if (strncmp(here, made->name, (size_t)made->name_bytes) == 0)
        walk_piece(prompt, made->name, made->name_bytes);
}

void answer_prompt_add(const struct mpo_answer *answer, struct answer_prompt *prompt,
                       int32_t token, const struct mpo_serve_event *event)
{
    struct answer_entries *entries = &prompt->entries;
    struct answer_token made;
    answer_token_make(answer, token, prompt->cursor == 0, &made);
    answer->form->add_entry(answer, entries, &made, event);
    walk_prompt(prompt, &made);
    prompt->token_count++;
    answer_entries_push(entries, (struct answer_border){.is_settled = true,
                                                        .characters = prompt->characters,
                                                        .end = prompt->cursor});
    answer_entries_release(entries, prompt->cursor, 0, prompt->characters);
}

/* ---- a choice's ---- */

/* Bytes of text that are not settled, before they are. */
struct unsettled {
    char bytes[UNSETTLED_BYTES];
    size_t count;
    size_t first; /* where they are in the text */
};

/* Settle the borders in what has just been settled, `consumed` bytes of it. */
static void finish_borders(struct answer_choice *choice, const struct unsettled *raw,
                           size_t consumed)
{
    struct answer_entries *entries = &choice->entries;
    size_t at = 0;
    size_t end = raw->first;
    size_t next = 0;
    while (next < entries->pending_count && entries->pending[next].border.is_settled)
        next++;
    for (;;) {
        for (; next < entries->pending_count; next++) {
            struct answer_border *border = &entries->pending[next].border;
            size_t place = border->at - raw->first;
            place = place < raw->count ? place : raw->count; /* a stop text cut it */
            if (place > at)
                break;
            border->is_settled = true;
            border->characters = choice->characters - (place < at);
            border->end = end;
        }
        if (at >= consumed)
            break;
        utf8proc_int32_t codepoint = 0;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)raw->bytes + at,
                             (utf8proc_ssize_t)(consumed - at), &codepoint);
        at += length > 0 ? (size_t)length : 1;
        end += length > 0 ? (size_t)length : REPLACEMENT_BYTES;
        choice->characters++;
    }
    for (; next < entries->pending_count; next++)
        entries->pending[next].border.at += end - raw->first - consumed;
}

/* Settle what is certain of a choice's text, all of it where it is complete. */
static enum mpo_status finish_text(struct answer_choice *choice, bool is_complete)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode_text *text = &choice->text;
    struct unsettled raw = {.first = text->settled, .count = text->count - text->settled};
    MPO_CHECK(raw.count <= sizeof raw.bytes, MPO_ERR_INTERNAL,
              "%zu bytes of text that are not settled", raw.count);
    if (raw.count > 0)
        memcpy(raw.bytes, text->bytes + raw.first, raw.count);
    if (is_complete)
        MPO_TRY(mpo_decode_text_finish(text));
    MPO_TRY(mpo_decode_text_certain(text, &choice->certain));
    if (is_complete)
        choice->certain = text->count;
    finish_borders(choice, &raw, raw.count - (text->count - text->settled));
cleanup:
    return status;
}

/* A stop text can begin in what was settled long ago. */
static void count_characters(struct answer_choice *choice)
{
    choice->characters = 0;
    for (size_t i = 0; i < choice->text.settled; i++)
        choice->characters += (choice->text.bytes[i] & 0xC0) != 0x80;
}

static bool wants_sums(const struct mpo_serve_request *request)
{
    return request->policy_scores || request->best_of > 1;
}

enum mpo_status answer_choice_add(const struct mpo_answer *answer,
                                  struct answer_choice *choice,
                                  const struct mpo_serve_event *event)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode_text *text = &choice->text;
    if (answer->request->logprobs) {
        struct answer_token made;
        answer_token_make(answer, event->token, !text->has_tokens, &made);
        answer->form->add_entry(answer, &choice->entries, &made, event);
        answer_entries_push(
            &choice->entries,
            (struct answer_border){.at = text->count + (size_t)made.text_bytes});
    }
    MPO_TRY(mpo_decode_text_add(text, event->token));
    if (text->is_stopped)
        count_characters(choice);
    MPO_TRY(finish_text(choice, false));
    choice->log_q += event->log_q;
    choice->log_z += event->log_z;
    for (int32_t h = 0; wants_sums(answer->request) && h < answer->catalog->policy_count;
         h++)
        choice->log_policy[h] += event->log_policy[h];
    choice->last_token = event->token;
    choice->token_count++;
cleanup:
    return status;
}

enum mpo_status answer_choice_finish(struct answer_choice *choice)
{
    return finish_text(choice, true);
}
