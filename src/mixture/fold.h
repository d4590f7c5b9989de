/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What ranks and devices find out about slices of rows, and what the root makes of it.
 */
#pragma once

#include <assert.h>

#include "mixture_impl.h"

/** A table's figures of one block of one row (enum mpo_mixture_figure). */
struct mpo_mixture_sums {
    double top;
    double sum;
    double end_sum;
    double logit_sum[]; /* [H] */
};
static_assert(offsetof(struct mpo_mixture_sums, logit_sum) ==
                  MPO_MIXTURE_LOGIT_SUM * sizeof(double),
              "a device writes the same by their numbers");

/** Of a table [blocks, B] of them. */
static inline struct mpo_mixture_sums *mpo_mixture_sums_of(double *table,
                                                           int32_t policy_count,
                                                           int32_t row_count, int32_t block,
                                                           int32_t row)
{
    size_t index = (size_t)block * (size_t)row_count + (size_t)row;
    return (void *)(table + index * MPO_MIXTURE_SUMS_WIDTH(policy_count));
}

struct mpo_mixture_answer {
    double token;
    double logit[]; /* [H] of the token */
};

static inline struct mpo_mixture_answer *
mpo_mixture_answer_of(double *answers, int32_t policy_count, int32_t index)
{
    return (void *)(answers + (size_t)index * MPO_MIXTURE_ANSWER_WIDTH(policy_count));
}

static inline double mpo_mixture_norm(const struct mpo_rows *rows, int32_t h, int32_t row)
{
    return rows->log_norm[(size_t)h * (size_t)rows->row_count + (size_t)row];
}

/** Whether policy h takes part in a row. */
static inline bool mpo_mixture_takes_part(const struct mpo_rows *rows, int32_t h,
                                          int32_t row)
{
    return rows->logits[(size_t)h * (size_t)rows->row_count + (size_t)row] != NULL;
}

/** One of a row's most probable tokens, as doubles on their way to the root. */
struct mpo_mixture_listed {
    double score; /* s(v); -inf: none */
    double token;
};

struct mpo_mixture {
    const struct mpo_mixture_ops *ops;
    void *self;
    struct mpo_exchange *exchange;
    int32_t policy_count;
    int32_t vocab_size;
    int32_t block_count;
    int32_t row_capacity;
    bool rows_on_device;
    bool bf16_rows;
    int32_t placed_first;
    float *rounded;              /* [placed, row_capacity, V] of bf16 rows on the host */
    int32_t rank;                /* of the exchange, 0 without one: the root */
    int32_t size;                /* ranks that may have slices */
    int32_t *first_block;        /* [size + 1] of each rank's slice */
    double *inverse_temperature; /* [H] */
    int32_t *end_token;          /* [end_count] */
    int32_t end_count;
    bool *nobody;         /* [row_capacity] all false: no row expects any */
    struct mpo_rows rows; /* combined last; borrowed */
    bool any_absent;      /* in some of them a policy takes no part */
    struct mpo_mixture_exponents exponents; /* of those rows; borrowed */

    double *sums;      /* [block, B] of struct mpo_mixture_sums; the whole at the root */
    double *logit_sum; /* [H] of one row */
    double *row_top;   /* [row_capacity] M */
    double *row_sum;   /* [row_capacity] Z relative to M */
    double *row_log_z; /* [row_capacity] not finite for a failed row */
    size_t *part;      /* [size + 1] where each rank's part of a table begins */

    enum mpo_mixture_kind *kind;           /* [row_capacity] GIVEN once a rule was kept */
    struct mpo_mixture_question *draft;    /* [row_capacity] in order of draws */
    struct mpo_mixture_question *question; /* [row_capacity] in order of ranks */
    double *answers;                       /* [row_capacity] */
    double *score;                         /* [block, MPO_ROWS_BLOCK] of one row */
    int32_t *heap;                         /* [V] */
    struct mpo_mixture_listed *listed;     /* [size, MPO_MIXTURE_TOP_MAX] */
    double *block_top;                     /* [block] of one row */
};

static inline const double *mpo_mixture_mu(const struct mpo_mixture *mixture, int32_t row)
{
    return mixture->exponents.mu + (size_t)row * (size_t)mixture->policy_count;
}

/** This rank's slice: blocks first .. end - 1. */
static inline int32_t mpo_mixture_own_first(const struct mpo_mixture *mixture)
{
    return mixture->first_block[mixture->rank];
}
static inline int32_t mpo_mixture_own_end(const struct mpo_mixture *mixture)
{
    return mixture->first_block[mixture->rank + 1];
}

/** True if the root has whole rows, so that other ranks have nothing to do. */
static inline bool mpo_mixture_root_has_all(const struct mpo_mixture *mixture)
{
    return mixture->first_block[1] == mixture->block_count;
}

/** Make rows those that are combined. Local. @param expectation  NULL: no row expects any */
enum mpo_status mpo_mixture_begin(struct mpo_mixture *mixture, const struct mpo_rows *rows,
                                  const struct mpo_mixture_exponents *exponents,
                                  const double *expectation);

/** What a device found of them: mark rows that failed, for the caller and for draws. At the
 *  root. @return MPO_ERR_DATA when there are some */
enum mpo_status mpo_mixture_check(struct mpo_mixture *mixture,
                                  struct mpo_mixture_moments *moments, double *expectation);

/** Bring a table [block, width] to the root. Collective over the group. */
enum mpo_status mpo_mixture_bring(struct mpo_mixture *mixture, double *table, size_t width);

/** s of this rank's slice of a row, to its place in mixture->score. Local. */
enum mpo_status mpo_mixture_own_scores(struct mpo_mixture *mixture, int32_t row);

/** Fold the block sums of one row. At the root.
 *  @param expectation  [H] out; NULL where no row expects any */
void mpo_mixture_fold(struct mpo_mixture *mixture, int32_t row,
                      struct mpo_mixture_moments *moments, double *expectation);

/** Questions about all draws, in their order, rules aside: the draft. */
void mpo_mixture_ask(struct mpo_mixture *mixture, const struct mpo_mixture_draws *draws);

/** The questions of the draft to each rank about its blocks, in order of ranks. */
void mpo_mixture_deal(struct mpo_mixture *mixture, int32_t count);

/** Draws of the last questions, from the answers. */
void mpo_mixture_finish(const struct mpo_mixture *mixture, int32_t count,
                        struct mpo_mixture_draws *draws);
