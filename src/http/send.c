/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written to a connection is sent once a turn of the loop, all of it in one call, as
 * far as the socket takes it; the rest when the kernel says that there is room.
 */
#define _GNU_SOURCE
#include "http_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/timing.h"

#define PIECES 16

void mpo_http_touch(struct mpo_http_connection *connection)
{
    struct mpo_http *http = connection->http;
    if (connection->is_dirty || connection->phase == MPO_HTTP_CLOSED)
        return;
    connection->is_dirty = true;
    TAILQ_INSERT_TAIL(&http->dirty, connection, dirty);
    event_active(&http->turn, 0, 0);
}

/* One call of the kernel; bytes, or -1 with errno. */
static ssize_t send_pieces(struct mpo_http_connection *connection)
{
    struct evbuffer_iovec piece[PIECES];
    struct iovec vector[PIECES];
    int count = evbuffer_peek(connection->output, -1, NULL, piece, PIECES);
    if (count > PIECES)
        count = PIECES;
    if (connection->tls != NULL)
        return mpo_http_tls_send(connection->tls, piece[0].iov_base, piece[0].iov_len);
    for (int i = 0; i < count; i++)
        vector[i] = (struct iovec){piece[i].iov_base, piece[i].iov_len};
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)count};
    return sendmsg(connection->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Reported once when the client of a stream is far behind, and once when it has caught
 * up. */
static void tell_backlog(struct mpo_http_connection *connection)
{
    const struct mpo_http_callbacks *callbacks = &connection->http->spec.callbacks;
    size_t unsent = evbuffer_get_length(connection->output);
    bool is_full = connection->is_backlogged ? unsent >= MPO_HTTP_BACKLOG_EMPTY
                                             : unsent > MPO_HTTP_BACKLOG_FULL;
    if (connection->phase != MPO_HTTP_STREAMING || is_full == connection->is_backlogged)
        return;
    connection->is_backlogged = is_full;
    if (callbacks->on_backlog != NULL)
        callbacks->on_backlog(callbacks->argument, &connection->request, is_full);
}

void mpo_http_send(struct mpo_http_connection *connection)
{
    bool is_lost = connection->is_broken;
    if (connection->progress == 0.0)
        connection->progress = mpo_timing_now();
    while (!is_lost && evbuffer_get_length(connection->output) > 0) {
        ssize_t sent = send_pieces(connection);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        is_lost = sent <= 0;
        if (is_lost)
            break;
        evbuffer_drain(connection->output, (size_t)sent);
        connection->sent_bytes += (uint64_t)sent;
        connection->progress = mpo_timing_now();
    }
    if (is_lost) {
        mpo_http_connection_lose(connection);
        return;
    }
    if (evbuffer_get_length(connection->output) == 0)
        connection->progress = 0.0;
    if (connection->progress == 0.0 && connection->phase == MPO_HTTP_FLUSHING) {
        mpo_http_connection_finish(connection);
        return;
    }
    tell_backlog(connection);
    mpo_http_connection_watch(connection);
}

static void free_connection(struct mpo_http_connection *connection)
{
    evbuffer_free(connection->output);
    free(connection);
}

void mpo_http_turn(struct mpo_http *http)
{
    struct mpo_http_connection *connection = NULL;
    while ((connection = TAILQ_FIRST(&http->dirty)) != NULL) {
        TAILQ_REMOVE(&http->dirty, connection, dirty);
        connection->is_dirty = false;
        if (connection->phase != MPO_HTTP_CLOSED)
            mpo_http_send(connection);
    }
    while ((connection = TAILQ_FIRST(&http->dead)) != NULL) {
        TAILQ_REMOVE(&http->dead, connection, all);
        free_connection(connection);
    }
    if (http->is_stopping && http->busy_count == 0)
        event_base_loopbreak(http->base);
}
