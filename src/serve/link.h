/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The link between the HTTP thread and the decode thread of rank zero: requests and
 * cancellations one way, events the other. Neither waits for the other, except the decode
 * thread, which sleeps when it has nothing to do, and when the HTTP thread has not yet
 * taken what a dozen steps gave.
 *
 * A request belongs to the HTTP thread. The decode thread borrows it from submit until the
 * HTTP thread has taken its MPO_SERVE_DONE event; that always comes.
 */
#pragma once

#include "serve_impl.h"

struct mpo_link;

struct mpo_link_spec {
    int32_t policy_count; /* H, figures of an event */
    int32_t step_events;  /* of one step at most */
    void (*notify)(
        void *argument); /* events are there: called in the decode thread, no lock
                                       held */
    void *argument;
};

/** Local; allocates all it will need. */
enum mpo_status mpo_link_open(const struct mpo_link_spec *spec, struct mpo_link **out);
void mpo_link_close(struct mpo_link **link);

/* ---- HTTP thread ---- */

/** Hand a request over, with a serial number. */
void mpo_link_submit(struct mpo_link *link, struct mpo_serve_request *request);

/** The client is gone: its DONE comes soon. */
void mpo_link_cancel(struct mpo_link *link, struct mpo_serve_request *request);

/** The client does not read: no token is drawn for it until it reads again. */
void mpo_link_pause(struct mpo_link *link, struct mpo_serve_request *request, bool pauses);

/** Ask the decode thread to end when what it has is complete, or at once. Any thread. */
void mpo_link_drain(struct mpo_link *link);
void mpo_link_stop(struct mpo_link *link);

/** Take all events that are there, in order. *events is borrowed until the next take. Never
 *  waits. @return how many */
int32_t mpo_link_take(struct mpo_link *link, const struct mpo_serve_event **events);

/** The job fails: no event comes any more, for any request. */
bool mpo_link_is_broken(struct mpo_link *link);

/* ---- decode thread ---- */

/** What the HTTP thread has asked for since the last time. */
struct mpo_link_news {
    struct mpo_serve_request *submitted; /* a list by `next`, oldest first; NULL: none */
    bool drains;
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

/** Pass on what was put, and notify. Waits while the HTTP thread is a dozen steps behind. */
void mpo_link_send(struct mpo_link *link);
