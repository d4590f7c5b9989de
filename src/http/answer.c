/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers as they go over the wire.
 */
#include "http_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- statuses ---- */

#define REASONS(X)                                                                         \
    X(100, "Continue")                                                                     \
    X(200, "OK")                                                                           \
    X(204, "No Content")                                                                   \
    X(304, "Not Modified")                                                                 \
    X(400, "Bad Request")                                                                  \
    X(401, "Unauthorized")                                                                 \
    X(403, "Forbidden")                                                                    \
    X(404, "Not Found")                                                                    \
    X(405, "Method Not Allowed")                                                           \
    X(408, "Request Timeout")                                                              \
    X(413, "Content Too Large")                                                            \
    X(414, "URI Too Long")                                                                 \
    X(429, "Too Many Requests")                                                            \
    X(431, "Request Header Fields Too Large")                                              \
    X(500, "Internal Server Error")                                                        \
    X(503, "Service Unavailable")                                                          \
    X(504, "Gateway Timeout")

static const char *find_reason(int status)
{
    switch (status) {
#define REASON(code, text)                                                                 \
    case code:                                                                             \
        return text;
        REASONS(REASON)
#undef REASON
    default:
        return "Status";
    }
}

/* ---- the head of an answer ---- */

/* evbuffer tells that there is no memory; the next turn closes the connection. */
static void add_bytes(struct mpo_http_connection *connection, const char *bytes,
                      size_t count)
{
    if (evbuffer_add(connection->output, bytes, count) != 0)
        connection->is_broken = true;
}

static void add_text(struct mpo_http_connection *connection, const char *text)
{
    add_bytes(connection, text, strlen(text));
}

static size_t count_printable(const char *text)
{
    size_t bytes = 0;
    while ((unsigned char)text[bytes] >= ' ' && text[bytes] != '\x7f')
        bytes++;
    return bytes;
}

/* A value that came from a client must not begin a line of its own. */
static void add_field(struct mpo_http_connection *connection, const char *name,
                      const char *value)
{
    add_text(connection, name);
    add_text(connection, ": ");
    for (const char *at = value; *at != '\0';) {
        size_t bytes = count_printable(at);
        add_bytes(connection, bytes > 0 ? at : "?", bytes > 0 ? bytes : 1);
        at += bytes > 0 ? bytes : 1;
    }
    add_text(connection, "\r\n");
}

static const char *find_date(struct mpo_http *http)
{
    time_t now = time(NULL);
    struct tm parts;
    if (now != http->date_second && gmtime_r(&now, &parts) != NULL) {
        /* the names of days and months are English in the C locale, which mpo has */
        strftime(http->date, sizeof http->date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        http->date_second = now;
    }
    return http->date;
}

static void add_cors(struct mpo_http_connection *connection)
{
    const char *origin = connection->verdict.origin;
    if (connection->http->spec.cors != NULL)
        add_field(connection, "Vary", "Origin");
    if (origin == NULL)
        return;
    add_field(connection, "Access-Control-Allow-Origin", origin);
    add_field(connection, "Access-Control-Expose-Headers",
              "X-Request-Id, X-Mpo-Ignored, Retry-After");
}

/* Status line and header but for what says how long the body is, and the end. */
static void add_head(struct mpo_http_connection *connection,
                     const struct mpo_http_answer *answer)
{
    char line[64];
    connection->status = answer->status;
    connection->closes |= connection->http->is_draining;
    connection->has_no_body = connection->verdict.method == MPO_HTTP_HEAD ||
                              answer->status == 204 || answer->status == 304;
    snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\n", answer->status,
             find_reason(answer->status));
    add_text(connection, line);
    add_field(connection, "Date", find_date(connection->http));
    add_field(connection, "Connection", connection->closes ? "close" : "keep-alive");
    if (answer->content_type != NULL)
        add_field(connection, "Content-Type", answer->content_type);
    for (int32_t i = 0; i < answer->field_count; i++)
        add_field(connection, answer->field[i].name, answer->field[i].value);
    add_cors(connection);
}

/* ---- answers ---- */

static struct mpo_http_connection *connection_of(const struct mpo_http_request *request)
{
    return (struct mpo_http_connection *)(uintptr_t)request;
}

static void answer_whole(struct mpo_http_connection *connection,
                         const struct mpo_http_answer *answer)
{
    char length[32];
    add_head(connection, answer);
    snprintf(length, sizeof length, "%zu", answer->body_bytes);
    if (answer->status != 204 && answer->status != 304)
        add_field(connection, "Content-Length", length);
    add_text(connection, "\r\n");
    if (!connection->has_no_body)
        add_bytes(connection, answer->body, answer->body_bytes);
    mpo_http_connection_enter(connection, MPO_HTTP_FLUSHING);
    mpo_http_touch(connection);
}

void mpo_http_answer(struct mpo_http_request *request, const struct mpo_http_answer *answer)
{
    struct mpo_http_connection *connection = connection_of(request);
    assert(connection->phase == MPO_HTTP_WAITING);
    answer_whole(connection, answer);
}

void mpo_http_begin(struct mpo_http_request *request, const struct mpo_http_answer *answer)
{
    struct mpo_http_connection *connection = connection_of(request);
    assert(connection->phase == MPO_HTTP_WAITING);
    connection->has_chunks = mpo_http_parser_head(connection->parser)->has_chunks;
    connection->closes |= !connection->has_chunks;
    add_head(connection, answer);
    if (connection->has_chunks && !connection->has_no_body)
        add_field(connection, "Transfer-Encoding", "chunked");
    add_text(connection, "\r\n");
    mpo_http_connection_enter(connection, MPO_HTTP_STREAMING);
    mpo_http_touch(connection);
}

void mpo_http_write(struct mpo_http_request *request, const char *bytes, size_t count)
{
    struct mpo_http_connection *connection = connection_of(request);
    char size[32];
    assert(connection->phase == MPO_HTTP_STREAMING);
    if (count == 0 || connection->has_no_body)
        return;
    snprintf(size, sizeof size, "%zx\r\n", count);
    if (connection->has_chunks)
        add_text(connection, size);
    add_bytes(connection, bytes, count);
    if (connection->has_chunks)
        add_text(connection, "\r\n");
    mpo_http_touch(connection);
}

void mpo_http_end(struct mpo_http_request *request)
{
    struct mpo_http_connection *connection = connection_of(request);
    assert(connection->phase == MPO_HTTP_STREAMING);
    if (connection->has_chunks && !connection->has_no_body)
        add_text(connection, "0\r\n\r\n");
    mpo_http_connection_enter(connection, MPO_HTTP_FLUSHING);
    mpo_http_touch(connection);
}

void mpo_http_cut(struct mpo_http_request *request)
{
    struct mpo_http_connection *connection = connection_of(request);
    assert(connection->phase == MPO_HTTP_STREAMING);
    connection->is_cut = true;
    connection->closes = true;
    mpo_http_connection_enter(connection, MPO_HTTP_FLUSHING);
    mpo_http_touch(connection);
}

size_t mpo_http_unsent(const struct mpo_http_request *request)
{
    return evbuffer_get_length(connection_of(request)->output);
}

const char *mpo_http_header(const struct mpo_http_request *request, const char *name)
{
    return mpo_http_parser_field(connection_of(request)->parser, name);
}

/* ---- errors ---- */

/* The longest: WWW-Authenticate or Allow, Retry-After, x-should-retry. */
#define ERROR_FIELDS 3

static void answer_error(struct mpo_http_connection *connection,
                         const struct mpo_http_error *error)
{
    struct mpo_http_field field[ERROR_FIELDS];
    char seconds[16];
    char *body = mpo_http_error_body(error);
    struct mpo_http_answer answer = {.status = error->status,
                                     .content_type = "application/json",
                                     .field = field,
                                     .body = body};
    if (error->status == 401)
        field[answer.field_count++] = (struct mpo_http_field){"WWW-Authenticate", "Bearer"};
    if (error->status == 405)
        field[answer.field_count++] =
            (struct mpo_http_field){"Allow", connection->verdict.allow};
    snprintf(seconds, sizeof seconds, "%d", (int)error->retry_after);
    if (error->retry_after > 0)
        field[answer.field_count++] = (struct mpo_http_field){"Retry-After", seconds};
    if (error->never_retry)
        field[answer.field_count++] = (struct mpo_http_field){"x-should-retry", "false"};
    if (body != NULL)
        answer.body_bytes = strlen(body);
    answer_whole(connection, &answer);
    free(body);
}

void mpo_http_refuse(struct mpo_http_request *request, const struct mpo_http_error *error)
{
    struct mpo_http_connection *connection = connection_of(request);
    assert(connection->phase == MPO_HTTP_WAITING);
    answer_error(connection, error);
}

/* ---- what is answered here ---- */

/* Seconds after which the machine may have room again. */
#define RETRY_SECONDS 5

void mpo_http_answer_refusal(struct mpo_http_connection *connection,
                             const struct mpo_http_refusal *refusal, bool closes)
{
    connection->closes |= closes;
    answer_error(connection,
                 &(struct mpo_http_error){.status = refusal->status,
                                          .code = refusal->code,
                                          .message = refusal->message,
                                          .retry_after =
                                              refusal->status == 503 ? RETRY_SECONDS : 0});
}

void mpo_http_answer_continue(struct mpo_http_connection *connection)
{
    add_text(connection, "HTTP/1.1 100 Continue\r\n\r\n");
    mpo_http_touch(connection);
}

/* What a browser asks before it lets a page send a key or JSON. */
void mpo_http_answer_options(struct mpo_http_connection *connection)
{
    struct mpo_http_field field[5] = {{"Allow", connection->verdict.allow}};
    struct mpo_http_answer answer = {.status = 204, .field = field, .field_count = 1};
    const char *headers =
        mpo_http_parser_field(connection->parser, "Access-Control-Request-Headers");
    if (connection->verdict.origin != NULL) {
        field[answer.field_count++] = (struct mpo_http_field){
            "Access-Control-Allow-Methods", connection->verdict.allow};
        field[answer.field_count++] =
            (struct mpo_http_field){"Access-Control-Max-Age", "600"};
        if (headers != NULL)
            field[answer.field_count++] =
                (struct mpo_http_field){"Access-Control-Allow-Headers", headers};
    }
    answer_whole(connection, &answer);
}
