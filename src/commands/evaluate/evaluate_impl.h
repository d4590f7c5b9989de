/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An evaluation: weight vectors, a certificate of each, and the results that are printed.
 *
 *     evaluate.c   rows of every prompt, at every vector
 *     results.c    results and intervals from the columns of the prompts
 *     warnings.c   what they cannot say
 *     rewards.c    --rewards: measured rewards in place of the certificate
 *     report.c     the output
 */
#pragma once

#include <jansson.h>

#include "commands/report/walk.h"
#include "estimator/certificate.h"
#include "session/rewards.h"
#include "session/weights.h"

#define EVALUATE_VECTORS_MAX 16

/** Where a result is printed in the text output. */
enum evaluate_part {
    EVALUATE_SERVED,
    EVALUATE_WHOLE,
    EVALUATE_PROGRAMS, /* in the other formats only */
};

/** A line of the output. */
struct evaluate_result {
    enum evaluate_part part;
    const char *name;   /* for programs: a literal */
    bool is_difference; /* from the first vector; programs find "_difference" in the name */
    const char *label;  /* for people: a literal */
    const char *policy; /* "" where it is of the mixture, borrowed */
    bool is_bound;      /* has a bound above alone; low is the least value there is */
    struct mpo_interval interval;
};

/** A weight vector; all but name, mu, recipe and end_bias on rank zero only. */
struct evaluate_vector {
    const char *name;    /* as the user wrote it, borrowed */
    const char *weights; /* the name without the kind of mixture before it */
    enum mpo_mixing mixture;
    double *mu; /* [H] */
    struct mpo_weights_recipe recipe;
    double end_bias; /* of what is served: that which generate draws with */
    struct mpo_certificate certificate;
    double *value;                 /* [prompts, columns] */
    struct mpo_interval *interval; /* [columns] */
    double *upper;                 /* [columns] of the excesses */
    struct evaluate_result *result;
    int32_t result_count;
    json_t *warnings; /* texts */
};

/** Of --rewards. */
struct evaluate_rewards {
    struct mpo_session_rewards measured; /* rank zero only, like all below */
    struct mpo_session_texts texts;
    struct mpo_rewards_scale scale; /* zero and one [K], where there is one */
    int64_t next_id;                /* of a response, for the program */
};

struct evaluate {
    struct mpo_config *config;
    struct mpo_session *session;
    int32_t objective_count; /* K */
    bool has_reference;      /* which scores are relative to */
    int64_t prompt_count;
    int32_t column_count;
    int32_t vector_count; /* 1 and those of --against */
    struct evaluate_vector vector[EVALUATE_VECTORS_MAX];
    char *against;  /* owned, cut at its semicolons */
    double *bounds; /* [2, K] or NULL */
    double *room;   /* [2 rows of a prompt + K] */
    struct progress progress;
    int64_t token_count; /* on rank zero */
    int32_t at_hand;     /* vector */
    struct evaluate_rewards rewards;
};

/** Room for the results of all vectors. Rank zero only. */
enum mpo_status evaluate_allocate_results(struct evaluate *evaluate);

/** The columns of a vector less those of the first, with intervals. They are taken prompt by
 *  prompt, so that they are paired. Rank zero only.
 *  @param out  [column_count] owned by the caller, also after a failure; NULL before */
enum mpo_status evaluate_find_differences(const struct evaluate *evaluate,
                                          const struct mpo_bootstrap_spec *spec,
                                          const struct evaluate_vector *vector,
                                          struct mpo_interval **out);

/** All results with their intervals. Rank zero only. */
enum mpo_status evaluate_find_results(struct evaluate *evaluate);

/** Say what the results of a vector cannot be relied on for, and take the intervals of whole
 *  figures away where nothing is known of them. Between the intervals of columns and the
 *  results. Rank zero only. */
void evaluate_warn(const struct evaluate *evaluate, struct evaluate_vector *vector);

/** Say that intervals need more prompts, where they do. Rank zero only. */
void evaluate_warn_of_prompts(const struct evaluate *evaluate);

/** Why a vector has no imbalance, and why no gap, for a message; NULL where it has. Local. */
const char *evaluate_why_no_imbalance(const struct evaluate *evaluate,
                                      const struct evaluate_vector *vector);
const char *evaluate_why_no_gap(const struct evaluate *evaluate,
                                const struct evaluate_vector *vector);

/** --rewards needs a program. Local. */
enum mpo_status evaluate_check_rewards(const struct mpo_config *config);

/** --rewards: the scale, the number of columns, the program for the responses to so many prompts
 *  at once. Rank zero only. */
enum mpo_status evaluate_open_rewards(struct evaluate *evaluate, int32_t prompts_max);
void evaluate_close_rewards(struct evaluate *evaluate);

/** The rewards of the responses to prompts from the first on, at the vector at hand, into its
 *  columns. Rank zero only. */
enum mpo_status evaluate_measure(struct evaluate *evaluate, int64_t first,
                                 const struct mpo_responses *responses);

/** All results of --rewards with their intervals. Rank zero only. */
enum mpo_status evaluate_find_rewards(struct evaluate *evaluate);

/** Print the results in the format asked for. Rank zero only. */
enum mpo_status evaluate_report(const struct evaluate *evaluate);
