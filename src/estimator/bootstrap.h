/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Studentised bootstrap over units (prompts): intervals for means, and upper bounds that hold
 * for several means at once.
 *
 *     x = mean_i x_i,   s = its standard error,   t* = (x* - x) / s*   over n units drawn anew
 *     interval of a column        [ x - s q_.975(t*),  x - s q_.025(t*) ]
 *     bounds of a family, c in C  x_c + s_c q,   q the 95 % quantile of max_{c in C} -t*_c
 *
 * The second is the max-t bound: all columns of the family are below theirs at once with a
 * probability of 95 %, so the largest bound is one for the largest mean, whichever it is.
 * Both assume that the units are independent draws from what the means are about. Where a
 * few units are far from all others the ends go far out on their side, as they should; a
 * resample that misses such units has hardly any scatter of its own, and s* counts as
 * s / 4 at least, or the end would be set by how alike the others are.
 *
 * Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 12 (bootstrap-t);
 * Romano & Wolf, J. Am. Stat. Assoc. 100 (2005) 94-108, section 4 (studentised maximum);
 * Davison & Hinkley, Bootstrap Methods and their Application (1997), section 5.2.
 */
#pragma once

#include <stdint.h>

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_interval {
    double estimate; /* x */
    double low;      /* NAN for a single unit, like high; x where all units are equal */
    double high;
};

/** Columns first .. first + count - 1, which are bounded together. */
struct mpo_bootstrap_family {
    int32_t first;
    int32_t count;
};

struct mpo_bootstrap_spec {
    uint64_t seed;
    int32_t replicates;
    int64_t unit_count;                        /* n */
    int32_t column_count;                      /* C */
    const double *value;                       /* [n, C] finite */
    const struct mpo_bootstrap_family *family; /* [family_count] */
    int32_t family_count;
};

/**
 * Resamples are counted by (replicate, index): the same seed draws the same units for other
 * columns too. Local.
 *
 * @param out    [C]
 * @param upper  [C] bounds of the columns of families, NAN for others and for a single unit;
 *               NULL: not wanted
 */
enum mpo_status mpo_bootstrap_run(const struct mpo_bootstrap_spec *spec,
                                  struct mpo_interval *out, double *upper);

#ifdef __cplusplus
}
#endif
