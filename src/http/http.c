/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: opened, run by one thread, and notified by others through an eventfd.
 *
 * Other threads set an atomic and write to the eventfd; nothing of libevent is touched by
 * two threads, so it needs no locks.
 */
#include "http_impl.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/reason.h"
#include "base/timing.h"

#define NEVER UINT64_MAX

/* epoll, its timer, and two pairs for signals. */
#define BASE_DESCRIPTORS 8

/* ---- other threads ---- */

/* Safe in a handler of a signal. */
static void wake_loop(struct mpo_http *http)
{
    const uint64_t one = 1;
    int error = errno;
    ssize_t written = write(http->wake_end, &one, sizeof one);
    (void)written; /* full means that it is awake */
    errno = error;
}

void mpo_http_notify(struct mpo_http *http)
{
    if (!atomic_exchange(&http->is_notified, true))
        wake_loop(http);
}

void mpo_http_drain(struct mpo_http *http)
{
    atomic_store(&http->wants_drain, true);
    wake_loop(http);
}

static uint64_t now_nanos(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void mpo_http_stop(struct mpo_http *http, double seconds)
{
    uint64_t at = now_nanos() + (uint64_t)(1e9 * fmin(fmax(seconds, 0.0), 1e6));
    uint64_t before = atomic_load(&http->stop_at);
    while (at < before && !atomic_compare_exchange_weak(&http->stop_at, &before, at))
        ;
    wake_loop(http);
}

/* ---- the loop ---- */

static void begin_drain(struct mpo_http *http)
{
    if (http->is_draining)
        return;
    http->is_draining = true;
    mpo_http_close_served(http);
}

/* Requests that are still on their way are given up, answered ones waited for, and who has
 * just connected is told to come again. */
static void begin_stop(struct mpo_http *http)
{
    if (!http->is_stopping) {
        mpo_http_accept_waiting(http);
        mpo_http_listen_end(http);
    }
    http->is_stopping = true;
    begin_drain(http);
    mpo_http_refuse_unheard(http);
    event_active(&http->turn, 0, 0);
}

static void set_last(struct mpo_http *http, uint64_t at)
{
    uint64_t now = now_nanos();
    uint64_t left = at > now ? at - now : 0;
    const struct timeval delay = {.tv_sec = (time_t)(left / 1000000000u),
                                  .tv_usec = (suseconds_t)(left % 1000000000u / 1000u)};
    evtimer_add(&http->last, &delay);
}

static void on_wake(evutil_socket_t end, short what, void *argument)
{
    struct mpo_http *http = argument;
    const struct mpo_http_callbacks *callbacks = &http->spec.callbacks;
    uint64_t count = 0;
    ssize_t got = read((int)end, &count, sizeof count);
    (void)got;
    (void)what;
    /* first the flag, then the call: what comes in between wakes once more */
    if (atomic_exchange(&http->is_notified, false) && callbacks->on_notify != NULL)
        callbacks->on_notify(callbacks->argument);
    if (atomic_load(&http->wants_drain))
        begin_drain(http);
    uint64_t stop_at = atomic_load(&http->stop_at);
    if (stop_at != NEVER) {
        set_last(http, stop_at);
        begin_stop(http);
    }
}

static void on_last(evutil_socket_t socket, short what, void *argument)
{
    struct mpo_http *http = argument;
    (void)socket;
    (void)what;
    event_base_loopbreak(http->base);
}

static void on_tick(evutil_socket_t socket, short what, void *argument)
{
    const struct mpo_http *http = argument;
    (void)socket;
    (void)what;
    http->spec.callbacks.on_tick(http->spec.callbacks.argument);
}

static void on_turn(evutil_socket_t socket, short what, void *argument)
{
    (void)socket;
    (void)what;
    mpo_http_turn(argument);
}

static enum mpo_status begin_events(struct mpo_http *http)
{
    enum mpo_status status = MPO_OK;
    const struct timeval second = {.tv_sec = 1};
    MPO_TRY(mpo_http_listen_begin(http));
    MPO_CHECK(event_add(&http->wake, NULL) == 0, MPO_ERR_MEMORY, "no memory for an event");
    MPO_CHECK(http->spec.callbacks.on_tick == NULL || event_add(&http->tick, &second) == 0,
              MPO_ERR_MEMORY, "no memory for an event");
cleanup:
    return status;
}

static void close_all(struct mpo_http *http)
{
    struct mpo_http_connection *connection = NULL;
    while ((connection = TAILQ_FIRST(&http->all)) != NULL)
        mpo_http_connection_lose(connection);
    mpo_http_turn(http);
}

/* OpenSSL writes with write, and a client that has gone is no reason to end the process. */
static void block_pipe_signal(sigset_t *before)
{
    sigset_t pipe_only;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, before);
}

static void restore_signals(const sigset_t *before)
{
    sigset_t pipe_only;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    if (!sigismember(before, SIGPIPE))
        sigtimedwait(&pipe_only, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

enum mpo_status mpo_http_run(struct mpo_http *http)
{
    enum mpo_status status = MPO_OK;
    sigset_t before;
    block_pipe_signal(&before);
    MPO_CHECK(event_base_dispatch(http->base) >= 0, MPO_ERR_INTERNAL,
              "the event loop of the HTTP server broke: %s", strerror(errno));
cleanup:
    mpo_http_listen_end(http);
    close_all(http);
    restore_signals(&before);
    return status;
}

/* ---- open and close ---- */

static void set_defaults(struct mpo_http_spec *spec)
{
    struct mpo_http_limits *limits = &spec->limits;
    struct mpo_http_deadlines *deadlines = &spec->deadlines;
#define OR(member, value)                                                                  \
    if (!((member) > 0))                                                                   \
    (member) = (value)
    OR(limits->connections, 1024);
    OR(limits->body_bytes, (size_t)4 << 20);
    OR(limits->bodies_bytes, (size_t)256 << 20);
    OR(limits->header_bytes, (size_t)16 << 10);
    OR(limits->header_lines, 64);
    OR(limits->path_bytes, (size_t)1 << 10);
    OR(deadlines->header, 10.0);
    OR(deadlines->body, 10.0);
    OR(deadlines->body_64k, 1.0);
    OR(deadlines->idle, 75.0);
    OR(deadlines->write, 30.0);
#undef OR
}

/* libevent ends the process where it cannot make its own. */
static enum mpo_status check_descriptors(int any)
{
    enum mpo_status status = MPO_OK;
    int spare[BASE_DESCRIPTORS];
    int count = 0;
    while (count < BASE_DESCRIPTORS && (spare[count] = dup(any)) >= 0)
        count++;
    MPO_CHECK(count == BASE_DESCRIPTORS, mpo_reason_status(errno, MPO_ERR_MEMORY),
              "descriptors for an event loop: %s%s", strerror(errno),
              mpo_reason_advice(errno));
cleanup:
    while (count > 0)
        close(spare[--count]);
    return status;
}

static enum mpo_status open_base(struct mpo_http *http)
{
    enum mpo_status status = MPO_OK;
    struct event_config *config = event_config_new();
    MPO_CHECK(config != NULL, MPO_ERR_MEMORY, "no memory for an event loop");
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
    event_config_require_features(config, EV_FEATURE_ET);
    http->base = event_base_new_with_config(config);
    MPO_CHECK(http->base != NULL, MPO_ERR_MEMORY, "no memory for an event loop");
cleanup:
    if (config != NULL)
        event_config_free(config);
    return status;
}

static enum mpo_status open_events(struct mpo_http *http)
{
    enum mpo_status status = MPO_OK;
    http->wake_end = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    MPO_CHECK(http->wake_end >= 0, mpo_reason_status(errno, MPO_ERR_MEMORY),
              "an eventfd: %s%s", strerror(errno), mpo_reason_advice(errno));
    MPO_TRY(check_descriptors(http->wake_end));
    MPO_TRY(open_base(http));
    event_assign(&http->turn, http->base, -1, 0, on_turn, http);
    event_assign(&http->tick, http->base, -1, EV_PERSIST, on_tick, http);
    event_assign(&http->wake, http->base, http->wake_end, EV_READ | EV_PERSIST, on_wake,
                 http);
    evtimer_assign(&http->last, http->base, on_last, http);
cleanup:
    return status;
}

enum mpo_status mpo_http_open(const struct mpo_http_spec *spec, struct mpo_http **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_http *http = NULL;
    MPO_NEW(1, &http);
    http->spec = *spec;
    http->listener = -1;
    http->wake_end = -1;
    atomic_init(&http->stop_at, NEVER);
    TAILQ_INIT(&http->all);
    TAILQ_INIT(&http->idle);
    TAILQ_INIT(&http->dirty);
    TAILQ_INIT(&http->dead);
    set_defaults(&http->spec);
    MPO_NEW(MPO_HTTP_SCRATCH_BYTES, &http->scratch);
    MPO_TRY(mpo_http_rules_open(&http->spec, &http->rules));
    if (spec->tls_cert != NULL || spec->tls_key != NULL)
        MPO_TRY(mpo_http_tls_open(spec->tls_cert, spec->tls_key, &http->tls));
    MPO_TRY(open_events(http));
    MPO_TRY(mpo_http_listen(http));
    MPO_TRY(begin_events(http));
    *out = http;
    http = NULL;
cleanup:
    mpo_http_close(&http);
    return status;
}

void mpo_http_close(struct mpo_http **http)
{
    struct mpo_http *closed = *http;
    if (closed == NULL)
        return;
    mpo_http_listen_end(closed);
    if (closed->base != NULL)
        event_base_free(closed->base);
    if (closed->wake_end >= 0)
        close(closed->wake_end);
    SSL_CTX_free(closed->tls);
    mpo_http_rules_close(&closed->rules);
    free(closed->url);
    free(closed->scratch);
    free(closed);
    *http = NULL;
}

/* ---- what is known ---- */

int32_t mpo_http_port(const struct mpo_http *http)
{
    return http->port;
}

const char *mpo_http_url(const struct mpo_http *http)
{
    return http->url;
}

int32_t mpo_http_key_count(const struct mpo_http *http)
{
    return http->rules.keys != NULL ? mpo_http_keys_count(http->rules.keys) : 0;
}

int32_t mpo_http_connections(const struct mpo_http *http)
{
    return http->count + http->extra_count;
}
