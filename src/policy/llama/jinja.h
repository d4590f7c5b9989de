/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Chat templates in Jinja: messages to text, as transformers renders them, through the engine
 * of llama.cpp (common/jinja), which knows for every byte of its output whether it came from
 * a message.
 *
 * Local. A template may be rendered by several threads at once. What a template may do is
 * limited: jinja_limits.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/prompts.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of a template at most; the longest known ones have 20000. */
#define MPO_JINJA_SOURCE_BYTES_MAX ((size_t)1 << 20)

/** A template that was read. */
struct mpo_jinja;

/** Why a template could not be read or rendered. */
struct mpo_jinja_failure {
    enum mpo_status status; /* MPO_ERR_CONFIG, or MPO_ERR_DATA where the template itself
                               refuses what it is given, or MPO_ERR_MEMORY */
    int64_t line;           /* of the template, from 1; 0: not known */
    char text[512];         /* one line, without an end of line */
};

/** @return false with a failure */
bool mpo_jinja_open(const char *source, size_t bytes, struct mpo_jinja **out,
                    struct mpo_jinja_failure *failure);
void mpo_jinja_close(struct mpo_jinja **jinja);

/** What is rendered. Texts of special tokens that the vocabulary does not have are NULL: the
 *  first three have no value then, and a template that asks for one of the others fails. */
struct mpo_jinja_input {
    const struct mpo_message *messages; /* [message_count] contents are a user's */
    int32_t message_count;
    bool begin_response; /* end with what begins a response (add_generation_prompt) */
    const char *bos_token;
    const char *eos_token;
    const char *pad_token;
    const char *unk_token;
    const char *sep_token;
    const char *cls_token;
    const char *mask_token;
    int64_t time; /* seconds since 1970, for strftime_now, in UTC */
};

/** What was rendered. */
struct mpo_jinja_output {
    char *bytes;   /* [length] and a NUL; owned by the caller */
    uint8_t *user; /* [length] 1 for bytes that came from a message; owned by the caller */
    size_t length;
    bool asked_for_time; /* the template has read the clock */
};

/** @return false with a failure, and nothing to free */
bool mpo_jinja_render(const struct mpo_jinja *jinja, const struct mpo_jinja_input *input,
                      struct mpo_jinja_output *out, struct mpo_jinja_failure *failure);

#ifdef __cplusplus
}
#endif
