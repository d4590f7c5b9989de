/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The HTTP thread's inside.
 *
 *   server.c     the thread; loading, ready, draining, lost
 *   handlers.c   routes, and the answers that need no row
 *   reading.c    bodies of requests, long ones beside this thread (base/workers.h)
 *   calls.c      requests that draw or score, until the last byte
 */
#pragma once

#include "server.h"

#include <pthread.h>
#include <stdatomic.h>

#include "answer.h"
#include "dispatch.h"
#include "http/http.h"
#include "base/workers.h"

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING, SERVER_LOST };

/** A request that draws or scores, from its acceptance to its DONE. */
struct server_call {
    struct mpo_http_request *http; /* NULL: the client is gone, or has its answer */
    struct mpo_serve_request *request;
    struct mpo_answer *answer;
    bool has_begun; /* the status line of a stream is out */
    bool is_seated;
    bool is_cancelled;
    struct mpo_dispatch_entry entry; /* its way to a group */
    int32_t series;                  /* of metrics */
    double arrived;                  /* by mpo_timing_now, like those below; 0: not yet */
    double entered;                  /* into the line, after its body was read */
    double seated;
    double first_token;
    double last_token;
    struct server_call *next; /* in the server's list */
    struct server_call *previous;
};

enum server_body_kind { SERVER_CHAT, SERVER_COMPLETION, SERVER_TOKENIZE };

/** What was made of a body: a refusal, else the one or the other. */
struct server_body {
    struct mpo_serve_refusal refusal;
    struct mpo_serve_request *request;
    char *text; /* of the answer */
};

struct server_reading;

struct mpo_server {
    const struct mpo_config *config;
    struct mpo_http *http;
    pthread_t thread;
    bool has_thread;
    enum mpo_status ran;             /* of mpo_http_run */
    _Atomic int state;               /* enum server_state */
    struct mpo_server_engine engine; /* set before SERVER_READY */
    struct mpo_dispatch *dispatch;
    int32_t max_waiting;  /* requests that may wait for rows */
    char lost[160];       /* why the job fails, set before `is_losing` */
    atomic_flag has_lost; /* the first to say so has filled it */
    _Atomic bool is_losing;
    double ready;  /* when it was, by mpo_timing_now */
    char *openapi; /* GET /openapi.json, made once; NULL without memory */

    /* the HTTP thread's own */
    struct server_call *call; /* all of them */
    int32_t call_count;
    int32_t waiting_count; /* of them without rows, and bodies of such that are read */
    int32_t *waiting_of;   /* [client_count] */
    struct mpo_workers *readers;    /* of long bodies */
    struct server_reading *reading; /* all bodies that are read by them */
    size_t reading_bytes;
    double drains_since; /* 0: it does not drain */
    bool has_stopped;    /* the decode threads were told to stop */
};

/* ---- handlers.c ---- */

extern const struct mpo_http_route server_routes[];
extern const int32_t server_route_count;

/** mpo_http_callbacks.on_request. */
void server_handle(void *server, struct mpo_http_request *http);

/** Answer with a refusal. */
void server_refuse(struct mpo_server *server, struct mpo_http_request *http,
                   const struct mpo_serve_refusal *refusal);

/** Answer 200 with a text of JSON, which it frees; NULL: there was no memory. */
void server_answer_json(struct mpo_server *server, struct mpo_http_request *http,
                        char *text);

/** Refuse what a server that is not ready, or not any more, does not do. @return whether */
bool server_refuses(struct mpo_server *server, struct mpo_http_request *http, bool draws);

/** The path of metrics of a route; -1: no route. */
enum mpo_metric_path server_path_of(int32_t route);

/* ---- calls.c ---- */

/** Hand a request to the decode thread of a group; takes it over.
 *  @param arrived  by mpo_timing_now */
void server_begin_call(struct mpo_server *server, struct mpo_http_request *http,
                       struct mpo_serve_request *request, double arrived);

/** Whether as many requests wait for rows as may. @param refusal  then says so */
bool server_is_full(const struct mpo_server *server, int32_t client,
                    struct mpo_serve_refusal *refusal);

/** Take all events of all links and send what is ready. */
void server_take_events(struct mpo_server *server);

/** Refuse who has waited for a group for too long; with `stops` all that wait. */
void server_end_line(struct mpo_server *server, bool stops);

/** The client of a call takes no bytes, or takes them again. */
void server_pause_call(struct mpo_server *server, struct server_call *call, bool pauses);

/** The client of a call is gone. */
void server_lose_client(struct mpo_server *server, struct server_call *call);

/** End all calls because the job fails. */
void server_lose_peer(struct mpo_server *server);

/* ---- reading.c ---- */

/** Read the body of a request, at once or later, and answer it or begin its call. */
void server_read_body(struct mpo_server *server, struct mpo_http_request *http,
                      enum server_body_kind kind);

/** Go on with the bodies that were read. */
void server_take_readings(struct mpo_server *server);

/** The client of a body that is being read is gone, if there is one. */
void server_lose_reader(struct mpo_server *server, const struct mpo_http_request *http);

/** Refuse all bodies that are being read, because the job fails. */
void server_lose_readings(struct mpo_server *server);

/** End the readers. Once the HTTP thread has ended. */
void server_close_readings(struct mpo_server *server);
