/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The rollout's inside: the arrays of one step, and which row makes which response.
 */
#pragma once

#include "base/timing.h"
#include "decode/text.h"
#include "mpo/rollout.h"

#include "ends.h"

struct mpo_rollout {
    struct mpo_rollout_spec spec;
    int32_t row_policies; /* that decode has: H, and the policy of a blend */
    double *mu;           /* [H + 1] exponents of this step's rows; NULL: no blend */
    double *scale;        /* [adapter_count] of its policy in this step */
    int32_t *response;    /* [row_capacity] of the step, that a row makes */
    struct mpo_decode_text *tail;   /* [row_capacity] NULL: no stop texts */
    int64_t *prompt;                /* [prompts_max] of the step */
    struct mpo_responses responses; /* of the step; arrays sized for prompts_max */
    struct mpo_scores scores;       /* the same, when given responses are scored */
    struct mpo_integrals integrals; /* the same, when ends are integrated out */
    struct mpo_end_masses masses;   /* the same, when end masses are kept */
    struct mpo_ends *ends;          /* [row_capacity] likewise; arrays in integrals */
    double *drawn;                  /* [row_capacity, H] of ends */
    bool is_cut;                    /* a request to stop ended the step */
    /* [row_capacity] the try that a row makes, in exact draws; its tries is the number of the
       try from 1, and 0 where the row makes none */
    struct mpo_responses tries;
    struct mpo_rollout_search *search; /* [unit_prompts] likewise */
};

/** The exact draws of one prompt on their way. */
struct mpo_rollout_search {
    int64_t begun; /* tries so far */
    int32_t live;  /* of them */
    int32_t found; /* responses that are likely: survivors, of which a try before them may
                      still take the place of the last */
    bool is_over;
};

/** A unit on its way: prompt slots next_slot .. end_slot - 1 of the step wait. */
struct mpo_rollout_unit {
    const struct mpo_rollout_step *step;
    int32_t first_slot;
    int32_t next_slot;
    int32_t end_slot;
    int64_t live_tokens; /* of rows that live */
};

/** Refuse a specification, a step, or a call of another purpose, by which ranks could not go
 *  on together. Local; the same on all ranks. @return MPO_ERR_USAGE. (check.c) */
enum mpo_status mpo_rollout_check_spec(const struct mpo_rollout_spec *spec);
enum mpo_status mpo_rollout_check_step(const struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step);
enum mpo_status mpo_rollout_check_purpose(const struct mpo_rollout *rollout, bool serves,
                                          const char *asked);

/** Whether a request to stop ends this step, which says that it yields. Local. */
bool mpo_rollout_gives_up(struct mpo_rollout *rollout, const struct mpo_rollout_step *step);

/** Decode prompt slots first_slot .. first_slot + prompt_count - 1 from a cleared cache,
 *  into rollout->responses. At the group's root, while the others follow. (draw.c) */
enum mpo_status mpo_rollout_draw_unit(struct mpo_rollout *rollout,
                                      const struct mpo_rollout_step *step,
                                      int32_t first_slot, int32_t prompt_count);

/** The same by killing: exact draws of the mixture of whole responses. (exact.c) */
enum mpo_status mpo_rollout_exact_unit(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step,
                                       int32_t first_slot, int32_t prompt_count);

/** The wish for response j to a prompt slot, which shares its prompt with another row or none
 *  (-1). Local. (draw.c) */
struct mpo_decode_row mpo_rollout_row(const struct mpo_rollout *rollout,
                                      const struct mpo_rollout_step *step, int32_t slot,
                                      int32_t share, int64_t j);

/** Add a token and its figures to a response; the figures alone, of a token that is there.
 *  Local. (draw.c) */
void mpo_rollout_account(struct mpo_responses *all, int32_t index,
                         const struct mpo_decode_event *event);
void mpo_rollout_account_figures(struct mpo_responses *all, int32_t index,
                                 const struct mpo_decode_event *event);

/** Score the given responses of a prompt slot from a cleared cache, into rollout->scores; or,
 *  in a rollout of draws, those that were drawn, into rollout->responses. At the group's root,
 *  while the others follow. (score.c) */
enum mpo_status mpo_rollout_score_unit(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step, int32_t slot);

/** Exponents of the step's rows [row_policies]: its own, or with a blend those of the one policy
 *  that is drawn from. Local. */
const double *mpo_rollout_exponents(const struct mpo_rollout *rollout,
                                    const struct mpo_rollout_step *step);

/** Whether responses are drawn first, from one policy, and scored by all afterwards. Local. */
bool mpo_rollout_scores_later(const struct mpo_rollout *rollout,
                              const struct mpo_rollout_step *step);

/** Make room for a blend, if there is one, and give its policy the scales of a step. Local.
 *  (blend.c) */
enum mpo_status mpo_rollout_blend_open(struct mpo_rollout *rollout);
enum mpo_status mpo_rollout_blend_begin(struct mpo_rollout *rollout,
                                        const struct mpo_rollout_step *step);

/** Raise the failure of a row with the prompt and the response that it makes. Local. */
enum mpo_status mpo_rollout_raise(const struct mpo_rollout *rollout,
                                  const struct mpo_decode_event *event);

/** An array of a step that has a part for each response. */
struct mpo_rollout_part {
    void **array; /* where its owner keeps it */
    size_t response_bytes;
    bool is_sum; /* begins empty */
};

/** Arrays of responses, of which there are most. */
#define MPO_ROLLOUT_PARTS 9

/** List them; tries only where there are any. Local. (rollout.c)
 *  @param part  [MPO_ROLLOUT_PARTS] out
 *  @return how many there are */
size_t mpo_rollout_parts(struct mpo_responses *responses, struct mpo_rollout_part *part);

/** Bring a unit's part of some arrays from the root of the group that made them to rank
 *  zero. Collective over those two ranks; others return at once. (gather.c) */
enum mpo_status mpo_rollout_gather(const struct mpo_rollout *rollout,
                                   const struct mpo_rollout_part *parts, size_t part_count,
                                   int32_t first_slot, int32_t prompt_count);
