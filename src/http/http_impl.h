/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of the server share. Everything here runs in the loop thread, but for what
 * is atomic.
 *
 * A connection goes round
 *
 *     IDLE -> IN_HEADER -> IN_BODY -> WAITING -> STREAMING -> FLUSHING -> IDLE
 *
 * (IN_BODY and STREAMING may be left out), and ends in LINGERING, in which what the client
 * still sends is thrown away: closing at once would make its kernel drop the answer. Its
 * socket is watched edge by edge, for both directions, from beginning to end, so that a
 * client that leaves is noticed in every phase and no phase has to be told to the kernel.
 *
 * What is written waits for the next turn of the loop (`dirty`), which sends it in one piece.
 * Closed connections are freed there too, so no pointer dies under a caller.
 */
#pragma once

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "check.h"
#include "http.h"
#include "parse.h"

enum mpo_http_phase {
    MPO_HTTP_IDLE,
    MPO_HTTP_RECEIVING_HEADER,
    MPO_HTTP_RECEIVING_BODY,
    MPO_HTTP_WAITING,
    MPO_HTTP_STREAMING,
    MPO_HTTP_FLUSHING,
    MPO_HTTP_LINGERING,
    MPO_HTTP_CLOSED
};

struct mpo_http_connection {
    struct mpo_http_request request; /* first: the caller's pointer is the connection's */
    struct mpo_http *http;
    TAILQ_ENTRY(mpo_http_connection) all;   /* or `dead` */
    TAILQ_ENTRY(mpo_http_connection) idle;  /* IDLE and LINGERING */
    TAILQ_ENTRY(mpo_http_connection) dirty; /* if is_dirty */
    bool is_dirty;
    bool is_extra; /* beyond the limit, to be refused */
    bool is_fresh; /* no request of it was answered yet */
    enum mpo_http_phase phase;

    int socket;
    SSL *tls; /* NULL: plain */
    struct event io;
    struct event timer;
    double timer_at; /* when it is set to */
    double since;    /* begin of the phase */
    double progress; /* when the client last took a byte; 0: it has them all */
    char peer[INET6_ADDRSTRLEN];

    struct mpo_http_parser *parser; /* NULL: IDLE */
    size_t charged_bytes;           /* of the body, in http->bodies_bytes */
    char *ahead;                    /* owned: read, and of the next requests, from ... */
    size_t ahead_at;                /* ... here to ... */
    size_t ahead_bytes;             /* ... here */
    size_t thrown_bytes;            /* LINGERING */

    struct evbuffer *output;
    struct mpo_http_verdict verdict;
    int status; /* of the answer; 0: none yet */
    uint64_t sent_bytes;
    bool has_chunks;    /* the answer is in chunks */
    bool has_no_body;   /* HEAD, or a status without one */
    bool closes;        /* after the answer */
    bool is_cut;        /* the answer ends in the middle */
    bool is_backlogged; /* told by on_backlog */
    bool is_broken;     /* no memory for its output */
};

TAILQ_HEAD(mpo_http_list, mpo_http_connection);

struct mpo_http {
    struct mpo_http_spec spec; /* limits and deadlines without zeros */
    struct mpo_http_rules rules;
    SSL_CTX *tls; /* NULL: plain */
    struct event_base *base;

    int listener; /* -1: closed */
    bool is_unix;
    dev_t file_device; /* of a Unix socket, whose file may be another's by its end */
    ino_t file_inode;
    struct event accept;
    struct event accept_again; /* after descriptors ran out */
    char *url;
    int32_t port;

    struct mpo_http_list all;
    struct mpo_http_list idle; /* longest first */
    struct mpo_http_list dirty;
    struct mpo_http_list dead;
    int32_t count;       /* of `all`, without extra ones */
    int32_t extra_count; /* of `all` */
    int32_t busy_count;  /* WAITING to FLUSHING */
    size_t bodies_bytes;
    char *scratch; /* [MPO_HTTP_SCRATCH_BYTES] what is read from any socket */

    struct event turn; /* active: something is dirty or dead */
    struct event tick;
    struct event wake;
    struct event last; /* deadline of mpo_http_stop */
    int wake_end;
    atomic_bool is_notified;
    atomic_bool wants_drain;
    _Atomic uint64_t
        stop_at; /* nanoseconds of the monotonic clock; UINT64_MAX: not asked */
    bool is_draining;
    bool is_stopping;
    time_t date_second;
    char date[32];
};

#define MPO_HTTP_SCRATCH_BYTES ((size_t)64 << 10)

/* ---- listen.c ---- */

/** Resolve, bind, listen; sets listener, url, port. */
enum mpo_status mpo_http_listen(struct mpo_http *http);

/** Accept from now on. */
enum mpo_status mpo_http_listen_begin(struct mpo_http *http);

/** Accept who waits in the kernel's queue, some at a time. */
void mpo_http_accept_waiting(struct mpo_http *http);

/** Close the port; the file of a Unix socket goes too. */
void mpo_http_listen_end(struct mpo_http *http);

/* ---- connection.c ---- */

/** Take a socket over, whatever comes of it. @param is_extra  refuse it with 503 */
void mpo_http_connection_open(struct mpo_http *http, int socket, const char *peer,
                              bool is_extra);

/** The client has left, or is given up: tell, and close. */
void mpo_http_connection_lose(struct mpo_http_connection *connection);

/** Close without a word; for connections without a request. */
void mpo_http_connection_close(struct mpo_http_connection *connection);

/** The answer is out: the next request, or the end. */
void mpo_http_connection_finish(struct mpo_http_connection *connection);

void mpo_http_connection_enter(struct mpo_http_connection *connection,
                               enum mpo_http_phase phase);

/** Have the timer fire at the deadline of the phase. */
void mpo_http_connection_watch(struct mpo_http_connection *connection);

/** Close those that are idle after a request. Who has just connected may have sent one. */
void mpo_http_close_served(struct mpo_http *http);

/** Refuse those that have sent nothing yet, and lose those that are in the middle of it. */
void mpo_http_refuse_unheard(struct mpo_http *http);

/* ---- receive.c ---- */

/** The socket has something, or takes something again. */
void mpo_http_on_io(evutil_socket_t socket, short what, void *argument);

/** Read bytes that came; those of a next request wait until the answer is out. */
void mpo_http_read_bytes(struct mpo_http_connection *connection, const char *bytes,
                         size_t count);

/** The body is no more. */
void mpo_http_uncharge_body(struct mpo_http_connection *connection);

/* ---- send.c ---- */

/** Have the connection looked at in the next turn. */
void mpo_http_touch(struct mpo_http_connection *connection);

/** Send what the socket takes. */
void mpo_http_send(struct mpo_http_connection *connection);

/** Send for all that are dirty, free all that are dead. */
void mpo_http_turn(struct mpo_http *http);

/* ---- answer.c ---- */

/** Answer with what the verdict, or the parser, refuses. @param closes  afterwards */
void mpo_http_answer_refusal(struct mpo_http_connection *connection,
                             const struct mpo_http_refusal *refusal, bool closes);

/** The interim answer to Expect: 100-continue. */
void mpo_http_answer_continue(struct mpo_http_connection *connection);

/** OPTIONS: what is allowed here. */
void mpo_http_answer_options(struct mpo_http_connection *connection);

/* ---- tls.c ---- */

enum mpo_status mpo_http_tls_open(const char *certificate, const char *key, SSL_CTX **out);

/** The server's side of a socket; NULL: no memory. */
SSL *mpo_http_tls_accept(SSL_CTX *tls, int socket);

/** As recv and send: bytes, 0 at the end, -1 with errno, EAGAIN included. */
ssize_t mpo_http_tls_receive(SSL *tls, char *room, size_t bytes);
ssize_t mpo_http_tls_send(SSL *tls, const char *bytes, size_t count);
