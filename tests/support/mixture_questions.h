/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Questions of every kind about the rows of a mixture, under rules of every sort, in one
 * call: what a server with many requests asks. And the same ones, one at a time.
 */
#pragma once

#include "mixture_case.h"

/** Rules that questions take in turns; the first one is none. */
#define MIXTURE_QUESTIONS_RULES 6

struct mixture_questions {
    int32_t count;
    int32_t policy_count;
    int32_t *row; /* owned, as all below: [count] out of order, some several times */
    enum mpo_mixture_kind *kind;
    double *uniform;
    const struct mpo_mixture_rule **rule;
    int32_t *token;
    double *log_proposal;
    double *log_policy; /* [count, H] */
    struct mpo_mixture_rule rules[MIXTURE_QUESTIONS_RULES];
    struct mpo_mixture_bias *bias; /* of the rules */
};

/** Make questions; each rule comes with each kind when there are some 18 of them. The rules:
 *  a filter, biases, both, and biases that take all tokens away or all but one. */
void mixture_questions_make(struct mixture_questions *self, const struct mixture_case *some,
                            int32_t count);
void mixture_questions_free(struct mixture_questions *self);

/** The questions as the mixture takes them; tokens that are not given are -2. */
struct mpo_mixture_draws mixture_questions_draws(struct mixture_questions *self);

/** Ask all of them in one call, which must succeed. */
void mixture_questions_ask(struct mixture_questions *self, struct mpo_mixture *mixture);

/** Ask question i alone, of a mixture in which its row is `row`, into place i. */
void mixture_questions_ask_one(struct mixture_questions *self, struct mpo_mixture *mixture,
                               int32_t i, int32_t row);

/** Compare tokens and figures, to the bit. */
void mixture_questions_same(const struct mixture_questions *self,
                            const struct mixture_questions *expected);
