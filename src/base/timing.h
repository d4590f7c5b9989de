/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The clock of the timed stages (mpo/timing.h).
 */
#pragma once

#include "mpo/timing.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Monotonic clock, seconds. Local. */
double mpo_timing_now(void);

/** Add the time since `since` to a stage and return the present time, so that stages can be
 *  chained without gaps. timing may be NULL. Local. */
double mpo_timing_add(struct mpo_timing *timing, enum mpo_timed_stage stage, double since);

#ifdef __cplusplus
}
#endif
