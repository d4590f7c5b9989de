/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a connection: its phases and its deadlines.
 *
 * Deadlines are points in time, which no byte moves (but for a body, which has a second more
 * for each 64 KiB that came). The timer is set to the first deadline and looks again when it
 * fires, so that most phases end without a word to it.
 */
#include "http_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/timing.h"

/* For what is still on its way when an answer has ended a connection. */
#define LINGER_SECONDS 2.0

#define BODY_STEP_BYTES 65536.0

/* ---- phases ---- */

static bool is_busy(enum mpo_http_phase phase)
{
    return phase == MPO_HTTP_WAITING || phase == MPO_HTTP_STREAMING ||
           phase == MPO_HTTP_FLUSHING;
}

static bool is_listed_idle(enum mpo_http_phase phase)
{
    return phase == MPO_HTTP_IDLE || phase == MPO_HTTP_LINGERING;
}

void mpo_http_connection_enter(struct mpo_http_connection *connection,
                               enum mpo_http_phase phase)
{
    struct mpo_http *http = connection->http;
    http->busy_count += is_busy(phase) - is_busy(connection->phase);
    if (is_listed_idle(connection->phase))
        TAILQ_REMOVE(&http->idle, connection, idle);
    connection->phase = phase;
    connection->since = mpo_timing_now();
    if (phase == MPO_HTTP_LINGERING) /* the first to go where room is wanted */
        TAILQ_INSERT_HEAD(&http->idle, connection, idle);
    else if (phase == MPO_HTTP_IDLE)
        TAILQ_INSERT_TAIL(&http->idle, connection, idle);
    mpo_http_connection_watch(connection);
}

/* ---- deadlines ---- */

static double find_deadline(const struct mpo_http_connection *connection)
{
    const struct mpo_http_deadlines *deadlines = &connection->http->spec.deadlines;
    size_t bytes = 0;
    switch (connection->phase) {
    case MPO_HTTP_IDLE:
        return connection->since + deadlines->idle;
    case MPO_HTTP_RECEIVING_HEADER:
        return connection->since + deadlines->header;
    case MPO_HTTP_RECEIVING_BODY:
        mpo_http_parser_body(connection->parser, &bytes);
        return connection->since + deadlines->body +
               deadlines->body_64k * floor((double)bytes / BODY_STEP_BYTES);
    case MPO_HTTP_LINGERING:
        return connection->since + LINGER_SECONDS;
    case MPO_HTTP_CLOSED:
        return INFINITY;
    default:
        return connection->progress > 0.0 ? connection->progress + deadlines->write
                                          : INFINITY;
    }
}

static void set_timer(struct mpo_http_connection *connection, double at)
{
    double seconds = fmax(at - mpo_timing_now(), 0.0) + 1e-3;
    struct timeval delay = {.tv_sec = (time_t)seconds,
                            .tv_usec = (suseconds_t)(1e6 * fmod(seconds, 1.0))};
    connection->timer_at = at;
    evtimer_add(&connection->timer, &delay);
}

void mpo_http_connection_watch(struct mpo_http_connection *connection)
{
    double at = find_deadline(connection);
    if (at < connection->timer_at)
        set_timer(connection, at);
}

static void refuse_late(struct mpo_http_connection *connection)
{
    static const struct mpo_http_refusal late_header = {
        408, "request_timeout",
        "expected a whole header within the deadline; send it again", ""};
    static const struct mpo_http_refusal late_body = {
        408, "request_timeout", "expected a whole body within the deadline; send it again",
        ""};
    bool is_header = connection->phase == MPO_HTTP_RECEIVING_HEADER;
    mpo_http_answer_refusal(connection, is_header ? &late_header : &late_body, true);
}

static void on_timer(evutil_socket_t socket, short what, void *argument)
{
    struct mpo_http_connection *connection = argument;
    double at = find_deadline(connection);
    (void)socket;
    (void)what;
    connection->timer_at = INFINITY;
    if (mpo_timing_now() < at)
        mpo_http_connection_watch(connection);
    else if (is_listed_idle(connection->phase))
        mpo_http_connection_close(connection);
    else if (is_busy(connection->phase))
        mpo_http_connection_lose(connection);
    else
        refuse_late(connection);
}

/* ---- the end of a request ---- */

static void tell_done(struct mpo_http_connection *connection, bool gone)
{
    const struct mpo_http_callbacks *callbacks = &connection->http->spec.callbacks;
    const struct mpo_http_head *head = NULL;
    char path[1024] = "-";
    if (callbacks->on_done == NULL)
        return;
    if (connection->parser != NULL)
        head = mpo_http_parser_head(connection->parser);
    if (head != NULL)
        snprintf(path, sizeof path, "%.*s", (int)strcspn(head->target, "?"), head->target);
    callbacks->on_done(
        callbacks->argument,
        &(struct mpo_http_done){.method = head == NULL ? "-" : head->method,
                                .path = path,
                                .route = connection->verdict.route,
                                .status = connection->status,
                                .gone = gone,
                                .key = connection->verdict.key,
                                .peer = connection->peer,
                                .sent_bytes = connection->sent_bytes,
                                .seconds = mpo_timing_now() - connection->request.arrived});
}

/* Forget the request, and be as before it. */
static void release_request(struct mpo_http_connection *connection)
{
    mpo_http_uncharge_body(connection);
    mpo_http_parser_close(&connection->parser);
    connection->request = (struct mpo_http_request){.path = "-"};
    connection->verdict =
        (struct mpo_http_verdict){.route = -1, .rest = "", .key_index = -1};
    connection->status = 0;
    connection->sent_bytes = 0;
    connection->has_chunks = false;
    connection->has_no_body = false;
    connection->is_backlogged = false;
}

void mpo_http_connection_close(struct mpo_http_connection *connection)
{
    struct mpo_http *http = connection->http;
    if (connection->phase == MPO_HTTP_CLOSED)
        return;
    mpo_http_connection_enter(connection, MPO_HTTP_CLOSED);
    event_del(&connection->io);
    event_del(&connection->timer);
    release_request(connection);
    free(connection->ahead);
    connection->ahead = NULL;
    SSL_free(connection->tls);
    connection->tls = NULL;
    close(connection->socket);
    TAILQ_REMOVE(&http->all, connection, all);
    TAILQ_INSERT_TAIL(&http->dead, connection, all);
    if (connection->is_extra)
        http->extra_count--;
    else
        http->count--;
    event_active(&http->turn, 0, 0);
}

/* With what the kernel still has for the client thrown away. */
static void reset_connection(struct mpo_http_connection *connection)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(connection->socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    mpo_http_connection_close(connection);
}

void mpo_http_connection_lose(struct mpo_http_connection *connection)
{
    const struct mpo_http_callbacks *callbacks = &connection->http->spec.callbacks;
    bool is_unanswered =
        connection->phase == MPO_HTTP_WAITING || connection->phase == MPO_HTTP_STREAMING;
    if (connection->phase == MPO_HTTP_CLOSED)
        return;
    if (is_unanswered && callbacks->on_gone != NULL)
        callbacks->on_gone(callbacks->argument, &connection->request);
    if (connection->parser != NULL || is_busy(connection->phase))
        tell_done(connection, true);
    if (is_busy(connection->phase))
        reset_connection(connection);
    else
        mpo_http_connection_close(connection);
}

void mpo_http_close_served(struct mpo_http *http)
{
    struct mpo_http_connection *connection = TAILQ_FIRST(&http->idle);
    while (connection != NULL) {
        struct mpo_http_connection *next = TAILQ_NEXT(connection, idle);
        if (connection->phase == MPO_HTTP_IDLE && !connection->is_fresh)
            mpo_http_connection_close(connection);
        connection = next;
    }
}

/* Before a request has come. */
static void refuse_at_once(struct mpo_http_connection *connection,
                           const struct mpo_http_refusal *refusal)
{
    connection->request.arrived = mpo_timing_now();
    mpo_http_answer_refusal(connection, refusal, true);
}

void mpo_http_refuse_unheard(struct mpo_http *http)
{
    static const struct mpo_http_refusal stopping = {
        503, "draining", "this server is stopping; try again later", ""};
    struct mpo_http_connection *connection = TAILQ_FIRST(&http->all);
    while (connection != NULL) {
        struct mpo_http_connection *next = TAILQ_NEXT(connection, all);
        if (connection->phase == MPO_HTTP_IDLE && connection->is_fresh)
            mpo_http_on_io(connection->socket, EV_READ, connection);
        if (connection->phase == MPO_HTTP_IDLE && connection->is_fresh)
            refuse_at_once(connection, &stopping);
        else if (connection->phase == MPO_HTTP_RECEIVING_HEADER ||
                 connection->phase == MPO_HTTP_RECEIVING_BODY)
            mpo_http_connection_lose(connection);
        connection = next;
    }
}

/* ---- the beginning and the end ---- */

/* The next request, once the answer is out. */
static void begin_idle(struct mpo_http_connection *connection)
{
    size_t at = connection->ahead_at;
    mpo_http_connection_enter(connection, MPO_HTTP_IDLE);
    if (connection->ahead != NULL)
        mpo_http_read_bytes(connection, connection->ahead + at,
                            connection->ahead_bytes - at);
    if (connection->phase == MPO_HTTP_CLOSED)
        return;
    if (connection->ahead_at == connection->ahead_bytes) {
        free(connection->ahead);
        connection->ahead = NULL;
        connection->ahead_at = connection->ahead_bytes = 0;
    }
    /* bytes may have come while reading was off */
    event_active(&connection->io, EV_READ, 0);
}

void mpo_http_connection_finish(struct mpo_http_connection *connection)
{
    struct mpo_http *http = connection->http;
    bool is_cut = connection->is_cut && !connection->has_chunks;
    connection->is_fresh = false;
    tell_done(connection, false);
    if (is_cut) { /* without chunks an end looks like any other */
        reset_connection(connection);
        return;
    }
    release_request(connection);
    if (!connection->closes && !http->is_draining) {
        begin_idle(connection);
        return;
    }
    if (connection->tls != NULL)
        SSL_shutdown(connection->tls);
    shutdown(connection->socket, SHUT_WR);
    mpo_http_connection_enter(connection, MPO_HTTP_LINGERING);
    event_active(&connection->io, EV_READ, 0);
}

static bool allocate_connection(struct mpo_http *http, int socket,
                                struct mpo_http_connection **out)
{
    struct mpo_http_connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return false;
    connection->output = evbuffer_new();
    if (http->tls != NULL)
        connection->tls = mpo_http_tls_accept(http->tls, socket);
    if (connection->output != NULL && (http->tls == NULL || connection->tls != NULL)) {
        *out = connection;
        return true;
    }
    SSL_free(connection->tls);
    if (connection->output != NULL)
        evbuffer_free(connection->output);
    free(connection);
    return false;
}

void mpo_http_connection_open(struct mpo_http *http, int socket, const char *peer,
                              bool is_extra)
{
    static const struct mpo_http_refusal too_many = {
        503, "too_many_connections",
        "this server has reached its limit of connections; try again later", ""};
    struct mpo_http_connection *connection = NULL;
    if (!allocate_connection(http, socket, &connection)) {
        close(socket);
        return;
    }
    connection->http = http;
    connection->socket = socket;
    connection->is_extra = is_extra;
    connection->is_fresh = true;
    connection->timer_at = INFINITY;
    snprintf(connection->peer, sizeof connection->peer, "%s", peer);
    evtimer_assign(&connection->timer, http->base, on_timer, connection);
    event_assign(&connection->io, http->base, socket,
                 EV_READ | EV_WRITE | EV_ET | EV_PERSIST, mpo_http_on_io, connection);
    TAILQ_INSERT_TAIL(&http->all, connection, all);
    TAILQ_INSERT_TAIL(&http->idle, connection, idle); /* the phase is IDLE already */
    *(is_extra ? &http->extra_count : &http->count) += 1;
    release_request(connection);
    mpo_http_connection_enter(connection, MPO_HTTP_IDLE);
    if (event_add(&connection->io, NULL) != 0) {
        mpo_http_connection_close(connection);
    } else if (is_extra) {
        refuse_at_once(connection, &too_many);
    }
}
