/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Counter-based random numbers: a draw is a function of its purpose, not of who draws.
 *
 *     u = Philox4x64-10(key = (seed, stream), counter = (step, prompt, response, position))
 *
 * One stream per purpose, so no two uses share a number. The layout is fixed: because of it
 * the same seed gives the same bytes on any number of ranks.
 *
 * Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011 (Random123).
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mpo_rng_stream {
    MPO_RNG_PROMPT_ORDER = 1, /* counter: (epoch, index, 0, 0)                         */
    MPO_RNG_TOKENS = 2,       /* counter: (step, prompt slot in step, response, position) */
    MPO_RNG_BOOTSTRAP = 3,    /* counter: (replicate, index, 0, 0)                     */
    MPO_RNG_PICK = 4,         /* counter: (step, prompt slot in step, sample, 0)       */
    MPO_RNG_SURVIVAL = 5,     /* counter: (step, prompt slot in step, try, position)   */
};

/** The purpose of a draw. */
struct mpo_rng_counter {
    uint64_t step;
    uint64_t prompt;
    uint64_t response;
    uint64_t position;
};

/** A uniform in the open interval (0, 1), a multiple of 2^-53. Local. */
double mpo_rng_uniform(uint64_t seed, enum mpo_rng_stream stream,
                       struct mpo_rng_counter counter);

/** A fair permutation of 0..count-1 (Fisher-Yates); order: [count]. Local. */
void mpo_rng_permutation(uint64_t seed, enum mpo_rng_stream stream, uint64_t step,
                         int64_t count, int64_t *order);

#ifdef __cplusplus
}
#endif
