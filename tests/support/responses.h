/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Responses for tests of the estimator: every response of tiny bigram policies with the
 * figures that a rollout would give it, and steps put together from them.
 *
 * The figures come from mpo/mixture.h, the probabilities of whole responses from bigram.h,
 * so that sums over the enumeration check both.
 */
#pragma once

#include <stdint.h>

#include "bigram.h"
#include "mpo/rollout.h"

/** Every response from one start state as one step of one prompt; owned arrays. */
struct enumeration {
    struct mpo_responses responses; /* responses.responses of them */
};

/**
 * Enumerate under the proposal with exponents mu [H] and end tilt b.
 *
 * @param spec    of the H policies; spec->start[0] is the start state
 * @param bigram  opened from spec
 */
void enumeration_make(struct enumeration *self, const struct bigram_spec *spec,
                      const struct bigram *bigram, const double *mu, double end_bias);
void enumeration_free(struct enumeration *self);

/** A zeroed step of prompt_count prompts and m responses each; owned arrays. */
void responses_make(struct mpo_responses *self, int32_t prompt_count, int32_t responses,
                    int32_t policy_count, int32_t max_tokens);
void responses_free(struct mpo_responses *self);

/** Response `slot` of a step becomes a copy of response `from` of another. */
void responses_copy(struct mpo_responses *self, int32_t slot,
                    const struct mpo_responses *source, int32_t from);

/** Fill a step with figures that look like a rollout's, reproducibly: responses of 1 to L
 *  tokens, log pi of some -2 nat a token, log q near them, control about 0. */
void responses_random(struct mpo_responses *self, uint64_t seed);
