/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How far the sum of weights may lie from 1: the one tolerance for weights that a person
 * types (0.3, 0.3, 0.4 are not 1 in binary), that a record holds, or that a step leaves.
 */
#pragma once

#include <math.h>
#include <stdbool.h>

#define MPO_SUM_TOLERANCE 1e-6

/** Whether weights with this sum are on the simplex; false for NaN. Local. */
static inline bool mpo_sums_to_one(double sum)
{
    return fabs(sum - 1.0) <= MPO_SUM_TOLERANCE;
}
