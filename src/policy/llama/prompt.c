/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts of a llama policy: its messages (this file) -> text by its template (template.c)
 * -> tokens (tokens.c).
 *
 * Template text is parsed for special tokens, user text (system, request, messages, prefill)
 * is not. A program in Jinja writes the beginning-of-sequence token itself, or there is none;
 * otherwise it is added once, if the vocabulary requires it and the format has not written
 * it.
 */
#include "llama_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define PLACE "{prompt}"

/* A growing text, NUL-terminated once something was appended. */
struct request {
    char *bytes;
    size_t length;
    size_t capacity;
};

/* ---- messages ---- */

enum mpo_status mpo_llama_chat_add(struct mpo_llama_chat *chat, const char *role,
                                   const char *content)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(chat->message_count < MPO_LLAMA_MESSAGES_MAX, MPO_ERR_DATA,
              "the prompt has more than %d messages", MPO_PROMPTS_MESSAGE_COUNT_MAX);
    chat->message[chat->message_count++] = (struct mpo_message){role, content};
cleanup:
    return status;
}

static enum mpo_status append_bytes(struct request *text, const char *bytes, size_t count)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_memory_grow((void **)&text->bytes, &text->capacity,
                            text->length + count + 1, 1, "text of a prompt"));
    memcpy(text->bytes + text->length, bytes, count);
    text->length += count;
    text->bytes[text->length] = '\0';
cleanup:
    return status;
}

/* The policy's request with the message in each {prompt}. */
static enum mpo_status fill_request(const struct mpo_policy_spec *spec, const char *message,
                                    struct request *out)
{
    enum mpo_status status = MPO_OK;
    const char *rest = spec->request;
    for (const char *place = NULL; (place = strstr(rest, PLACE)) != NULL;) {
        MPO_TRY(append_bytes(out, rest, (size_t)(place - rest)));
        MPO_TRY(append_bytes(out, message, strlen(message)));
        rest = place + strlen(PLACE);
    }
    MPO_TRY(append_bytes(out, rest, strlen(rest)));
cleanup:
    return status;
}

enum mpo_status mpo_llama_request_check(const struct mpo_policy_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(spec->request[0] == '\0' || strstr(spec->request, PLACE) != NULL,
              MPO_ERR_CONFIG,
              "policy '%s': its request has no " PLACE " for the message: '%.200s'",
              spec->name, spec->request);
cleanup:
    return status;
}

static int32_t last_user_message(const struct mpo_prompt *prompt)
{
    int32_t last = prompt->message_count - 1;
    while (last >= 0 && strcmp(prompt->messages[last].role, "user") != 0)
        last--;
    return last;
}

static enum mpo_status add_messages(const struct mpo_policy_spec *spec,
                                    const struct mpo_prompt *prompt,
                                    struct request *request, struct mpo_llama_chat *chat)
{
    enum mpo_status status = MPO_OK;
    int32_t last_user = last_user_message(prompt);
    MPO_CHECK(last_user >= 0 || spec->request[0] == '\0', MPO_ERR_DATA,
              "the prompt has no user message for the request of policy '%s'", spec->name);
    if (spec->system[0] != '\0')
        MPO_TRY(mpo_llama_chat_add(chat, "system", spec->system));
    for (int32_t i = 0; i < prompt->message_count; i++) {
        const struct mpo_message *message = &prompt->messages[i];
        bool system = strcmp(message->role, "system") == 0;
        MPO_CHECK(
            !system || spec->system[0] == '\0', MPO_ERR_DATA,
            "the prompt has a system message, and so has policy '%s'; remove one of them",
            spec->name);
        const char *content = message->content;
        if (i == last_user && spec->request[0] != '\0') {
            MPO_TRY(fill_request(spec, content, request));
            content = request->bytes;
        }
        MPO_TRY(mpo_llama_chat_add(chat, message->role, content));
    }
cleanup:
    return status;
}

/* ---- tokens ---- */

/* The tokens of a rendered prompt. */
static enum mpo_status tokenise_prompt(const struct mpo_llama_policy *policy,
                                       const struct mpo_llama_text *text,
                                       struct mpo_policy_tokens *out)
{
    enum mpo_status status = MPO_OK;
    const struct llama_vocab *vocab = policy->model->vocab;
    int32_t bos = llama_vocab_bos(vocab);
    bool begin = policy->chat.program == NULL && llama_vocab_get_add_bos(vocab) && bos >= 0;
    if (begin)
        MPO_TRY(mpo_llama_append_token(out, bos));
    MPO_TRY(mpo_llama_tokenise(policy->model, text, out));
    if (begin && out->count > 1 && out->token[1] == bos) {
        memmove(out->token, out->token + 1, (size_t)(out->count - 1) * sizeof *out->token);
        out->count--;
    }
    MPO_CHECK(out->count > 0, MPO_ERR_DATA,
              "the prompt has no token for policy '%s'; expected some text",
              policy->spec.name);
cleanup:
    return status;
}

static size_t count_bytes(const struct mpo_prompt *prompt)
{
    size_t bytes = strlen(prompt->prefill);
    for (int32_t i = 0; i < prompt->message_count; i++)
        bytes += strlen(prompt->messages[i].content);
    return bytes;
}

/* What cannot fit is refused before it is tokenised, where that would take long. */
static enum mpo_status check_bytes(const struct mpo_llama_policy *policy,
                                   const struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_llama_model *model = policy->model;
    size_t bytes = count_bytes(prompt);
    if (model->piece_bytes == 0)
        return MPO_OK;
    MPO_CHECK(bytes / model->piece_bytes <= (size_t)model->context_tokens, MPO_ERR_DATA,
              "the prompt has %zu bytes, at least %zu tokens for policy '%s', more than "
              "the model's context of %d; shorten or remove it",
              bytes, bytes / model->piece_bytes, policy->spec.name, model->context_tokens);
cleanup:
    return status;
}

enum mpo_status mpo_llama_encode(const void *self, const struct mpo_prompt *prompt,
                                 struct mpo_policy_tokens *out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_llama_policy *policy = self;
    struct mpo_llama_chat chat = {.prefill = prompt->prefill};
    struct request request = {0};
    struct mpo_llama_text text = {0};
    MPO_TRY(check_bytes(policy, prompt));
    MPO_TRY(add_messages(&policy->spec, prompt, &request, &chat));
    MPO_TRY(mpo_llama_render(policy, &chat, &text));
    MPO_TRY(tokenise_prompt(policy, &text, out));
cleanup:
    free(request.bytes);
    mpo_llama_text_free(&text);
    return status;
}
