/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Timed stages: one list for the clock, the record's /timing and fit's table.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* name, sentence */
#define MPO_TIMED_STAGE_LIST(X)                                                            \
    X(decode, "forward passes of the policies")                                            \
    X(exchange, "rows and token ids between ranks, waiting included")                      \
    X(mixture, "normalisation, combination and sampling")                                  \
    X(estimate, "estimator and descent")                                                   \
    X(record, "writing the record")

enum mpo_timed_stage {
#define MPO_TIMED_STAGE_ENUM(name, sentence) MPO_TIMED_##name,
    MPO_TIMED_STAGE_LIST(MPO_TIMED_STAGE_ENUM)
#undef MPO_TIMED_STAGE_ENUM
        MPO_TIMED_STAGE_COUNT
};

/** Seconds spent in each stage since the last reset, on this rank. */
struct mpo_timing {
    double seconds[MPO_TIMED_STAGE_COUNT];
};

/** Name of a stage, e.g. "decode". Local. */
const char *mpo_timing_name(enum mpo_timed_stage stage);

#ifdef __cplusplus
}
#endif
