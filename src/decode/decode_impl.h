/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The row machine's inside.
 *
 *   decode.c   open and close; a step from its plan to its events
 *   admit.c    rows come and go, at the root
 *   plan.c     what a step computes, at the root
 *   pace.c     how many prompt tokens a step takes beside draws (pace.h)
 *   control.c  the control record: what the root tells the others, and what all make of it
 *   rows.c     one step's positions: rows of logits brought together and combined
 *   ask.c      each row's token, and what else it wants to know of its position
 *   offer.c    prompts that come while the machine runs
 *   known.c    what the root knows of them
 *   encoder.c  their tokens, in a thread beside the steps (encoder.h)
 *   text.c     tokens into text, one after another (text.h)
 *
 * Two tables of rows: what every rank of the group knows of a row (struct
 * mpo_decode_known), which the control records keep the same everywhere, and what the root
 * alone knows (struct mpo_decode_root).
 */
#pragma once

#include "base/timing.h"
#include "encoder.h"
#include "pace.h"
#include "mpo/decode.h"

enum mpo_decode_state {
    MPO_DECODE_FREE,
    MPO_DECODE_WAITING, /* its prompt is not fed yet, or not all of it */
    MPO_DECODE_LIVE,
    MPO_DECODE_PARKED,
};

/** A row as known to every rank: the content of an admission, and the row's progress. */
struct mpo_decode_known {
    enum mpo_decode_state state;
    int32_t slot;
    int32_t share;       /* the row that its prompt is fed into, itself for most */
    int32_t given_count; /* tokens that are given */
    int32_t top_count;
    bool greedy;
    bool plain; /* its rule changes no probability: no scores need to come to the root */
    bool moments;
    bool ends;
    bool weighted_only;
    int32_t asked;  /* tokens drawn or looked up so far; all but the last are fed */
    int32_t fed;    /* tokens of its prompt that were fed after those that it reuses; of a
                    shorter one all but the last */
    int32_t source; /* row whose first tokens it reuses, maybe itself; -1: none */
    double end_bias;
};

/** A row's order in a control record: what happens to it in this step. */
struct mpo_decode_order {
    int32_t chunk; /* tokens of its prompt that are fed, of the policy that lacks most */
    int16_t token_count; /* that are fed, of the record's tokens; 0: it does not move */
    uint8_t leaves;      /* enum mpo_decode_leaves, before anything else */
    uint8_t prompt;      /* enum mpo_decode_prompt */
};

enum mpo_decode_leaves { MPO_DECODE_STAYS, MPO_DECODE_IS_FREED, MPO_DECODE_IS_PARKED };

enum mpo_decode_prompt {
    MPO_DECODE_NO_PROMPT,
    MPO_DECODE_CHUNK,      /* the next tokens of each policy, but never the last one */
    MPO_DECODE_LAST_CHUNK, /* all that is left: the row's first position comes of it */
};

enum mpo_decode_kind {
    MPO_DECODE_RUN,
    MPO_DECODE_OFFER,        /* a prompt follows */
    MPO_DECODE_OFFER_TOKENS, /* as token ids */
    MPO_DECODE_BEGIN_OFFER,  /* a prompt follows, for the encoders */
    MPO_DECODE_END_OFFER,    /* its tokens are wanted */
    MPO_DECODE_IDLE,
    MPO_DECODE_RELEASE,
};

/** The head of a control record; orders [row_count] and tokens follow. */
struct mpo_decode_control {
    int32_t kind;
    int32_t clears;      /* forget all rows first */
    int32_t admit_count; /* admissions, in a message of their own */
    int32_t slot;        /* of a prompt that is offered */
    int64_t bytes;       /* of the prompt that follows */
};

/** One question of a position: which token of which row. */
struct mpo_decode_question {
    int32_t row;
    int32_t position; /* of the step's */
    int32_t index;    /* of the token in the response */
};

/** State of a row that only the root has. */
struct mpo_decode_root {
    struct mpo_decode_row wish;
    struct mpo_mixture_rule rule; /* of the wish's */
    int32_t token;                /* drawn last, fed next */
    uint8_t leaves;               /* in the next step: enum mpo_decode_leaves */
    bool is_new;                  /* admitted since the last step */
    bool is_paused;
    bool is_mute; /* cancelled, and kept until rows that share its prompt have it */
};

/** The tokens of a policy's prompt, at the root. */
struct mpo_decode_tokens {
    int32_t *token; /* [count] */
    size_t capacity;
    int32_t count;
};

/** What is wrong with a position. */
struct mpo_decode_fault {
    bool is_there;
    int32_t policy; /* whose logits have no finite normaliser; -1: the mixture's */
    double norm;    /* that of the policy; log Z */
};

struct mpo_decode {
    struct mpo_decode_spec spec;
    int32_t row_count;    /* those at work and those parked */
    int32_t policy_count; /* H */
    int32_t first_policy; /* of this rank's */
    int32_t local_count;
    int32_t position_capacity;
    int32_t question_capacity;
    bool is_root;
    bool *is_end; /* [V] */

    /* rows */
    struct mpo_decode_known *known; /* [row_count] */
    double *mu;                     /* [row_count, H] */
    int32_t *reused; /* [row_count, H] tokens of its prompt that a row began with */
    int32_t *joined; /* [joined_count] rows that wait or live, oldest first */
    int32_t joined_count;
    struct mpo_decode_root *root;    /* [row_count], at the root */
    int32_t *begun;                  /* [row_count, H] tokens of its prompt, at the root */
    bool clears;                     /* before the next step, at the root */
    struct mpo_decode_rest rest;     /* zero: none */
    struct mpo_decode_beside beside; /* zero: none */
    struct mpo_encoder *encoder;     /* NULL: none */
    bool others_sleep;               /* at the root: since the last idle record */
    int32_t *admitted;               /* [admitted_count] new rows, in order, at the root */
    int32_t admitted_count;
    int32_t *planned; /* [planned_count] rows of the next step: going_count continuing ones,
                         then new ones; at the root */
    int32_t planned_count;
    int32_t going_count;
    int32_t *length; /* [prompt_slots, H] tokens of an offered prompt, 0: none; at the root
                      */
    struct mpo_decode_tokens *prompt; /* [prompt_slots, H] at the root, where rows may be
                                         parked beside others */
    struct mpo_mixture_bias *bias;    /* [row_count, bias_max] at the root */
    struct mpo_decode_pace pace;      /* at the root, where spec.prefill_stretch is not 0 */
    struct mpo_decode_load load;      /* of the step, likewise */

    /* the control record, and admissions beside it */
    char *record; /* [record_bytes] */
    size_t record_bytes;
    struct mpo_decode_control *control; /* in record, like these */
    struct mpo_decode_order *order;     /* [row_count] */
    int32_t *token;                     /* [row_capacity + given_positions] */
    char *admission;                    /* [row_capacity, admission_bytes] */
    size_t admission_bytes;

    /* one step */
    struct mpo_policy_span *span; /* [row_capacity] */
    int32_t span_count;
    struct mpo_policy_span *fed;          /* [row_capacity] those of one policy */
    struct mpo_decode_question *question; /* [question_capacity] */
    int32_t question_count;
    int32_t position_count;
    int32_t *first_local; /* [local + 1] where rows of each local policy begin below */
    const float **logits; /* [local, position_capacity] packed to the rows that there are */
    double *log_norm;     /* the same */
    bool *absent;    /* [H, position_capacity] packed to [H, B]: a policy takes no part */
    bool any_absent; /* there may be some; else absent is not set */
    int32_t *position_row;               /* [position_capacity] a row that it belongs to */
    double *position_mu;                 /* [position_capacity, H] */
    double *position_bias;               /* [position_capacity] */
    bool *position_expects;              /* [position_capacity] */
    struct mpo_decode_fault *fault;      /* [position_capacity] at the root */
    struct mpo_mixture_moments *moments; /* [position_capacity] */
    double *expectation;                 /* [position_capacity, H] */
    bool any_moments;

    /* draws, one a question; arrays of [question_capacity] */
    int32_t *draw_row;
    enum mpo_mixture_kind *draw_kind;
    double *draw_uniform;
    const struct mpo_mixture_rule **draw_rule;
    int32_t *draw_token;
    double *draw_log_q;
    double *draw_log_policy; /* [question_capacity, H] */

    /* most probable tokens */
    int32_t *top_token; /* [question_capacity, top_max] */
    double *top_log_q;  /* the same */
    int32_t *top_row; /* [question_capacity * top_max] packed to those that are asked for */
    int32_t *top_ask;
    enum mpo_mixture_kind *top_kind;
    double *top_figure;
    double *top_log_policy; /* [.., H] */

    /* end tokens, arrays of [question_capacity]; none unless spec.reports_ends */
    const int32_t *end_token; /* [end_count] borrowed */
    int32_t end_count;
    int32_t *end_row;                /* packed to those that ask */
    int32_t *end_ask;                /* the same */
    enum mpo_mixture_kind *end_kind; /* the same */
    double *end_figure;              /* the same */
    double *end_one;                 /* [question_capacity, H] of one end token, packed */
    double *end_log_policy;          /* [question_capacity, end_count, H] */

    struct mpo_decode_event *event; /* [question_capacity], at the root */
    struct mpo_failure *failure;    /* [question_capacity] of rows that failed, likewise */
};

/** Whether a row is fed to policy h. */
static inline bool mpo_decode_takes_part(const struct mpo_decode *decode, int32_t row,
                                         int32_t h)
{
    return !decode->known[row].weighted_only ||
           decode->mu[(ptrdiff_t)row * decode->policy_count + h] != 0.0;
}

/* ---- admit.c ---- */

/** @return MPO_ERR_USAGE at another rank than the root, which would wait for itself */
enum mpo_status mpo_decode_check_root(const struct mpo_decode *decode,
                                      const char *function);

/* ---- plan.c ---- */

/** Prompt tokens that a step of MPO_DECODE_MIXED feeds beside its load. Local.
 *  @param pace  NULL: steps are not measured */
int32_t mpo_decode_prefill_budget(const struct mpo_decode_spec *spec,
                                  const struct mpo_decode_pace *pace,
                                  const struct mpo_decode_load *load);

/** Fill the control record with the next step. At the root. @return false: nothing to do */
bool mpo_decode_plan(struct mpo_decode *decode);

/** The step of the plan took so long. At the root. */
void mpo_decode_note_step(struct mpo_decode *decode, double seconds);

/* ---- control.c ---- */

/** Admissions beside the record, of the rows that are new. At the root. */
void mpo_decode_write_admissions(struct mpo_decode *decode);

/** Bytes of one admission. Local. */
size_t mpo_decode_admission_bytes(int32_t policy_count);

/** Send or receive the control record, and the admissions that belong to it. Collective
 *  over the group. */
enum mpo_status mpo_decode_tell(struct mpo_decode *decode, enum mpo_decode_kind kind);

/** Apply the record to the rows: leave, join. Local. */
enum mpo_status mpo_decode_apply(struct mpo_decode *decode);

/* ---- rows.c ---- */

/** Feed what the record says, bring the rows of logits together, combine them, draw or look
 *  up. Collective over the group; the figures are at the root. */
enum mpo_status mpo_decode_positions_make(struct mpo_decode *decode);

/* ---- ask.c ---- */

/** The step's questions about tokens, as the mixture takes them; what they ask matters at the
 *  root alone. Local. */
struct mpo_mixture_draws mpo_decode_draws(struct mpo_decode *decode);

/** What else rows want to know of their positions, once these are combined and their tokens
 *  are known. Collective over the group; the figures are at the root. */
enum mpo_status mpo_decode_ask_more(struct mpo_decode *decode);

/* ---- known.c ---- */

/** Tokens of the prompt in a slot, of the policy that has most; 0: none was offered. At the
 *  root.
 *  @param mu  [H] only policies with an exponent count; NULL: all */
int32_t mpo_decode_longest_prompt(const struct mpo_decode *decode, int32_t slot,
                                  const double *mu);

/** The tokens of the prompt that the control record is about come to the root. Collective over
 *  the group.
 *  @param length  [H] tokens of each policy's, at the root; elsewhere those of this rank */
enum mpo_status mpo_decode_gather_tokens(struct mpo_decode *decode, const int32_t *length);

/* ---- offer.c ---- */

/** What a control record of an offer asks for. Collective over the group without the root,
 *  which calls mpo_decode_offer and the like. */
enum mpo_status mpo_decode_take_offer(struct mpo_decode *decode);
