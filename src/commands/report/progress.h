/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How far a command is, as a live line on a terminal; in a log there is none.
 *
 *     fit 12/62   19 %  left 0:42  gap 0.0123  up 0.612  down 0.388  512 token/s ...
 *
 * Rank zero only; on other ranks, and where no line would be seen, nothing is done and the
 * rollout is not asked.
 */
#pragma once

#include "mpo/rollout.h"

#define PROGRESS_DETAILS_MAX  9
#define PROGRESS_DETAIL_BYTES 96

struct progress {
    const char *name; /* of the command */
    int64_t total;    /* steps or prompts */
    int64_t done;
    int64_t before; /* part of done, by an earlier process that this one resumes */
    double within;  /* responses of the rollout at hand */
    double whole;   /* responses in total */
    double part;    /* of total that the rollout is */
    int64_t tokens;
    double started;
    double shown; /* when the line was shown last */
    bool is_live;
    char detail[PROGRESS_DETAILS_MAX][PROGRESS_DETAIL_BYTES]; /* the command's own */
    int detail_count;
};

/** Start counting; a total of 0 shows nothing. */
void progress_begin(struct progress *progress, const char *name, int64_t total);

/** Let a rollout report: it is `part` of the total and draws this many responses. */
void progress_follow(struct progress *progress, struct mpo_rollout_step *step, int64_t part,
                     int64_t responses);

/** Set what was done before this process started. */
void progress_resume(struct progress *progress, int64_t before);

/** Add to what is done; token_count is the total so far. */
void progress_advance(struct progress *progress, int64_t part, int64_t tokens);

/** Take the line away. */
void progress_end(struct progress *progress);

/** The closing line: tokens, time, and tokens per second. */
void progress_tell(const struct progress *progress);

/** "1:05", "2:00:00". */
void progress_format_duration(double seconds, char *text, size_t bytes);
