/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Requests and events as bytes, for a group whose root is another process of the same program.
 *
 *     frame    head, then head.bytes of it
 *
 *     REQUEST  a request                      rank zero -> the group's root
 *     CANCEL, PAUSE, RESUME of a request
 *     STOP     end at once
 *     EVENT    an event of a request          the group's root -> rank zero
 *     STATE    struct mpo_link_use, its times as ages; values of metrics
 *     LOST     a text: why the job fails
 *     SIGNAL   int64: a signal to stop came to a rank of the group
 *     END      nothing follows; of both where the job ends before it serves
 *     ALIVE    nothing is said                both
 *
 * A frame's place and length are multiples of 8, so that doubles are read where they lie. Both
 * ends are of one build on machines of one kind: numbers are as they are in memory. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "link.h"

enum mpo_wire_kind {
    MPO_WIRE_REQUEST = 1,
    MPO_WIRE_CANCEL,
    MPO_WIRE_PAUSE,
    MPO_WIRE_RESUME,
    MPO_WIRE_STOP,
    MPO_WIRE_EVENT,
    MPO_WIRE_STATE,
    MPO_WIRE_LOST,
    MPO_WIRE_END,
    MPO_WIRE_ALIVE,
    MPO_WIRE_SIGNAL,
};

struct mpo_wire_head {
    int32_t kind;    /* enum mpo_wire_kind */
    int32_t request; /* its number, between these two processes */
    int64_t bytes;   /* that follow, a multiple of 8 */
};

/** A frame that was read; borrowed. */
struct mpo_wire_frame {
    struct mpo_wire_head head;
    const char *bytes; /* [head.bytes] */
};

/** The first frame of what was received. @param count  at the start of a frame
 *  @return bytes of it, 0: it is not whole yet; -1: these are no frames */
int64_t mpo_wire_first(const char *bytes, size_t count, struct mpo_wire_frame *frame);

/** A frame of plain bytes. The buffer is lost without memory. */
void mpo_wire_put(struct mpo_serve_buffer *out, enum mpo_wire_kind kind, int32_t request,
                  const void *bytes, size_t count);

/** A request: all that an engine reads. */
void mpo_wire_put_request(struct mpo_serve_buffer *out, int32_t number,
                          const struct mpo_serve_request *request, int32_t policy_count);

/** @return the request, for mpo_serve_request_close; NULL: no memory, or no request */
struct mpo_serve_request *mpo_wire_read_request(const struct mpo_wire_frame *frame,
                                                int32_t policy_count);

void mpo_wire_put_event(struct mpo_serve_buffer *out, int32_t number,
                        const struct mpo_serve_event *event, int32_t policy_count);

/** Its request is not set; its arrays are the frame's. @param refusal  what the event's points
 *  to. @return whether it is one */
bool mpo_wire_read_event(const struct mpo_wire_frame *frame, int32_t policy_count,
                         struct mpo_serve_event *event, struct mpo_serve_refusal *refusal);

/** What is in use, and values of metrics. */
void mpo_wire_put_state(struct mpo_serve_buffer *out, const struct mpo_link_use *use,
                        const double *values, int32_t value_count);

/** @param values  out, borrowed: [value_count]. @return whether it is a state */
bool mpo_wire_read_state(const struct mpo_wire_frame *frame, int32_t value_count,
                         struct mpo_link_use *use, const double **values);
