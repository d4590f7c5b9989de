/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The log-linear mixture at one position, and draws from it.
 *
 *     log pi_h(v) = logit_h(v) / T_h - log_norm_h
 *     s(v)        = sum_h mu_h log pi_h(v) + b [v ends],      q(v) = exp( s(v) - log Z )
 *                                                              (src/README.md, Mixture)
 * Sums over the vocabulary run in double over fixed blocks of MPO_ROWS_BLOCK tokens, blocks
 * in order, so that a slice of whole blocks can be summed elsewhere to the same bytes.
 *
 * Source: Genest & Zidek, Statist. Sci. 1 (1986) 114-135 (logarithmic opinion pool).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/exchange.h"
#include "mpo/rows.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_mixture;

struct mpo_mixture_spec {
    const char *device;        /* MPO_DEVICE_CPU, "cuda"; of those built */
    const double *temperature; /* [H] */
    const int32_t *end_token;  /* [end_count], ascending */
    const int32_t *masked;     /* [masked_count], ascending */
    int32_t policy_count;      /* H */
    int32_t end_count;
    int32_t masked_count;
    int32_t vocab_size;   /* V */
    int32_t row_capacity; /* rows of one position at most */
    bool rows_on_device;  /* rows are normalised and combined in the device's memory */
    bool bf16_rows;       /* mpo_mixture_round rounds them */
    int32_t placed_first; /* policies whose rows mpo_mixture_place or _round writes: */
    int32_t placed_count; /* placed_first .. placed_first + placed_count - 1 */
    struct mpo_exchange *exchange; /* that cuts rows; borrowed; NULL: all are whole */
};

/** Bytes of the device's own memory that a mixture takes; needs the spec's device and
 *  sizes. Local. */
size_t mpo_mixture_device_bytes(const struct mpo_mixture_spec *spec);

/** Bytes of the host's memory that rounded rows take; needs the spec's sizes. Local. */
size_t mpo_mixture_host_bytes(const struct mpo_mixture_spec *spec);

/** Local; allocates all it will need, on the thread's device (mpo/device.h). Without
 *  rows_on_device a device copies the host's rows in each call.
 *  @return MPO_ERR_MEMORY when the device is too small, with what to change */
enum mpo_status mpo_mixture_open(const struct mpo_mixture_spec *spec,
                                 struct mpo_mixture **out);
void mpo_mixture_close(struct mpo_mixture **mixture);

/**
 * Bring one policy's rows from the host's memory to where they are normalised, exchanged
 * and combined: into the device's with spec.rows_on_device, else they are unchanged.
 *
 * Local. Allocates nothing. Rows stay there until the next call for the same policy.
 *
 * @param policy_index  h, one of the spec's placed ones
 * @param logits        [row_count] pointers to [V] floats, replaced
 * @return MPO_ERR_DEVICE when a copy fails
 */
enum mpo_status mpo_mixture_place(struct mpo_mixture *mixture, int32_t policy_index,
                                  int32_t row_count, const float **logits);

/**
 * Round one policy's rows to bf16 where spec.bf16_rows says so; else they are
 * unchanged. Everything that follows is exact for the rounded policies: normalisers are
 * computed from them.
 *
 *     y(v) = x(v) - max x                  in float; max over tokens that are not masked
 *     x'(v) = y(v) to 8 significant bits   ties to even; a float with its low 16 bits 0
 *
 *     |x'(v) - (x(v) - max x)|  <=  2^-8 (max x - x(v))
 *
 * The difference is off by 2^-24 of itself at most; rounding adds half a unit of the eighth
 * place, most in proportion right above a power of two, where it is 1/257; and
 * (1 + 2^-24)(1 + 1/257) - 1 < 2^-8. (Where that is below 2^-134, as of differences below
 * 2^-126, it is 2^-134; differences from 2^128 (1 - 2^-9) on become -inf.) So the most
 * probable token and all that tie with it are exact, the order stays though close tokens
 * may tie, and the log-ratio of a token to the most probable one, which is (x(v) - max x) /
 * T_h, is off by at most 2^-8 of itself.
 *
 * A masked token's logit is MPO_MASKED_LOGIT, whatever a model left on the device. -inf
 * stays -inf, a row with nothing above MPO_MASKED_LOGIT is rounded as it is, and a row
 * that mpo_mixture_normalise refuses it refuses rounded too.
 *
 * Local, and independent of which rank calls it and of the device. Allocates nothing. Ends
 * what was combined before. Rows stay until the next call for the same policy.
 *
 * @param policy_index  h, one of the spec's placed ones
 * @param logits        [row_count] pointers to [V] floats where rows are normalised,
 * replaced
 * @return MPO_ERR_DEVICE when a launch fails
 *
 * Source: bfloat16 as in Kalamkar et al., arXiv 1905.12322; Higham, Accuracy and Stability
 * of Numerical Algorithms, 2nd ed., theorem 2.3 (the bound u / (1 + u)).
 */
enum mpo_status mpo_mixture_round(struct mpo_mixture *mixture, int32_t policy_index,
                                  int32_t row_count, const float **logits);

/**
 * Log-normalisers of one policy's rows: log sum_v exp(logit(v) / T_h).
 *
 * Local, and independent of which rank calls it. Allocates nothing. Ends what was combined
 * before: there are no draws until the next mpo_mixture_combine.
 *
 * A failed row is data: MPO_ERR_DATA names the first one after all rows are normalised. The
 * caller may continue; such a row fails again in mpo_mixture_combine and does not affect
 * the other rows.
 *
 * @param policy_index  h
 * @param logits        [row_count] pointers to [V] floats
 * @param log_norm      [row_count] out, nat; not finite for a row that fails
 * @return MPO_ERR_DATA when a row has a NaN or no finite logit; MPO_ERR_DEVICE when a
 *         launch fails, here and below (cuda only)
 */
enum mpo_status mpo_mixture_normalise(struct mpo_mixture *mixture, int32_t policy_index,
                                      int32_t row_count, const float *const *logits,
                                      double *log_norm);

/** Rows of consecutive policies, one policy after another. */
struct mpo_mixture_part {
    int32_t first_policy; /* h of the first */
    int32_t policy_count;
    const int32_t *first_row; /* [policy_count + 1] policy i has rows first_row[i] up to
                                 first_row[i + 1] - 1, at most row_capacity; the first is 0 */
};

/** mpo_mixture_normalise for the rows of several policies, which a device takes together.
 *  Local.
 *  @param logits    [rows] pointers to [V] floats
 *  @param log_norm  [rows] out */
enum mpo_status mpo_mixture_normalise_part(struct mpo_mixture *mixture,
                                           const struct mpo_mixture_part *part,
                                           const float *const *logits, double *log_norm);

/** Exponents of the rows of one position, the same on all ranks of the group. The arrays
 *  are borrowed until the draws are done. */
struct mpo_mixture_exponents {
    const double *mu;       /* [B, H] dimensionless: mu[b * H + h] */
    const double *end_bias; /* [B] tilt b, nat */
    const bool *expects; /* [B] rows whose E_q log pi_h and entropy are wanted; NULL: all */
};

/** Moments of q at one position of one row. */
struct mpo_mixture_moments {
    double log_z;           /* log sum_v exp s(v), nat; of a row that fails not finite */
    double entropy;         /* -E_q log q, nat; NaN if not wanted */
    double end_probability; /* sum of q over the end tokens */
};

/**
 * Combine the rows of one position. The rows must stay valid until the draws are done.
 *
 * Collective over the group of the exchange, or local without one: every rank sums the
 * blocks of its slice, and the root folds them in order. Allocates nothing. The figures of
 * a row depend on that row and its exponents alone.
 *
 * E_q log pi_h costs H V products per row. It is skipped, with the entropy, in rows whose
 * expects is false, or in all with expectation NULL.
 *
 * A row fails if its log Z or, where wanted, its entropy or expectation is not finite: a
 * logit is infinite, or mpo_mixture_normalise refused it. (A policy with mu_h = 0 whose
 * expectation is not wanted does not matter.) MPO_ERR_DATA names the first such row after
 * all rows are combined. The caller may continue and draw from the other rows.
 *
 * A policy that takes no part in a row (struct mpo_rows) has the exponent 0 there; its
 * figures of the row, E_q log pi_h here and log pi_h of draws, are NaN.
 *
 * @param rows         this rank's slice
 * @param exponents    of all rows
 * @param moments      [B] out, at the root
 * @param expectation  [B, H] out, at the root: E_q log pi_h(v), nat; NaN where it is not
 *                     wanted; NULL on all ranks or on none
 * @return MPO_ERR_DATA at the root when a row fails; MPO_ERR_USAGE, as from place, round and
 *         normalise, for more rows than spec.row_capacity, and for a policy that takes no part
 *         in a row where its exponent is not 0
 */
enum mpo_status mpo_mixture_combine(struct mpo_mixture *mixture,
                                    const struct mpo_rows *rows,
                                    const struct mpo_mixture_exponents *exponents,
                                    struct mpo_mixture_moments *moments,
                                    double *expectation);

/** A filter for draws; see mixture/filter.c for the order. */
struct mpo_mixture_filter {
    double temperature; /* > 0; 1: the mixture's own */
    int32_t top_k;      /* the most probable tokens; 0: all */
    double top_p;       /* the fewest with this share, in (0, 1]; 1: all */
    double min_p;       /* this times the largest probability at least, in [0, 1]; 0: all */
};

/** True if it removes nothing, and for NULL. Local. */
bool mpo_mixture_filter_is_open(const struct mpo_mixture_filter *filter);

/** Added to the score s(v) of a token before the filter. */
struct mpo_mixture_bias {
    int32_t token;
    double value; /* nat; below +inf; -inf: the token is never drawn */
};

/** The distribution to draw from instead of q. A rule whose biases leave no token has no
 *  effect: a token is always drawn, and never a masked one. */
struct mpo_mixture_rule {
    struct mpo_mixture_filter filter;
    const struct mpo_mixture_bias *bias; /* [bias_count] in any order; several of one token
                                            add up; borrowed */
    int32_t bias_count;                  /* at most V */
};

/** True if it changes nothing, and for NULL. Local. */
bool mpo_mixture_rule_is_open(const struct mpo_mixture_rule *rule);

enum mpo_mixture_kind {
    MPO_MIXTURE_GIVEN,    /* the token is known */
    MPO_MIXTURE_DRAWN,    /* the first one whose cumulative sum of q exceeds uniform */
    MPO_MIXTURE_GREATEST, /* the most probable one, of equal ones the lowest */
};

/** Questions about the rows combined last, in any order of kinds and rows. With
 *  slices on other ranks, count, row, kind and which rules change nothing must be the
 *  same on all; uniforms, biases and given tokens matter at the root. Without, only
 *  the root's call matters. */
struct mpo_mixture_draws {
    int32_t count;
    const int32_t *row;                /* [count] the combined row that each is about */
    const enum mpo_mixture_kind *kind; /* [count] */
    const double *uniform;             /* [count] in (0, 1), read where DRAWN; NULL when
                                          none is */
    const struct mpo_mixture_rule *const *rule; /* [count] each NULL: none; NULL: none at
                                                   all. Of DRAWN filter and bias, of GREATEST
                                                   the bias */
    int32_t *token;                             /* [count] in where GIVEN, else out */
    double *log_proposal; /* [count] out: log q(token), nat, never filtered or biased */
    double *log_policy;   /* [count, H] out: log pi_h(token), nat */
};

/**
 * Draw or look up tokens, with their figures, which do not depend on how the
 * token was found.
 *
 * Draws invert the block sums: the root inverts to a block, and the rank with the block
 * inverts inside it. A draw under a rule that changes q sends the scores of its row to the
 * root; GREATEST needs none for a filter, so pass it a rule only with biases.
 *
 * Of a row that failed log q is NaN, and unless the token is given it is -1 and all figures
 * are NaN.
 *
 * Collective over the group of the exchange, or local without one; results at the root.
 * Allocates nothing.
 *
 * @return MPO_ERR_USAGE at the root for a row that was not combined, a token beyond V, a bias
 *         that is not below +inf, a draw without a uniform
 */
enum mpo_status mpo_mixture_draw(struct mpo_mixture *mixture,
                                 struct mpo_mixture_draws *draws);

/** Where mpo_mixture_combine's results go. */
struct mpo_mixture_results {
    struct mpo_mixture_moments *moments; /* [B] */
    double *expectation;                 /* [B, H] or NULL */
};

/**
 * mpo_mixture_combine and then mpo_mixture_draw, in one go where a device gains by it: the
 * same results, and after MPO_ERR_DATA the draws from the other rows are made.
 *
 * Collective over the group of the exchange, or local without one; results at the root.
 * Allocates nothing.
 */
enum mpo_status mpo_mixture_combine_and_draw(struct mpo_mixture *mixture,
                                             const struct mpo_rows *rows,
                                             const struct mpo_mixture_exponents *exponents,
                                             const struct mpo_mixture_results *results,
                                             struct mpo_mixture_draws *draws);

/** Tokens that mpo_mixture_top lists at most. */
#define MPO_MIXTURE_TOP_MAX 128

/**
 * The most probable tokens of a combined row, most probable first, of equally probable ones
 * the lower id first. They are compared by s(v), as GREATEST is. Their figures are those of
 * GIVEN questions of mpo_mixture_draw.
 *
 * Collective over the group of the exchange, or local without one. Allocates nothing.
 *
 * @param row    as count, the same on all ranks of the group
 * @param count  0 .. MPO_MIXTURE_TOP_MAX
 * @param token  [count] out, at the root: never a masked one, -1 where there are no more,
 *               and all -1 of a row that failed
 */
enum mpo_status mpo_mixture_top(struct mpo_mixture *mixture, int32_t row, int32_t count,
                                int32_t *token);

#ifdef __cplusplus
}
#endif
