/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One loop for both ends: wait, receive whole frames, gather what the link has, send. The
 * socket never blocks, so two ends that both have much to say cannot wait for each other.
 */
#include "courier_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/thread.h"
#include "base/timing.h"

#define RECEIVE_BYTES ((size_t)64 << 10)

/* Sent bytes that are kept before what follows them moves to the front. */
#define SENT_BYTES_MAX ((size_t)1 << 20)

/* ---- open and close ---- */

static enum mpo_status make_courier(const struct mpo_courier_spec *spec,
                                    struct mpo_courier *courier)
{
    enum mpo_status status = MPO_OK;
    courier->value_count = mpo_metrics_group_values(spec->metrics);
    MPO_NEW(courier->value_count, &courier->values);
    courier->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    MPO_CHECK(courier->event >= 0, MPO_ERR_MEMORY, "no event to wake a thread (errno %d)",
              errno);
    MPO_CHECK(fcntl(spec->socket, F_SETFL, O_NONBLOCK) == 0, MPO_ERR_MEMORY,
              "a socket between groups cannot be set up (errno %d)", errno);
cleanup:
    return status;
}

static void *run_courier(void *argument);

enum mpo_status mpo_courier_open(const struct mpo_courier_spec *spec,
                                 struct mpo_courier **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_courier *courier = NULL;
    MPO_NEW(1, &courier);
    courier->spec = *spec;
    courier->end = spec->is_near ? &courier_near : &courier_far;
    courier->event = -1;
    pthread_mutex_init(&courier->lock, NULL);
    MPO_TRY(make_courier(spec, courier));
    courier->heard = mpo_timing_now();
    *out = courier; /* from now on links may wake it */
    MPO_TRY(mpo_thread_start(&courier->thread, "mpo-courier", run_courier, courier));
    courier->has_thread = true;
cleanup:
    if (status != MPO_OK && courier == NULL)
        close(spec->socket);
    if (status != MPO_OK)
        mpo_courier_close(&courier);
    *out = courier;
    return status;
}

static void ring_event(struct mpo_courier *courier)
{
    const uint64_t one = 1;
    ssize_t written = write(courier->event, &one, sizeof one);
    (void)written; /* it is rung already */
}

void mpo_courier_wake(void *courier_pointer)
{
    struct mpo_courier *courier = *(struct mpo_courier **)courier_pointer;
    if (courier != NULL)
        ring_event(courier);
}

void mpo_courier_report(void *argument, const char *text)
{
    struct mpo_courier *courier = argument;
    pthread_mutex_lock(&courier->lock);
    snprintf(courier->report, sizeof courier->report, "%s", text);
    pthread_mutex_unlock(&courier->lock);
    ring_event(courier);
}

static void join_thread(struct mpo_courier *courier)
{
    if (courier->has_thread)
        pthread_join(courier->thread, NULL);
    courier->has_thread = false;
}

void mpo_courier_finish(struct mpo_courier *courier)
{
    courier->finishes = true;
    ring_event(courier);
    join_thread(courier);
}

void mpo_courier_end(struct mpo_courier *courier)
{
    courier->is_closing = true;
    ring_event(courier);
    join_thread(courier);
}

void mpo_courier_close(struct mpo_courier **courier)
{
    struct mpo_courier *self = *courier;
    if (self == NULL)
        return;
    mpo_courier_end(self);
    for (size_t i = 0; !self->spec.is_near && i < self->request_capacity; i++)
        mpo_serve_request_close(&self->request[i].request);
    close(self->spec.socket);
    if (self->event >= 0)
        close(self->event);
    mpo_serve_buffer_close(&self->out);
    mpo_serve_buffer_close(&self->in);
    pthread_mutex_destroy(&self->lock);
    free(self->values);
    free(self->request);
    free(self);
    *courier = NULL;
}

/* ---- numbers ---- */

int32_t courier_take_number(struct mpo_courier *courier, struct mpo_serve_request *request)
{
    size_t number = 0;
    while (number < courier->request_capacity && courier->request[number].request != NULL)
        number++;
    if (mpo_memory_grow((void **)&courier->request, &courier->request_capacity, number + 1,
                        sizeof *courier->request, "requests under way") != MPO_OK)
        return -1;
    courier->request[number] = (struct courier_request){.request = request};
    return (int32_t)number;
}

struct mpo_serve_request *courier_find(struct mpo_courier *courier, int32_t number)
{
    if (number < 0 || (size_t)number >= courier->request_capacity)
        return NULL;
    return courier->request[number].request;
}

/* ---- the other end is lost ---- */

static void lose_peer(struct mpo_courier *courier, const char *text)
{
    if (courier->has_failed || courier->has_ended || courier->is_closing)
        return;
    courier->has_failed = true;
    courier->spec.lost(courier->spec.argument, text);
}

static void lose_silent(struct mpo_courier *courier)
{
    char text[192] = "";
    snprintf(
        text, sizeof text,
        "rank %d has not responded for %.0f s; check its host for a stopped process, or "
        "raise --run.step_deadline",
        courier->spec.peer, courier->spec.patience_seconds);
    lose_peer(courier, text);
}

static void lose_gone(struct mpo_courier *courier)
{
    char text[128] = "";
    snprintf(text, sizeof text,
             "rank %d was lost while serving; its host's log may say why",
             courier->spec.peer);
    lose_peer(courier, text);
}

/* ---- frames ---- */

/* What both ends know. @return false: it is no frame of this end */
static bool take_frame(struct mpo_courier *courier, const struct mpo_wire_frame *frame)
{
    switch (frame->head.kind) {
    case MPO_WIRE_ALIVE:
        return true;
    case MPO_WIRE_END:
        courier->has_ended = true;
        return true;
    case MPO_WIRE_LOST:
        if (memchr(frame->bytes, '\0', (size_t)frame->head.bytes) == NULL)
            return false;
        lose_peer(courier, frame->bytes);
        return true;
    default:
        return courier->end->take(courier, frame);
    }
}

static bool take_frames(struct mpo_courier *courier)
{
    struct mpo_wire_frame frame = {0};
    size_t done = 0;
    int64_t bytes = mpo_wire_first(courier->in.bytes, courier->in.count, &frame);
    while (bytes > 0 && take_frame(courier, &frame)) {
        done += (size_t)bytes;
        bytes = mpo_wire_first(courier->in.bytes + done, courier->in.count - done, &frame);
    }
    mpo_serve_buffer_drop(&courier->in, done);
    return bytes == 0;
}

/* All that is there, up to one buffer, so that nothing else waits for long. */
static void receive_frames(struct mpo_courier *courier)
{
    char bytes[RECEIVE_BYTES];
    ssize_t count = recv(courier->spec.socket, bytes, sizeof bytes, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count > 0) {
        courier->heard = mpo_timing_now();
        mpo_serve_buffer_add(&courier->in, bytes, (size_t)count);
    }
    if (count <= 0 || courier->in.is_lost || !take_frames(courier))
        lose_gone(courier);
}

static void send_out(struct mpo_courier *courier)
{
    while (courier->sent < courier->out.count) {
        ssize_t count = send(courier->spec.socket, courier->out.bytes + courier->sent,
                             courier->out.count - courier->sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno != EAGAIN) {
            receive_frames(courier); /* END may have come */
            lose_gone(courier);
        }
        if (count <= 0)
            return;
        courier->sent += (size_t)count;
        if (courier->sent < SENT_BYTES_MAX && courier->sent < courier->out.count)
            continue;
        mpo_serve_buffer_drop(&courier->out, courier->sent);
        courier->sent = 0;
    }
}

/* ---- signs of life ---- */

static void say_alive(struct mpo_courier *courier)
{
    double now = mpo_timing_now();
    if (courier->out.count > 0)
        courier->said = now;
    if (now - courier->said < courier->spec.alive_seconds)
        return;
    mpo_wire_put(&courier->out, MPO_WIRE_ALIVE, -1, NULL, 0);
    courier->said = now;
}

static void say_report(struct mpo_courier *courier)
{
    pthread_mutex_lock(&courier->lock);
    if (courier->report[0] != '\0')
        mpo_wire_put(&courier->out, MPO_WIRE_LOST, -1, courier->report,
                     strlen(courier->report) + 1);
    courier->report[0] = '\0';
    pthread_mutex_unlock(&courier->lock);
}

/* A thread that did not run for long has not heard, whatever was said. */
static void check_silence(struct mpo_courier *courier, double waited, double limit)
{
    double patience = courier->spec.patience_seconds;
    if (waited > limit + courier->spec.alive_seconds)
        courier->heard = mpo_timing_now();
    if (patience > 0.0 && mpo_timing_now() - courier->heard > patience)
        lose_silent(courier);
}

/* ---- the loop ---- */

/* Until the next thing that nobody tells. */
static double seconds_to_wait(struct mpo_courier *courier)
{
    double now = mpo_timing_now();
    double until = courier->said + courier->spec.alive_seconds;
    if (courier->spec.patience_seconds > 0.0)
        until = fmin(until, courier->heard + courier->spec.patience_seconds);
    double seconds = fmax(until - now, 0.0);
    return courier->spec.is_near ? seconds : fmin(seconds, courier_state_due(courier));
}

static void wait_for_news(struct mpo_courier *courier)
{
    uint64_t count = 0;
    bool has_more = courier->sent < courier->out.count;
    double limit = seconds_to_wait(courier);
    double began = mpo_timing_now();
    struct pollfd poller[] = {
        {.fd = courier->spec.socket, .events = (short)(POLLIN | (has_more ? POLLOUT : 0))},
        {.fd = courier->event, .events = POLLIN}};
    if (poll(poller, 2, (int)ceil(1e3 * limit)) < 0)
        return;
    if (poller[1].revents != 0) {
        ssize_t bytes = read(courier->event, &count, sizeof count);
        (void)bytes;
    }
    if (poller[0].revents & (POLLIN | POLLHUP | POLLERR))
        receive_frames(courier);
    check_silence(courier, mpo_timing_now() - began, limit);
}

static bool goes_on(const struct mpo_courier *courier)
{
    return !courier->is_closing && !courier->has_ended && !courier->has_failed;
}

static void flush_out(struct mpo_courier *courier)
{
    send_out(courier);
    while (courier->out.count > 0 && goes_on(courier)) {
        wait_for_news(courier);
        send_out(courier);
    }
}

/* Far: the engine has ended, so that all that it put is in the link. */
static void end_far(struct mpo_courier *courier)
{
    flush_out(courier);
    courier->end->gather(courier);
    mpo_wire_put(&courier->out, MPO_WIRE_END, -1, NULL, 0);
    flush_out(courier);
    courier->has_ended = true;
}

static void *run_courier(void *argument)
{
    struct mpo_courier *courier = argument;
    courier->said = mpo_timing_now();
    while (goes_on(courier)) {
        wait_for_news(courier);
        bool finishes = courier->finishes && !courier->spec.is_near;
        courier->end->gather(courier);
        say_report(courier);
        say_alive(courier);
        if (courier->out.is_lost)
            lose_peer(courier, "no memory for messages between groups");
        send_out(courier);
        if (finishes)
            end_far(courier);
    }
    if (courier->is_closing && !courier->has_ended && !courier->has_failed) {
        /* Before the other end finds the socket closed. */
        mpo_wire_put(&courier->out, MPO_WIRE_END, -1, NULL, 0);
        send_out(courier);
    }
    return NULL;
}
