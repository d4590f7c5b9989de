/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Rewards that a program of the user measures.
 *
 * The program is started once, by sh, on the host of rank zero, in the working directory. It
 * reads requests from its standard input, one JSON object a line:
 *
 *     {"id": 17, "prompt": "...", "prefill": "", "response": "...", "token_count": 12, "left": 3}
 *
 * and answers each on its standard output, in any order:
 *
 *     {"id": 17, "helpful": 0.7, "concise": -12}
 *
 * A batch is the responses of one step; "left" counts the requests of the batch that
 * follow, so that a program that takes many at once knows when it has them all. Other
 * members are ignored. Its standard error is that of mpo. When it has read the end of its
 * input it should end.
 *
 * It is never started again: what it did not answer in time, or answered wrongly, is an
 * error, and so is its end. It is a process group of its own, so a Ctrl-C that asks mpo to
 * stop after a step does not reach it; the group ends with the handle, and the program itself
 * with mpo, however that ends.
 *
 * Rewards of policies are compared on a scale of their own (src/README.md, Rewards):
 *
 *     s_k = (r_k - zero_k) / (one_k - zero_k)
 */
#pragma once

#include <stdint.h>

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_rewards;

struct mpo_rewards_spec {
    const char *command;     /* for sh -c */
    const char *const *name; /* [name_count] of the numbers wanted; some may be the same */
    int32_t name_count;      /* K */
    double deadline_seconds; /* for the answers to a batch; 0: for ever */
};

/** Responses to be rewarded; arrays borrowed. */
struct mpo_rewards_batch {
    int64_t first_id;           /* of response 0; unique to the batch */
    int32_t count;              /* N */
    const char *const *prompt;  /* [N] as in records */
    const char *const *prefill; /* [N] "" where there is none */
    const char *text;           /* the responses in UTF-8, one after another */
    const int64_t *text_bytes;  /* [N] of each */
    const int32_t *token_count; /* [N] */
};

/**
 * Start the program. If it cannot run, the first batch fails. Local; rank zero only.
 *
 * @param spec  borrowed until the handle is closed
 * @return MPO_ERR_MEMORY where there is no process or file descriptor left
 */
enum mpo_status mpo_rewards_open(const struct mpo_rewards_spec *spec,
                                 struct mpo_rewards **out);

/** End the program: it has a moment after the end of its input, then it is killed with all
 *  that it started. NULL-safe. Local; rank zero only. */
void mpo_rewards_close(struct mpo_rewards **rewards);

/**
 * Have a batch rewarded: send all, and wait for all answers. Local; rank zero only. After a
 * failure the handle can only be closed.
 *
 * @param reward  [N, K] out, as the program has them
 * @return MPO_ERR_DATA for an answer that is none: no JSON, no object, too long; an id that
 *         is unknown or answered already; a number that is missing, or none; MPO_ERR_PEER
 *         when the program ended or was late; MPO_ERR_MEMORY
 */
enum mpo_status mpo_rewards_measure(struct mpo_rewards *rewards,
                                    const struct mpo_rewards_batch *batch, double *reward);

/** Where a scale comes from. */
struct mpo_rewards_scale {
    double *zero;       /* [K] reward that counts as 0 */
    double *one;        /* [K] reward that counts as 1 */
    double *zero_error; /* [K] standard errors; NAN: given, not measured */
    double *one_error;  /* [K] */
};

/** Measured rewards; a unit is a prompt with its responses. */
struct mpo_rewards_measured {
    int32_t unit_count;
    const double *zero; /* [unit_count, K] mean of r_k over what zero is measured from */
    const double
        *one; /* [unit_count, K] mean of r_k over the responses of policy k alone */
};

/**
 * Refuse rewards so large that their means or squares are infinite. Local.
 *
 * @param reward  [count, objective_count]
 * @param policy  [objective_count] names, for the message
 * @return MPO_ERR_DATA with the policy and its largest value
 */
enum mpo_status mpo_rewards_check_size(const double *reward, int64_t count,
                                       const char *const *policy, int32_t objective_count);

/**
 * Fill in what of a scale is NAN from measured rewards, with errors over units, and check
 * the whole. Units are the same prompts and draws on both sides, so one - zero has the error
 * of the differences. Local.
 *
 * @param policy  [K] names, for messages
 * @return MPO_ERR_DATA when a measured one - zero is not above two of its standard errors
 *         (the text has both means); MPO_ERR_CONFIG when given ones are not in order
 */
enum mpo_status mpo_rewards_settle_scale(const struct mpo_rewards_measured *measured,
                                         const char *const *policy, int32_t objective_count,
                                         struct mpo_rewards_scale *scale);

#ifdef __cplusplus
}
#endif
