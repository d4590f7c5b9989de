/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The walk of a command through its prompts, a rollout at a time, beside a progress line.
 */
#pragma once

#include "commands/report/progress.h"
#include "session/parts.h"

struct walk {
    struct mpo_session *session;
    struct progress *progress;    /* begun by the command, which ends it too */
    const char *unit;             /* what prompts are called in messages: "prompts" */
    int64_t *prompt;              /* [session->prompts_max] room */
    int64_t prompt_count;         /* the first so many of the session's prompts */
    int32_t responses;            /* drawn or given to each */
    struct mpo_rollout_step step; /* what is the same in every rollout */
    /* the rollout of prompts first .. first + step->prompt_count - 1 and, on rank zero, what
       becomes of it; token_count: tokens of all rollouts so far, on rank zero */
    enum mpo_status (*run)(void *command, struct mpo_rollout_step *step, int64_t first,
                           int64_t *token_count);
    void *command;
};

/** Collective over all ranks. Ends early, with MPO_REQUEUE, when a stop was asked for. */
enum mpo_status walk_prompts(const struct walk *walk);

/** Sum of the tokens of count responses. Local. */
int64_t walk_count_tokens(const int32_t *token_count, int32_t count);
