/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A policy's engine takes the texts of a prompt as they are: what is no UTF-8 may end it, and
 * a template knows three roles.
 */
#include "check.h"

#include <string.h>

#include <utf8proc.h>

#include "base/argument.h"

const char *mpo_prompt_role(const char *name)
{
    static const char *const roles[] = {MPO_PROMPT_ROLE_SYSTEM, MPO_PROMPT_ROLE_USER,
                                        MPO_PROMPT_ROLE_ASSISTANT};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(name, roles[i]) == 0)
            return roles[i];
    return NULL;
}

size_t mpo_prompt_first_bad_byte(const char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes && text[at] != '\0') {
        utf8proc_int32_t letter = 0;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                 (utf8proc_ssize_t)(bytes - at), &letter);
        if (step <= 0)
            break;
        at += (size_t)step;
    }
    return at;
}

static enum mpo_status check_text(const char *text, const char *what)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = strlen(text);
    size_t bad = mpo_prompt_first_bad_byte(text, bytes);
    MPO_CHECK(bad == bytes, MPO_ERR_DATA,
              "the prompt: expected %s in UTF-8, found the byte 0x%02X after %zu bytes",
              what, (unsigned char)text[bad], bad);
cleanup:
    return status;
}

enum mpo_status mpo_prompt_check(const struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_OF("a prompt", prompt);
    MPO_ARGUMENTS_OF("a prompt", prompt->prefill);
    MPO_CHECK(prompt->message_count >= 0 &&
                  prompt->message_count <= MPO_PROMPTS_MESSAGE_COUNT_MAX,
              MPO_ERR_DATA, "the prompt has %d messages, expected at most %d",
              prompt->message_count, MPO_PROMPTS_MESSAGE_COUNT_MAX);
    if (prompt->message_count > 0)
        MPO_ARGUMENTS_OF("a prompt", prompt->messages);
    for (int32_t i = 0; i < prompt->message_count; i++) {
        const struct mpo_message *message = &prompt->messages[i];
        MPO_ARGUMENTS_OF("a prompt", message->role, message->content);
        MPO_CHECK(mpo_prompt_role(message->role) != NULL, MPO_ERR_DATA,
                  "the prompt: expected role system, user or assistant in messages[%d], "
                  "found '%.40s'",
                  i, message->role);
        MPO_TRY(check_text(message->content, "the content of messages"));
    }
    MPO_TRY(check_text(prompt->prefill, "the prefill"));
cleanup:
    return status;
}
