/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Decode: the row machine. Rows (responses being made or scored) come and go, each with its
 * own exponents and draw rule; all policies extend them, the exchange and the mixture turn
 * K rows into one, and a token is drawn or looked up. fit, generate and score are loops of
 * admit and step, and nothing above this stage knows a batch.
 *
 *     admit  step           step                 step
 *       |    +-----------+  +-----------------+  +--------
 *       +--> | prompts   |  | each row's last |  | ...        root: plan, broadcast, draw
 *            | 1 position|  | token, 1 position  |            others: follow
 *            +-----------+  +-----------------+  +--------
 *                 events         events
 *
 * The group's root decides and informs the others by one *control record* per step, of a
 * fixed size, with the last tokens and the rows that join and leave, so that every rank
 * derives the same spans. What a row gets depends on its own exponents, rule and tokens
 * alone.
 *
 * A row:    free -> admit -> waiting -> (prompt fed) -> live -> ended -> free, or parked
 *
 * At the root of a group, while its other ranks are in mpo_decode_follow:
 *
 *     mpo_decode_offer_text(decode, 0, "a question", NULL);
 *     mpo_decode_admit(decode, &(struct mpo_decode_row){.slot = 0, .share = -1, .mu = mu,
 *                                                       .free_count = 16}, &row);
 *     while (status == MPO_OK && mpo_decode_live_rows(decode) > 0)
 *         status = mpo_decode_step(decode, &events, &count);     then look at the events
 *     mpo_decode_release(decode);
 *
 * A refusal of an offer or of admit (MPO_ERR_USAGE, MPO_ERR_DATA) leaves the machine whole,
 * and a row that fails is an event. Any other failure of step, offer, idle, release or
 * follow leaves the ranks out of step: pass it to mpo_session_end_loop (or mpo_comm_fail),
 * of which the other ranks learn in their waits.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "mpo/policy.h"
#include "mpo/rng.h"
#include "mpo/status.h"
#include "mpo/timing.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Maximum positions of given responses scored in one step, enough for an efficient batch:
 *  memory does not grow with a response's length times the vocabulary. */
#define MPO_DECODE_GIVEN_POSITIONS 64

/** Maximum number of most probable tokens that a row may request. */
#define MPO_DECODE_TOP_MAX 128

/** When prompts are fed. */
enum mpo_decode_prefill {
    MPO_DECODE_ALONE, /* whole prompts first, before any row continues */
    MPO_DECODE_MIXED, /* in chunks, together with live rows */
};

struct mpo_decode_spec {
    const struct mpo_comm *comm;         /* borrowed, like all below */
    const struct mpo_policies *policies; /* with room made */
    struct mpo_exchange *exchange;       /* with room for all positions of a step */
    struct mpo_mixture *mixture;         /* likewise */
    struct mpo_timing *timing;           /* NULL: disabled */
    struct mpo_placement placement;
    int32_t row_capacity;    /* rows at work at once */
    int32_t parked_rows;     /* rows beside them that may be parked; 0: a parked row takes
                                the place of one at work */
    int32_t prompt_slots;    /* as the policies have */
    int32_t given_positions; /* of given responses in one step; 0: rows are only drawn */
    int32_t response_tokens; /* of one row, given and drawn: those that the policies made
                                room for; 0: rows share a room of context_tokens */
    int32_t top_max;         /* tokens that a row may request, <= MPO_DECODE_TOP_MAX */
    int32_t bias_max;        /* biases of one row's rule at most */
    bool reports_ends;       /* rows may ask for the end tokens' figures */
    enum mpo_decode_prefill prefill;
    int32_t prefill_tokens; /* of each policy in one step, for MPO_DECODE_MIXED */
    int32_t prefill_step;   /* then prompts may fill a step up to so many tokens, with those
                               drawn and looked up, where more rows wait than draw, and up
                               to two tokens a drawing row elsewhere; 0: never */
    double prefill_stretch; /* elsewhere instead of the two: so many that a step takes this
                               many times as long as one without, as measured; 1 or more, 0:
                               nothing is measured */
    int32_t prefill_idle;   /* of each policy while no row draws or looks up; 0: no more */
};

/** How a token is drawn from a row's mixture. */
struct mpo_draw_rule {
    bool greedy;                         /* the most probable token; else by the uniform */
    struct mpo_mixture_filter filter;    /* of draws; a member of 0 removes nothing */
    const struct mpo_mixture_bias *bias; /* [bias_count] */
    int32_t bias_count;
    uint64_t seed;
    struct mpo_rng_counter counter; /* its position is the token's place in the response */
    bool changes; /* mpo_decode_rebias may give it other biases while the row lives */
};

/** The request for a row. `given` is borrowed until it has ended, all else is copied. */
struct mpo_decode_row {
    int32_t slot;         /* of its prompt, which every policy has encoded */
    int32_t share;        /* a row admitted since the last step with the same slot and
                             exponents, whose prompt is fed for both; -1: none */
    const int32_t *given; /* [given_count] tokens that are scored as they pass */
    int32_t given_count;
    int32_t free_count; /* then at most this many are drawn, until an end token; with the
                           given ones at most response_tokens of the specification, which
                           of a session is rollout.max_tokens */
    const double *mu;   /* [H] exponents within MPO_EXPONENT_MAX (mpo/limits.h) */
    double end_bias;    /* tilt b, nat, likewise */
    bool weighted_only; /* skip policies with mu_h = 0: they are neither
                           fed for this row nor exchanged; its tokens and log q are the
                           same, log_policy[h] and expectation[h] are NAN */
    struct mpo_draw_rule rule;
    int32_t top_count;     /* most probable tokens to report at each position */
    bool moments;          /* report entropy and E_q log pi_h */
    bool ends;             /* report log pi_h of every end token; needs spec.reports_ends */
    bool parks;            /* keep its cache when it ends, until it is cancelled */
    const int32_t *reused; /* [H] so many tokens of its prompt are the first that row
                              `source` holds: they are not fed again. Less than the prompt
                              has. NULL: none; copied. Needs spec.parked_rows */
    int32_t source;        /* parked, or live and fed with its prompt */
    bool takes_over;       /* the source is parked, and becomes this row */
    bool whole_prompt;     /* feed its prompt in one step, as MPO_DECODE_ALONE does */
    bool given_is_prompt;  /* the given tokens belong to the prompt: an end token among them
                             ends nothing, and positions of draws begin at 0 after them */
};

enum mpo_decode_flag {
    MPO_DECODE_GIVEN = 1,  /* the token was given; otherwise it was drawn */
    MPO_DECODE_ENDED = 2,  /* it is an end token: the row's last */
    MPO_DECODE_CUT = 4,    /* the row's last, because there is no more to score or draw */
    MPO_DECODE_FAILED = 8, /* some figure of the position is not finite: the row's last */
};

/** A token of a row. Pointers are valid until the next step. */
struct mpo_decode_event {
    int32_t row;
    int32_t position;         /* of the token in the response, from 0 */
    int32_t token;            /* -1 when it failed */
    int32_t flags;            /* of enum mpo_decode_flag */
    double log_q;             /* log q(token), nat; never filtered, biased or tempered */
    const double *log_policy; /* [H] log pi_h(token), nat; NAN where weighted_only skips */
    const struct mpo_mixture_moments *moments; /* entropy NAN unless requested */
    const double *expectation;         /* [H] E_q log pi_h, nat; NAN unless requested */
    const int32_t *top_token;          /* [top_count] -1 where there is none */
    const double *top_log_q;           /* [top_count] nat, most probable first */
    const double *end_log_policy;      /* [end tokens, H] log pi_h, nat, in the order of
                                          mpo_policies_end_tokens; NULL unless requested */
    const struct mpo_failure *failure; /* why this row failed, else NULL */
};

struct mpo_decode;

/** Positions of one step at most, for opening exchange and mixture; needs the spec's
 *  row_capacity, given_positions and prefill. Local. */
int32_t mpo_decode_positions(const struct mpo_decode_spec *spec);

/** Local; allocates all it will need. The same spec on all ranks of the group. */
enum mpo_status mpo_decode_open(const struct mpo_decode_spec *spec,
                                struct mpo_decode **out);
void mpo_decode_close(struct mpo_decode **decode);

/**
 * Put a prompt into a slot, replacing its content: every rank encodes it for its policies.
 * A slot whose offer was refused has no prompt. Prompts that every rank has can be encoded
 * by mpo_policy_encode instead, but for MPO_DECODE_MIXED.
 *
 * At the root of the group, while the others follow. May allocate.
 *
 * @param prompt   as mpo/prompts.h has it
 * @param lengths  [H] tokens of each policy's prompt, out; NULL: not wanted
 * @return MPO_ERR_USAGE when there is no such slot, or a row still waits for its prompt;
 *         else the status of the lowest rank that refuses it, with its text
 */
enum mpo_status mpo_decode_offer(struct mpo_decode *decode, int32_t slot,
                                 const struct mpo_prompt *prompt, int32_t *lengths);

/** The same for token ids, which every policy takes as they are: no template, no
 *  beginning-of-sequence token. At the root.
 *  @param token  [token_count] ids below V, at least one */
enum mpo_status mpo_decode_offer_tokens(struct mpo_decode *decode, int32_t slot,
                                        const int32_t *token, int32_t token_count);

/** The same for one user message. At the root. */
enum mpo_status mpo_decode_offer_text(struct mpo_decode *decode, int32_t slot,
                                      const char *text, int32_t *lengths);

/** How ranks encode prompts beside the steps: in a thread of each, for its policies. */
struct mpo_decode_beside {
    /** A prompt is encoded on this rank. Called in that thread, once for each, in the order of
     *  their offers. NULL: nobody is told */
    void (*encoded)(void *argument);
    /** At the root: prompts that every other rank has encoded so far. NULL: it does not know */
    int64_t (*others)(void *argument);
    void *argument; /* borrowed */
};

/** Start the thread. Local; on all ranks of the group, before the first offer of this kind.
 *  @return MPO_ERR_MEMORY; MPO_ERR_USAGE the second time */
enum mpo_status mpo_decode_encode_beside(struct mpo_decode *decode,
                                         const struct mpo_decode_beside *beside);

/** End it: nobody is told of anything from then on, and what it has not encoded is forgotten.
 *  NULL-safe. Local. */
void mpo_decode_end_encoding(struct mpo_decode *decode);

/**
 * Like mpo_decode_offer, but the prompt is encoded beside the steps that follow, after those
 * that were offered so before. Its slot is nobody else's until mpo_decode_end_offer.
 *
 * At the root of the group, while the others follow. May allocate.
 *
 * @return MPO_ERR_USAGE as mpo_decode_offer, and without mpo_decode_encode_beside;
 *         MPO_ERR_MEMORY: nothing is encoded
 */
enum mpo_status mpo_decode_begin_offer(struct mpo_decode *decode, int32_t slot,
                                       const struct mpo_prompt *prompt);

enum mpo_decode_progress {
    MPO_DECODE_NOT_ENCODED,  /* or nothing was offered */
    MPO_DECODE_ENCODED_HERE, /* at the root; mpo_decode_end_offer may wait for others */
    MPO_DECODE_ENCODED,      /* everywhere, or nobody knows */
};

/** How far it is. Never waits. At the root. */
enum mpo_decode_progress mpo_decode_offer_progress(struct mpo_decode *decode, int32_t slot);

/** Have the prompt in its slot, as after mpo_decode_offer and with its statuses; waits until
 *  all ranks have encoded it. At the root of the group, while the others follow. */
enum mpo_status mpo_decode_end_offer(struct mpo_decode *decode, int32_t slot,
                                     int32_t *lengths);

/** The tokens of a policy's prompt in a slot; *token borrowed until the next offer. At the
 *  root of a machine with parked_rows.
 *  @return their number, 0: none was offered */
int32_t mpo_decode_prompt(const struct mpo_decode *decode, int32_t slot, int32_t h,
                          const int32_t **token);

/**
 * Assign the lowest free row to a response. At the root; it joins in the next step.
 *
 * @param index  the row, out
 * @return MPO_ERR_USAGE when no row is free, at another rank than the root, or when the
 *         request does not fit the specification (the text says what)
 */
enum mpo_status mpo_decode_admit(struct mpo_decode *decode,
                                 const struct mpo_decode_row *row, int32_t *index);

/**
 * Give a row other biases, for its draws from the next step on. Its rule must say that it
 * `changes`. At the root.
 *
 * @param bias  [bias_count] copied; at most bias_max of the specification
 * @return MPO_ERR_USAGE
 */
enum mpo_status mpo_decode_rebias(struct mpo_decode *decode, int32_t index,
                                  const struct mpo_mixture_bias *bias, int32_t bias_count);

/** Pause a row, so that none of its tokens are drawn, or let it continue. At the root; from
 *  the next step on. No effect on a row that has given tokens left. */
void mpo_decode_pause(struct mpo_decode *decode, int32_t index, bool pauses);

/** Rows that can be admitted. At the root. */
int32_t mpo_decode_free_rows(const struct mpo_decode *decode);

/** Rows that are waiting or live. At the root. */
int32_t mpo_decode_live_rows(const struct mpo_decode *decode);

/** End a row, or release the cache of a parked one. At the root; free at once, and gone
 *  with the next step. No effect on other rows. */
void mpo_decode_cancel(struct mpo_decode *decode, int32_t index);

/** Stop a row where it is and keep its cache until it is cancelled. At the root. */
void mpo_decode_park(struct mpo_decode *decode, int32_t index);

/** Cancel all rows and clear the policies' caches: what follows is a function of the calls
 *  alone, to the bit. At the root; done in the next step. */
void mpo_decode_clear(struct mpo_decode *decode);

/**
 * One step of all rows: plan, tell the others, feed, exchange, combine, draw or look up.
 *
 * At the root of the group, while the others follow. Allocates nothing.
 *
 * @param events  out, borrowed until the next step, in the order in which rows were
 *                admitted
 * @param count   out; 0 when no row waits or lives, and in a step of MPO_DECODE_MIXED that
 *                only fed a part of a prompt: go on while mpo_decode_live_rows is not 0
 */
enum mpo_status mpo_decode_step(struct mpo_decode *decode,
                                const struct mpo_decode_event **events, int32_t *count);

/** Tell the other ranks that the root is alive and idle: a wait of theirs that has a
 *  deadline begins anew. At the root. */
enum mpo_status mpo_decode_idle(struct mpo_decode *decode);

/** How the other ranks sleep from an idle record to the next one, where the waits of MPI use
 *  too much of a core. */
struct mpo_decode_rest {
    enum mpo_status (*sleep)(
        void *argument);          /* at a rank that follows, until it is woken */
    void (*wake)(void *argument); /* at the root, before the next record */
    void *argument;               /* borrowed */
};

/** Local; the same on all ranks of the group, before the first idle record. */
void mpo_decode_set_rest(struct mpo_decode *decode, const struct mpo_decode_rest *rest);

/** Release the others from mpo_decode_follow; rows stay as they are. At the root. */
enum mpo_status mpo_decode_release(struct mpo_decode *decode);

/** Do the root's steps with it until it releases. On all ranks of the group but the root;
 *  at the root it returns at once. */
enum mpo_status mpo_decode_follow(struct mpo_decode *decode);

#ifdef __cplusplus
}
#endif
