/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The end tilt for given exponents, from a warm-up with the ends integrated out.
 */
#pragma once

#include "parts.h"

/** Prompts that are enough for a warm-up. */
#define MPO_END_BIAS_PROMPTS 4

/** Rows of each prompt. */
#define MPO_END_BIAS_ROWS 16

/** At which exponents, and from which prompts. */
struct mpo_end_bias_query {
    const double *mu;      /* [H] */
    const int64_t *prompt; /* [prompt_count] indices of the session's prompts */
    int32_t prompt_count;  /* <= MPO_END_BIAS_PROMPTS in a warm-up */
};

/** Host memory that a warm-up takes on a rank, in a session of a size with so many prompts: the
 *  masses of its rows, and those of a batch. Local. */
uint64_t mpo_session_warm_up_bytes(const struct mpo_config *config,
                                   const struct mpo_session_size *size,
                                   int64_t prompt_count);

/**
 * Draw MPO_END_BIAS_ROWS rows that never end for each prompt, and solve for the end tilt
 * with which the token mixture is closest to the mixture of whole responses
 * (mpo_estimator_end_bias_root). The draws have counters of their own, which no step of a
 * fit has; the same query gives the same bits on any number of ranks.
 *
 * Collective over all ranks, inside a loop (mpo_session_begin_step): pass a failure to
 * mpo_session_end_loop. Any session will do but one that scores given responses; its rows
 * are used a batch at a time.
 *
 * @param out  b, nat, in [-100, 100]; the same on all ranks
 * @return MPO_REQUEUE on all ranks where a request to stop came
 */
enum mpo_status mpo_session_find_end_bias(struct mpo_session *session,
                                          const struct mpo_end_bias_query *query,
                                          double *out);

/**
 * log Z of each prompt from the same draws (mpo_estimator_log_z): an exact draw of a whole
 * response takes 1 / Z tries. Collective over all ranks, inside a loop, as above.
 *
 * @param out  [prompt_count] nat; the same on all ranks
 * @return MPO_REQUEUE on all ranks where a request to stop came
 */
enum mpo_status mpo_session_find_log_z(struct mpo_session *session,
                                       const struct mpo_end_bias_query *query, double *out);
