/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A server in a thread of its own, and clients that send bytes and read bytes.
 *
 * Its routes:
 *
 *     GET /hello, HEAD         "hello\n"
 *     POST /echo               the body
 *     GET, POST /secret        needs a key; says its name and index
 *     GET /items/<asterisk>    what the asterisk stands for
 *     GET /later               waits for http_case_order
 *     GET /stream              a stream that http_case_order writes and ends
 *     GET /head?...            the headers that serve looks at
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "http/http.h"

enum { HTTP_CASE_HELD = 64, HTTP_CASE_DONE = 4096 };

/** Seconds after which something is taken to hang. */
#define HTTP_CASE_PATIENCE 60.0

/** What the loop thread does with every request that is held. */
enum http_case_order {
    HTTP_CASE_NOTHING,
    HTTP_CASE_ANSWER, /* /later: "late\n" */
    HTTP_CASE_WRITE,  /* /stream: `piece` */
    HTTP_CASE_END,    /* /stream: no more */
    HTTP_CASE_LAST,   /* /stream: `piece`, and no more */
    HTTP_CASE_CUT     /* /stream: in the middle */
};

struct http_case_done {
    char method[16];
    char path[1100];
    int route;
    int status;
    bool gone;
    char key[65];
};

struct http_case {
    struct mpo_http *http;
    struct mpo_http_spec spec;
    pthread_t thread;
    bool runs;
    char folder[64];
    char file[96]; /* of the socket */

    struct mpo_http_request *held[HTTP_CASE_HELD]; /* in the loop thread alone */
    atomic_int held_count;
    atomic_int order;
    atomic_int orders_done;
    const char *piece;
    size_t piece_bytes;

    atomic_int requests;
    atomic_int smuggled; /* requests for a path that nobody asked for */
    atomic_int gone;
    atomic_int full;
    atomic_int empty;
    atomic_int notified;
    atomic_int ticks;
    atomic_size_t unsent_full;  /* bytes that were unsent when it was told last */
    atomic_size_t unsent_empty; /* the most */
    atomic_int done_count;
    struct http_case_done done[HTTP_CASE_DONE];
};

/** A spec for a Unix socket in a folder of its own, with the routes and callbacks. */
void http_case_prepare(struct http_case *self);

/** Open it, start its thread. */
void http_case_start(struct http_case *self);

/** Start the thread of one that is open. */
void http_case_run(struct http_case *self);

/** Stop it and check that nothing is left: no descriptor, no request. */
void http_case_stop(struct http_case *self);

/** Have the loop thread do it, and wait until it has. */
void http_case_order(struct http_case *self, enum http_case_order order);

/** Wait until the server has heard what its clients had sent, and was told, before this call:
 *  it takes them in turn, and answers one that comes now. */
void http_case_catch_up(const struct http_case *self);

/** Wait until the count is at least so large; fails after HTTP_CASE_PATIENCE. */
void http_case_await(atomic_int *count, int least);

/** A client; fails where it cannot connect. */
int http_case_connect(const struct http_case *self);

void http_case_send(int client, const char *bytes, size_t count);
void http_case_say(int client, const char *text);

/** Read until the end of the connection. @return bytes, ended by a NUL; owned */
char *http_case_read_all(int client, size_t *count);

/** Read one answer whose body has a Content-Length, and no byte more. Owned. */
char *http_case_read_answer(int client);

/** Send text, read all, close. Owned. */
char *http_case_ask(const struct http_case *self, const char *text);

/** The status of an answer; 0: it is none. */
int http_case_status(const char *answer);

/** Answers in a text: status lines of HTTP. */
int http_case_count_answers(const char *text);

/** The connection ends within HTTP_CASE_PATIENCE, without a byte more. */
void http_case_expect_end(int client);

double http_case_now(void);
