/**
 * The rollout's inside: the buffers of one unit and of one step.
 */
#pragma once

#include "base/timing.h"
#include "mpo/rollout.h"

/** A row of the policies and the response that is made in it. */
struct mpo_rollout_row {
    int32_t response;    /* of the step: prompt slot * m + j */
    int32_t token_count; /* drawn so far */
    bool is_live;
};

struct mpo_rollout {
    struct mpo_rollout_spec spec;
    int32_t local_count;          /* policies of this rank */
    int32_t row_capacity;         /* of the spec; positions when answers are scored */
    bool *is_end;                 /* [V] */
    struct mpo_rollout_row *rows; /* [row_capacity] */

    /* one position of a batch */
    int32_t *live;        /* [row_capacity] rows still being made, in order of joining */
    int32_t *source;      /* [row_capacity] batch row that each live row draws from */
    int32_t *token;       /* [row_capacity] drawn token of each live row */
    const float **logits; /* [local, row_capacity] packed to [local, B] */
    double *log_norm;     /* [local, row_capacity] packed to [local, B] */
    double *uniform;      /* [row_capacity] */
    double *log_proposal; /* [row_capacity] */
    double *log_policy;   /* [row_capacity, H] */
    double *expectation;  /* [row_capacity, H] */
    double *mu;           /* [row_capacity, H] the step's, the same for all rows */
    double *end_bias;     /* [row_capacity] the same */
    enum mpo_mixture_kind *kind;          /* [row_capacity] of the step's draws */
    const struct mpo_mixture_rule **rule; /* [row_capacity] all filtered */
    struct mpo_mixture_rule filtered;     /* by the step's filter */
    struct mpo_mixture_exponents exponents;
    struct mpo_mixture_moments *moments; /* [row_capacity] */
    char *window; /* [window_bytes] text of the last tokens; NULL: no stop texts */
    int32_t window_tokens;
    int32_t window_bytes;

    int64_t *prompt;                /* [prompts_max] of the step */
    struct mpo_responses responses; /* of the step; arrays sized for prompts_max */
    struct mpo_scores scores;       /* the same, when answers are scored */
};

/** Decode prompt slots first_slot .. first_slot + prompt_count - 1 from a cleared cache,
 *  into rollout->responses. Collective over the group; complete on its root. */
enum mpo_status mpo_rollout_unit(struct mpo_rollout *rollout,
                                 const struct mpo_rollout_step *step, int32_t first_slot,
                                 int32_t prompt_count);

/** The step's exponents and how it draws, for all rows of every position. Local. */
void mpo_rollout_prepare(struct mpo_rollout *rollout, const struct mpo_rollout_step *step,
                         enum mpo_mixture_kind kind);

/** Bring the rows in rollout->logits to the ranks that reduce them, normalised into
 *  rollout->log_norm, and time it. Collective over the group. */
enum mpo_status mpo_rollout_exchange(struct mpo_rollout *rollout, int32_t batch_rows,
                                     struct mpo_rows *rows);

/** Make room to look for spec.stop. Local. */
enum mpo_status mpo_rollout_stop_open(struct mpo_rollout *rollout);

/** True when a stop text is in the text of the last of these tokens. Local. */
bool mpo_rollout_stops(struct mpo_rollout *rollout, const int32_t *token, int32_t count);

/** Bring a unit's responses from the root of the group that made them to rank zero.
 *  Collective over those two ranks; others return at once. */
enum mpo_status mpo_rollout_gather(struct mpo_rollout *rollout, int32_t first_slot,
                                   int32_t prompt_count, int32_t from_rank);
