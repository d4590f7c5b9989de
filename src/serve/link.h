/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The link between the HTTP thread and a decode thread: requests and cancellations one way,
 * events and what is in use the other. Neither waits for the other, except the decode thread,
 * which sleeps when it has nothing to do, and when the HTTP thread has not yet taken what a
 * dozen steps gave.
 *
 * A request belongs to the HTTP thread. The decode thread borrows it from submit until the
 * HTTP thread has taken its MPO_SERVE_DONE event; that always comes.
 *
 * Rank zero has a link to each group. At the other end of its own group's is the engine, at
 * the end of another's a courier (courier.h), which goes on to that group's engine.
 */
#pragma once

#include "serve_impl.h"

struct mpo_link;

struct mpo_link_spec {
    int32_t policy_count; /* H, figures of an event */
    int32_t step_events;  /* of one step at most */
    /** Events are there, or other figures in use. Called in the decode thread, no lock held. */
    void (*notify)(void *argument);
    void *argument;
    /** Something was asked. Called in any thread, no lock held. NULL: nobody is told */
    void (*asked)(void *argument);
    void *asked_argument;
};

/** What is in use at the decode thread's end, for people and metrics. Plain data. */
struct mpo_link_use {
    int32_t rows_live;
    int32_t rows_paused;
    int32_t requests_running; /* that have rows */
    int32_t requests_waiting;
    int32_t requests_paused; /* whose client takes no bytes, of those running */
    int32_t rows_kept;       /* that ended, whose cells prompts may begin with */
    int64_t cells_used;      /* reserved by rows that live */
    int64_t cells_kept;
    int64_t steps;
    int64_t positions; /* of the last step */
    double last_step;  /* by mpo_timing_now; 0: none yet */
    double last_idle;  /* sign of life, likewise */
    double round_trip; /* seconds of the last sign of life */
};

/** Local; allocates all it will need. */
enum mpo_status mpo_link_open(const struct mpo_link_spec *spec, struct mpo_link **out);
void mpo_link_close(struct mpo_link **link);

/** Whether counts of rows, requests or cells differ; steps and times may. */
bool mpo_link_counts_differ(const struct mpo_link_use *a, const struct mpo_link_use *b);

/* ---- HTTP thread ---- */

/** Hand a request over, with a serial number. */
void mpo_link_submit(struct mpo_link *link, struct mpo_serve_request *request);

/** The client is gone: its DONE comes soon. */
void mpo_link_cancel(struct mpo_link *link, struct mpo_serve_request *request);

/** The client does not read: no token is drawn for it until it reads again. */
void mpo_link_pause(struct mpo_link *link, struct mpo_serve_request *request, bool pauses);

/** Ask the decode thread to end at once; what it still has is refused. Any thread. */
void mpo_link_stop(struct mpo_link *link);

/** What was shown last. Any thread. */
struct mpo_link_use mpo_link_use(struct mpo_link *link);

/** Take all events that are there, in order. *events is borrowed until the next take. Never
 *  waits. @return how many */
int32_t mpo_link_take(struct mpo_link *link, const struct mpo_serve_event **events);

/** The job fails: no event comes any more, for any request. */
bool mpo_link_is_broken(struct mpo_link *link);

/* ---- decode thread ---- */

/** What the HTTP thread has asked for since the last time. */
struct mpo_link_news {
    struct mpo_serve_request *submitted; /* a list by `next`, oldest first; NULL: none */
    bool stops;
};

/** Take it; with `waits`, sleep until there is some, something else changed (a cancellation,
 *  a pause that ended) or so many seconds have passed. */
struct mpo_link_news mpo_link_listen(struct mpo_link *link, bool waits, double seconds);

/** Wake the decode thread. Any thread. */
void mpo_link_wake(struct mpo_link *link);

/** Say that the job fails. Any thread. */
void mpo_link_break(struct mpo_link *link);

/** Put an event down, copied with its figures; the HTTP thread sees it after send. */
void mpo_link_put(struct mpo_link *link, const struct mpo_serve_event *event);

/** Show what is in use; the HTTP thread is told with the next send, where counts changed. */
void mpo_link_show(struct mpo_link *link, const struct mpo_link_use *use);

/** Pass on what was put, and notify. Waits while the HTTP thread is a dozen steps behind. */
void mpo_link_send(struct mpo_link *link);
