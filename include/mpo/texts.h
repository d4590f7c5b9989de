/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Texts of clients to tokens and back, by the vocabulary of this rank's first policy.
 *
 * Clients mean the tokens themselves: there is no template, and the text of a special token
 * may stand for the token. All of it may run in another thread than feed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What is known of texts and tokens before any text is. */
struct mpo_policies_texts {
    int32_t begin_token; /* of a sequence, -1: none; a table's is V, in prompts alone */
    bool wants_begin;    /* the vocabulary asks for it before a text */
    int32_t end_token;   /* end of a whole response, -1: none */
    const char *chat_template; /* of the policy, in Jinja; NULL: it has none; borrowed */
    size_t piece_bytes;        /* of the longest text that one token stands for */
    size_t word_bytes_max;     /* of a run without white space, which takes a time that
                                  grows with its square; 0: any */
    bool adds_space;           /* tokenising puts a space before a text */
};

/** Local; may run in another thread than feed, and so may the rest of this part. */
void mpo_policies_describe_texts(const struct mpo_policies *policies,
                                 struct mpo_policies_texts *out);

/**
 * Tokens of a text as they are: no template, no beginning of sequence. Local; allocates.
 *
 * @param text         UTF-8
 * @param special      the text of a special token stands for the token
 * @param token        out, [*token_count], 0 or more; owned by the caller
 * @return MPO_ERR_DATA what is no token of a table; MPO_ERR_MEMORY
 */
enum mpo_status mpo_policies_tokenise(const struct mpo_policies *policies, const char *text,
                                      bool special, int32_t **token, int32_t *token_count);

/** The same of a prompt, as mpo_policy_encode makes them of it, and with its statuses. Local;
 *  allocates. */
enum mpo_status mpo_policies_tokenise_prompt(const struct mpo_policies *policies,
                                             const struct mpo_prompt *prompt,
                                             int32_t **token, int32_t *token_count);

/** Whether each of these tokens has something that may follow it, under every policy of this
 *  rank: what is scored after one that has not would be no figure. Local.
 *  @return MPO_ERR_DATA with the first that has not: a table's, without a row */
enum mpo_status mpo_policies_check_states(const struct mpo_policies *policies,
                                          const int32_t *token, int32_t token_count);

/** The text of one token as it stands in a prompt, that of a special one and of begin_token
 *  too, written to text[capacity] with a NUL; it may be part of a character. Local.
 *  @return the number of bytes without the NUL, or -1 when capacity is too small */
int32_t mpo_policies_show(const struct mpo_policies *policies, int32_t token, char *text,
                          int32_t capacity);

/**
 * The text of tokens, those of special ones too; what is no UTF-8 is U+FFFD. A space that
 * tokenising puts before a text is taken off again. Local; allocates.
 *
 * @param token  [token_count] ids below V, or begin_token
 * @param text   out, owned by the caller
 */
enum mpo_status mpo_policies_detokenise(const struct mpo_policies *policies,
                                        const int32_t *token, int32_t token_count,
                                        char **text);

#ifdef __cplusplus
}
#endif
