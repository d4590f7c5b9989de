/* SPDX-License-Identifier: Apache-2.0 */
/**
 * exp() that a compiler turns into vector code, and the attribute that has it do so for
 * several instruction sets.
 *
 *     exp(x) = 2^k exp(r),   k = round(x / ln 2),   r = x - k ln 2,   |r| <= ln(2) / 2
 *
 * exp(r) is a Taylor polynomial of degree 13, whose first dropped term is 4e-18; the
 * relative error of the whole is below 3e-16. Below -708 the result is exactly 0, so that
 * masked tokens have no probability at all; NaN stays NaN. Above 709 it is undefined: what
 * is exponentiated here has its maximum taken off.
 *
 * One select, at the end, is all that the compiler must turn into a mask; a clamp of x as
 * well would have GCC 12 give up for SSE2. Even so it may only do it with
 * -fno-trapping-math (CMakeLists.txt): else a comparison whose result is not used might
 * trap.
 *
 * Source: Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., section 11.4
 * (additive range reduction, two-part constant after Cody & Waite).
 */
#pragma once

#include <stdint.h>
#include <string.h>

/* No clone uses fused multiply-add (x86-64-v3, -v4), which would take 0.6 of the time but
 * rounds differently: all clones must give the same bits. */
#ifndef MPO_SIMD_CLONES
#if defined(__x86_64__) && !defined(MPO_NO_CLONES)
#define MPO_SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MPO_SIMD_CLONES
#endif
#endif

static inline __attribute__((always_inline)) double mpo_simd_exp(double x)
{
    const double shift = 0x1.8p52; /* adding it rounds to an integer in the low bits */
    const double ln2_high = 0x1.62e42fefa0000p-1;
    const double ln2_low = 0x1.cf79abc9e3b3ap-40;
    double shifted = x * 0x1.71547652b82fep0 + shift;
    double k = shifted - shift;
    double r = (x - k * ln2_high) - k * ln2_low;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    uint64_t bits = 0;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 52) + ((uint64_t)1023 << 52);
    double scale = 0.0;
    memcpy(&scale, &bits, sizeof scale);
    return x < -708.0 ? 0.0 : p * scale;
}
