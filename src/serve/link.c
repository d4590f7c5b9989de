/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events are put into a box of the decode thread, which send empties into one that both share;
 * the HTTP thread takes that one and leaves an empty one. Figures travel with their event.
 */
#include "link.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"

/* Steps that the HTTP thread may be behind before the decode thread waits for it. */
#define STEPS_AHEAD 12

/* Events beside those of tokens: of prompts and requests. */
#define OTHER_EVENTS 1024

struct box {
    int32_t capacity;
    struct mpo_serve_event *event; /* [count] */
    double *log_policy;            /* [capacity, H] */
    double *top_log_q;             /* [capacity, MPO_SERVE_TOP_MAX] */
    int32_t *top_token;            /* the same */
    int32_t *length;               /* [capacity, H] */
    int32_t count;
};

struct mpo_link {
    struct mpo_link_spec spec;
    pthread_mutex_t lock;
    pthread_cond_t asked; /* the decode thread waits for it */
    pthread_cond_t taken; /* and for this */
    struct box put;       /* the decode thread's */
    struct box sent;      /* under the lock */
    struct box read;      /* the HTTP thread's */
    struct mpo_serve_request *first;
    struct mpo_serve_request *last;
    bool stops;
    bool is_broken;
    bool is_woken;
    struct mpo_link_use use; /* under the lock */
    bool tells_use;          /* the decode thread's: its counts are others now */
};

static enum mpo_status open_box(const struct mpo_link *link, int32_t capacity,
                                struct box *box)
{
    enum mpo_status status = MPO_OK;
    size_t events = (size_t)capacity;
    size_t policies = (size_t)link->spec.policy_count;
    box->capacity = capacity;
    MPO_NEW(events, &box->event);
    MPO_NEW(events * policies, &box->log_policy);
    MPO_NEW(events * policies, &box->length);
    MPO_NEW(events * MPO_SERVE_TOP_MAX, &box->top_log_q);
    MPO_NEW(events * MPO_SERVE_TOP_MAX, &box->top_token);
cleanup:
    return status;
}

static void close_box(struct box *box)
{
    free(box->top_token);
    free(box->top_log_q);
    free(box->length);
    free(box->log_policy);
    free(box->event);
}

enum mpo_status mpo_link_open(const struct mpo_link_spec *spec, struct mpo_link **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_link *link = NULL;
    pthread_condattr_t clock;
    MPO_NEW(1, &link);
    link->spec = *spec;
    int32_t step = spec->step_events + OTHER_EVENTS;
    pthread_mutex_init(&link->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&link->asked, &clock);
    pthread_cond_init(&link->taken, &clock);
    pthread_condattr_destroy(&clock);
    MPO_TRY(open_box(link, step, &link->put));
    MPO_TRY(open_box(link, STEPS_AHEAD * step, &link->sent));
    MPO_TRY(open_box(link, STEPS_AHEAD * step, &link->read));
cleanup:
    if (status != MPO_OK)
        mpo_link_close(&link);
    *out = link;
    return status;
}

void mpo_link_close(struct mpo_link **link)
{
    struct mpo_link *self = *link;
    if (self == NULL)
        return;
    close_box(&self->read);
    close_box(&self->sent);
    close_box(&self->put);
    pthread_cond_destroy(&self->taken);
    pthread_cond_destroy(&self->asked);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *link = NULL;
}

/* ---- to the decode thread ---- */

/* Under the lock, which is released: something was asked. */
static void wake_and_unlock(struct mpo_link *link)
{
    link->is_woken = true;
    pthread_cond_signal(&link->asked);
    pthread_mutex_unlock(&link->lock);
    if (link->spec.asked != NULL)
        link->spec.asked(link->spec.asked_argument);
}

void mpo_link_wake(struct mpo_link *link)
{
    pthread_mutex_lock(&link->lock);
    wake_and_unlock(link);
}

void mpo_link_submit(struct mpo_link *link, struct mpo_serve_request *request)
{
    pthread_mutex_lock(&link->lock);
    request->next = NULL;
    if (link->last != NULL)
        link->last->next = request;
    else
        link->first = request;
    link->last = request;
    wake_and_unlock(link);
}

void mpo_link_cancel(struct mpo_link *link, struct mpo_serve_request *request)
{
    request->is_cancelled = true;
    mpo_link_wake(link);
}

/* A decode thread that steps sees a pause in its next turn; one that passes it on has to be
 * told. */
void mpo_link_pause(struct mpo_link *link, struct mpo_serve_request *request, bool pauses)
{
    request->is_paused = pauses;
    if (!pauses || link->spec.asked != NULL)
        mpo_link_wake(link);
}

void mpo_link_stop(struct mpo_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->stops = true;
    wake_and_unlock(link);
}

static struct timespec time_after(double seconds)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    long whole = (long)seconds;
    time.tv_sec += whole;
    time.tv_nsec += (long)((seconds - (double)whole) * 1e9);
    if (time.tv_nsec >= 1000000000L) {
        time.tv_nsec -= 1000000000L;
        time.tv_sec++;
    }
    return time;
}

struct mpo_link_news mpo_link_listen(struct mpo_link *link, bool waits, double seconds)
{
    const struct timespec until = time_after(waits ? seconds : 0.0);
    pthread_mutex_lock(&link->lock);
    while (waits && !link->is_woken)
        if (pthread_cond_timedwait(&link->asked, &link->lock, &until) == ETIMEDOUT)
            break;
    struct mpo_link_news news = {.submitted = link->first, .stops = link->stops};
    link->first = NULL;
    link->last = NULL;
    link->is_woken = false;
    pthread_mutex_unlock(&link->lock);
    return news;
}

/* ---- to the HTTP thread ---- */

static void copy_event(const struct mpo_link *link, struct box *box,
                       const struct mpo_serve_event *from)
{
    size_t policies = (size_t)link->spec.policy_count;
    size_t at = (size_t)box->count++;
    struct mpo_serve_event *event = &box->event[at];
    *event = *from;
    if (from->log_policy != NULL) {
        event->log_policy = box->log_policy + at * policies;
        memcpy(box->log_policy + at * policies, from->log_policy,
               policies * sizeof *from->log_policy);
    }
    if (from->length != NULL) {
        event->length = box->length + at * policies;
        memcpy(box->length + at * policies, from->length, policies * sizeof *from->length);
    }
    size_t top = at * MPO_SERVE_TOP_MAX;
    event->top_token = box->top_token + top;
    event->top_log_q = box->top_log_q + top;
    for (int32_t i = 0; i < from->top_count; i++) {
        box->top_token[top + (size_t)i] = from->top_token[i];
        box->top_log_q[top + (size_t)i] = from->top_log_q[i];
    }
}

void mpo_link_put(struct mpo_link *link, const struct mpo_serve_event *event)
{
    if (link->put.count == link->put.capacity)
        mpo_link_send(link);
    copy_event(link, &link->put, event);
}

bool mpo_link_counts_differ(const struct mpo_link_use *a, const struct mpo_link_use *b)
{
    return a->rows_live != b->rows_live || a->rows_paused != b->rows_paused ||
           a->requests_running != b->requests_running ||
           a->requests_waiting != b->requests_waiting || a->rows_kept != b->rows_kept ||
           a->cells_used != b->cells_used;
}

void mpo_link_show(struct mpo_link *link, const struct mpo_link_use *use)
{
    pthread_mutex_lock(&link->lock);
    link->tells_use = link->tells_use || mpo_link_counts_differ(&link->use, use);
    link->use = *use;
    pthread_mutex_unlock(&link->lock);
}

struct mpo_link_use mpo_link_use(struct mpo_link *link)
{
    pthread_mutex_lock(&link->lock);
    struct mpo_link_use use = link->use;
    pthread_mutex_unlock(&link->lock);
    return use;
}

void mpo_link_send(struct mpo_link *link)
{
    if (link->put.count == 0 && !link->tells_use)
        return;
    link->tells_use = false;
    pthread_mutex_lock(&link->lock);
    while (link->sent.count + link->put.count > link->sent.capacity)
        pthread_cond_wait(&link->taken, &link->lock);
    for (int32_t i = 0; i < link->put.count; i++)
        copy_event(link, &link->sent, &link->put.event[i]);
    pthread_mutex_unlock(&link->lock);
    link->put.count = 0;
    link->spec.notify(link->spec.argument);
}

int32_t mpo_link_take(struct mpo_link *link, const struct mpo_serve_event **events)
{
    pthread_mutex_lock(&link->lock);
    struct box box = link->sent;
    link->read.count = 0;
    link->sent = link->read;
    link->read = box;
    pthread_cond_signal(&link->taken);
    pthread_mutex_unlock(&link->lock);
    *events = link->read.event;
    return link->read.count;
}

void mpo_link_break(struct mpo_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->is_broken = true;
    pthread_mutex_unlock(&link->lock);
    link->spec.notify(link->spec.argument);
}

bool mpo_link_is_broken(struct mpo_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool is_broken = link->is_broken;
    pthread_mutex_unlock(&link->lock);
    return is_broken;
}
