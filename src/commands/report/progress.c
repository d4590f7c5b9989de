/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The live line. A rollout reports after each position of each batch, which may be
 * thousands of times per second: a line is made at most ten times per second,
 * without allocation.
 *
 * The time left is estimated from the share that is done. Within a rollout that is the
 * share of its responses, where one at position t of at most L counts t / L until it ends:
 * it grows steadily, and too slowly rather than too fast, because most responses end before
 * L.
 */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands/report/log.h"
#include "base/timing.h"

#define SECONDS_BETWEEN 0.1

void progress_format_duration(double seconds, char *text, size_t bytes)
{
    long whole = lround(seconds);
    if (whole >= 3600)
        snprintf(text, bytes, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(text, bytes, "%ld:%02ld", whole / 60, whole % 60);
}

/* The fraction done, without the first `from` units. */
static double share_done(const struct progress *progress, int64_t from)
{
    double within =
        progress->whole > 0.0 ? fmin(progress->within / progress->whole, 1.0) : 0.0;
    double done = (double)(progress->done - from) + progress->part * within;
    double total = (double)(progress->total - from);
    return total > 0.0 ? fmin(done / total, 1.0) : 1.0;
}

static void show_line(struct progress *progress, double now)
{
    enum { POSITION, PERCENT, LEFT, ELAPSED, RATE, OWN };
    char text[OWN][64];
    char duration[32];
    const char *part[OWN + PROGRESS_DETAILS_MAX];
    double share = share_done(progress, progress->before); /* of this process */
    double elapsed = now - progress->started;
    snprintf(text[POSITION], sizeof text[0], "%s %lld/%lld", progress->name,
             (long long)progress->done, (long long)progress->total);
    snprintf(text[PERCENT], sizeof text[0], "%3.0f %%",
             floor(100.0 * share_done(progress, 0)));
    progress_format_duration(elapsed * (1.0 - share) / share, duration, sizeof duration);
    snprintf(text[LEFT], sizeof text[0], "left %s", share > 0.0 ? duration : "-:--");
    progress_format_duration(elapsed, duration, sizeof duration);
    snprintf(text[ELAPSED], sizeof text[0], "elapsed %s", duration);
    snprintf(text[RATE], sizeof text[0], "%.0f token/s",
             elapsed > 0.0 ? (double)progress->tokens / elapsed : 0.0);
    int count = 0;
    for (int i = POSITION; i <= LEFT; i++)
        part[count++] = text[i];
    for (int i = 0; i < progress->detail_count; i++)
        part[count++] = progress->detail[i];
    part[count++] = text[RATE];
    part[count++] = text[ELAPSED];
    mpo_log_progress(part, count);
    progress->shown = now;
}

static void show_at_times(struct progress *progress)
{
    double now = mpo_timing_now();
    if (progress->is_live && now - progress->shown >= SECONDS_BETWEEN)
        show_line(progress, now);
}

void progress_resume(struct progress *progress, int64_t before)
{
    progress->before = before;
    progress->done = before;
}

void progress_begin(struct progress *progress, const char *name, int64_t total)
{
    *progress = (struct progress){.name = name,
                                  .total = total,
                                  .started = mpo_timing_now(),
                                  .is_live = total > 0 && mpo_log_is_live()};
    show_at_times(progress);
}

/* A report of mpo/rollout.h. */
static void note_report(void *reporter, double responses, int32_t tokens)
{
    struct progress *progress = reporter;
    progress->within = responses;
    progress->tokens += tokens;
    show_at_times(progress);
}

void progress_follow(struct progress *progress, struct mpo_rollout_step *step, int64_t part,
                     int64_t responses)
{
    if (!progress->is_live)
        return;
    progress->within = 0.0;
    progress->whole = (double)responses;
    progress->part = (double)part;
    step->report = note_report;
    step->reporter = progress;
}

void progress_advance(struct progress *progress, int64_t part, int64_t tokens)
{
    progress->done += part;
    progress->within = 0.0;
    progress->tokens = tokens;
    show_at_times(progress);
}

void progress_end(struct progress *progress)
{
    if (progress->is_live)
        mpo_log_clear_progress();
    progress->is_live = false;
}

void progress_tell(const struct progress *progress)
{
    double elapsed = mpo_timing_now() - progress->started;
    mpo_log_note("%lld tokens in %.2f s, %.1f token/s", (long long)progress->tokens,
                 elapsed, (double)progress->tokens / elapsed);
}
