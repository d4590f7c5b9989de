/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What rows hold, as tokens: which row has the longest beginning of a new prompt. Pure: it
 * knows no model and no row machine.
 *
 *     begin -> fill -> live -> keep -> kept -> forget          of a row, by its index
 *              (prompt is fed)         (ended, cells stay)
 *
 * Every policy has its own tokens of a prompt, so a beginning has its own length for each.
 * A row holds its prompt and all its further tokens but the last one, which is not fed yet.
 *
 * A prompt is worth what it saves of the policy that then lacks most: all policies compute
 * side by side. Less than MPO_PREFIX_TOKENS_MIN are not worth a copy. Of those that save the
 * same the latest is taken, and the one that was not used for longest is forgotten first.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"

/** Tokens that a beginning saves at least. */
#define MPO_PREFIX_TOKENS_MIN 4

struct mpo_prefixes_spec {
    int32_t row_count;
    int32_t policy_count;   /* H */
    int32_t context_tokens; /* of one row at most */
};

/** A prompt as each policy's tokens; borrowed. */
struct mpo_prefix_prompt {
    const int32_t *const *token; /* [H] */
    const int32_t *count;        /* [H] at least 1 */
    const bool *takes_part;      /* [H] policies that are fed the prompt */
    const bool *among;           /* [row_count] rows that it may begin as; NULL: all */
};

/** The beginning of a prompt that a row holds. */
struct mpo_prefix {
    int32_t row;     /* -1: none */
    int32_t saved;   /* tokens that the policy which lacks most has not to be fed */
    int32_t *reused; /* [H] what each policy reuses, less than its prompt has */
};

struct mpo_prefixes;

/** Local; allocates all it will need. */
enum mpo_status mpo_prefixes_open(const struct mpo_prefixes_spec *spec,
                                  struct mpo_prefixes **out);
void mpo_prefixes_close(struct mpo_prefixes **prefixes);

/** A row begins with a prompt, which is not fed yet. What it was is forgotten. */
void mpo_prefixes_begin(struct mpo_prefixes *prefixes, int32_t row,
                        const struct mpo_prefix_prompt *prompt);

/** The row has a further token, and so its prompt is fed. */
void mpo_prefixes_add(struct mpo_prefixes *prefixes, int32_t row, int32_t token);

/** The row's prompt is fed up to its first `count` tokens, and that is all it holds. */
void mpo_prefixes_fill(struct mpo_prefixes *prefixes, int32_t row, int32_t count);

/** The row has ended and its cells stay. @return how many, of the policy that has most */
int32_t mpo_prefixes_keep(struct mpo_prefixes *prefixes, int32_t row);

void mpo_prefixes_forget(struct mpo_prefixes *prefixes, int32_t row);

/** The best beginning of a prompt among rows whose prompts are fed, or are not. Its `reused`
 *  is the caller's, [H]. */
void mpo_prefixes_find(const struct mpo_prefixes *prefixes,
                       const struct mpo_prefix_prompt *prompt, bool is_fed,
                       struct mpo_prefix *out);

/** It was used: others are forgotten before it. */
void mpo_prefixes_touch(struct mpo_prefixes *prefixes, int32_t row);

/** Whether the row was kept, and whether what is reused is all that it holds. */
bool mpo_prefixes_is_kept(const struct mpo_prefixes *prefixes, int32_t row);
bool mpo_prefixes_is_whole(const struct mpo_prefixes *prefixes,
                           const struct mpo_prefix *prefix);

/** The kept row to forget first but `spared`; -1: none. */
int32_t mpo_prefixes_oldest(const struct mpo_prefixes *prefixes, int32_t spared);

/** Kept rows, and their cells, those that they share with others counted again. */
int32_t mpo_prefixes_kept_rows(const struct mpo_prefixes *prefixes);
int64_t mpo_prefixes_kept_cells(const struct mpo_prefixes *prefixes);
