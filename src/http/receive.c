/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is read from a connection: requests, or their remains after an answer that ended it.
 */
#define _GNU_SOURCE /* POLLRDHUP */
#include "http_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/timing.h"

static bool reads_requests(enum mpo_http_phase phase)
{
    return phase == MPO_HTTP_IDLE || phase == MPO_HTTP_RECEIVING_HEADER ||
           phase == MPO_HTTP_RECEIVING_BODY;
}

void mpo_http_uncharge_body(struct mpo_http_connection *connection)
{
    connection->http->bodies_bytes -= connection->charged_bytes;
    connection->charged_bytes = 0;
}

/* ---- requests ---- */

static void deliver_request(struct mpo_http_connection *connection)
{
    const struct mpo_http_callbacks *callbacks = &connection->http->spec.callbacks;
    const struct mpo_http_head *head = mpo_http_parser_head(connection->parser);
    struct mpo_http_request *request = &connection->request;
    request->method = connection->verdict.method;
    request->route = connection->verdict.route;
    request->path = head->path;
    request->rest = connection->verdict.rest;
    request->query = head->query;
    request->body = mpo_http_parser_body(connection->parser, &request->body_bytes);
    request->key_index = connection->verdict.key_index;
    request->key = connection->verdict.key;
    request->peer = connection->peer;
    request->context = NULL;
    mpo_http_connection_enter(connection, MPO_HTTP_WAITING);
    callbacks->on_request(callbacks->argument, request);
    request->body = "";
    request->body_bytes = 0;
    mpo_http_parser_drop_body(connection->parser);
    mpo_http_uncharge_body(connection);
}

/* What the header says is enough to refuse it, to answer it, or to wait for its body. */
static void weigh_header(struct mpo_http_connection *connection, bool has_more)
{
    const struct mpo_http_head *head = mpo_http_parser_head(connection->parser);
    struct mpo_http_verdict *verdict = &connection->verdict;
    mpo_http_check(&connection->http->rules, connection->parser, verdict);
    connection->closes = !head->keeps_alive;
    if (verdict->refusal.status != 0) {
        mpo_http_answer_refusal(connection, &verdict->refusal, head->has_body);
        return;
    }
    if (verdict->method == MPO_HTTP_OPTIONS) {
        connection->closes |= head->has_body;
        mpo_http_answer_options(connection);
        return;
    }
    if (head->has_body)
        mpo_http_connection_enter(connection, MPO_HTTP_RECEIVING_BODY);
    if (head->expects_continue && !has_more)
        mpo_http_answer_continue(connection);
    mpo_http_parser_go_on(connection->parser);
}

/* Bodies of many connections together have a bound of their own. */
static bool charge_body(struct mpo_http_connection *connection)
{
    static const struct mpo_http_refusal too_many = {
        503, "busy", "too many large requests are arriving; send it again later", ""};
    struct mpo_http *http = connection->http;
    size_t room = mpo_http_parser_room(connection->parser);
    http->bodies_bytes += room - connection->charged_bytes;
    connection->charged_bytes = room;
    if (http->bodies_bytes <= http->spec.limits.bodies_bytes)
        return true;
    mpo_http_answer_refusal(connection, &too_many, true);
    return false;
}

/* One step of the parser; false when there is no memory. */
static bool read_piece(struct mpo_http_connection *connection, const char *bytes,
                       size_t count, size_t *taken)
{
    struct mpo_http_parser *parser = connection->parser;
    if (mpo_http_parser_feed(parser, bytes, count, taken) != MPO_OK)
        return false;
    if (!charge_body(connection))
        return true;
    if (mpo_http_parser_stage(parser) == MPO_HTTP_HEADER_DONE)
        weigh_header(connection, *taken < count);
    if (mpo_http_parser_stage(parser) == MPO_HTTP_WHOLE)
        deliver_request(connection);
    else if (mpo_http_parser_stage(parser) == MPO_HTTP_BROKEN)
        mpo_http_answer_refusal(connection, mpo_http_parser_refusal(parser), true);
    return true;
}

/* What was read of the next request waits until the answer is out. Bytes that have waited
 * before are in their place already. */
static bool keep_ahead(struct mpo_http_connection *connection, const char *bytes,
                       size_t count)
{
    if (connection->ahead != NULL) {
        connection->ahead_at = connection->ahead_bytes - count;
        return true;
    }
    if (count == 0 || connection->closes)
        return true;
    connection->ahead = malloc(count);
    if (connection->ahead == NULL)
        return false;
    memcpy(connection->ahead, bytes, count);
    connection->ahead_at = 0;
    connection->ahead_bytes = count;
    return true;
}

void mpo_http_read_bytes(struct mpo_http_connection *connection, const char *bytes,
                         size_t count)
{
    bool has_memory = true;
    while (has_memory && count > 0 && reads_requests(connection->phase)) {
        size_t taken = 0;
        if (connection->phase == MPO_HTTP_IDLE) {
            has_memory = mpo_http_parser_open(&connection->http->spec.limits,
                                              &connection->parser) == MPO_OK;
            connection->request.arrived = mpo_timing_now();
            mpo_http_connection_enter(connection, MPO_HTTP_RECEIVING_HEADER);
        }
        has_memory = has_memory && read_piece(connection, bytes, count, &taken);
        bytes += taken;
        count -= taken;
    }
    if (!has_memory || !keep_ahead(connection, bytes, count))
        mpo_http_connection_lose(connection);
}

/* ---- sockets ---- */

static ssize_t receive_bytes(struct mpo_http_connection *connection, char *room)
{
    if (connection->tls != NULL)
        return mpo_http_tls_receive(connection->tls, room, MPO_HTTP_SCRATCH_BYTES);
    return recv(connection->socket, room, MPO_HTTP_SCRATCH_BYTES, MSG_DONTWAIT);
}

/* Until the kernel has nothing more, for it tells of new bytes alone. */
static void read_socket(struct mpo_http_connection *connection)
{
    const struct mpo_http_limits *limits = &connection->http->spec.limits;
    char *room = connection->http->scratch;
    while (reads_requests(connection->phase) || connection->phase == MPO_HTTP_LINGERING) {
        ssize_t got = receive_bytes(connection, room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            mpo_http_connection_lose(connection);
            return;
        }
        if (connection->phase != MPO_HTTP_LINGERING) {
            mpo_http_read_bytes(connection, room, (size_t)got);
            continue;
        }
        connection->thrown_bytes += (size_t)got;
        if (connection->thrown_bytes > limits->body_bytes + limits->header_bytes)
            mpo_http_connection_close(connection);
    }
}

/* A client that waits for its answer and closes, or closes its half, does not wait any more.
 * Bytes of a next request may lie before the end, so the kernel is asked for the end itself. */
static void check_client(struct mpo_http_connection *connection)
{
    struct pollfd socket = {.fd = connection->socket, .events = POLLRDHUP};
    if (poll(&socket, 1, 0) > 0)
        mpo_http_connection_lose(connection);
}

void mpo_http_on_io(evutil_socket_t socket, short what, void *argument)
{
    struct mpo_http_connection *connection = argument;
    (void)socket;
    (void)what;
    if (evbuffer_get_length(connection->output) > 0)
        mpo_http_send(connection);
    read_socket(connection);
    if (connection->phase == MPO_HTTP_WAITING || connection->phase == MPO_HTTP_STREAMING)
        check_client(connection);
}
