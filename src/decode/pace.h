/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How many prompt tokens a step takes beside rows that draw, by what steps cost here: a step
 * with prompt tokens is to take at most `stretch` times as long as one without. Knows only
 * counts and seconds. Local, at the root.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"

/** What a step has to do. */
struct mpo_decode_load {
    int32_t drawing;   /* rows */
    int32_t looked_up; /* positions of given tokens */
    int32_t waiting;   /* rows whose prompts are not fed yet */
};

/** Steps that were measured with one number of rows. */
struct mpo_decode_calm {
    double seconds;  /* of a step of draws alone; 0: not known */
    int32_t crowded; /* steps with prompt tokens since */
};

struct mpo_decode_pace {
    double stretch;
    int32_t row_capacity;
    struct mpo_decode_calm *calm; /* [row_capacity + 1] by rows that draw */
    double token_seconds;         /* of a prompt token beside draws; 0: not known */
};

/** @param stretch  1 or more */
enum mpo_status mpo_decode_pace_open(struct mpo_decode_pace *pace, double stretch,
                                     int32_t row_capacity);
void mpo_decode_pace_close(struct mpo_decode_pace *pace);

/** A step took so long. @param chunk  prompt tokens in it, of the policy that had most */
void mpo_decode_pace_note(struct mpo_decode_pace *pace, const struct mpo_decode_load *load,
                          int32_t chunk, double seconds);

/** @return prompt tokens of the next step, 0 where a step without is to be measured; -1:
 *          nothing is known yet */
int32_t mpo_decode_pace_choose(const struct mpo_decode_pace *pace,
                               const struct mpo_decode_load *load);
