/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Text to tokens and back in the HTTP thread, by the first policy's vocabulary, and the
 * endpoints that do nothing else. The text of a special token stands for the token, as
 * clients of such endpoints expect. A text is bounded before it is tokenised.
 *
 * All calls are local, belong to the HTTP thread and its readers, and read nothing that
 * decoding writes.
 */
#pragma once

#include "mpo/texts.h"
#include "serve_impl.h"

/** A text that is to become tokens. */
struct mpo_serve_text {
    const char *text; /* UTF-8 */
    size_t bytes;
    bool begins; /* put the beginning of sequence first, where the vocabulary wants it */
    const char *param; /* the field that has it */
};

/** Tokens of a text, 0 or more; *token is owned by the caller. @return false with the refusal
 *  noted: 400 context_length_exceeded for what can never fit, invalid_value */
bool mpo_serve_tokenise(const struct mpo_serve_catalog *catalog,
                        const struct mpo_serve_text *text, int32_t **token, int32_t *count,
                        struct mpo_serve_refusal *refusal);

/** Whether a text can be given to a tokeniser.
 *  @param count  out: tokens of it, none of which is special; NULL: not wanted
 *  @return false with the refusal noted, as above */
bool mpo_serve_check_text(const struct mpo_serve_catalog *catalog,
                          const struct mpo_serve_text *text, int32_t *count,
                          struct mpo_serve_refusal *refusal);

/** The beginning of sequence, that the vocabulary wants or only has; -1: none. */
int32_t mpo_serve_begin_token(const struct mpo_serve_catalog *catalog);

/** Whether an id can be at a place of a prompt: one of the vocabulary, or at the first place
 *  the beginning of sequence. */
bool mpo_serve_is_token(const struct mpo_serve_catalog *catalog, int64_t id, int32_t index);

/** The answers of POST /tokenize, POST /detokenize and GET /tokenizer_info: bodies owned by
 *  the caller; NULL with the refusal noted. */
char *mpo_serve_tokenize_json(const struct mpo_serve_catalog *catalog, const char *body,
                              size_t body_bytes, struct mpo_serve_refusal *refusal);
char *mpo_serve_detokenize_json(const struct mpo_serve_catalog *catalog, const char *body,
                                size_t body_bytes, struct mpo_serve_refusal *refusal);
char *mpo_serve_tokenizer_info_json(const struct mpo_serve_catalog *catalog,
                                    struct mpo_serve_refusal *refusal);
