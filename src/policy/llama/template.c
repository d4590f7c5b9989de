/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat templates: messages to text, each byte marked when it is a user's.
 *
 *   auto, FILE  a program in Jinja, rendered as transformers does: jinja.h. It is all of the
 *               prompt, a beginning-of-sequence token included.
 *   NAME        one of the formats that libllama has in its own code. libllama knows nothing
 *               of marks, so in user text every special token's text is *hidden* from it: its
 *               first byte is written as three bytes that no UTF-8 text contains (0xFF, then
 *               two halves). What looks like a special token afterwards is the format's.
 *   raw         the texts of the messages, one a line.
 *
 * A prefill is the beginning of the response. With a program it is rendered as a last message
 * of the assistant, and what the template writes after that message's text is cut off
 * (continue_final_message of transformers).
 */
#include "llama_impl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define HIDDEN_MARK    '\xff'
#define HIDDEN_BYTES   3
#define TEMPLATE_COUNT 256 /* names that libllama knows, at most */

/* ---- libllama's list ---- */

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

/* Append user text with its special tokens hidden. */
static enum mpo_status append_hidden(const struct mpo_llama_model *model,
                                     struct mpo_llama_text *to, const char *text)
{
    enum mpo_status status = MPO_OK;
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (mpo_llama_special_at(&model->specials, text + i, length - i) == NULL) {
            MPO_TRY(mpo_llama_text_append(to, text + i, 1, true));
            continue;
        }
        unsigned char byte = (unsigned char)text[i];
        char hidden[HIDDEN_BYTES] = {HIDDEN_MARK, (char)(0x80 | (byte >> 4)),
                                     (char)(0x80 | (byte & 15))};
        MPO_TRY(mpo_llama_text_append(to, hidden, HIDDEN_BYTES, true));
    }
    MPO_TRY(mpo_llama_text_append(to, "", 1, true));
cleanup:
    return status;
}

/* Append what libllama has rendered; only bytes that were hidden are a user's. */
static enum mpo_status append_shown(struct mpo_llama_text *to, const char *text,
                                    size_t length)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < length; i++) {
        char byte = text[i];
        bool hidden = byte == HIDDEN_MARK && i + HIDDEN_BYTES <= length;
        if (hidden) {
            byte = (char)((text[i + 1] & 15) << 4 | (text[i + 2] & 15));
            i += HIDDEN_BYTES - 1;
        }
        MPO_TRY(mpo_llama_text_append(to, &byte, 1, hidden));
    }
cleanup:
    return status;
}

/* Render with libllama into a buffer that grows once.
 * @param bytes  of the messages' texts */
static enum mpo_status apply_named(const struct mpo_llama_policy *policy,
                                   const struct llama_chat_message *chat, size_t count,
                                   size_t bytes, struct mpo_llama_text *out)
{
    enum mpo_status status = MPO_OK;
    char *buffer = NULL;
    size_t capacity = 0;
    size_t wanted = 2 * bytes + 256;
    int32_t needed = 0;
    for (int attempt = 0; attempt < 2; attempt++) {
        MPO_TRY(mpo_memory_grow((void **)&buffer, &capacity, wanted, 1, "a prompt"));
        MPO_CHECK(capacity < INT32_MAX, MPO_ERR_DATA, "the prompt is longer than 2 GB");
        needed = llama_chat_apply_template(policy->chat.name, chat, count, true, buffer,
                                           (int32_t)capacity);
        MPO_CHECK(needed >= 0, MPO_ERR_CONFIG,
                  "policy '%s': libllama cannot apply the chat template '%s' to the "
                  "prompt; set template: auto, raw, or another name",
                  policy->spec.name, policy->chat.name);
        if ((size_t)needed < capacity)
            break;
        wanted = (size_t)needed + 1;
    }
    MPO_TRY(append_shown(out, buffer, (size_t)needed));
cleanup:
    free(buffer);
    return status;
}

static enum mpo_status render_named(const struct mpo_llama_policy *policy,
                                    const struct mpo_llama_chat *chat,
                                    struct mpo_llama_text *out)
{
    enum mpo_status status = MPO_OK;
    struct llama_chat_message messages[MPO_LLAMA_MESSAGES_MAX];
    size_t offset[MPO_LLAMA_MESSAGES_MAX];
    struct mpo_llama_text contents = {0};
    for (int32_t i = 0; i < chat->message_count; i++) {
        offset[i] = contents.length;
        MPO_TRY(append_hidden(policy->model, &contents, chat->message[i].content));
    }
    for (int32_t i = 0; i < chat->message_count; i++)
        messages[i] =
            (struct llama_chat_message){chat->message[i].role, contents.bytes + offset[i]};
    MPO_TRY(
        apply_named(policy, messages, (size_t)chat->message_count, contents.length, out));
    MPO_TRY(mpo_llama_text_append(out, chat->prefill, strlen(chat->prefill), true));
cleanup:
    mpo_llama_text_free(&contents);
    return status;
}

/* ---- raw ---- */

static enum mpo_status render_raw(const struct mpo_llama_chat *chat,
                                  struct mpo_llama_text *out)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < chat->message_count; i++) {
        const char *content = chat->message[i].content;
        if (i > 0)
            MPO_TRY(mpo_llama_text_append(out, "\n", 1, true));
        MPO_TRY(mpo_llama_text_append(out, content, strlen(content), true));
    }
    MPO_TRY(mpo_llama_text_append(out, chat->prefill, strlen(chat->prefill), true));
cleanup:
    return status;
}

/* ---- Jinja ---- */

static const char *text_of(const struct mpo_llama_model *model, int32_t id)
{
    return id >= 0 ? llama_vocab_get_text(model->vocab, id) : NULL;
}

/* Of a token that libllama knows by a default alone, or not at all: what the file says. */
static const char *text_by_key(const struct mpo_llama_model *model, const char *name)
{
    char key[64] = "";
    char value[24] = "";
    char *end = value;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    if (llama_model_meta_val_str(model->handle, key, value, sizeof value) < 0)
        return NULL;
    const long id = strtol(value, &end, 10);
    if (end == value || *end != '\0' || id < 0 || id >= llama_vocab_n_tokens(model->vocab))
        return NULL;
    return text_of(model, (int32_t)id);
}

/* "line 3: " before what went wrong there. */
static const char *describe_line(const struct mpo_jinja_failure *failure, char text[40])
{
    text[0] = '\0';
    if (failure->line > 0)
        snprintf(text, 40, "line %lld: ", (long long)failure->line);
    return text;
}

static bool has_system(const struct mpo_llama_chat *chat)
{
    return chat->message_count > 0 && strcmp(chat->message[0].role, "system") == 0;
}

static enum mpo_status fail_rendering(const struct mpo_llama_policy *policy,
                                      const struct mpo_llama_chat *chat,
                                      const struct mpo_jinja_failure *failure)
{
    enum mpo_status status = MPO_OK;
    char place[40];
    const char *source = policy->chat.source;
    MPO_CHECK(failure->status != MPO_ERR_DATA, MPO_ERR_DATA,
              "policy '%s': the chat template of %s refuses the messages (%s%s)%s",
              policy->spec.name, source, describe_line(failure, place), failure->text,
              has_system(chat) ? "; remove the system message, or put its text into request"
                               : "; change them, or set another template");
    MPO_FAIL(failure->status,
             "policy '%s': the chat template of %s cannot be rendered (%s%s); set template "
             "to a file with another one, or raw for none",
             policy->spec.name, source, describe_line(failure, place), failure->text);
cleanup:
    return status;
}

/* Messages as they are, in Jinja. */
static enum mpo_status run_program(const struct mpo_llama_policy *policy,
                                   const struct mpo_llama_chat *chat, bool begin_response,
                                   struct mpo_llama_text *out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_llama_model *model = policy->model;
    struct mpo_jinja_output output = {0};
    struct mpo_jinja_failure failure = {0};
    struct mpo_jinja_input input = {
        .messages = chat->message,
        .message_count = chat->message_count,
        .begin_response = begin_response,
        .bos_token = text_of(model, llama_vocab_bos(model->vocab)),
        .eos_token = text_of(model, llama_vocab_eos(model->vocab)),
        .pad_token = text_of(model, llama_vocab_pad(model->vocab)),
        .unk_token = text_by_key(model, "unknown"),
        .sep_token = text_by_key(model, "seperator"), /* as GGUF spells it */
        .cls_token = text_by_key(model, "cls"),
        .mask_token = text_by_key(model, "mask"),
        .time = policy->chat.time,
    };
    if (!mpo_jinja_render(policy->chat.program, &input, &output, &failure))
        MPO_TRY(fail_rendering(policy, chat, &failure));
    mpo_llama_text_free(out);
    *out = (struct mpo_llama_text){.bytes = output.bytes,
                                   .user = output.user,
                                   .length = output.length,
                                   .capacity = output.length + 1,
                                   .user_capacity = output.length + 1};
cleanup:
    return status;
}

/* Where a user's text stands last in a rendered one; if nowhere, the same with no regard to
 * whose it is. */
static const char *find_last(const struct mpo_llama_text *text, const char *wanted,
                             size_t length)
{
    const char *found = NULL;
    bool of_user = false;
    for (size_t i = 0; i + length <= text->length; i++) {
        if (memcmp(text->bytes + i, wanted, length) != 0)
            continue;
        bool marked = memchr(text->user + i, 0, length) == NULL;
        if (marked || !of_user)
            found = text->bytes + i;
        of_user = of_user || marked;
    }
    return found;
}

/* Cut off what follows the last message's text. A template may have taken the white space
 * around it. */
static enum mpo_status cut_after(const struct mpo_llama_policy *policy, const char *prefill,
                                 struct mpo_llama_text *text)
{
    enum mpo_status status = MPO_OK;
    const char *begin = prefill;
    size_t length = strlen(prefill);
    while (isspace((unsigned char)*begin)) {
        begin++;
        length--;
    }
    size_t with_space = length;
    while (length > 0 && isspace((unsigned char)begin[length - 1]))
        length--;
    const char *found = find_last(text, begin, length);
    MPO_CHECK(found != NULL, MPO_ERR_DATA,
              "policy '%s': the chat template of %s changes the beginning of the response "
              "('%.40s'), so that it cannot be continued; expected it in the prompt as it "
              "is",
              policy->spec.name, policy->chat.source, prefill);
    size_t end = (size_t)(found - text->bytes) + length;
    size_t space = with_space - length;
    if (end + space <= text->length &&
        memcmp(text->bytes + end, begin + length, space) == 0)
        end += space;
    text->length = end;
    text->bytes[end] = '\0';
cleanup:
    return status;
}

static bool is_blank(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    return *text == '\0';
}

static enum mpo_status render_program(const struct mpo_llama_policy *policy,
                                      const struct mpo_llama_chat *chat,
                                      struct mpo_llama_text *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_chat continued = *chat;
    if (is_blank(chat->prefill)) {
        MPO_TRY(run_program(policy, chat, true, out));
        MPO_TRY(mpo_llama_text_append(out, chat->prefill, strlen(chat->prefill), true));
        return MPO_OK;
    }
    MPO_TRY(mpo_llama_chat_add(&continued, "assistant", chat->prefill));
    MPO_TRY(run_program(policy, &continued, false, out));
    MPO_TRY(cut_after(policy, chat->prefill, out));
cleanup:
    return status;
}

/* ---- a template ---- */

enum mpo_status mpo_llama_render(const struct mpo_llama_policy *policy,
                                 const struct mpo_llama_chat *chat,
                                 struct mpo_llama_text *out)
{
    if (policy->chat.program != NULL)
        return render_program(policy, chat, out);
    return policy->chat.name != NULL ? render_named(policy, chat, out)
                                     : render_raw(chat, out);
}

static enum mpo_status read_file(const char *path, char **text)
{
    enum mpo_status status = MPO_OK;
    FILE *file = fopen(path, "r");
    size_t length = 0;
    *text = NULL;
    MPO_CHECK(file != NULL, MPO_ERR_INPUT, "%s: the chat template cannot be opened", path);
    MPO_NEW(MPO_JINJA_SOURCE_BYTES_MAX + 2, text);
    length = fread(*text, 1, MPO_JINJA_SOURCE_BYTES_MAX + 1, file);
    MPO_CHECK(ferror(file) == 0, MPO_ERR_INPUT, "%s: the chat template cannot be read",
              path);
    MPO_CHECK(strlen(*text) == length && length <= MPO_JINJA_SOURCE_BYTES_MAX, MPO_ERR_DATA,
              "%s: expected a chat template, a text of at most %zu bytes", path,
              MPO_JINJA_SOURCE_BYTES_MAX);
cleanup:
    if (file != NULL)
        fclose(file);
    return status;
}

static enum mpo_status read_program(struct mpo_llama_policy *policy, const char *text)
{
    enum mpo_status status = MPO_OK;
    struct mpo_jinja_failure failure = {0};
    char place[40];
    if (!mpo_jinja_open(text, strlen(text), &policy->chat.program, &failure))
        MPO_FAIL(failure.status,
                 "policy '%s': the chat template of %s is not valid Jinja (%s%s); set "
                 "template to a file with another one, or raw for none",
                 policy->spec.name, policy->chat.source, describe_line(&failure, place),
                 failure.text);
cleanup:
    return status;
}

/* A template that writes nothing of the messages is no template. */
static enum mpo_status try_program(const struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_chat chat = {.prefill = ""};
    struct mpo_llama_text text = {0};
    MPO_TRY(mpo_llama_chat_add(&chat, "user", "x"));
    status = run_program(policy, &chat, true, &text);
    if (status == MPO_ERR_DATA) /* it wants other messages, and may get them */
        status = MPO_OK;
    else if (status == MPO_OK)
        MPO_CHECK(text.length > 0 && memchr(text.user, 1, text.length) != NULL,
                  MPO_ERR_CONFIG,
                  "policy '%s': the chat template of %s leaves out the user's message; "
                  "set template: raw for none, or to a file with another one",
                  policy->spec.name, policy->chat.source);
cleanup:
    mpo_llama_text_free(&text);
    return status;
}

static enum mpo_status open_program(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policy_spec *spec = &policy->spec;
    bool own = strcmp(spec->chat_template, "auto") == 0;
    const char *text = own ? llama_model_chat_template(policy->model->handle, NULL) : NULL;
    policy->chat.source = own ? spec->model : spec->chat_template;
    MPO_CHECK(text != NULL || !own, MPO_ERR_CONFIG,
              "policy '%s': %s has no chat template; set template: raw for none, a file "
              "with one, or a name such as chatml",
              spec->name, spec->model);
    if (!own)
        MPO_TRY(read_file(spec->chat_template, &policy->chat.own_text));
    policy->chat.text = own ? text : policy->chat.own_text;
    MPO_TRY(read_program(policy, policy->chat.text));
    MPO_TRY(try_program(policy));
cleanup:
    return status;
}

enum mpo_status mpo_llama_template_open(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    const char *wanted = policy->spec.chat_template;
    bool is_path = strpbrk(wanted, "/.") != NULL;
    if (strcmp(wanted, "raw") == 0)
        return MPO_OK;
    if (strcmp(wanted, "auto") == 0 || is_path)
        return open_program(policy);
    MPO_CHECK(known_template(wanted), MPO_ERR_CONFIG,
              "policy '%s': libllama does not know the chat template '%s'; expected auto, "
              "raw, a file (a name with a slash or a dot), or a name like chatml, llama3, "
              "gemma or mistral-v7",
              policy->spec.name, wanted);
    policy->chat.name = wanted;
cleanup:
    return status;
}

void mpo_llama_template_close(struct mpo_llama_policy *policy)
{
    mpo_jinja_close(&policy->chat.program);
    free(policy->chat.own_text);
}

/* ---- the end of a response ---- */

int32_t mpo_llama_template_end(const struct mpo_llama_policy *policy)
{
    struct mpo_llama_chat chat = {.prefill = ""};
    struct mpo_llama_text text = {0};
    struct mpo_error kept;
    int32_t token = -1;
    if (policy->chat.program == NULL)
        return -1;
    mpo_error_keep(&kept);
    if (mpo_llama_chat_add(&chat, "user", "x") == MPO_OK &&
        mpo_llama_chat_add(&chat, "assistant", "y") == MPO_OK &&
        run_program(policy, &chat, false, &text) == MPO_OK) {
        const char *last = find_last(&text, "y", 1);
        if (last != NULL && text.user[last - text.bytes] != 0)
            token = mpo_llama_token_after(policy->model, &text,
                                          (size_t)(last - text.bytes) + 1);
    }
    mpo_error_restore(&kept);
    mpo_llama_text_free(&text);
    return token;
}
