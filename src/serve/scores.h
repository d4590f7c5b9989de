/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Figures of prompts that were looked up token by token (echo with log-probabilities), kept
 * with their rows: a prompt that begins alike and asks for the same figures gets them again,
 * and only what differs is computed. Pure; at the root.
 *
 * The figures of a token depend on the exponents, the end tilt and the tokens before it, and
 * on no other choice of a request.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"

/** What figures depend on, beside tokens. */
struct mpo_scores_key {
    const double *mu; /* [H] */
    double end_bias;
    bool weighted_only;
    int32_t top_count;
};

/** Of one token; pointers are borrowed. */
struct mpo_score {
    double log_q;
    double log_z;
    const double *log_policy; /* [H] */
    const double *top_log_q;  /* [top_count] */
    const int32_t *top_token; /* [top_count] */
};

struct mpo_scores;

enum mpo_status mpo_scores_open(int32_t row_count, int32_t policy_count,
                                struct mpo_scores **out);
void mpo_scores_close(struct mpo_scores **scores);

/** A row is looked up: `capacity` figures, of which it has the first `count` from `source`,
 *  maybe itself. May allocate; without memory the row has none. */
struct mpo_scores_begin {
    int32_t row;
    int32_t capacity;
    int32_t source;
    int32_t count;
};
void mpo_scores_begin(struct mpo_scores *scores, const struct mpo_scores_key *key,
                      const struct mpo_scores_begin *begin);

/** The next figure of a row, if it has some. */
void mpo_scores_add(struct mpo_scores *scores, int32_t row, const struct mpo_score *score);

void mpo_scores_drop(struct mpo_scores *scores, int32_t row);

/** Whether the row's figures are those that are asked for. */
bool mpo_scores_are_of(const struct mpo_scores *scores, int32_t row,
                       const struct mpo_scores_key *key);

/** Figures that a row has. */
int32_t mpo_scores_count(const struct mpo_scores *scores, int32_t row);

/** Figure `index` of a row; the row has them all up to it. */
struct mpo_score mpo_scores_get(const struct mpo_scores *scores, int32_t row,
                                int32_t index);
