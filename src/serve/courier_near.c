/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rank zero's end of a courier, in the place of the link's decode thread.
 */
#include "courier_impl.h"

#include <string.h>

#include "base/stop.h"

/* ---- requests go out ---- */

/* Without memory for its frame a request ends here. */
static void refuse_request(struct mpo_courier *courier, struct mpo_serve_request *request)
{
    mpo_serve_refuse(&request->refusal, 500, "out_of_memory", "",
                     "there is no memory for the request; try again later");
    mpo_link_put(courier->spec.link,
                 &(struct mpo_serve_event){.request = request,
                                           .kind = MPO_SERVE_REFUSED,
                                           .choice = -1,
                                           .refusal = &request->refusal});
    mpo_link_put(courier->spec.link, &(struct mpo_serve_event){.request = request,
                                                               .kind = MPO_SERVE_DONE,
                                                               .choice = -1});
}

static void send_request(struct mpo_courier *courier, struct mpo_serve_request *request)
{
    size_t before = courier->out.count;
    int32_t number = courier_take_number(courier, request);
    if (number >= 0)
        mpo_wire_put_request(&courier->out, number, request, courier->spec.policy_count);
    if (number >= 0 && !courier->out.is_lost)
        return;
    if (number >= 0)
        courier->request[number].request = NULL;
    mpo_serve_buffer_cut(&courier->out, before);
    refuse_request(courier, request);
}

static void tell_changes(struct mpo_courier *courier, int32_t number)
{
    struct courier_request *self = &courier->request[number];
    bool pauses = self->request->is_paused;
    if (self->request->is_cancelled && !self->told_cancel) {
        mpo_wire_put(&courier->out, MPO_WIRE_CANCEL, number, NULL, 0);
        self->told_cancel = true;
    }
    if (pauses != self->told_pause)
        mpo_wire_put(&courier->out, pauses ? MPO_WIRE_PAUSE : MPO_WIRE_RESUME, number, NULL,
                     0);
    self->told_pause = pauses;
}

static void gather_asked(struct mpo_courier *courier)
{
    struct mpo_link_news news = mpo_link_listen(courier->spec.link, false, 0.0);
    struct mpo_serve_request *request = news.submitted;
    while (request != NULL) {
        struct mpo_serve_request *next = request->next;
        send_request(courier, request);
        request = next;
    }
    for (size_t i = 0; i < courier->request_capacity; i++)
        if (courier->request[i].request != NULL)
            tell_changes(courier, (int32_t)i);
    if (news.stops && !courier->told_stop) {
        mpo_wire_put(&courier->out, MPO_WIRE_STOP, -1, NULL, 0);
        courier->told_stop = true;
    }
    mpo_link_send(courier->spec.link);
}

/* ---- events come in ---- */

static bool take_event(struct mpo_courier *courier, const struct mpo_wire_frame *frame)
{
    struct mpo_serve_event event = {0};
    int32_t number = frame->head.request;
    struct mpo_serve_request *request = courier_find(courier, number);
    struct mpo_serve_refusal refusal = {0};
    if (request == NULL ||
        !mpo_wire_read_event(frame, courier->spec.policy_count, &event, &refusal))
        return false;
    event.request = request;
    if (event.refusal != NULL) {
        request->refusal = refusal;
        event.refusal = &request->refusal;
    }
    if (event.kind == MPO_SERVE_DONE)
        courier->request[number].request = NULL;
    mpo_link_put(courier->spec.link, &event);
    return true;
}

static bool take_state(struct mpo_courier *courier, const struct mpo_wire_frame *frame)
{
    struct mpo_link_use use = {0};
    const double *values = NULL;
    if (!mpo_wire_read_state(frame, courier->value_count, &use, &values))
        return false;
    mpo_metrics_write_group(courier->spec.metrics, courier->spec.group, values);
    mpo_link_show(courier->spec.link, &use);
    return true;
}

/* As if it had come here: a signal to any rank stops the server. */
static bool take_signal(const struct mpo_wire_frame *frame)
{
    int64_t number = 0;
    if (frame->head.bytes != sizeof number)
        return false;
    memcpy(&number, frame->bytes, sizeof number);
    mpo_stop_hear((int)number);
    return true;
}

static bool take_told(struct mpo_courier *courier, const struct mpo_wire_frame *frame)
{
    switch (frame->head.kind) {
    case MPO_WIRE_EVENT:
        return take_event(courier, frame);
    case MPO_WIRE_STATE:
        return take_state(courier, frame);
    case MPO_WIRE_SIGNAL:
        return take_signal(frame);
    default:
        return false;
    }
}

const struct courier_end courier_near = {gather_asked, take_told};
