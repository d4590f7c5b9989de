/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A courier carries a link to another process, over a socket, in a thread of its own at either
 * end. Neither the HTTP thread nor the decode thread knows of it.
 *
 *     rank zero                                              a group's root
 *     HTTP thread -- link -- courier (near) ==== socket ==== courier (far) -- link -- engine
 *
 * The near end takes the place of the decode thread of its link, the far end that of the HTTP
 * thread. Each blocks until there is something to carry; now and then it says that it is alive.
 * A far end with much unsent takes no more events, and so the engine waits as it does for
 * an HTTP thread that is behind.
 *
 * No MPI, so that a group does not wait for rank zero's steps, nor rank zero for its.
 */
#pragma once

#include "link.h"
#include "metrics.h"

struct mpo_courier_spec {
    int socket; /* owned from open on, even if that fails */
    bool is_near;
    int32_t peer; /* rank at the other end */
    int32_t policy_count;
    struct mpo_link *link; /* borrowed; its callbacks are mpo_courier_wake */
    struct mpo_metrics *metrics;
    int32_t group;        /* of the metrics: which the near end writes, the far end reads */
    double alive_seconds; /* between two signs of life */
    double patience_seconds; /* without any; 0: for ever */
    /** The other end is gone, or silent, or says that the job fails. Called once, in the
     *  courier's thread. */
    void (*lost)(void *argument, const char *text);
    void *argument;
};

struct mpo_courier;

/** Local; starts the thread. @return MPO_ERR_MEMORY */
enum mpo_status mpo_courier_open(const struct mpo_courier_spec *spec,
                                 struct mpo_courier **out);

/** There is something to carry: `asked` of a near link, `notify` of a far one. Any thread. The
 *  argument is the address of a pointer to the courier, for links open before couriers. */
void mpo_courier_wake(void *courier_pointer);

/** Far: have the near end told why the job fails. Any thread; `lost` of mpo_lines_watch. */
void mpo_courier_report(void *courier, const char *text);

/** Carry what is left and end. Far: the engine has ended. Near: when the far end has; everything
 *  is in the link then. */
void mpo_courier_finish(struct mpo_courier *courier);

/** End the thread at once, if mpo_courier_finish has not, and tell the other end that this is no
 *  loss. The link may still wake it, to no effect. */
void mpo_courier_end(struct mpo_courier *courier);

/** After mpo_courier_end, which it calls. NULL-safe. */
void mpo_courier_close(struct mpo_courier **courier);
