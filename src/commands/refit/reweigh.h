/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Rewards at other weights than those that responses were drawn with (refit --rewards).
 *
 *     reweigh.c   the prediction at given weights
 *     lines.c     responses and rewards, from a file or from a record
 *     search.c    the weights that serve a goal
 *     rewards.c   the command: its options, and what it prints
 */
#pragma once

#include "refit_impl.h"

/** Rewarded responses, by prompt. */
struct reweigh {
    const struct refit *refit;
    const char *source; /* for messages */
    int32_t objective_count;
    int32_t policy_count;
    struct mpo_exponents exponents;    /* of the record */
    struct mpo_exponents target;       /* the same, at --strength */
    struct mpo_record_rewards rewards; /* the scale */
    struct mpo_config *recorded;       /* of the record */
    double *numbers;                   /* [5, K] owner of the scale and of the exponents' */
    const char **name;                 /* [K] of the rewards, borrowed */
    const char **policy;               /* [K] of the objectives, in the room of name */
    int64_t count;                     /* R */
    size_t capacity[5];                /* of the five arrays that follow */
    int64_t *prompt;                   /* [R] */
    double *base;                      /* [R, H] exponents that it was drawn with */
    double *control;                   /* [R, H] nat */
    double *reward;                    /* [R, K] */
    int64_t *tokens;                   /* [R] of each response, an end included */
    double *covariance;                /* [H, H] of log pi at a position, nat^2 */
    int64_t *order;                    /* [R] by prompt */
    double *work;                      /* [R + H] */
    double *prompt_mean;               /* [prompts, K] */
    double floor_share;                /* smallest ESS that is trusted */
    const double *floor;               /* [K] as given; NAN: none */
    const double *bounds;              /* [2, K]; NULL: none */
};

/** A prediction. */
struct reweigh_point {
    double *weights; /* [K] the caller's, like all below */
    double *mean;    /* [K] rewards as given */
    double *error;   /* [K] standard errors, between prompts */
    double ess;      /* mean over prompts, of the responses */
    double effective;
    double goal;
};

/** Fill in mean, error, ess and effective at point->weights. Local. */
void reweigh_predict(struct reweigh *reweigh, struct reweigh_point *point);

/** The covariance of all responses, once they are read. Local. */
void reweigh_measure_covariance(struct reweigh *reweigh);

/** (r_k - zero_k) / (one_k - zero_k); NAN without a scale. Local. */
double reweigh_normalise(const struct reweigh *reweigh, int32_t k, double reward);

/** Read the responses and their rewards from `source`: "record", "-" or a path. Local.
 *  @return MPO_ERR_INPUT; MPO_ERR_DATA with file, line and what is wrong; MPO_ERR_MEMORY */
enum mpo_status reweigh_read(struct reweigh *reweigh, const char *source);

/** Raise the goal from start->weights on, inside of what is trusted, into start. Local. */
void reweigh_search(struct reweigh *reweigh, enum mpo_goal goal,
                    struct reweigh_point *start, struct reweigh_point *trial);

/** Whether a point misses a floor, or the goal has no value there. Local. */
bool reweigh_misses(const struct reweigh_point *point);

/** The goal's value at a predicted point; where it misses, a number for comparisons. Local. */
double reweigh_goal(const struct reweigh *reweigh, enum mpo_goal goal,
                    const struct reweigh_point *point);

/** Whether a prediction is inside of what is trusted. Local. */
bool reweigh_trusts(const struct reweigh *reweigh, const struct reweigh_point *point);
