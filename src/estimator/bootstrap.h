/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Bootstrap over units (prompts): intervals for functions of means.
 *
 *     theta = derive( mean_i x_i ),   theta* the same over n units drawn with replacement
 *     interval  [ theta - s q_hi,  theta - s q_lo ],   s = sqrt( n / (n - 1) )
 *
 * with q_lo and q_hi the 2.5 % and 97.5 % quantiles of theta* - theta (the basic interval).
 * It assumes that the units are independent draws from what the means are about, and that
 * they are many: with fewer than about 30 it is too short.
 *
 * Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), sections 2.4
 * and 5.2.
 */
#pragma once

#include <stdint.h>

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_interval {
    double estimate; /* theta */
    double low;      /* NAN for a single unit */
    double high;
};

struct mpo_bootstrap_spec {
    uint64_t seed;
    int32_t replicates;
    int64_t unit_count;   /* n */
    int32_t column_count; /* C */
    int32_t result_count; /* R */
    const double *value;  /* [n, C] */
    void (*derive)(const void *context, const double *mean, double *result);
    const void *context;
};

/** Local. @param out [R] */
enum mpo_status mpo_bootstrap_run(const struct mpo_bootstrap_spec *spec,
                                  struct mpo_interval *out);

#ifdef __cplusplus
}
#endif
