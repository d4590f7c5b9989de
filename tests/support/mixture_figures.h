/* SPDX-License-Identifier: Apache-2.0 */
/**
 * All that the root learns of one position: figures of the combined rows, and what draws of
 * every kind say, to be compared to the bit.
 */
#pragma once

#include "mixture_questions.h"

/* What is asked of the combined rows, B draws each. */
enum mixture_mode {
    MIXTURE_DRAWN,
    MIXTURE_GREEDY,
    MIXTURE_FILTERED,
    MIXTURE_GIVEN,
    MIXTURE_MODE_COUNT
};

/* Everything that the root learns of one position. */
struct mixture_figures {
    struct mpo_mixture_moments *moments;      /* [B] */
    double *expectation;                      /* [B, H] */
    int32_t *token[MIXTURE_MODE_COUNT];       /* [B] */
    double *log_proposal[MIXTURE_MODE_COUNT]; /* [B] */
    double *log_policy[MIXTURE_MODE_COUNT];   /* [B, H] */
    struct mixture_questions questions;       /* of all kinds, under rules of their own */
    int32_t top[MPO_MIXTURE_TOP_MAX];         /* of the last row */
};

void mixture_figures_make(struct mixture_figures *figures, const struct mixture_case *some);
void mixture_figures_free(struct mixture_figures *figures);

/** B draws in one mode: draw i is from row 5 i mod B, so that rows are out of order and some
 *  have several. */
void mixture_figures_draw(struct mpo_mixture *mixture, const struct mixture_case *some,
                          enum mixture_mode mode, struct mixture_figures *figures);

/** The same, and before it rows are combined, in one go; NULL: none are. */
enum mpo_status mixture_figures_take(struct mpo_mixture *mixture,
                                     const struct mixture_case *some,
                                     const struct mpo_rows *rows, enum mixture_mode mode,
                                     struct mixture_figures *figures);

/** All that is asked of combined rows. */
void mixture_figures_ask(struct mpo_mixture *mixture, const struct mixture_case *some,
                         struct mixture_figures *figures);

/** Both have the same bits; the first: of combined rows and draws in one mode. */
void mixture_figures_same_mode(const struct mixture_figures *found,
                               const struct mixture_figures *expected,
                               const struct mixture_case *some, enum mixture_mode mode);
void mixture_figures_same(const struct mixture_figures *found,
                          const struct mixture_figures *expected,
                          const struct mixture_case *some);
