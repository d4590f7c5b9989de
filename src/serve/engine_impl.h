/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The decode thread's inside.
 *
 *   engine.c   the loop of steps; who comes and who leaves
 *   offers.c   prompts into slots, in the order in which they come
 *   seats.c    rows of requests, and what becomes of their tokens
 *   reuse.c    cells of earlier rows, with which prompts begin
 */
#pragma once

#include "engine.h"

#include "prefixes.h"
#include "scores.h"

/** A row of the machine and whose it is. */
struct engine_row {
    struct mpo_serve_request *request; /* NULL: free */
    int32_t slot;
    int32_t prompt; /* of the request */
    int32_t choice;
    int32_t drawn;
    bool is_paused;
    struct mpo_decode_text tail;   /* where stop texts are looked for */
    struct mpo_mixture_bias *bias; /* [bias_count] those of the request, then penalties */
    int32_t bias_count;
};

/** A prompt that is offered or seated. */
struct engine_slot {
    struct mpo_serve_request *request; /* NULL: none */
    int32_t prompt;
    int32_t free_count;  /* tokens that a row may draw */
    int32_t given_count; /* tokens of the prompt that are given to each row */
    int32_t open_rows;
    bool is_coming; /* its tokens are not there yet */
};

/** A prompt that was offered and whose tokens are not there yet. */
struct engine_coming {
    struct mpo_schedule_prompt place;
    bool is_begun; /* the encoders have it; else its tokens are given, or it was refused */
};

struct mpo_engine {
    struct mpo_engine_spec spec;
    struct mpo_schedule *schedule;
    struct mpo_serve_request **active; /* [active_count] oldest first */
    int32_t active_count;
    int32_t row_count;
    struct engine_row *row;        /* [row_count] at work, or nobody's */
    struct mpo_prefixes *prefixes; /* NULL: no cells are kept */
    struct mpo_scores *scores;     /* likewise: figures of prompts that were looked up */
    struct mpo_prefix_prompt told; /* one prompt, in the arrays below */
    const int32_t **told_token;    /* [H] */
    bool *told_part;               /* [H] */
    int32_t *told_count;           /* [H] */
    bool *told_among;              /* [row_count] */
    struct mpo_prefix now;         /* what a prompt can begin with */
    struct mpo_prefix later;       /* what it could once other prompts are fed */
    bool takes_over;               /* its cells are short: the kept row becomes its own */
    bool prompts_wait;             /* some are held: look again in the next turn */
    struct engine_slot *slot;      /* [slot_capacity] */
    struct engine_coming *coming;  /* [slot_capacity] a ring in the order of offers */
    int32_t coming_first;
    int32_t coming_count;
    int32_t *length;      /* [slot_capacity, H] tokens of the prompt in a slot */
    int32_t *told_length; /* [H] of a prompt that is seated, its given tokens too */
    int32_t paused_rows;
    bool offers_wait;   /* more prompts could be offered, or taken, at once */
    bool has_freed;     /* rows, slots or cells, which others may wait for, in this turn */
    double last_record; /* that the other ranks know of */
    bool others_sleep;  /* it was an idle one, and they have lines */
    struct mpo_link_use use;
    double shown_round_trip; /* in the metrics */
};

/** Whether the figures of the prompt's own tokens are wanted: they are given to its rows. */
static inline bool mpo_engine_looks_up(const struct mpo_serve_request *request)
{
    return request->kind == MPO_SERVE_COMPLETION && request->echo &&
           (request->logprobs || request->policy_scores);
}

/** Tokens of a prompt that are given to each of its rows. */
static inline int32_t mpo_engine_given_count(const struct mpo_serve_request *request,
                                             int32_t prompt)
{
    return mpo_engine_looks_up(request) ? request->prompt[prompt].token_count - 1 : 0;
}

/** Tokens of the slot's prompt, of the policy that has most. */
int32_t mpo_engine_longest(const struct mpo_engine *engine, int32_t slot);

/** Seconds until something has to be looked at without news. */
double mpo_engine_patience(const struct mpo_engine *engine);

/** Have the next prompt encoded, beside steps if it is a chat. @param is_offered  out: there
 *  was one */
enum mpo_status mpo_engine_offer(struct mpo_engine *engine, bool *is_offered);

/** Measure the oldest prompt that was offered, if its tokens are there: others come after it.
 *  @param steps  rows draw, which wait for nothing
 *  @param is_taken  out: it was */
enum mpo_status mpo_engine_take(struct mpo_engine *engine, bool steps, bool *is_taken);

/** Give rows to all prompts that fit. */
enum mpo_status mpo_engine_seat(struct mpo_engine *engine);

/** What becomes of an event of the row machine. */
enum mpo_status mpo_engine_hear(struct mpo_engine *engine,
                                const struct mpo_decode_event *event);

/** End a request that is refused, cancelled or complete: its rows are cancelled, what waits
 *  of it is forgotten, and DONE is put. */
void mpo_engine_end_request(struct mpo_engine *engine, struct mpo_serve_request *request);

static inline bool mpo_engine_penalises(const struct mpo_serve_request *request)
{
    return request->presence_penalty != 0.0 || request->frequency_penalty != 0.0;
}

/** Whether the slot has a prompt that waits for its rows. */
static inline bool mpo_engine_is_offered(const struct mpo_engine *engine, int32_t slot)
{
    const struct engine_slot *self = &engine->slot[slot];
    return self->request != NULL && self->open_rows == 0 && !self->is_coming;
}

/* ---- reuse.c ---- */

enum mpo_status mpo_engine_open_reuse(struct mpo_engine *engine);
void mpo_engine_close_reuse(struct mpo_engine *engine);

/** Have prompts wait whose beginning is just being fed for another one. */
void mpo_engine_hold_prompts(struct mpo_engine *engine);

/** Find what a slot's prompt can begin with, and make room for the cells that it has
 *  reserved. A prompt that is looked up is offered anew, with as many tokens as have their
 *  figures and one more. @param cached  tokens that every policy reuses, out */
enum mpo_status mpo_engine_find_cells(struct mpo_engine *engine, int32_t slot,
                                      int32_t *cached);

/** Have the prompt's first row begin with what was found. */
void mpo_engine_begin_with_cells(struct mpo_engine *engine, struct mpo_decode_row *row);

/** A row of the slot's prompt begins. */
void mpo_engine_remember(struct mpo_engine *engine, int32_t slot, int32_t row);

/** Tell the figures that were found of a slot's prompt. Before its rows begin. */
void mpo_engine_tell_figures(struct mpo_engine *engine, int32_t slot);

/** A row has a token, drawn or given. */
void mpo_engine_add_token(struct mpo_engine *engine, const struct mpo_decode_event *event);

/** A row has ended: its cells are kept, or are not. */
void mpo_engine_leave_cells(struct mpo_engine *engine, int32_t row, bool keeps);

/** Clear the caches. */
void mpo_engine_forget_cells(struct mpo_engine *engine);

/** Drop ended requests from the list of active ones. */
void mpo_engine_forget_ended(struct mpo_engine *engine);
