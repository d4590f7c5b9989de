/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage clock.
 */
#include "timing.h"

#include <stddef.h>
#include <time.h>

static const char *const stage_names[MPO_TIMED_STAGE_COUNT] = {
#define STAGE_NAME(name, sentence) #name,
    MPO_TIMED_STAGE_LIST(STAGE_NAME)
#undef STAGE_NAME
};

double mpo_timing_now(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const char *mpo_timing_name(enum mpo_timed_stage stage)
{
    return stage_names[stage];
}

double mpo_timing_add(struct mpo_timing *timing, enum mpo_timed_stage stage, double since)
{
    double now = mpo_timing_now();
    if (timing != NULL)
        timing->seconds[stage] += now - since;
    return now;
}
