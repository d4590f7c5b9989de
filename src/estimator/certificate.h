/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The certificate of weights: figures of a mixture from rows with the ends integrated out.
 *
 * Of each prompt it has a row of columns, and every figure of the mixture is the mean of a
 * column over the prompts, or follows from means:
 *
 *     served   E_q log pi_h,   KL(q || pi_h),   s_k = a_k E_q (log pi_k - log pi_ref),
 *              length,   share of cuts,   imbalance I(l) = max_k (l.s - s_k)
 *     whole    F,   ESS,   G_h = E_pi log pi_h,   KL(pi || pi_h) = sum_i mu_i G_i - F - G_h,
 *              g_k = a_k (G_k - G_ref),   gap = A max over feasible u of sum_k u_k (l.g - g_k)
 *
 * pi is the whole mixture; without a reference s_k and g_k are means of log pi_k. F and G are
 * jackknifed over the rows. The last figure of each line is a largest one of several, so it
 * has an upper bound instead of an interval, from bounds of all its excesses l.g - g_k at
 * once.                                              (src/README.md, Certificate)
 */
#pragma once

#include <stdbool.h>

#include "estimator/bootstrap.h"
#include "mpo/exponents.h"
#include "mpo/rollout.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Columns of the mixture, one each. */
enum mpo_certificate_column {
    MPO_COLUMN_LENGTH,    /* E_q tokens, an end token included */
    MPO_COLUMN_TRUNCATED, /* probability under q of a cut at max_tokens */
    MPO_COLUMN_VALUE,     /* F with the jackknife, nat */
    MPO_COLUMN_PLAIN,     /* F without, nat */
    MPO_COLUMN_HALVING,   /* F without the jackknife less that of the first half, nat */
    MPO_COLUMN_ESS,
    MPO_COLUMN_SINGLES
};

/** Blocks of columns behind them: the first ones of each policy, the others of each
 *  objective; nat. */
enum mpo_certificate_block {
    MPO_BLOCK_SERVED_LOG_POLICY,
    MPO_BLOCK_SERVED_DIVERGENCE,
    MPO_BLOCK_WHOLE_LOG_POLICY,
    MPO_BLOCK_WHOLE_DIVERGENCE,
    MPO_BLOCK_SERVED_SCORE,
    MPO_BLOCK_WHOLE_SCORE,
    MPO_BLOCK_SERVED_EXCESS, /* l.s - s_k */
    MPO_BLOCK_WHOLE_EXCESS,  /* l.g - g_k */
    MPO_BLOCK_COUNT
};

/** What is certified; arrays borrowed. */
struct mpo_certificate {
    struct mpo_exponents exponents; /* K, H, A and a_k */
    const double *weights;          /* [K] l */
    const double *mu;               /* [H] which need not follow from them */
    int32_t max_tokens;             /* L */
    bool
        of_blend; /* q is one policy (mpo/rollout.h), no product: it has no whole mixture, and
                      these columns are NAN */
    double *room; /* [2 rows of a prompt] */
};

/** How many columns a block has. Local. */
int32_t mpo_certificate_block_length(const struct mpo_certificate *certificate,
                                     enum mpo_certificate_block block);

/** The first column of a block; of MPO_BLOCK_COUNT the number of all columns. Local. */
int32_t mpo_certificate_block_first(const struct mpo_certificate *certificate,
                                    enum mpo_certificate_block block);

/** Columns of prompt slot `slot` of a step. Local. @param column  [columns] */
void mpo_certificate_keep(const struct mpo_certificate *certificate,
                          const struct mpo_integrals *integrals, int32_t slot,
                          double *column);

/** Whether the whole mixture's F is at most 0: no negative exponent and a sum of 1 or more,
 *  by Hoelder. Local. */
bool mpo_certificate_is_bounded(const struct mpo_certificate *certificate);

/** Means and intervals of the columns of all prompts, cut off where no figure can be. Local.
 *
 * @param spec   seed, replicates, unit_count and value are read
 * @param out    [columns]
 * @param upper  [columns] bounds of the excesses, NAN for other columns and one prompt
 */
enum mpo_status mpo_certificate_intervals(const struct mpo_certificate *certificate,
                                          const struct mpo_bootstrap_spec *spec,
                                          struct mpo_interval *out, double *upper);

#ifdef __cplusplus
}
#endif
