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
    int64_t before; /* of done, by an earlier process that this one resumes */
    double within;  /* responses of the rollout at hand */
    double whole;   /* responses that it has all in all */
    double part;    /* of total that the rollout is */
    int64_t tokens;
    double started;
    double shown; /* when the line was shown last */
    bool is_live;
    char detail[PROGRESS_DETAILS_MAX][PROGRESS_DETAIL_BYTES]; /* the command's own */
    int detail_count;
};

/** Begin to count; with a total of 0 nothing is shown. */
void progress_begin(struct progress *progress, const char *name, int64_t total);

/** Have a rollout report, which is `part` of the total and makes so many responses. */
void progress_follow(struct progress *progress, struct mpo_rollout_step *step, int64_t part,
                     int64_t responses);

/** So much was done before this process began. */
void progress_resume(struct progress *progress, int64_t before);

/** So much more of the total is done, and so many tokens have been made in all. */
void progress_advance(struct progress *progress, int64_t part, int64_t tokens);

/** Take the line away. */
void progress_end(struct progress *progress);

/** The closing line: tokens, time, and tokens a second. */
void progress_tell(const struct progress *progress);

/** "1:05", "2:00:00". */
void progress_format_duration(double seconds, char *text, size_t bytes);
