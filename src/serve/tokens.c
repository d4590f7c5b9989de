/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to tokens and back, and the endpoints that clients' tokenizers ask: lm-evaluation-
 * harness finds the end of text by GET /tokenizer_info and its token by POST /tokenize.
 *
 * A tokeniser must not be given what takes it minutes: a text of more bytes than the longest
 * tokens of a whole context is refused unread, and so is a run without white space where the
 * vocabulary merges letters within one (src/policy/llama/model.c says why).
 */
#include "tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "request_impl.h"

#define PIECE_BYTES 512 /* of one token's text */

/* ---- text to tokens ---- */

/* Bytes of the longest run without white space. */
static size_t longest_word(const char *text, size_t bytes)
{
    size_t longest = 0;
    size_t word = 0;
    for (size_t i = 0; i < bytes; i++) {
        word = strchr(" \t\r\n", text[i]) != NULL ? 0 : word + 1;
        longest = word > longest ? word : longest;
    }
    return longest;
}

static bool check_bytes(const struct mpo_serve_catalog *catalog,
                        const struct mpo_serve_text *text,
                        const struct mpo_policies_texts *rules,
                        struct mpo_serve_refusal *refusal)
{
    size_t least = text->bytes / rules->piece_bytes;
    size_t word = rules->word_bytes_max > 0 ? longest_word(text->text, text->bytes) : 0;
    if (least > (size_t)catalog->context_tokens)
        mpo_serve_refuse(refusal, 400, "context_length_exceeded", text->param,
                         "%s: expected at most %d tokens, found a text of %zu bytes, at "
                         "least %zu tokens; shorten it",
                         text->param, catalog->context_tokens, text->bytes, least);
    else if (word > rules->word_bytes_max)
        mpo_serve_refuse(refusal, 400, "invalid_value", text->param,
                         "%s: expected white space every %zu bytes, found %zu without any",
                         text->param, rules->word_bytes_max, word);
    return refusal->http_status == 0;
}

/* Put the beginning of sequence before tokens that do not begin with it. */
static bool put_begin(int32_t begin, int32_t **token, int32_t *count)
{
    if (*count > 0 && (*token)[0] == begin)
        return true;
    int32_t *longer = malloc(((size_t)*count + 1) * sizeof *longer);
    if (longer == NULL)
        return false;
    longer[0] = begin;
    if (*count > 0)
        memcpy(longer + 1, *token, (size_t)*count * sizeof *longer);
    free(*token);
    *token = longer;
    (*count)++;
    return true;
}

/* Some policy's tokens beyond those that all have. */
static bool check_vocabulary(const struct mpo_serve_catalog *catalog,
                             const struct mpo_serve_text *text, const int32_t *token,
                             int32_t count, struct mpo_serve_refusal *refusal)
{
    for (int32_t i = 0; i < count; i++)
        if (token[i] >= catalog->vocab_size && token[i] != mpo_serve_begin_token(catalog)) {
            mpo_serve_refuse(refusal, 400, "invalid_value", text->param,
                             "%s: expected tokens that all policies have, found %d of %d",
                             text->param, token[i], catalog->vocab_size);
            return false;
        }
    return true;
}

bool mpo_serve_tokenise(const struct mpo_serve_catalog *catalog,
                        const struct mpo_serve_text *text, int32_t **token, int32_t *count,
                        struct mpo_serve_refusal *refusal)
{
    struct mpo_policies_texts rules = {0};
    *token = NULL;
    *count = 0;
    mpo_policies_describe_texts(catalog->policies, &rules);
    if (!check_bytes(catalog, text, &rules, refusal))
        return false;
    enum mpo_status status =
        mpo_policies_tokenise(catalog->policies, text->text, true, token, count);
    bool is_made = status == MPO_OK ||
                   mpo_serve_refuse_status(refusal, status, "invalid_value", text->param);
    if (is_made && text->begins && rules.wants_begin)
        is_made =
            put_begin(rules.begin_token, token, count) || mpo_serve_lacks_memory(refusal);
    if (is_made)
        is_made = check_vocabulary(catalog, text, *token, *count, refusal);
    if (!is_made) {
        free(*token);
        *token = NULL;
        *count = 0;
    }
    return is_made;
}

bool mpo_serve_check_text(const struct mpo_serve_catalog *catalog,
                          const struct mpo_serve_text *text, int32_t *count,
                          struct mpo_serve_refusal *refusal)
{
    struct mpo_policies_texts rules = {0};
    int32_t *token = NULL;
    mpo_policies_describe_texts(catalog->policies, &rules);
    if (!check_bytes(catalog, text, &rules, refusal))
        return false;
    if (count == NULL)
        return true;
    enum mpo_status status =
        mpo_policies_tokenise(catalog->policies, text->text, false, &token, count);
    free(token);
    return status == MPO_OK ||
           mpo_serve_refuse_status(refusal, status, "invalid_value", text->param);
}

int32_t mpo_serve_begin_token(const struct mpo_serve_catalog *catalog)
{
    struct mpo_policies_texts rules = {0};
    mpo_policies_describe_texts(catalog->policies, &rules);
    return rules.begin_token;
}

bool mpo_serve_is_token(const struct mpo_serve_catalog *catalog, int64_t id, int32_t index)
{
    if (id >= 0 && id < catalog->vocab_size)
        return true;
    return id >= 0 && index == 0 && id == mpo_serve_begin_token(catalog);
}

/* ---- the endpoints ---- */

/* Printed and given away; noted when there was no memory for it. */
static char *print_json(json_t *object, struct mpo_serve_refusal *refusal)
{
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (text == NULL)
        mpo_serve_lacks_memory(refusal);
    return text;
}

/* A text as JSON; NULL without memory. */
static json_t *text_of(const struct mpo_serve_catalog *catalog, const int32_t *token,
                       int32_t count)
{
    char *text = NULL;
    json_t *string = NULL;
    if (mpo_policies_detokenise(catalog->policies, token, count, &text) == MPO_OK)
        string = json_string(text);
    free(text);
    return string;
}

/* One token's text, a space before it included; NULL without memory. */
static json_t *piece_of(const struct mpo_serve_catalog *catalog, int32_t token)
{
    char text[PIECE_BYTES * MPO_UTF8_REPAIR_FACTOR + 1];
    int32_t bytes = mpo_policies_show(catalog->policies, token, text, PIECE_BYTES);
    mpo_utf8_repair(text, bytes > 0 ? bytes : 0);
    return json_string(bytes > 0 ? text : "");
}

/* A member that is a flag, if it is there. */
static bool read_flag(const json_t *root, const char *name, bool *flag,
                      struct mpo_serve_refusal *refusal)
{
    const json_t *value = json_object_get(root, name);
    char found[MPO_SERVE_FOUND_BYTES];
    if (value == NULL || json_is_null(value))
        return true;
    *flag = json_is_true(value);
    if (!json_is_boolean(value))
        mpo_serve_refuse(refusal, 400, "invalid_value", name,
                         "%s: expected true or false, found %s", name,
                         mpo_serve_json_found(value, found));
    return json_is_boolean(value);
}

/* A question to /tokenize, and its tokens. */
struct question {
    const struct mpo_serve_catalog *catalog;
    struct mpo_serve_refusal *refusal;
    bool begins;
    bool wants_texts;
    int32_t *token; /* [count] */
    int32_t count;
};

static bool tokenise_text(struct question *question, const char *name, const json_t *value)
{
    char found[MPO_SERVE_FOUND_BYTES];
    if (!json_is_string(value)) {
        mpo_serve_refuse(question->refusal, 400, "invalid_value", name,
                         "%s: expected a text, found %s", name,
                         mpo_serve_json_found(value, found));
        return false;
    }
    const struct mpo_serve_text text = {json_string_value(value), json_string_length(value),
                                        question->begins, name};
    return mpo_serve_tokenise(question->catalog, &text, &question->token, &question->count,
                              question->refusal);
}

/* The chat as the first policy gets it. */
static bool tokenise_chat(struct question *question, const json_t *root)
{
    struct mpo_serve_request request = {.kind = MPO_SERVE_CHAT, .ignored = NULL};
    char ignored[2048] = "";
    struct mpo_serve_reading reading = {
        .catalog = question->catalog, .request = &request, .refusal = question->refusal};
    const json_t *list = json_object_get(root, "messages");
    const json_t *goes_on = json_object_get(root, "continue_final_message");
    request.ignored = ignored;
    reading.value[MPO_SERVE_FIELD_messages] = list;
    reading.value[MPO_SERVE_FIELD_continue_final_message] = goes_on;
    bool is_made = mpo_serve_field_check(&mpo_serve_fields[MPO_SERVE_FIELD_messages], list,
                                         question->catalog, question->refusal) &&
                   mpo_serve_read_messages(&reading);
    if (is_made) {
        enum mpo_status status = mpo_policies_tokenise_prompt(
            question->catalog->policies, &request.chat, &question->token, &question->count);
        is_made = status == MPO_OK || mpo_serve_refuse_status(question->refusal, status,
                                                              "template_error", "messages");
    }
    for (int32_t i = 0; request.message != NULL && request.message[i].content != NULL; i++)
        free((char *)request.message[i].content);
    free(request.message);
    return is_made;
}

static bool has_member(const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);
    return value != NULL && !json_is_null(value);
}

static bool read_question(struct question *question, const json_t *root)
{
    bool goes_on = false;
    if (!read_flag(root, "add_special_tokens", &question->begins, question->refusal) ||
        !read_flag(root, "return_token_strs", &question->wants_texts, question->refusal) ||
        !read_flag(root, "continue_final_message", &goes_on, question->refusal))
        return false;
    if (has_member(root, "prompt"))
        return tokenise_text(question, "prompt", json_object_get(root, "prompt"));
    if (has_member(root, "content"))
        return tokenise_text(question, "content", json_object_get(root, "content"));
    if (has_member(root, "messages"))
        return tokenise_chat(question, root);
    mpo_serve_refuse(question->refusal, 400, "missing_field", "prompt",
                     "expected prompt, content or messages, found none of them");
    return false;
}

static json_t *answer_tokens(const struct question *question)
{
    json_t *tokens = json_array();
    json_t *texts = question->wants_texts ? json_array() : json_null();
    bool is_whole = true;
    for (int32_t i = 0; i < question->count; i++) {
        is_whole = json_array_append_new(tokens, json_integer(question->token[i])) == 0 &&
                   is_whole;
        if (question->wants_texts)
            is_whole = json_array_append_new(
                           texts, piece_of(question->catalog, question->token[i])) == 0 &&
                       is_whole;
    }
    json_t *answer = json_pack("{s:o, s:i, s:i, s:o}", "tokens", tokens, "count",
                               (int)question->count, "max_model_len",
                               (int)question->catalog->context_tokens, "token_strs", texts);
    if (is_whole)
        return answer;
    json_decref(answer);
    return NULL;
}

char *mpo_serve_tokenize_json(const struct mpo_serve_catalog *catalog, const char *body,
                              size_t body_bytes, struct mpo_serve_refusal *refusal)
{
    struct question question = {.catalog = catalog, .refusal = refusal, .begins = true};
    char *text = NULL;
    *refusal = (struct mpo_serve_refusal){0};
    json_t *root = mpo_serve_json_read(body, body_bytes, refusal);
    if (root != NULL && read_question(&question, root))
        text = print_json(answer_tokens(&question), refusal);
    free(question.token);
    json_decref(root);
    return text;
}

/* The ids of a list; owned by the caller, NULL: refused. */
static int32_t *read_ids(const struct mpo_serve_catalog *catalog, const json_t *list,
                         struct mpo_serve_refusal *refusal)
{
    char found[MPO_SERVE_FOUND_BYTES];
    size_t count = json_array_size(list);
    if (!json_is_array(list)) {
        mpo_serve_refuse(refusal, 400, list == NULL ? "missing_field" : "invalid_value",
                         "tokens", "tokens: expected a list of token ids, found %s",
                         list != NULL ? mpo_serve_json_found(list, found) : "none");
        return NULL;
    }
    int32_t *token = calloc(count + 1, sizeof *token);
    if (token == NULL)
        mpo_serve_lacks_memory(refusal);
    for (size_t i = 0; i < count && token != NULL; i++) {
        const json_t *value = json_array_get(list, i);
        int64_t id = -1;
        if (mpo_serve_json_integer(value, &id) &&
            mpo_serve_is_token(catalog, id, i > 0 ? 1 : 0)) {
            token[i] = (int32_t)id;
            continue;
        }
        mpo_serve_refuse(refusal, 400, "invalid_value", "tokens",
                         "tokens: expected ids from 0 to %d, found %s as number %zu",
                         catalog->vocab_size - 1, mpo_serve_json_found(value, found),
                         i + 1);
        free(token);
        token = NULL;
    }
    return token;
}

char *mpo_serve_detokenize_json(const struct mpo_serve_catalog *catalog, const char *body,
                                size_t body_bytes, struct mpo_serve_refusal *refusal)
{
    char *text = NULL;
    *refusal = (struct mpo_serve_refusal){0};
    json_t *root = mpo_serve_json_read(body, body_bytes, refusal);
    const json_t *list = json_object_get(root, "tokens");
    int32_t *token = root != NULL ? read_ids(catalog, list, refusal) : NULL;
    if (token != NULL) {
        json_t *string = text_of(catalog, token, (int32_t)json_array_size(list));
        text = print_json(json_pack("{s:O, s:o}", "prompt", string, "content", string),
                          refusal);
    }
    free(token);
    json_decref(root);
    return text;
}

/* The text of a token as a string, or null. */
static json_t *special_text(const struct mpo_serve_catalog *catalog, int32_t token)
{
    return token >= 0 ? text_of(catalog, &token, 1) : json_null();
}

char *mpo_serve_tokenizer_info_json(const struct mpo_serve_catalog *catalog,
                                    struct mpo_serve_refusal *refusal)
{
    struct mpo_policies_texts rules = {0};
    *refusal = (struct mpo_serve_refusal){0};
    mpo_policies_describe_texts(catalog->policies, &rules);
    return print_json(json_pack("{s:s, s:o, s:o, s:s?, s:i, s:i}", "tokenizer_class", "mpo",
                                "eos_token", special_text(catalog, rules.end_token),
                                "bos_token", special_text(catalog, rules.begin_token),
                                "chat_template", rules.chat_template, "vocab_size",
                                (int)catalog->vocab_size, "max_model_len",
                                (int)catalog->context_tokens),
                      refusal);
}
