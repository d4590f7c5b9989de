/* SPDX-License-Identifier: Apache-2.0 */
/**
 * From a prompt's messages to tokens: what the files of that part of the llama policy share.
 * llama_impl.h includes it, and says which files these are.
 */
#pragma once

#include <llama.h>

#include "policy/policy_impl.h"

#include "jinja.h"

struct mpo_llama_model;
struct mpo_llama_policy;
struct mpo_llama_special;
struct mpo_llama_specials;

/* ---- compose.c ---- */

/** Whether the tokenizer of a model composes letters and accents. */
bool mpo_llama_composes(const struct llama_model *model);

/** A text as the tokenizer of a model cuts it. */
struct mpo_llama_composed {
    const char *bytes; /* [length] borrowed, unless they are `own` */
    size_t length;
    char *own; /* NULL: composing changes nothing; else owned by the caller */
};

/** Compose a text if the model's tokenizer does; what is not UTF-8 stays as it is.
 *  @return MPO_ERR_DATA a letter with more accents than people write */
enum mpo_status mpo_llama_compose(const struct mpo_llama_model *model, const char *bytes,
                                  size_t length, struct mpo_llama_composed *out);

/* ---- cuts.c ---- */

/** Whether the tokenizer of a model ends words at capitals, of which libllama knows some. */
bool mpo_llama_cuts_capitals(const struct llama_model *model);

/** Whether a word of such a tokenizer ends after an English 's, 't and the like. */
bool mpo_llama_cuts_endings(const struct llama_model *model);

/** The first text that libllama cuts otherwise than such a tokenizer. Local.
 *  @param found  where it begins; as it was if there is none
 *  @return its bytes, 0: there is none */
size_t mpo_llama_find_cut(const char *text, bool has_endings, const char **found);

/** See struct mpo_policy_ops. */
bool mpo_llama_remark(const void *self, const char *text, char *line, size_t line_bytes);

/* ---- tokens.c ---- */

/** List the special tokens of a model whose vocabulary was read. */
enum mpo_status mpo_llama_specials_list(const struct mpo_llama_model *model,
                                        struct mpo_llama_specials *out);

/** The longest special token whose text begins here, or NULL. */
const struct mpo_llama_special *
mpo_llama_special_at(const struct mpo_llama_specials *specials, const char *bytes,
                     size_t length);

/** A prompt's text; zero is none. */
struct mpo_llama_text {
    char *bytes;   /* [length] and a NUL once something was appended */
    uint8_t *user; /* [length] 1 for a byte that is a user's */
    size_t length;
    size_t capacity;
    size_t user_capacity;
};

enum mpo_status mpo_llama_text_append(struct mpo_llama_text *text, const char *bytes,
                                      size_t count, bool user);
void mpo_llama_text_free(struct mpo_llama_text *text);

enum mpo_status mpo_llama_append_token(struct mpo_policy_tokens *out, int32_t id);

/** Append the tokens of a text: special ones where no byte of theirs is a user's. */
enum mpo_status mpo_llama_tokenise(const struct mpo_llama_model *model,
                                   const struct mpo_llama_text *text,
                                   struct mpo_policy_tokens *out);

/** The special token that comes first at a place, white space aside; -1: none does. */
int32_t mpo_llama_token_after(const struct mpo_llama_model *model,
                              const struct mpo_llama_text *text, size_t place);

/* ---- prompt.c ---- */

/** Messages of a prompt, the policy's system text and, while it is continued, the prefill
 *  among them. */
#define MPO_LLAMA_MESSAGES_MAX (MPO_PROMPTS_MESSAGE_COUNT_MAX + 2)

/** A prompt as its template gets it; texts are borrowed. */
struct mpo_llama_chat {
    struct mpo_message message[MPO_LLAMA_MESSAGES_MAX];
    int32_t message_count;
    const char *prefill; /* "" when there is none */
};

/** @return MPO_ERR_DATA when there are too many */
enum mpo_status mpo_llama_chat_add(struct mpo_llama_chat *chat, const char *role,
                                   const char *content);

/** Check a policy's request before any prompt is known.
 *  @return MPO_ERR_CONFIG */
enum mpo_status mpo_llama_request_check(const struct mpo_policy_spec *spec);

/** See struct mpo_policy_ops.
 *  @return MPO_ERR_DATA two system texts, a template that refuses the messages, more bytes
 *  than can fit, or no token */
enum mpo_status mpo_llama_encode(const void *self, const struct mpo_prompt *prompt,
                                 struct mpo_policy_tokens *out);

/* ---- template.c ---- */

/** A policy's template; zero is none (raw). */
struct mpo_llama_template {
    struct mpo_jinja *program; /* NULL unless it is in Jinja */
    const char *source;        /* file that has it, for messages; borrowed */
    const char *name;          /* for llama_chat_apply_template, else NULL; borrowed */
    const char *text;          /* the program; NULL without one */
    char *own_text;            /* text of a file; NULL: it is the model's */
    int64_t time;              /* seconds since 1970 that it is given */
};

/** Read a policy's template and try it.
 *  @return MPO_ERR_CONFIG, MPO_ERR_INPUT */
enum mpo_status mpo_llama_template_open(struct mpo_llama_policy *policy);
void mpo_llama_template_close(struct mpo_llama_policy *policy);

/** The special token that the template writes after an assistant's text, -1: none. */
int32_t mpo_llama_template_end(const struct mpo_llama_policy *policy);

/** Messages and the prefill as text. */
enum mpo_status mpo_llama_render(const struct mpo_llama_policy *policy,
                                 const struct mpo_llama_chat *chat,
                                 struct mpo_llama_text *out);
