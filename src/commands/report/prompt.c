/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt made readable again. The brackets tell a special token from the same text in a
 * message, which stays text.
 */
#include "commands/report/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "commands/report/output.h"

#define PIECE_BYTES 1024
#define GAP_BYTES   48 /* of what stands for a middle */
#define INDENT      "    "

enum mpo_status prompt_view_make(const struct mpo_policy *policy, int32_t slot,
                                 struct prompt_view *out)
{
    enum mpo_status status = MPO_OK;
    const int32_t *token = NULL;
    char piece[PIECE_BYTES];
    size_t capacity = 0;
    size_t length = 0;
    *out = (struct prompt_view){0};
    int32_t count = mpo_policy_prompt(policy, slot, &token);
    for (int32_t i = 0; i < count; i++) {
        bool special = false;
        if (mpo_policy_show(policy, token[i], &special, piece, PIECE_BYTES) < 0)
            snprintf(piece, sizeof piece, "(token %d)", token[i]);
        MPO_TRY(mpo_memory_grow((void **)&out->text, &capacity, length + PIECE_BYTES + 3, 1,
                                "text of a prompt"));
        length += (size_t)snprintf(out->text + length, capacity - length, "%s%s%s",
                                   special ? "[" : "", piece, special ? "]" : "");
        out->special_count += special;
        out->token_count++;
    }
cleanup:
    return status;
}

void prompt_view_free(struct prompt_view *view)
{
    free(view->text);
    *view = (struct prompt_view){0};
}

/* Continuation bytes of UTF-8 are 10xxxxxx. */
static bool splits_character(const char *text, size_t place)
{
    return ((unsigned char)text[place] & 0xC0) == 0x80;
}

void prompt_view_shorten(const char *text, size_t capacity, char *out)
{
    size_t length = strlen(text);
    size_t half = (capacity - GAP_BYTES) / 2;
    if (length < capacity) {
        memcpy(out, text, length + 1);
        return;
    }
    size_t first = half;
    size_t last = length - half;
    while (first > 0 && splits_character(text, first))
        first--;
    while (last < length && splits_character(text, last))
        last++;
    snprintf(out, capacity, "%.*s ... (%zu bytes) ... %s", (int)first, text, last - first,
             text + last);
}

void prompt_view_print(const char *text)
{
    fputs(INDENT, stdout);
    for (size_t i = 0; text[i] != '\0'; i++) {
        putchar(text[i]);
        if (text[i] == '\n')
            fputs(INDENT, stdout);
    }
    putchar('\n');
}

json_t *prompt_view_tokens(const struct mpo_policy *policy, int32_t slot)
{
    const int32_t *token = NULL;
    char piece[PIECE_BYTES];
    json_t *list = json_array();
    int32_t count = mpo_policy_prompt(policy, slot, &token);
    for (int32_t i = 0; i < count; i++) {
        bool special = false;
        bool known = mpo_policy_show(policy, token[i], &special, piece, PIECE_BYTES) >= 0;
        json_t *object = json_object();
        json_object_set_new(object, "id", json_integer(token[i]));
        json_object_set_new(object, "text", output_text(known ? piece : NULL));
        json_object_set_new(object, "special", json_boolean(special));
        json_array_append_new(list, object);
    }
    return list;
}
