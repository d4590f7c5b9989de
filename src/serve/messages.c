/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chat of a request: roles, contents and their order.
 *
 * What a template cannot be given is refused here, before any policy sees it: other roles,
 * contents that are no text, tools, a system message that is not the first, or one where a
 * policy has a system text of its own, which it would contradict.
 */
#include "request_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokens.h"

/* Bytes of messages that take a tokeniser milliseconds. */
#define LONG_CHAT ((size_t)16 << 10)

/* A message that is being read. */
struct place {
    const struct mpo_serve_reading *reading;
    size_t index;
    char param[48]; /* "messages[3]" */
};

static bool refuse_member(const struct place *place, const char *expected,
                          const json_t *found)
{
    char text[MPO_SERVE_FOUND_BYTES];
    return mpo_serve_refuse_value(
        place->reading, place->param, "expected %s, found %s", expected,
        found != NULL ? mpo_serve_json_found(found, text) : "none");
}

/* ---- content ---- */

/* The text of a part, borrowed; NULL: refused. */
static const json_t *read_part(const struct place *place, const json_t *part)
{
    const json_t *type = json_object_get(part, "type");
    const json_t *text = json_object_get(part, "text");
    if (json_is_string(type) && strcmp(json_string_value(type), "text") == 0 &&
        json_is_string(text))
        return text;
    refuse_member(
        place, "parts of the form {\"type\": \"text\", \"text\": TEXT}",
        json_is_string(type) && strcmp(json_string_value(type), "text") != 0 ? type : part);
    return NULL;
}

/* Parts, one after the other; owned by the caller, NULL: refused. */
static char *join_parts(const struct place *place, const json_t *parts)
{
    size_t bytes = 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *text = read_part(place, json_array_get(parts, i));
        if (text == NULL)
            return NULL;
        bytes += json_string_length(text);
    }
    char *joined = malloc(bytes + 1);
    if (joined == NULL) {
        mpo_serve_lacks_memory(place->reading->refusal);
        return NULL;
    }
    char *end = joined;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");
        memcpy(end, json_string_value(text), json_string_length(text));
        end += json_string_length(text);
    }
    *end = '\0';
    return joined;
}

static char *read_content(const struct place *place, const json_t *content)
{
    if (json_is_array(content) && json_array_size(content) > 0)
        return join_parts(place, content);
    if (!json_is_string(content)) {
        refuse_member(place, "a content that is a text, or a list of text parts", content);
        return NULL;
    }
    char *text = strdup(json_string_value(content));
    if (text == NULL)
        mpo_serve_lacks_memory(place->reading->refusal);
    return text;
}

/* ---- roles ---- */

/* A literal; NULL: refused. */
static const char *read_role(const struct place *place, const json_t *role)
{
    static const char *const known[][2] = {{"user", "user"},
                                           {"assistant", "assistant"},
                                           {"system", "system"},
                                           {"developer", "system"}};
    for (size_t i = 0; i < sizeof known / sizeof *known && json_is_string(role); i++)
        if (strcmp(json_string_value(role), known[i][0]) == 0)
            return known[i][1];
    refuse_member(place, "the role system, developer, user or assistant", role);
    return NULL;
}

static bool check_system(const struct place *place)
{
    const struct mpo_serve_catalog *catalog = place->reading->catalog;
    if (place->index > 0)
        return mpo_serve_refuse_value(
            place->reading, place->param,
            "expected a system or developer message as the first one only, found one as "
            "number %zu",
            place->index + 1);
    for (int32_t h = 0; h < mpo_serve_named_count(catalog); h++)
        if (catalog->has_system[h])
            return mpo_serve_refuse_value(
                place->reading, place->param,
                "expected no system message, because policy %.63s has a system text of its "
                "own; put the text into the user's message",
                catalog->policy_name[h]);
    return true;
}

/* Members beside role and content. A call of a tool is content, which would be lost. */
static bool check_members(const struct place *place, const json_t *message)
{
    const char *name = NULL;
    json_t *value = NULL;
    char full[96];
    json_object_foreach((json_t *)message, name, value)
    {
        if (strcmp(name, "role") == 0 || strcmp(name, "content") == 0 ||
            json_is_null(value))
            continue;
        snprintf(full, sizeof full, "messages.%.63s", name);
        if ((strcmp(name, "tool_calls") == 0 && json_array_size(value) > 0) ||
            strcmp(name, "function_call") == 0) {
            mpo_serve_refuse(place->reading->refusal, 400, "unsupported_parameter",
                             place->param, "%s: %s is not supported; leave it out",
                             place->param, name);
            return false;
        }
        mpo_serve_ignore(place->reading, full);
    }
    return true;
}

/* ---- messages ---- */

static bool read_message(const struct place *place, const json_t *value)
{
    struct mpo_serve_request *request = place->reading->request;
    if (!json_is_object(value))
        return refuse_member(place, "an object with role and content", value);
    const char *role = read_role(place, json_object_get(value, "role"));
    if (role == NULL || (strcmp(role, "system") == 0 && !check_system(place)) ||
        !check_members(place, value))
        return false;
    char *content = read_content(place, json_object_get(value, "content"));
    if (content == NULL)
        return false;
    request->message[request->chat.message_count++] = (struct mpo_message){role, content};
    return true;
}

/* The last message of the assistant becomes the beginning of the response. */
static bool continue_last(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    struct mpo_prompt *chat = &request->chat;
    const struct mpo_message *last = &request->message[chat->message_count - 1];
    if (strcmp(last->role, "assistant") != 0 || chat->message_count == 1)
        return mpo_serve_refuse_value(
            reading, "continue_final_message",
            "expected a last message of the assistant, after others, found one of role %s",
            last->role);
    chat->prefill = last->content;
    chat->message_count--;
    return true;
}

/* Other prompts wait for the encoders, which make tokens of a chat for each policy, so what
 * cannot fit is not let in: if it takes milliseconds, it is known before. */
static bool check_lengths(const struct mpo_serve_reading *reading)
{
    const struct mpo_message *message = reading->request->message;
    int32_t context = reading->catalog->context_tokens;
    size_t bytes = 0;
    int64_t tokens = 0;
    for (size_t i = 0; message[i].content != NULL; i++)
        bytes += strlen(message[i].content);
    for (size_t i = 0; message[i].content != NULL && tokens <= context; i++) {
        char param[48];
        int32_t count = 0;
        snprintf(param, sizeof param, "messages[%zu]", i);
        const struct mpo_serve_text text = {.text = message[i].content,
                                            .bytes = strlen(message[i].content),
                                            .param = param};
        if (!mpo_serve_check_text(reading->catalog, &text,
                                  bytes >= LONG_CHAT ? &count : NULL, reading->refusal))
            return false;
        tokens += count;
    }
    if (tokens > context)
        mpo_serve_refuse(reading->refusal, 400, "context_length_exceeded", "messages",
                         "messages: expected at most %d tokens, found at least %lld; "
                         "shorten them",
                         context, (long long)tokens);
    return tokens <= context;
}

bool mpo_serve_read_messages(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    const json_t *list = reading->value[MPO_SERVE_FIELD_messages];
    bool continues = mpo_serve_flag(reading, MPO_SERVE_FIELD_continue_final_message);
    size_t count = json_array_size(list);
    if (count < 1 || count > MPO_SERVE_MESSAGE_COUNT_MAX)
        return mpo_serve_refuse_value(reading, "messages",
                                      "expected 1 to %d messages, found %zu",
                                      MPO_SERVE_MESSAGE_COUNT_MAX, count);
    request->message =
        calloc(count + 1, sizeof *request->message); /* ended by a zero one */
    if (request->message == NULL)
        return mpo_serve_lacks_memory(reading->refusal);
    request->chat = (struct mpo_prompt){
        .text = "", .messages = request->message, .prefill = "", .ended = true};
    request->prompt_count = 1;
    for (size_t i = 0; i < count; i++) {
        struct place place = {reading, i, ""};
        snprintf(place.param, sizeof place.param, "messages[%zu]", i);
        if (!read_message(&place, json_array_get(list, i)))
            return false;
    }
    return (!continues || continue_last(reading)) && check_lengths(reading);
}
