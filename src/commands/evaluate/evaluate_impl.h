/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An evaluation: the weight vectors, their statistics per prompt, and derived results.
 */
#pragma once

#include "estimator/bootstrap.h"
#include "commands/report/walk.h"
#include "session/weights.h"

#define EVALUATE_VECTORS_MAX 16

/* Columns of one vector's statistics of a prompt: these, then g_1 .. g_K. */
enum evaluate_column { COLUMN_VALUE, COLUMN_PLAIN, COLUMN_ESS, COLUMN_GRADIENT };

/* Results of one vector: these, then K mean log pi_k and K divergences. */
enum evaluate_result { RESULT_VALUE, RESULT_PLAIN, RESULT_GAP, RESULT_ESS, RESULT_POLICY };

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
    double end_bias[EVALUATE_VECTORS_MAX];
    double coefficient[EVALUATE_VECTORS_MAX];
    double *value;                 /* [prompts, A, 3 + K] */
    double *work;                  /* [2 responses + K] */
    struct mpo_interval *interval; /* [A (4 + 2 K) + A - 1] */
};

/** Results of one vector: 4 + 2 K. */
int32_t evaluate_result_count(const struct evaluate *evaluate);

/** Print the intervals in the format asked for. Rank zero only. */
enum mpo_status evaluate_report(const struct evaluate *evaluate);
