/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounding of rows to bf16 on the host: the rule and its error are in mpo/mixture.h. The
 * greatest logit is subtracted first, because a float's error grows with its size, and what
 * matters is how far a logit is below the greatest.
 *
 * Two loops for vector code over a row that the second finds in the cache: 4 V bytes read,
 * 4 V written. The second rounds as integers do: adding just under half of the last bit
 * kept (and its parity, for ties) carries into the bits kept, and into the exponent where
 * the mantissa is full. A NaN is put back, whose carry would run over into the sign.
 */
#include "mixture_impl.h"

#include <string.h>

#include "loops.h"
#include "mpo/policy.h"
#include "simd_exp.h"

#define LOW_BITS   16
#define BELOW_HALF 0x7fffu
#define QUIET_NAN  0x7fc00000u

MPO_SIMD_CLONES
static void round_below(const float *restrict x, float top, int32_t count,
                        float *restrict out)
{
#pragma omp simd
    for (int32_t i = 0; i < count; i++) {
        float below = x[i] - top;
        uint32_t bits = 0;
        memcpy(&bits, &below, sizeof bits);
        bits += BELOW_HALF + (bits >> LOW_BITS & 1u);
        bits &= ~0u << LOW_BITS;
        bits = below != below ? QUIET_NAN : bits;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

void mpo_mixture_round_row(const float *x, int32_t count, float *out)
{
    float top = mpo_mixture_max(x, count);
    /* + 0: the maximum of zeros of both signs may be
     * either, and x - 0 must not depend on it. */
    round_below(x, top > MPO_MASKED_LOGIT ? top + 0.0F : 0.0F, count, out);
}
