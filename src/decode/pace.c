/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With D rows that draw, t(D) is the time of a step of draws alone and c what a prompt token
 * adds to it:
 *
 *     P = (stretch - 1) t(D) / c,      c = (seconds - t(D)) / P of steps with P prompt tokens
 *
 * Both are means that forget: a quarter is the last step's. What c lumps together, such as the
 * longer attention of all rows beside a longer prompt, does no harm: P is multiplied by what
 * was wanted over what was measured, so steps come to stretch t(D) whatever the reason. One
 * slow step, for a reason of its own, counts as twice as slow at most.
 *
 * t(D) ages while prompts never stop, so one step in PROBE_STEPS takes none of them.
 */
#include "pace.h"

#include <stdlib.h>

#include "base/memory.h"

#define LAST_SHARE  0.25
#define OUTLIER     2.0
#define PROBE_STEPS 32

/* A prompt goes on by a token for so many rows, however slow the machine has become. */
#define DRAWS_A_TOKEN 4

/* Fewer tokens than this in a step say less of what one costs. */
#define CHUNK_WHOLE 4

enum mpo_status mpo_decode_pace_open(struct mpo_decode_pace *pace, double stretch,
                                     int32_t row_capacity)
{
    enum mpo_status status = MPO_OK;
    *pace = (struct mpo_decode_pace){.stretch = stretch, .row_capacity = row_capacity};
    MPO_NEW((size_t)row_capacity + 1, &pace->calm);
cleanup:
    return status;
}

void mpo_decode_pace_close(struct mpo_decode_pace *pace)
{
    free(pace->calm);
    *pace = (struct mpo_decode_pace){0};
}

/* A mean that forgets. @param share  what of it is the last value's */
static void follow_value(double *mean, double value, double share)
{
    if (*mean == 0.0)
        *mean = value;
    else if (value > OUTLIER * *mean)
        *mean += share * (OUTLIER - 1.0) * *mean;
    else
        *mean += share * (value - *mean);
}

/* The number of rows nearest to `rows` with which a step was measured, 0: none. */
static int32_t nearest_measured(const struct mpo_decode_pace *pace, int32_t rows)
{
    for (int32_t d = 0; d <= pace->row_capacity; d++) {
        if (rows - d > 0 && pace->calm[rows - d].seconds > 0.0)
            return rows - d;
        if (rows + d <= pace->row_capacity && pace->calm[rows + d].seconds > 0.0)
            return rows + d;
    }
    return 0;
}

/* t(D); where it was not measured, a row more or less is taken for a prompt token. 0: not
 * known */
static double calm_seconds(const struct mpo_decode_pace *pace, int32_t rows)
{
    int32_t near = nearest_measured(pace, rows);
    if (near == 0)
        return 0.0;
    double known = pace->calm[near].seconds;
    double seconds = known + (rows - near) * pace->token_seconds;
    double least = rows < near ? known * rows / near : known;
    return seconds > least ? seconds : least;
}

void mpo_decode_pace_note(struct mpo_decode_pace *pace, const struct mpo_decode_load *load,
                          int32_t chunk, double seconds)
{
    struct mpo_decode_calm *calm = &pace->calm[load->drawing];
    if (load->drawing == 0 || load->looked_up > 0)
        return;
    if (chunk == 0) {
        follow_value(&calm->seconds, seconds, LAST_SHARE);
        calm->crowded = 0;
        return;
    }
    calm->crowded++;
    double added = (seconds - calm->seconds) / chunk;
    double share = chunk < CHUNK_WHOLE ? LAST_SHARE * chunk / CHUNK_WHOLE : LAST_SHARE;
    if (added < 0.0)
        added = 0.0; /* it counts, or only slow steps would */
    if (calm->seconds > 0.0)
        follow_value(&pace->token_seconds, added, share);
}

int32_t mpo_decode_pace_choose(const struct mpo_decode_pace *pace,
                               const struct mpo_decode_load *load)
{
    double calm = calm_seconds(pace, load->drawing);
    int32_t least = (load->drawing + DRAWS_A_TOKEN - 1) / DRAWS_A_TOKEN;
    if (pace->calm[load->drawing].crowded >= PROBE_STEPS && load->looked_up == 0)
        return 0;
    if (calm == 0.0)
        return -1;
    double token = pace->token_seconds;
    if (token == 0.0) /* not known: a prompt token costs no more than a row that draws */
        token = calm / load->drawing;
    double tokens = (pace->stretch - 1.0) * calm / token;
    if (tokens < least)
        return least;
    return tokens < INT32_MAX ? (int32_t)tokens : INT32_MAX;
}
