/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group's end of a courier, in the place of the link's HTTP thread.
 */
#include "courier_impl.h"

#include <math.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/stop.h"
#include "base/timing.h"

/* With more than this unsent no events are taken from the engine. */
#define UNSENT_BYTES_MAX ((size_t)256 << 10)

/* Between two tellings of steps alone. */
#define STATE_SECONDS 0.02

/* ---- requests come in ---- */

static void refuse_request(struct mpo_courier *courier, int32_t number)
{
    struct mpo_serve_refusal refusal = {0};
    mpo_serve_refuse(&refusal, 500, "out_of_memory", "",
                     "there is no memory for the request; try again later");
    mpo_wire_put_event(&courier->out, number,
                       &(struct mpo_serve_event){
                           .kind = MPO_SERVE_REFUSED, .choice = -1, .refusal = &refusal},
                       courier->spec.policy_count);
    mpo_wire_put_event(&courier->out, number,
                       &(struct mpo_serve_event){.kind = MPO_SERVE_DONE, .choice = -1},
                       courier->spec.policy_count);
}

static void take_request(struct mpo_courier *courier, const struct mpo_wire_frame *frame)
{
    int32_t number = frame->head.request;
    struct mpo_serve_request *request =
        mpo_wire_read_request(frame, courier->spec.policy_count);
    if (request == NULL ||
        mpo_memory_grow((void **)&courier->request, &courier->request_capacity,
                        (size_t)number + 1, sizeof *courier->request,
                        "requests under way") != MPO_OK) {
        mpo_serve_request_close(&request);
        refuse_request(courier, number);
        return;
    }
    request->owner = (void *)(intptr_t)number;
    courier->request[number].request = request;
    mpo_link_submit(courier->spec.link, request);
}

/* A request may have ended before the near end knows; the number is its own until then. */
static bool take_asked(struct mpo_courier *courier, const struct mpo_wire_frame *frame)
{
    struct mpo_link *link = courier->spec.link;
    struct mpo_serve_request *request = courier_find(courier, frame->head.request);
    switch (frame->head.kind) {
    case MPO_WIRE_REQUEST:
        if (frame->head.request < 0 || request != NULL)
            return false;
        take_request(courier, frame);
        return true;
    case MPO_WIRE_CANCEL:
        if (request != NULL)
            mpo_link_cancel(link, request);
        return true;
    case MPO_WIRE_PAUSE:
    case MPO_WIRE_RESUME:
        if (request != NULL)
            mpo_link_pause(link, request, frame->head.kind == MPO_WIRE_PAUSE);
        return true;
    case MPO_WIRE_STOP:
        mpo_link_stop(link);
        return true;
    default:
        return false;
    }
}

/* ---- events go out ---- */

static void gather_events(struct mpo_courier *courier)
{
    const struct mpo_serve_event *event = NULL;
    int32_t count = mpo_link_take(courier->spec.link, &event);
    for (int32_t i = 0; i < count; i++) {
        struct mpo_serve_request *request = event[i].request;
        int32_t number = (int32_t)(intptr_t)request->owner;
        mpo_wire_put_event(&courier->out, number, &event[i], courier->spec.policy_count);
        if (event[i].kind == MPO_SERVE_DONE) {
            courier->request[number].request = NULL;
            mpo_serve_request_close(&request);
        }
    }
}

/* ---- what is in use ---- */

static bool is_behind(const struct mpo_courier *courier)
{
    return courier->out.count - courier->sent > UNSENT_BYTES_MAX;
}

static bool is_told(const struct mpo_link_use *use, const struct mpo_link_use *told)
{
    return !mpo_link_counts_differ(use, told) &&
           use->requests_paused == told->requests_paused && use->steps == told->steps &&
           use->last_idle == told->last_idle;
}

double courier_state_due(struct mpo_courier *courier)
{
    struct mpo_link_use use = mpo_link_use(courier->spec.link);
    if (is_behind(courier) || is_told(&use, &courier->use))
        return INFINITY;
    if (mpo_link_counts_differ(&use, &courier->use))
        return 0.0; /* who has an answer finds no row of it in use */
    return fmax(courier->told + STATE_SECONDS - mpo_timing_now(), 0.0);
}

static void gather_state(struct mpo_courier *courier)
{
    if (courier_state_due(courier) > 0.0)
        return;
    courier->use = mpo_link_use(courier->spec.link);
    courier->told = mpo_timing_now();
    mpo_metrics_read_group(courier->spec.metrics, courier->spec.group, courier->values);
    mpo_wire_put_state(&courier->out, &courier->use, courier->values, courier->value_count);
}

static void tell_signal(struct mpo_courier *courier)
{
    const int64_t number = mpo_stop_signal();
    if (courier->told_stop || !mpo_stop_is_caught())
        return;
    mpo_wire_put(&courier->out, MPO_WIRE_SIGNAL, -1, &number, sizeof number);
    courier->told_stop = true;
}

static void gather_told(struct mpo_courier *courier)
{
    tell_signal(courier);
    if (is_behind(courier))
        return;
    gather_events(courier);
    gather_state(courier);
}

const struct courier_end courier_far = {gather_told, take_asked};
