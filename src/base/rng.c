/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Philox4x64-10 of Random123. One block a draw wastes three of its four words and keeps the
 * layout trivial: a draw is addressed by what it is for. A step draws one number per token,
 * so the cost does not matter.
 */
#include "mpo/rng.h"

/* Random123's headers do not compile without warnings at our level. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <Random123/philox.h>
#pragma GCC diagnostic pop

double mpo_rng_uniform(uint64_t seed, enum mpo_rng_stream stream,
                       struct mpo_rng_counter counter)
{
    philox4x64_key_t key = {{seed, (uint64_t)stream}};
    philox4x64_ctr_t block = {
        {counter.step, counter.prompt, counter.response, counter.position}};
    uint64_t word = philox4x64(block, key).v[0];
    /* 52 bits plus one half: exact in double, never 0 and never 1. */
    return ((double)(word >> 12) + 0.5) * 0x1p-52;
}

void mpo_rng_permutation(uint64_t seed, enum mpo_rng_stream stream, uint64_t step,
                         int64_t count, int64_t *order)
{
    for (int64_t i = 0; i < count; i++)
        order[i] = i;
    for (int64_t i = count - 1; i > 0; i--) {
        struct mpo_rng_counter counter = {step, (uint64_t)i, 0, 0};
        double u = mpo_rng_uniform(seed, stream, counter);
        int64_t j = (int64_t)(u * (double)(i + 1));
        int64_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}
