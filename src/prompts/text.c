/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text format: a line is a prompt, taken as it is, spaces included.
 *
 * The beginning of the response comes from the configuration and may contain the prompt,
 * which makes tasks like "rewrite this: ..." possible without a JSONL file. It is bounded
 * as a line is: a long line named many times would otherwise fill the memory.
 */
#include "prompts_impl.h"

#include <string.h>

#define STAND_IN "{prompt}"

/* Bytes of the prefill with the line inserted at every {prompt}. */
static size_t expanded_bytes(const struct mpo_prompts_line *line)
{
    size_t bytes = strlen(line->prefill);
    const char *at = strstr(line->prefill, STAND_IN);
    for (; at != NULL; at = strstr(at + strlen(STAND_IN), STAND_IN))
        bytes = bytes - strlen(STAND_IN) + line->bytes;
    return bytes;
}

static enum mpo_status expand_prefill(struct mpo_prompts *prompts,
                                      const struct mpo_prompts_line *line, const char **out)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = expanded_bytes(line);
    void *memory = NULL;
    MPO_CHECK(bytes <= MPO_PROMPTS_LINE_BYTES_MAX, MPO_ERR_DATA,
              "%s:%lld: expected a prefill of at most %zu bytes, found %zu bytes with the "
              "prompt inserted",
              line->path, (long long)line->line_number, MPO_PROMPTS_LINE_BYTES_MAX, bytes);
    MPO_TRY(mpo_prompts_take(prompts, bytes + 1, &memory));
    char *to = memory;
    const char *from = line->prefill;
    const char *at = strstr(from, STAND_IN);
    for (; at != NULL; at = strstr(from, STAND_IN)) {
        memcpy(to, from, (size_t)(at - from));
        to += at - from;
        memcpy(to, line->text, line->bytes);
        to += line->bytes;
        from = at + strlen(STAND_IN);
    }
    memcpy(to, from, strlen(from));
    *out = memory;
cleanup:
    return status;
}

enum mpo_status mpo_prompts_add_text(struct mpo_prompts *prompts,
                                     const struct mpo_prompts_line *line)
{
    enum mpo_status status = MPO_OK;
    struct mpo_prompt prompt = {
        .message_count = 1, .prefill = "", .line_number = line->line_number};
    void *memory = NULL;
    MPO_TRY(mpo_prompts_keep(prompts, line->text, line->bytes, &prompt.text));
    if (*line->prefill != '\0')
        MPO_TRY(expand_prefill(prompts, line, &prompt.prefill));
    MPO_TRY(mpo_prompts_take(prompts, sizeof(struct mpo_message), &memory));
    struct mpo_message *message = memory;
    *message = (struct mpo_message){"user", prompt.text};
    prompt.messages = message;
    MPO_TRY(mpo_prompts_add(prompts, &prompt));
cleanup:
    return status;
}

const struct mpo_prompts_format mpo_prompts_text_format = {
    .name = "text",
    .suffix = NULL,
    .takes_a_prefill = true,
    .add = mpo_prompts_add_text,
};
