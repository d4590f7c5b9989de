/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts of completions: text or token ids, one or several, as the tokens that all policies
 * get.
 */
#include "request_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokens.h"

#define PROMPT "prompt"

static bool refuse_length(const struct mpo_serve_reading *reading, size_t count)
{
    mpo_serve_refuse(reading->refusal, 400, "context_length_exceeded", PROMPT,
                     PROMPT ": expected at most %d tokens, found %zu; shorten it",
                     reading->catalog->context_tokens, count);
    return false;
}

/* The next prompt of the request; an empty one becomes the beginning of sequence. */
static bool add_prompt(const struct mpo_serve_reading *reading, int32_t *token,
                       int32_t count, char *text)
{
    struct mpo_serve_request *request = reading->request;
    struct mpo_serve_prompt *prompt = &request->prompt[request->prompt_count++];
    *prompt = (struct mpo_serve_prompt){text, token, count};
    if (count > reading->catalog->context_tokens)
        return refuse_length(reading, (size_t)count);
    if (count > 0)
        return true;
    int32_t begin = mpo_serve_begin_token(reading->catalog);
    if (begin < 0)
        return mpo_serve_refuse_value(reading, PROMPT,
                                      "expected at least one token, found none, and the "
                                      "vocabulary has no beginning of sequence");
    free(prompt->token);
    prompt->token = malloc(sizeof *prompt->token);
    if (prompt->token == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    prompt->token[0] = begin;
    prompt->token_count = 1;
    return true;
}

static bool read_text(const struct mpo_serve_reading *reading, const json_t *value)
{
    const struct mpo_serve_text text = {
        .text = json_string_value(value),
        .bytes = json_string_length(value),
        .begins = mpo_serve_flag(reading, MPO_SERVE_FIELD_add_special_tokens),
        .param = PROMPT,
    };
    int32_t *token = NULL;
    int32_t count = 0;
    char *copy = strdup(text.text);
    if (copy == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    if (!mpo_serve_tokenise(reading->catalog, &text, &token, &count, reading->refusal)) {
        free(copy);
        return false;
    }
    return add_prompt(reading, token, count, copy);
}

static bool read_id(const struct mpo_serve_reading *reading, const json_t *value,
                    int32_t index, int32_t *token)
{
    char found[MPO_SERVE_FOUND_BYTES];
    int64_t id = -1;
    if (!mpo_serve_json_integer(value, &id) ||
        !mpo_serve_is_token(reading->catalog, id, index))
        return mpo_serve_refuse_value(
            reading, PROMPT, "expected token ids from 0 to %d, found %s as number %d",
            reading->catalog->vocab_size - 1, mpo_serve_json_found(value, found),
            index + 1);
    *token = (int32_t)id;
    return true;
}

static bool read_ids(const struct mpo_serve_reading *reading, const json_t *list)
{
    char found[MPO_SERVE_FOUND_BYTES];
    char *text = NULL;
    size_t count = json_array_size(list);
    if (!json_is_array(list))
        return mpo_serve_refuse_value(reading, PROMPT,
                                      "expected lists of token ids, found %s",
                                      mpo_serve_json_found(list, found));
    if (count > (size_t)reading->catalog->context_tokens)
        return refuse_length(reading, count);
    int32_t *token = calloc(count + 1, sizeof *token);
    if (token == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    bool is_read = true;
    for (size_t i = 0; i < count && is_read; i++)
        is_read = read_id(reading, json_array_get(list, i), (int32_t)i, &token[i]);
    if (is_read) {
        enum mpo_status status = mpo_policies_detokenise(reading->catalog->policies, token,
                                                         (int32_t)count, &text);
        is_read = status == MPO_OK || mpo_serve_refuse_status(reading->refusal, status,
                                                              "invalid_value", PROMPT);
    }
    if (is_read)
        return add_prompt(reading, token, (int32_t)count, text);
    free(token);
    return false;
}

/* One of a list of prompts, of the type of the first one. */
static bool read_item(const struct mpo_serve_reading *reading, const json_t *value,
                      bool is_text)
{
    char found[MPO_SERVE_FOUND_BYTES];
    if (!is_text)
        return read_ids(reading, value);
    if (!json_is_string(value))
        return mpo_serve_refuse_value(reading, PROMPT, "expected texts, found %s",
                                      mpo_serve_json_found(value, found));
    return read_text(reading, value);
}

static bool read_list(const struct mpo_serve_reading *reading, const json_t *list)
{
    const json_t *first = json_array_get(list, 0);
    size_t count = json_array_size(list);
    for (size_t i = 0; i < count; i++)
        if (!read_item(reading, json_array_get(list, i), json_is_string(first)))
            return false;
    return true;
}

bool mpo_serve_read_prompts(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    const json_t *value = reading->value[MPO_SERVE_FIELD_prompt];
    bool is_one = json_is_string(value) || json_is_number(json_array_get(value, 0));
    size_t count = is_one ? 1 : json_array_size(value);
    if (count < 1 || count > MPO_SERVE_PROMPT_COUNT_MAX)
        return mpo_serve_refuse_value(reading, PROMPT,
                                      "expected 1 to %d prompts, found %zu",
                                      MPO_SERVE_PROMPT_COUNT_MAX, count);
    request->prompt = calloc(count, sizeof *request->prompt);
    if (request->prompt == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    if (json_is_string(value))
        return read_text(reading, value);
    return is_one ? read_ids(reading, value) : read_list(reading, value);
}
