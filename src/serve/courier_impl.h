/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The inside of a courier.
 *
 *     courier.c        the thread: the socket, signs of life, the end
 *     courier_near.c   rank zero's end: requests go out, events come in
 *     courier_far.c    a group's end: requests come in, events go out
 */
#pragma once

#include "courier.h"

#include <pthread.h>
#include <stdatomic.h>

#include "wire.h"

/** A request under way; its place is its number on the wire. */
struct courier_request {
    struct mpo_serve_request *request; /* NULL: free */
    bool told_cancel;                  /* near: the far end knows of it */
    bool told_pause;
};

/** What the ends do differently. */
struct courier_end {
    /** From the link into `out`. */
    void (*gather)(struct mpo_courier *courier);
    /** A frame that came. @return false: it is none of this end */
    bool (*take)(struct mpo_courier *courier, const struct mpo_wire_frame *frame);
};
extern const struct courier_end courier_near;
extern const struct courier_end courier_far;

struct mpo_courier {
    struct mpo_courier_spec spec;
    const struct courier_end *end;
    pthread_t thread;
    bool has_thread;
    int event;               /* wakes the thread */
    _Atomic bool finishes;   /* far: the engine has ended */
    _Atomic bool is_closing; /* end at once */
    pthread_mutex_t lock;
    char report[256]; /* under the lock; "": none */

    /* the thread's own */
    struct mpo_serve_buffer in;
    struct mpo_serve_buffer out;
    size_t sent; /* bytes of out */
    double heard;
    double said;
    bool has_ended;                  /* END came, or was said */
    bool has_failed;                 /* it has told of a loss */
    struct courier_request *request; /* [request_capacity] */
    size_t request_capacity;
    double *values;          /* [value_count] of metrics, the far end's */
    int32_t value_count;     /* of a group */
    struct mpo_link_use use; /* far: as it was told last */
    double told;             /* when that was */
    bool told_stop;          /* near: to end; far: a signal that came */
};

/** A free number. @return -1: no memory */
int32_t courier_take_number(struct mpo_courier *courier, struct mpo_serve_request *request);

/** The request of a number; NULL: there is none. */
struct mpo_serve_request *courier_find(struct mpo_courier *courier, int32_t number);

/** Seconds until the far end's figures in use may be told again; INFINITY: they are as told. */
double courier_state_due(struct mpo_courier *courier);
