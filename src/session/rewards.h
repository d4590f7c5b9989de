/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The reward program of a configuration, beside a session: fit and evaluate have it measure the
 * responses of their rollouts.
 */
#pragma once

#include "decode/text.h"
#include "mpo/rewards.h"
#include "parts.h"

/** Texts of responses, one after another. */
struct mpo_session_texts {
    struct mpo_decode_text one;
    char *text; /* grows */
    size_t capacity;
    int64_t *bytes; /* [N] of each */
};

/** Room for the texts of so many responses; a zero one is none. Local. */
enum mpo_status mpo_session_texts_open(const struct mpo_session *session, size_t count,
                                       struct mpo_session_texts *texts);
void mpo_session_texts_close(struct mpo_session_texts *texts);

/** The texts of all responses of a rollout. Rank zero only. @return MPO_ERR_MEMORY */
enum mpo_status mpo_session_collect_texts(const struct mpo_responses *responses,
                                          struct mpo_session_texts *texts);

/** Whether the configuration has a reward program. Local. */
bool mpo_session_has_rewards(const struct mpo_session *session);

/** The program, and room for the responses of a rollout; zero where it is closed. */
struct mpo_session_rewards {
    struct mpo_rewards *program;
    const char **name;   /* [K] of the rewards */
    const char **policy; /* [K] of their policies, in the room of name */
    const char **given;  /* [2, N] prompt and prefill of each response */
    double *reward;      /* [N, K] as the program has them */
};

/** Start the program, for at most `count` responses at once. Rank zero only.
 *  @return the statuses of mpo_rewards_open */
enum mpo_status mpo_session_rewards_open(const struct mpo_session *session, size_t count,
                                         struct mpo_session_rewards *rewards);
void mpo_session_rewards_close(struct mpo_session_rewards *rewards);

/** As mpo_comm_expect, with the time that rank zero may wait for the program. Local; the same
 *  on all ranks. */
void mpo_session_expect_rewards(const struct mpo_session *session, const char *doing,
                                int64_t step, double deadline);

/**
 * The rewards of a rollout's responses, into rewards->reward. Rank zero only; all ranks have
 * been told to expect it.
 *
 * @param texts     of the same responses
 * @param first_id  of the first response, for the program
 * @return the statuses of mpo_rewards_measure and mpo_rewards_check_size
 */
enum mpo_status mpo_session_measure(const struct mpo_session *session,
                                    const struct mpo_responses *responses,
                                    const struct mpo_session_texts *texts, int64_t first_id,
                                    struct mpo_session_rewards *rewards);
