/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The HTTP thread's inside.
 *
 *   server.c     the thread; loading, ready, draining, lost
 *   handlers.c   routes, and the answers that need no row
 *   calls.c      requests that draw or score: from the body to the last byte
 */
#pragma once

#include "server.h"

#include <pthread.h>
#include <stdatomic.h>

#include "answer.h"
#include "dispatch.h"
#include "http/http.h"

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING, SERVER_LOST };

/** A request that draws or scores, from its acceptance to its DONE. */
struct server_call {
    struct mpo_http_request *http; /* NULL: the client is gone, or has its answer */
    struct mpo_serve_request *request;
    struct mpo_answer *answer;
    bool has_begun; /* the status line of a stream is out */
    bool is_seated;
    bool is_cancelled;
    int32_t group;  /* that decodes it */
    int32_t rows;   /* that it has or waits for */
    int64_t tokens; /* of its prompts that wait for rows, about */
    int32_t series; /* of metrics */
    double arrived; /* by mpo_timing_now, like those below; 0: not yet */
    double seated;
    double first_token;
    double last_token;
    struct server_call *next; /* in the server's list */
    struct server_call *previous;
};

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
    int32_t waiting_count; /* of them without rows */
    int32_t *waiting_of;   /* [client_count] */
    double drains_since;   /* 0: it does not drain */
    bool has_stopped;      /* the decode threads were told to stop */
};

/* ---- handlers.c ---- */

extern const struct mpo_http_route server_routes[];
extern const int32_t server_route_count;

/** mpo_http_callbacks.on_request. */
void server_handle(void *server, struct mpo_http_request *http);

/** Answer with a refusal. */
void server_refuse(struct mpo_server *server, struct mpo_http_request *http,
                   const struct mpo_serve_refusal *refusal);

/** The path of metrics of a route; -1: no route. */
enum mpo_metric_path server_path_of(int32_t route);

/* ---- calls.c ---- */

/** Parse the body, and hand the request to the decode thread of a group. */
void server_begin_call(struct mpo_server *server, struct mpo_http_request *http,
                       enum mpo_serve_kind kind);

/** Take all events of all links and send what is ready. */
void server_take_events(struct mpo_server *server);

/** The client of a call is gone. */
void server_lose_client(struct mpo_server *server, struct server_call *call);

/** End all calls because the job fails. */
void server_lose_peer(struct mpo_server *server);
