/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies, and what is made of them. Long ones are read beside the HTTP thread: megabytes of
 * text take seconds to become tokens, in which it would serve nobody.
 *
 *     HTTP thread    on_request: copy the body                   on_notify: answer, or begin
 *     a reader                                parse, tokenise                    the call
 *
 * A reading outlives its client, and is dropped when it is taken.
 */
#include "server_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/timing.h"
#include "tokens.h"

/* Shorter ones take a millisecond or two, and are read at once. */
#define LONG_BODY ((size_t)4 << 10)

/* Copies of bodies together. */
#define BODIES_BYTES_MAX ((size_t)64 << 20)

struct server_reading {
    struct mpo_worker_job job; /* first */
    struct mpo_server *server;
    struct mpo_http_request *http; /* NULL: the client is gone */
    _Atomic bool is_gone;          /* the same, for the reader */
    enum server_body_kind kind;
    int32_t client;
    double arrived;
    struct server_body body;
    struct server_reading *next; /* in the server's list */
    struct server_reading *previous;
    size_t byte_count;
    char bytes[]; /* [byte_count] and a NUL */
};

/* ---- any body ---- */

static void read_body(const struct mpo_serve_catalog *catalog, enum server_body_kind kind,
                      const struct mpo_serve_body *bytes, struct server_body *body)
{
    if (kind == SERVER_TOKENIZE)
        body->text =
            mpo_serve_tokenize_json(catalog, bytes->bytes, bytes->count, &body->refusal);
    else
        mpo_serve_request_parse(catalog, bytes, &body->request, &body->refusal);
}

static struct mpo_serve_body body_of(const struct mpo_http_request *http,
                                     enum server_body_kind kind)
{
    return (struct mpo_serve_body){.kind = kind == SERVER_CHAT ? MPO_SERVE_CHAT
                                                               : MPO_SERVE_COMPLETION,
                                   .bytes = http->body,
                                   .count = http->body_bytes,
                                   .client = http->key_index >= 0 ? http->key_index : 0};
}

static void use_body(struct mpo_server *server, struct mpo_http_request *http,
                     struct server_body *body, double arrived)
{
    if (body->refusal.http_status != 0)
        server_refuse(server, http, &body->refusal);
    else if (body->request != NULL)
        server_begin_call(server, http, body->request, arrived);
    else
        server_answer_json(server, http, body->text);
    *body = (struct server_body){0};
}

/* ---- long ones ---- */

/* What draws waits for rows from now on. */
static void count_waiting(struct mpo_server *server, const struct server_reading *reading,
                          int32_t change)
{
    if (reading->kind == SERVER_TOKENIZE)
        return;
    server->waiting_count += change;
    server->waiting_of[reading->client] += change;
}

static void link_reading(struct mpo_server *server, struct server_reading *reading)
{
    reading->next = server->reading;
    if (server->reading != NULL)
        server->reading->previous = reading;
    server->reading = reading;
    server->reading_bytes += reading->byte_count;
    count_waiting(server, reading, 1);
}

static void unlink_reading(struct mpo_server *server, struct server_reading *reading)
{
    if (reading->previous != NULL)
        reading->previous->next = reading->next;
    else
        server->reading = reading->next;
    if (reading->next != NULL)
        reading->next->previous = reading->previous;
    server->reading_bytes -= reading->byte_count;
    count_waiting(server, reading, -1);
}

static void free_reading(struct server_reading *reading)
{
    mpo_serve_request_close(&reading->body.request);
    free(reading->body.text);
    free(reading);
}

static void run_reading(struct mpo_worker_job *job)
{
    struct server_reading *reading = (void *)job;
    const struct mpo_serve_body bytes = {
        .kind = reading->kind == SERVER_CHAT ? MPO_SERVE_CHAT : MPO_SERVE_COMPLETION,
        .bytes = reading->bytes,
        .count = reading->byte_count,
        .client = reading->client};
    if (!reading->is_gone)
        read_body(reading->server->engine.catalog, reading->kind, &bytes, &reading->body);
}

static void read_later(struct mpo_server *server, struct mpo_http_request *http,
                       enum server_body_kind kind, struct mpo_serve_refusal *refusal)
{
    struct server_reading *reading = NULL;
    if (server->reading_bytes + http->body_bytes <= BODIES_BYTES_MAX)
        reading = calloc(1, sizeof *reading + http->body_bytes + 1);
    if (reading == NULL) {
        mpo_serve_refuse(refusal, 429, "queue_full", "",
                         "long requests of %zu bytes are being read already; try again "
                         "later",
                         server->reading_bytes);
        refusal->retry_after_seconds = 1;
        return;
    }
    reading->job.run = run_reading;
    reading->server = server;
    reading->http = http;
    reading->kind = kind;
    reading->client = body_of(http, kind).client;
    reading->arrived = mpo_timing_now();
    reading->byte_count = http->body_bytes;
    memcpy(reading->bytes, http->body, http->body_bytes);
    link_reading(server, reading);
    mpo_workers_submit(server->readers, &reading->job);
}

/* ---- what the HTTP thread calls ---- */

void server_read_body(struct mpo_server *server, struct mpo_http_request *http,
                      enum server_body_kind kind)
{
    struct server_body body = {0};
    const struct mpo_serve_body bytes = body_of(http, kind);
    bool is_refused =
        kind != SERVER_TOKENIZE && server_is_full(server, bytes.client, &body.refusal);
    if (!is_refused && http->body_bytes >= LONG_BODY) {
        read_later(server, http, kind, &body.refusal);
        if (body.refusal.http_status == 0)
            return;
    } else if (!is_refused) {
        read_body(server->engine.catalog, kind, &bytes, &body);
    }
    use_body(server, http, &body, mpo_timing_now());
}

void server_take_readings(struct mpo_server *server)
{
    for (struct mpo_worker_job *job = mpo_workers_take(server->readers, false); job != NULL;
         job = mpo_workers_take(server->readers, false)) {
        struct server_reading *reading = (void *)job;
        unlink_reading(server, reading);
        bool draws = reading->kind != SERVER_TOKENIZE;
        if (reading->http != NULL && !server_refuses(server, reading->http, draws))
            use_body(server, reading->http, &reading->body, reading->arrived);
        free_reading(reading);
    }
}

void server_lose_reader(struct mpo_server *server, const struct mpo_http_request *http)
{
    for (struct server_reading *at = server->reading; at != NULL; at = at->next)
        if (at->http == http) {
            at->http = NULL;
            at->is_gone = true;
        }
}

void server_lose_readings(struct mpo_server *server)
{
    for (struct server_reading *at = server->reading; at != NULL; at = at->next) {
        if (at->http != NULL)
            server_refuses(server, at->http, true);
        at->http = NULL;
        at->is_gone = true;
    }
}

void server_close_readings(struct mpo_server *server)
{
    struct server_reading *next = NULL;
    if (server->readers != NULL)
        mpo_workers_stop(server->readers);
    for (struct server_reading *at = server->reading; at != NULL; at = next) {
        next = at->next;
        free_reading(at);
    }
    server->reading = NULL;
    mpo_workers_close(&server->readers);
}
