/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSONL format: {"prompt": "..."} with an optional "prefill", or {"messages": [...]},
 * and beside either the responses that are to be scored, when there are any: their texts,
 * or the token ids they were drawn as, or both.
 *
 * Data sets have members of their own (ids, tags, reference answers), so unknown members
 * are ignored. Ambiguity is refused: a repeated key, and a prompt or prefill beside messages
 * that say something else (there the last assistant message is the prefill).
 */
#include "prompts_impl.h"

#include <math.h>
#include <string.h>

#include <jansson.h>

#include "check.h"

/* Raise with the file and the line. */
#define REFUSE(line, format, ...)                                                          \
    MPO_FAIL(MPO_ERR_DATA, "%s:%lld: " format, (line)->path,                               \
             (long long)(line)->line_number, __VA_ARGS__)

static const char *kind_of(const json_t *value)
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return value != NULL ? kinds[json_typeof(value)] : "nothing";
}

/* A copy of a string member. jansson gives UTF-8 and refuses NUL. */
static enum mpo_status keep_string(struct mpo_prompts *prompts,
                                   const struct mpo_prompts_line *line, const char *name,
                                   const json_t *value, const char **out)
{
    enum mpo_status status = MPO_OK;
    if (!json_is_string(value))
        REFUSE(line, "expected \"%s\" to be a string, found %s", name, kind_of(value));
    MPO_TRY(mpo_prompts_keep(prompts, json_string_value(value), json_string_length(value),
                             out));
cleanup:
    return status;
}

static enum mpo_status read_message(struct mpo_prompts *prompts,
                                    const struct mpo_prompts_line *line,
                                    const json_t *value, size_t index,
                                    struct mpo_message *message)
{
    enum mpo_status status = MPO_OK;
    const json_t *role = json_object_get(value, "role");
    if (!json_is_object(value))
        REFUSE(line, "expected messages[%zu] to be an object, found %s", index,
               kind_of(value));
    if (!json_is_string(role))
        REFUSE(line, "expected a \"role\" that is a string in messages[%zu], found %s",
               index, kind_of(role));
    message->role = mpo_prompt_role(json_string_value(role));
    if (message->role == NULL)
        REFUSE(line,
               "expected role system, user or assistant in messages[%zu], found '%.40s'",
               index, json_string_value(role));
    if (strcmp(message->role, MPO_PROMPT_ROLE_SYSTEM) == 0 && index > 0)
        REFUSE(line, "expected the system message first, found it as messages[%zu]", index);
    MPO_TRY(keep_string(prompts, line, "content", json_object_get(value, "content"),
                        &message->content));
cleanup:
    return status;
}

static bool is_role(const struct mpo_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

/* The last assistant message begins the response;
 * the last user message is what is shown. */
static enum mpo_status arrange_messages(struct mpo_prompt *prompt,
                                        const struct mpo_prompts_line *line)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_message *messages = prompt->messages;
    if (is_role(&messages[prompt->message_count - 1], MPO_PROMPT_ROLE_ASSISTANT))
        prompt->prefill = messages[--prompt->message_count].content;
    for (int32_t i = 0; i < prompt->message_count; i++)
        if (is_role(&messages[i], MPO_PROMPT_ROLE_USER))
            prompt->text = messages[i].content;
    if (prompt->text == NULL)
        REFUSE(line, "expected at least one user message in \"%s\", found none",
               "messages");
    if (!is_role(&messages[prompt->message_count - 1], MPO_PROMPT_ROLE_USER))
        REFUSE(line, "expected a user message before the last assistant message, found %s",
               messages[prompt->message_count - 1].role);
cleanup:
    return status;
}

static enum mpo_status read_messages(struct mpo_prompts *prompts,
                                     const struct mpo_prompts_line *line,
                                     const json_t *array, struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    size_t count = json_array_size(array);
    void *memory = NULL;
    if (!json_is_array(array))
        REFUSE(line, "expected \"messages\" to be an array, found %s", kind_of(array));
    if (count < 1 || count > MPO_PROMPTS_MESSAGE_COUNT_MAX)
        REFUSE(line, "expected 1 to %d messages, found %zu", MPO_PROMPTS_MESSAGE_COUNT_MAX,
               count);
    MPO_TRY(mpo_prompts_take(prompts, count * sizeof *prompt->messages, &memory));
    struct mpo_message *messages = memory;
    for (size_t i = 0; i < count; i++)
        MPO_TRY(read_message(prompts, line, json_array_get(array, i), i, &messages[i]));
    prompt->messages = messages;
    prompt->message_count = (int32_t)count;
    MPO_TRY(arrange_messages(prompt, line));
cleanup:
    return status;
}

static enum mpo_status read_prompt(struct mpo_prompts *prompts,
                                   const struct mpo_prompts_line *line,
                                   const json_t *object, struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    const json_t *prefill = json_object_get(object, "prefill");
    void *memory = NULL;
    MPO_TRY(keep_string(prompts, line, "prompt", json_object_get(object, "prompt"),
                        &prompt->text));
    if (prefill != NULL)
        MPO_TRY(keep_string(prompts, line, "prefill", prefill, &prompt->prefill));
    MPO_TRY(mpo_prompts_take(prompts, sizeof *prompt->messages, &memory));
    struct mpo_message *message = memory;
    *message = (struct mpo_message){MPO_PROMPT_ROLE_USER, prompt->text};
    prompt->messages = message;
    prompt->message_count = 1;
cleanup:
    return status;
}

/* Lines of generate repeat what the messages say, for people. */
static enum mpo_status check_repeated(const struct mpo_prompts_line *line,
                                      const json_t *object, const struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    const json_t *text = json_object_get(object, "prompt");
    const json_t *prefill = json_object_get(object, "prefill");
    const char *of_text = json_string_value(text);
    const char *of_prefill = json_string_value(prefill);
    if (text != NULL && (of_text == NULL || strcmp(of_text, prompt->text) != 0))
        REFUSE(line, "expected either \"prompt\" or \"messages\", found %s",
               "both, and they differ");
    if (prefill != NULL && (of_prefill == NULL || strcmp(of_prefill, prompt->prefill) != 0))
        REFUSE(line,
               "expected no \"prefill\" with \"%s\"; make it the last "
               "assistant message",
               "messages");
cleanup:
    return status;
}

/* Ids of no vocabulary in particular: those that have one compare them with it. */
static enum mpo_status read_token_ids(struct mpo_prompts *prompts,
                                      const struct mpo_prompts_line *line, const char *name,
                                      const json_t *array,
                                      struct mpo_given_response *response)
{
    enum mpo_status status = MPO_OK;
    const size_t count = json_array_size(array);
    void *memory = NULL;
    if (!json_is_array(array) || count == 0)
        REFUSE(line, "expected \"%s\" to be an array of token ids, found %s", name,
               json_is_array(array) ? "an empty one" : kind_of(array));
    MPO_TRY(mpo_prompts_take(prompts, count * sizeof *response->token, &memory));
    int32_t *token = memory;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, i);
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value))
            REFUSE(line, "expected %s[%zu] to be a token id, found %s", name, i,
                   json_is_real(value) ? "a fraction" : kind_of(value));
        if (id < 0 || id > INT32_MAX)
            REFUSE(line, "expected %s[%zu] to be a token id, found %lld", name, i,
                   (long long)id);
        token[i] = (int32_t)id;
    }
    response->token = token;
    response->token_count = (int32_t)count;
cleanup:
    return status;
}

static enum mpo_status read_response(struct mpo_prompts *prompts,
                                     const struct mpo_prompts_line *line,
                                     const json_t *object, int32_t index,
                                     struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    struct mpo_given_response *response = &prompt->response[index];
    const char *name = line->spec->response_name[index];
    const char *token_name = line->spec->token_name[index];
    const json_t *text = json_object_get(object, name);
    const json_t *ids = token_name != NULL ? json_object_get(object, token_name) : NULL;
    if (ids != NULL)
        MPO_TRY(read_token_ids(prompts, line, token_name, ids, response));
    if (ids == NULL || text != NULL)
        MPO_TRY(keep_string(prompts, line, name, text, &response->text));
    if (ids == NULL && *response->text == '\0' && !prompt->ended)
        REFUSE(line, "expected some text in \"%s\" of a cut response, found none", name);
cleanup:
    return status;
}

/* Beyond it e^b leaves the range in which probabilities of ends are told apart. */
#define END_BIAS_MAX 100.0

/* How its ends were tilted when it was drawn, as generate says. */
static enum mpo_status read_end_bias(const struct mpo_prompts_line *line,
                                     const json_t *object, struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    const json_t *value = json_object_get(object, "end_bias");
    if (value == NULL)
        return MPO_OK;
    if (!json_is_number(value))
        REFUSE(line, "expected \"end_bias\" to be a number, found %s", kind_of(value));
    prompt->end_bias = json_number_value(value);
    prompt->says_end_bias = true;
    if (!(fabs(prompt->end_bias) <= END_BIAS_MAX))
        REFUSE(line, "expected \"end_bias\" to be from %g to %g, found %g", -END_BIAS_MAX,
               END_BIAS_MAX, prompt->end_bias);
cleanup:
    return status;
}

/* What is to be scored, and whether it is whole. */
static enum mpo_status read_responses(struct mpo_prompts *prompts,
                                      const struct mpo_prompts_line *line,
                                      const json_t *object, struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_prompts_spec *spec = line->spec;
    const json_t *ended = json_object_get(object, "ended");
    const char *finish = json_string_value(json_object_get(object, "finish"));
    if (spec == NULL || spec->response_count == 0)
        return MPO_OK;
    if (ended != NULL && !json_is_boolean(ended))
        REFUSE(line, "expected \"ended\" to be true or false, found %s", kind_of(ended));
    prompt->ended = ended != NULL ? json_is_true(ended) : spec->ended;
    prompt->says_ended = ended != NULL;
    MPO_TRY(read_end_bias(line, object, prompt));
    prompt->stopped = finish != NULL && strcmp(finish, "stop") == 0;
    for (int32_t i = 0; i < spec->response_count; i++)
        MPO_TRY(read_response(prompts, line, object, i, prompt));
    prompt->response_count = spec->response_count;
cleanup:
    return status;
}

static enum mpo_status add_line(struct mpo_prompts *prompts,
                                const struct mpo_prompts_line *line)
{
    enum mpo_status status = MPO_OK;
    struct mpo_prompt prompt = {.prefill = "", .line_number = line->line_number};
    json_error_t error;
    json_t *object = json_loadb(line->text, line->bytes,
                                JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (object == NULL)
        REFUSE(line, "expected a JSON object, found: %s (column %d)", error.text,
               error.column);
    if (!json_is_object(object))
        REFUSE(line, "expected a JSON object, found %s", kind_of(object));
    const json_t *messages = json_object_get(object, "messages");
    if (messages == NULL && json_object_get(object, "prompt") == NULL)
        REFUSE(line, "expected either \"prompt\" or \"messages\", found %s", "neither");
    if (messages == NULL)
        MPO_TRY(read_prompt(prompts, line, object, &prompt));
    else
        MPO_TRY(read_messages(prompts, line, messages, &prompt));
    if (messages != NULL)
        MPO_TRY(check_repeated(line, object, &prompt));
    if (*prompt.text == '\0')
        REFUSE(line, "expected a prompt, found an empty %s", "text");
    MPO_TRY(read_responses(prompts, line, object, &prompt));
    MPO_TRY(mpo_prompts_add(prompts, &prompt));
cleanup:
    json_decref(object);
    return status;
}

const struct mpo_prompts_format mpo_prompts_jsonl_format = {
    .name = "jsonl",
    .suffix = ".jsonl",
    .takes_a_prefill = false,
    .add = add_line,
};
