/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An evaluation: the weight vectors, their statistics per prompt, and what follows from them.
 *
 *     evaluate.c   rows of every prompt, at every vector
 *     figures.c    results, intervals and warnings from the means over prompts
 *     report.c     the output
 */
#pragma once

#include "estimator/bootstrap.h"
#include "commands/report/walk.h"
#include "session/weights.h"

#define EVALUATE_VECTORS_MAX 16

/* Columns of one vector's statistics of a prompt: these, then K means under the whole
 * mixture, K under the token mixture, and K divergences of the token mixture. */
enum evaluate_column {
    COLUMN_VALUE, /* F_x with the jackknife */
    COLUMN_PLAIN, /* F_x without */
    COLUMN_HALF,  /* F_x of the first half of the rows, without */
    COLUMN_ESS,
    COLUMN_LENGTH,
    COLUMN_TRUNCATED,
    COLUMN_POLICY,
};

/* Results of one vector: these, then K of each kind of evaluate_policy_result. */
enum evaluate_result {
    RESULT_IMBALANCE,
    RESULT_LENGTH,
    RESULT_TRUNCATED,
    RESULT_VALUE,
    RESULT_PLAIN,
    RESULT_HALVING, /* F less F of half of the rows */
    RESULT_GAP,
    RESULT_ESS,
    RESULT_POLICY,
};

enum evaluate_policy_result {
    SERVED_LOG_POLICY,
    SERVED_DIVERGENCE,
    WHOLE_LOG_POLICY,
    WHOLE_DIVERGENCE,
    POLICY_RESULTS,
};

struct evaluate {
    struct mpo_config *config;
    struct mpo_session *session;
    int32_t objective_count; /* K */
    int64_t prompt_count;
    int32_t vector_count;                   /* A */
    const char *name[EVALUATE_VECTORS_MAX]; /* as the user wrote it, borrowed */
    char *against;                          /* owned, cut at its semicolons */
    double *weights;                        /* [A, H] */
    double *bounds;                         /* [2, K] or NULL */
    struct progress progress;
    int64_t token_count; /* on rank zero */
    int32_t vector;      /* at hand */

    /* rank zero only */
    double *value;                 /* [prompts, A, columns] */
    double *work;                  /* [2 responses + K] */
    struct mpo_interval *interval; /* [A results + A - 1] */
};

/** Columns and results of one vector. */
int32_t evaluate_column_count(const struct evaluate *evaluate);
int32_t evaluate_result_count(const struct evaluate *evaluate);

/** The result of a kind for objective k. */
int32_t evaluate_policy_result(const struct evaluate *evaluate,
                               enum evaluate_policy_result kind, int32_t k);

/** Statistics of the prompts first .. of a step, into their places. Rank zero only. */
void evaluate_keep(struct evaluate *evaluate, int64_t first,
                   const struct mpo_integrals *integrals);

/** All results with their intervals, and what to be careful about. Rank zero only. */
enum mpo_status evaluate_find_intervals(struct evaluate *evaluate);

/** Print the intervals in the format asked for. Rank zero only. */
enum mpo_status evaluate_report(const struct evaluate *evaluate);
