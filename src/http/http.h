/* SPDX-License-Identifier: Apache-2.0 */
/**
 * HTTP for a program that serves: connections, limits, deadlines, keys and what a browser may
 * do. It knows no models and no MPI.
 *
 *     mpo_http_open        checks, reads the keys, binds and listens
 *     mpo_http_run         the event loop, in a thread that the caller makes
 *       on_request         a request that is whole, allowed, and for a known route
 *       mpo_http_answer    ... answered at once or later, whole,
 *       mpo_http_begin     ... or in pieces: begin, write ..., end
 *     mpo_http_notify      from any thread: call on_notify in the loop's
 *     mpo_http_stop        from any thread: run returns
 *     mpo_http_close
 *
 * *Loop thread* means: only in callbacks, which is to say in the thread of mpo_http_run.
 * Functions of this header never call a callback; what they cause is reported in a later
 * turn of the loop. No callback may block. The thread of mpo_http_run should have all
 * signals blocked (pthread_sigmask before pthread_create); SIGPIPE is never raised.
 *
 * What is refused here, in the shape of struct mpo_http_error, and does not reach on_request:
 *
 *     400  a malformed request (the connection closes)     408  a deadline passed (closes)
 *     401  no key, or an unknown one                       413  the body is too large (closes)
 *     403  Host or Origin not allowed                      414  the path is too long (closes)
 *     404  no such path; the message lists the routes      431  the header is too large (closes)
 *     405  no such method for this path, with Allow        503  too many connections, or bodies
 *
 * HEAD is GET without the body, and OPTIONS is answered here. One request of a connection is
 * served at a time; what a client sends after it is not read until the answer is out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/status.h"

struct mpo_http;

/* ---- what is served ---- */

enum mpo_http_method {
    MPO_HTTP_GET,
    MPO_HTTP_HEAD, /* in requests alone: a route with GET takes it */
    MPO_HTTP_POST,
    MPO_HTTP_OPTIONS /* nowhere: answered here */
};

/** A method and a path. A path with two methods has two routes. */
struct mpo_http_route {
    enum mpo_http_method method; /* MPO_HTTP_GET or MPO_HTTP_POST */
    const char *path;            /* "/v1/models"; with a * at the end, any non-empty rest */
    bool needs_key;              /* where there are keys; else the path needs none */
};

/** Bounds; 0 is the default. */
struct mpo_http_limits {
    int32_t connections;  /* 1024; then the longest idle one is closed for a new one */
    size_t body_bytes;    /* 4 MiB, of one request */
    size_t bodies_bytes;  /* 256 MiB, of all requests that are arriving together */
    size_t header_bytes;  /* 16 KiB, request line included */
    int32_t header_lines; /* 64 */
    size_t path_bytes;    /* 1 KiB, query included */
};

/** Seconds; 0 is the default. None is prolonged by single bytes. */
struct mpo_http_deadlines {
    double header;   /* 10, from the first byte to the end of the header */
    double body;     /* 10, and ... */
    double body_64k; /* 1 for each 64 KiB that has arrived */
    double idle;     /* 75 without a request */
    double write;    /* 30 in which the client takes no byte */
};

/* ---- requests ---- */

/**
 * A request, from on_request until it is ended: by mpo_http_answer, _refuse or _end, or by
 * on_gone. Read only, but for `context`; borrowed. The body is there until on_request returns.
 */
struct mpo_http_request {
    enum mpo_http_method method; /* GET, HEAD or POST */
    int32_t route;               /* index among the routes */
    const char *path;            /* without the query, as it was sent but for `rest` */
    const char *rest;  /* what * stands for, percent-decoded, without NUL; else "" */
    const char *query; /* as it was sent, after ?; "" */
    const char *body;  /* [body_bytes] and a NUL; "" */
    size_t body_bytes;
    int32_t key_index; /* of the key that came with it; -1: none, or an unknown one */
    const char *key;   /* its name; NULL */
    const char *peer;  /* address of the client without its port, or "unix" */
    double arrived;    /* its first byte, by mpo_timing_now */
    void *context;     /* the caller's; NULL at first */
};

/** The value of a header by its name, in any case; NULL: absent. Of several with one name
 *  the first (Host, Authorization, Origin, Content-Type come once or are refused). Valid as
 *  long as the request. Loop thread. */
const char *mpo_http_header(const struct mpo_http_request *request, const char *name);

/* ---- answers ---- */

struct mpo_http_field {
    const char *name;
    const char *value; /* no line ends */
};

/**
 * Status, header and body. Added by themselves: Date, Connection, Content-Length or
 * Transfer-Encoding, the headers of CORS.
 */
struct mpo_http_answer {
    int status;
    const char *content_type;           /* NULL: none */
    const struct mpo_http_field *field; /* [field_count] more headers */
    int32_t field_count;
    const char *body; /* [body_bytes]; copied; not looked at by mpo_http_begin */
    size_t body_bytes;
};

/** Answer whole, in one write; ends the request. Loop thread. */
void mpo_http_answer(struct mpo_http_request *request,
                     const struct mpo_http_answer *answer);

/**
 * An error as clients of OpenAI's interface expect it:
 * {"error": {"message", "type", "param", "code"}}; the type follows from the status.
 */
struct mpo_http_error {
    int status;
    const char *code;    /* "invalid_value" */
    const char *param;   /* the field it is about; NULL: null */
    const char *message; /* expected, found, what to do */
    int32_t retry_after; /* seconds, header Retry-After; 0: none */
    bool never_retry;    /* header x-should-retry: false */
};

/** Answer with an error, in one write; ends the request. Loop thread. */
void mpo_http_refuse(struct mpo_http_request *request, const struct mpo_http_error *error);

/** The body of such an answer, which a stream sends as an event. Owned by the caller, released
 *  with free(); NULL: out of memory. Any thread. */
char *mpo_http_error_body(const struct mpo_http_error *error);

/** Begin an answer in pieces: chunks, or until the connection closes for HTTP/1.0. Loop
 *  thread. */
void mpo_http_begin(struct mpo_http_request *request, const struct mpo_http_answer *answer);

/** A piece; it is copied, and sent as soon as the client takes it. Any number of pieces are
 *  taken, see on_backlog. None is lost: 0 bytes are none. Loop thread; after begin. */
void mpo_http_write(struct mpo_http_request *request, const char *bytes, size_t count);

/** The last piece was that; ends the request. Loop thread; after begin. */
void mpo_http_end(struct mpo_http_request *request);

/** End a stream so that the client sees it cut off, without the last chunk; ends the request.
 *  Loop thread; after begin. */
void mpo_http_cut(struct mpo_http_request *request);

/** Bytes that were written and that the client has not taken. Loop thread. */
size_t mpo_http_unsent(const struct mpo_http_request *request);

/** on_backlog is called for a stream whose client is this much behind, and again when it
 *  has caught up to the lower bound. */
#define MPO_HTTP_BACKLOG_FULL  ((size_t)256 << 10)
#define MPO_HTTP_BACKLOG_EMPTY ((size_t)64 << 10)

/* ---- the server ---- */

/** An answer that is out, or that its client did not wait for; for logs and counters. */
struct mpo_http_done {
    const char *method; /* as it was sent; "-": not known */
    const char *path;   /* without the query, printable; "-": not known */
    int32_t route;      /* -1: refused before one was known */
    int status;         /* 0: none was sent */
    bool gone;          /* the client left, or took nothing, before the end */
    const char *key;    /* NULL: none */
    const char *peer;
    uint64_t sent_bytes;
    double seconds; /* from the first byte of the request */
};

/** All are called in the loop thread; only on_request must be given. */
struct mpo_http_callbacks {
    void (*on_request)(void *argument, struct mpo_http_request *request);
    /** The client left (closing its half counts), or took no byte in time, before the answer
     *  was ended. The request is no more when this returns. */
    void (*on_gone)(void *argument, struct mpo_http_request *request);
    /** More than MPO_HTTP_BACKLOG_FULL are unsent (full), or less than _EMPTY again. */
    void (*on_backlog)(void *argument, struct mpo_http_request *request, bool full);
    /** mpo_http_notify was called once or more since the last time. */
    void (*on_notify)(void *argument);
    /** About once a second. */
    void (*on_tick)(void *argument);
    void (*on_done)(void *argument, const struct mpo_http_done *done);
    void *argument;
};

/** All texts and arrays are borrowed until mpo_http_close; NULL and 0 are the defaults. */
struct mpo_http_spec {
    const char *address; /* "127.0.0.1"; a host or its number, or "unix:FILE" */
    int32_t port;        /* 0: any that is free */
    const char
        *key_file;     /* `name:key` a line, # begins a comment; mode 600; NULL: no keys */
    bool allow_open;   /* allow an address that is not loopback without keys */
    const char *hosts; /* more names that Host may have on loopback, separated by commas */
    const char
        *cors; /* origins whose pages may call, separated by commas; "*" if no keys */
    const char *tls_cert; /* PEM; both or none */
    const char *tls_key;
    const struct mpo_http_route *route; /* [route_count] */
    int32_t route_count;
    struct mpo_http_limits limits;
    struct mpo_http_deadlines deadlines;
    struct mpo_http_callbacks callbacks;
};

/**
 * Check the spec, read the keys, bind and listen. Clients can connect from then on, and are
 * answered when mpo_http_run is called. Local.
 *
 * @return MPO_ERR_OUTPUT when the port or the file of the socket is taken; MPO_ERR_PERMISSION
 *         when it is not permitted; MPO_ERR_INPUT when a file is missing; MPO_ERR_CONFIG for a
 *         key file with another mode than 600 or a bad line, an address that does not resolve
 *         or is not of this host, one that is not loopback without keys, a bad list, or * in
 *         `cors` with keys; MPO_ERR_MEMORY
 */
enum mpo_status mpo_http_open(const struct mpo_http_spec *spec, struct mpo_http **out);

/** Close everything; not while mpo_http_run runs. NULL-safe. Local. */
void mpo_http_close(struct mpo_http **http);

/** The port that is listened on; 0: a Unix socket. Any thread. */
int32_t mpo_http_port(const struct mpo_http *http);

/** Where clients connect: "http://127.0.0.1:8080", or "unix:FILE". Valid as long as the
 *  handle. Any thread. */
const char *mpo_http_url(const struct mpo_http *http);

/** Keys that there are, which key_index counts; 0: none are asked for. Any thread. */
int32_t mpo_http_key_count(const struct mpo_http *http);

/** Connections that are open. Loop thread. */
int32_t mpo_http_connections(const struct mpo_http *http);

/** The event loop; returns after mpo_http_stop. on_gone is called for a request that has
 *  not ended by then.
 *  @return MPO_ERR_INTERNAL when the loop itself breaks */
enum mpo_status mpo_http_run(struct mpo_http *http);

/** Have on_notify called soon; calls that come before it are one. Any thread, and a signal's
 *  handler. */
void mpo_http_notify(struct mpo_http *http);

/** From now on each connection closes after its answer, and one that is idle after an answer
 *  at once. The port stays open, and requests come to on_request as before. Any thread. */
void mpo_http_drain(struct mpo_http *http);

/** Close the port, tell who has connected and sent nothing yet to come again (503 draining),
 *  and let mpo_http_run return when every request is ended and its answer is out, or after so
 *  many seconds (0: at once). The first call counts, except that a later one may ask for
 *  less. Any thread. */
void mpo_http_stop(struct mpo_http *http, double seconds);
