/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts of a llama policy: messages -> text by the chat template -> tokens.
 *
 * Template text is parsed for special tokens, user text (system, messages, prefill) is not:
 * a prompt that holds "<|im_end|>" must not end its own turn. libllama parses a whole text
 * or none of it, and tokenising the pieces apart would lose the merges across their
 * borders. So:
 *
 *   1. In user text, every special token's text is *hidden*: its first byte is written as
 *      three bytes that no UTF-8 text contains (0xFF, then two halves).
 *   2. The template is rendered around the hidden texts and the prefill is appended. What
 *      looks like a special token now is one of the template's.
 *   3. When nothing was hidden, which is nearly always, the whole text is tokenised at
 * once. Otherwise it is cut at the template's special tokens, exactly where libllama would
 * cut it, and the plain text in between is shown again and tokenised without specials.
 *
 * The beginning-of-sequence token is added once, if the vocabulary asks for it and the
 * template has not written it.
 */
#include "llama_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define PLACE          "{prompt}"
#define MESSAGES_MAX   (MPO_PROMPTS_MESSAGE_COUNT_MAX + 1) /* the policy's system text */
#define HIDDEN_MARK    '\xff'
#define HIDDEN_BYTES   3
#define TEMPLATE_COUNT 256 /* names that libllama knows, at most */

/* A growing text, NUL-terminated once something was appended. */
struct text {
    char *bytes;
    size_t length;
    size_t capacity;
};

/* What is needed while a prompt is made. */
struct maker {
    const struct mpo_llama_model *model;
    const struct mpo_policy_spec *spec;
    const char *chat_template; /* NULL for none */
    bool hidden;               /* something was hidden in this prompt */
    struct text contents;      /* of its messages, one after the other */
    struct text request;
    struct text rendered;
    struct text plain;
    const char *role[MESSAGES_MAX];
    size_t content[MESSAGES_MAX]; /* offsets into contents */
    size_t message_count;
    struct mpo_policy_tokens *out;
};

/* ---- text ---- */

static enum mpo_status reserve(struct text *text, size_t bytes)
{
    return mpo_memory_grow((void **)&text->bytes, &text->capacity, bytes, 1,
                           "text of a prompt");
}

static enum mpo_status append(struct text *text, const char *bytes, size_t count)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(reserve(text, text->length + count + 1));
    memcpy(text->bytes + text->length, bytes, count);
    text->length += count;
    text->bytes[text->length] = '\0';
cleanup:
    return status;
}

/* ---- special tokens ---- */

static int longest_first(const void *a, const void *b)
{
    const struct mpo_llama_special *x = a;
    const struct mpo_llama_special *y = b;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

enum mpo_status mpo_llama_specials_list(const struct mpo_llama_model *model,
                                        struct mpo_llama_specials *out)
{
    enum mpo_status status = MPO_OK;
    const uint32_t parsed = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
    size_t capacity = 0;
    for (int32_t id = 0; id < model->size; id++) {
        uint32_t attribute = (uint32_t)llama_vocab_get_attr(model->vocab, id);
        const char *text = llama_vocab_get_text(model->vocab, id);
        if ((attribute & parsed) == 0 || text[0] == '\0')
            continue;
        MPO_TRY(mpo_memory_grow((void **)&out->special, &capacity, out->count + 1,
                                sizeof *out->special, "special tokens"));
        out->special[out->count++] =
            (struct mpo_llama_special){text, strlen(text), id, attribute};
        out->begins[(unsigned char)text[0]] = true;
    }
    if (out->count > 0)
        qsort(out->special, out->count, sizeof *out->special, longest_first);
cleanup:
    return status;
}

/* The special token whose text begins here, or NULL. */
static const struct mpo_llama_special *special_at(const struct maker *maker,
                                                  const char *text, size_t length)
{
    const struct mpo_llama_specials *specials = &maker->model->specials;
    if (length == 0 || !specials->begins[(unsigned char)text[0]])
        return NULL;
    for (size_t i = 0; i < specials->count; i++) {
        const struct mpo_llama_special *special = &specials->special[i];
        if (special->length <= length && memcmp(special->text, text, special->length) == 0)
            return special;
    }
    return NULL;
}

/* ---- hiding ---- */

/* Append user text with its special tokens hidden. */
static enum mpo_status append_user_text(struct maker *maker, struct text *to,
                                        const char *text)
{
    enum mpo_status status = MPO_OK;
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (special_at(maker, text + i, length - i) == NULL) {
            MPO_TRY(append(to, text + i, 1));
            continue;
        }
        unsigned char byte = (unsigned char)text[i];
        char hidden[HIDDEN_BYTES] = {HIDDEN_MARK, (char)(0x80 | (byte >> 4)),
                                     (char)(0x80 | (byte & 15))};
        MPO_TRY(append(to, hidden, HIDDEN_BYTES));
        maker->hidden = true;
    }
cleanup:
    return status;
}

/* The text before hiding, in maker->plain. */
static enum mpo_status show(struct maker *maker, const char *text, size_t length)
{
    enum mpo_status status = MPO_OK;
    maker->plain.length = 0;
    for (size_t i = 0; i < length; i++) {
        char byte = text[i];
        if (byte == HIDDEN_MARK && i + HIDDEN_BYTES <= length) {
            byte = (char)((text[i + 1] & 15) << 4 | (text[i + 2] & 15));
            i += HIDDEN_BYTES - 1;
        }
        MPO_TRY(append(&maker->plain, &byte, 1));
    }
cleanup:
    return status;
}

/* ---- messages ---- */

static enum mpo_status add_message(struct maker *maker, const char *role,
                                   const char *content)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(maker->message_count < MESSAGES_MAX, MPO_ERR_DATA,
              "the prompt has more than %d messages", MPO_PROMPTS_MESSAGE_COUNT_MAX);
    maker->role[maker->message_count] = role;
    maker->content[maker->message_count++] = maker->contents.length;
    MPO_TRY(append_user_text(maker, &maker->contents, content));
    MPO_TRY(append(&maker->contents, "", 1));
cleanup:
    return status;
}

/* The policy's request with the message in each {prompt}. */
static enum mpo_status fill_request(struct maker *maker, const char *message)
{
    enum mpo_status status = MPO_OK;
    const char *rest = maker->spec->request;
    maker->request.length = 0;
    for (const char *place = NULL; (place = strstr(rest, PLACE)) != NULL;) {
        MPO_TRY(append(&maker->request, rest, (size_t)(place - rest)));
        MPO_TRY(append(&maker->request, message, strlen(message)));
        rest = place + strlen(PLACE);
    }
    MPO_TRY(append(&maker->request, rest, strlen(rest)));
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

static enum mpo_status add_messages(struct maker *maker, const struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policy_spec *spec = maker->spec;
    int32_t last_user = last_user_message(prompt);
    MPO_CHECK(last_user >= 0 || spec->request[0] == '\0', MPO_ERR_DATA,
              "the prompt has no user message for the request of policy '%s'", spec->name);
    if (spec->system[0] != '\0')
        MPO_TRY(add_message(maker, "system", spec->system));
    for (int32_t i = 0; i < prompt->message_count; i++) {
        const struct mpo_message *message = &prompt->messages[i];
        bool system = strcmp(message->role, "system") == 0;
        MPO_CHECK(
            !system || spec->system[0] == '\0', MPO_ERR_DATA,
            "the prompt has a system message, and so has policy '%s'; remove one of them",
            spec->name);
        const char *content = message->content;
        if (i == last_user && spec->request[0] != '\0') {
            MPO_TRY(fill_request(maker, content));
            content = maker->request.bytes;
        }
        MPO_TRY(add_message(maker, message->role, content));
    }
cleanup:
    return status;
}

/* ---- rendering ---- */

static enum mpo_status render_raw(struct maker *maker)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < maker->message_count; i++) {
        const char *content = maker->contents.bytes + maker->content[i];
        if (i > 0)
            MPO_TRY(append(&maker->rendered, "\n", 1));
        MPO_TRY(append(&maker->rendered, content, strlen(content)));
    }
cleanup:
    return status;
}

static enum mpo_status render_template(struct maker *maker)
{
    enum mpo_status status = MPO_OK;
    struct llama_chat_message chat[MESSAGES_MAX];
    for (size_t i = 0; i < maker->message_count; i++)
        chat[i] = (struct llama_chat_message){maker->role[i],
                                              maker->contents.bytes + maker->content[i]};
    int32_t needed = 0;
    MPO_TRY(reserve(&maker->rendered, 2 * maker->contents.length + 256));
    for (int attempt = 0; attempt < 2; attempt++) {
        MPO_CHECK(maker->rendered.capacity < INT32_MAX, MPO_ERR_DATA,
                  "the prompt is longer than 2 GB");
        needed = llama_chat_apply_template(maker->chat_template, chat, maker->message_count,
                                           true, maker->rendered.bytes,
                                           (int32_t)maker->rendered.capacity);
        MPO_CHECK(needed >= 0, MPO_ERR_CONFIG,
                  "policy '%s': libllama cannot apply the chat template to the prompt; set "
                  "template: raw, or a template by name",
                  maker->spec->name);
        if ((size_t)needed < maker->rendered.capacity)
            break;
        MPO_TRY(reserve(&maker->rendered, (size_t)needed + 1));
    }
    maker->rendered.length = (size_t)needed;
cleanup:
    return status;
}

static enum mpo_status render(struct maker *maker, const struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(add_messages(maker, prompt));
    MPO_TRY(maker->chat_template == NULL ? render_raw(maker) : render_template(maker));
    MPO_TRY(append_user_text(maker, &maker->rendered, prompt->prefill));
cleanup:
    return status;
}

/* ---- tokens ---- */

static enum mpo_status append_token(struct maker *maker, int32_t id)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_policy_tokens_reserve(maker->out, 1));
    maker->out->token[maker->out->count++] = id;
cleanup:
    return status;
}

static enum mpo_status tokenise(struct maker *maker, const struct text *text, bool special)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_tokens *out = maker->out;
    size_t room = text->length + 8;
    if (text->length == 0)
        return MPO_OK;
    MPO_CHECK(room < INT32_MAX / 2, MPO_ERR_DATA, "the prompt is longer than 1 GB");
    for (int attempt = 0; attempt < 2; attempt++) {
        MPO_TRY(mpo_policy_tokens_reserve(out, room));
        int32_t count =
            llama_tokenize(maker->model->vocab, text->bytes, (int32_t)text->length,
                           out->token + out->count, (int32_t)room, false, special);
        if (count >= 0) {
            out->count += count;
            return MPO_OK;
        }
        room = count == INT32_MIN ? 0 : (size_t)-count;
    }
    MPO_FAIL(MPO_ERR_INTERNAL, "the prompt could not be tokenised for policy '%s'",
             maker->spec->name);
cleanup:
    return status;
}

/* Plain text between two special tokens, either NULL at an end of the text. Some special
 * tokens take the white space beside them. */
static enum mpo_status tokenise_between(struct maker *maker, const char *text,
                                        size_t length,
                                        const struct mpo_llama_special *before,
                                        const struct mpo_llama_special *after)
{
    enum mpo_status status = MPO_OK;
    if (before != NULL && (before->attribute & LLAMA_TOKEN_ATTR_RSTRIP) != 0)
        for (; length > 0 && isspace((unsigned char)*text); text++)
            length--;
    if (after != NULL && (after->attribute & LLAMA_TOKEN_ATTR_LSTRIP) != 0)
        while (length > 0 && isspace((unsigned char)text[length - 1]))
            length--;
    MPO_TRY(show(maker, text, length));
    MPO_TRY(tokenise(maker, &maker->plain, false));
cleanup:
    return status;
}

static enum mpo_status tokenise_cut(struct maker *maker)
{
    enum mpo_status status = MPO_OK;
    const char *text = maker->rendered.bytes;
    size_t length = maker->rendered.length;
    const struct mpo_llama_special *before = NULL;
    size_t start = 0;
    for (size_t i = 0; i < length;) {
        const struct mpo_llama_special *special = special_at(maker, text + i, length - i);
        if (special == NULL) {
            i++;
            continue;
        }
        MPO_TRY(tokenise_between(maker, text + start, i - start, before, special));
        MPO_TRY(append_token(maker, special->id));
        i += special->length;
        start = i;
        before = special;
    }
    MPO_TRY(tokenise_between(maker, text + start, length - start, before, NULL));
cleanup:
    return status;
}

/* The tokens of maker->rendered. */
static enum mpo_status tokenise_rendered(struct maker *maker)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_tokens *out = maker->out;
    int32_t bos = llama_vocab_bos(maker->model->vocab);
    int32_t begin = llama_vocab_get_add_bos(maker->model->vocab) && bos >= 0;
    if (begin > 0)
        MPO_TRY(append_token(maker, bos));
    MPO_TRY(maker->hidden ? tokenise_cut(maker) : tokenise(maker, &maker->rendered, true));
    if (begin > 0 && out->count > 1 && out->token[1] == bos) {
        memmove(out->token, out->token + 1, (size_t)(out->count - 1) * sizeof *out->token);
        out->count--;
    }
    MPO_CHECK(out->count > 0, MPO_ERR_DATA,
              "the prompt has no token for policy '%s'; expected some text",
              maker->spec->name);
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
    struct maker maker = {.model = policy->model,
                          .spec = &policy->spec,
                          .chat_template = policy->chat_template,
                          .out = out};
    MPO_TRY(check_bytes(policy, prompt));
    MPO_TRY(render(&maker, prompt));
    MPO_TRY(tokenise_rendered(&maker));
cleanup:
    free(maker.contents.bytes);
    free(maker.request.bytes);
    free(maker.rendered.bytes);
    free(maker.plain.bytes);
    return status;
}

/* ---- choice of the template ---- */

/* libllama also guesses a template from any text that resembles one, so a name is first
 * looked up in its list. */
static bool known_template(const char *name)
{
    const char *names[TEMPLATE_COUNT] = {NULL};
    int32_t count = llama_chat_builtin_templates(names, TEMPLATE_COUNT);
    for (int32_t i = 0; i < count && i < TEMPLATE_COUNT; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

enum mpo_status mpo_llama_template_choose(const struct mpo_llama_model *model,
                                          const struct mpo_policy_spec *spec,
                                          const char **template_out)
{
    enum mpo_status status = MPO_OK;
    const struct llama_chat_message trial = {"user", "x"};
    const char *wanted = spec->chat_template;
    *template_out = NULL;
    MPO_CHECK(spec->request[0] == '\0' || strstr(spec->request, PLACE) != NULL,
              MPO_ERR_CONFIG,
              "policy '%s': its request has no " PLACE " for the message: '%.200s'",
              spec->name, spec->request);
    if (strcmp(wanted, "raw") == 0)
        return MPO_OK;
    if (strcmp(wanted, "auto") != 0) {
        MPO_CHECK(known_template(wanted), MPO_ERR_CONFIG,
                  "policy '%s': libllama does not know the chat template '%s'; it knows "
                  "chatml, llama3, gemma, mistral-v7 and others; template: raw uses none",
                  spec->name, wanted);
        *template_out = wanted;
        return MPO_OK;
    }
    *template_out = llama_model_chat_template(model->handle, NULL);
    MPO_CHECK(*template_out != NULL, MPO_ERR_CONFIG,
              "policy '%s': %s has no chat template; set template: raw for none, or a name "
              "such as chatml",
              spec->name, spec->model);
    MPO_CHECK(llama_chat_apply_template(*template_out, &trial, 1, true, NULL, 0) >= 0,
              MPO_ERR_CONFIG,
              "policy '%s': libllama does not know the chat template of %s; set template: "
              "raw for none, or a name such as chatml",
              spec->name, spec->model);
cleanup:
    return status;
}
