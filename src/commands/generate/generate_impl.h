/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The inside of generate.
 *
 *   generate.c  options, the session, and the loop over prompts
 *   print.c     what is printed, and the choice of best-of-m
 *   exact.c     what exact draws ask for, cost, and leave undrawn
 *   text.c      stop texts and streamed text (text.h)
 */
#pragma once

#include "session/end_bias.h"
#include "session/parts.h"
#include "session/recorded_z.h"
#include "text.h"

struct generate {
    struct mpo_config *config;
    struct mpo_session *session;
    double *weights; /* [H] exponents */
    double end_bias; /* of the draws, nat */
    struct mpo_decode_text text;
    int64_t prompt_count;
    int64_t *prompt;       /* [session->prompts_max] of one rollout */
    int32_t responses;     /* to each prompt, candidates included */
    int64_t token_count;   /* on rank zero */
    int64_t exact_count;   /* of exact draws on rank zero: responses, */
    int64_t try_count;     /* tries, */
    int64_t undrawn_count; /* and prompts that ran out of tries */
    double *log_z;         /* [prompt_count] of exact draws, NAN: unknown; NULL: none */
    double *candidates;    /* [2, best_of] log w and its softmax */
    bool several;          /* text output needs headings */
    struct stops stops;
    struct mpo_mixture_filter filter;
    struct stream stream;
    bool streams; /* print the response while it is generated */
};

/** Say that a warm-up at the exponents begins. Local.
 *  @param prompt  [count] borrowed by the query */
struct mpo_end_bias_query generate_begin_warm_up(const struct generate *generate,
                                                 const int64_t *prompt, int32_t count);

/* ---- print.c ---- */

/** Print a rollout's responses. Rank zero only. */
enum mpo_status generate_print(struct generate *generate,
                               const struct mpo_responses *responses);

/* ---- exact.c ---- */

/** Refuse what exact draws cannot be combined with. Local; the same on all ranks.
 *  @return MPO_ERR_USAGE, with the option */
enum mpo_status generate_exact_check_options(const struct mpo_config_generate *options);

/** Refuse exponents of which there are no exact draws. Local; the same on all ranks.
 *  @return MPO_ERR_USAGE, with the exponent */
enum mpo_status generate_exact_check_exponents(const struct generate *generate);

/** That cost as the record of the weights shows it, before the loop. Collective over all
 *  ranks; failures are agreed on and printed. */
enum mpo_status generate_exact_read_price(struct generate *generate,
                                          const struct mpo_weights_choice *choice);

/** Say what a response to each of the first prompts costs, by what was read, and by a warm-up of
 *  those that it says nothing of. Collective over all ranks, inside the loop. */
enum mpo_status generate_exact_tell_price(struct generate *generate);

/** Count and name the prompts whose responses are not all there. Rank zero only. */
void generate_exact_count(struct generate *generate, const struct mpo_responses *responses);

/** How exact draws ended. Collective over all ranks; a failure is agreed on and printed.
 *  @return MPO_ERR_DATA where a prompt was not drawn */
enum mpo_status generate_exact_end(const struct generate *generate);
