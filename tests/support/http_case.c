/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "http_case.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"

enum { HELLO, ECHO, SECRET_GET, SECRET_POST, ITEMS, LATER, STREAM, HEAD };

static const struct mpo_http_route routes[] = {
    {MPO_HTTP_GET, "/hello", false},   {MPO_HTTP_POST, "/echo", false},
    {MPO_HTTP_GET, "/secret", true},   {MPO_HTTP_POST, "/secret", true},
    {MPO_HTTP_GET, "/items/*", false}, {MPO_HTTP_GET, "/later", false},
    {MPO_HTTP_GET, "/stream", false},  {MPO_HTTP_GET, "/head", false},
};

double http_case_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* ---- the server's side, in its thread ---- */

static void answer_text(struct mpo_http_request *request, const char *text, size_t bytes)
{
    mpo_http_answer(request, &(struct mpo_http_answer){.status = 200,
                                                       .content_type = "text/plain",
                                                       .body = text,
                                                       .body_bytes = bytes});
}

static void hold_request(struct http_case *self, struct mpo_http_request *request)
{
    int place = atomic_load(&self->held_count);
    if (place == HTTP_CASE_HELD)
        abort();
    request->context = self;
    self->held[place] = request;
    atomic_store(&self->held_count, place + 1);
}

static void answer_head(struct mpo_http_request *request)
{
    char text[2048];
    const char *agent = mpo_http_header(request, "user-agent");
    const char *none = mpo_http_header(request, "X-None");
    snprintf(text, sizeof text, "%s|%s|%s|%s|%d", request->query,
             agent == NULL ? "-" : agent, none == NULL ? "-" : none, request->peer,
             request->method == MPO_HTTP_HEAD);
    const struct mpo_http_field field[] = {{"X-Request-Id", "a\r\nSet-Cookie: b"}};
    mpo_http_answer(request, &(struct mpo_http_answer){.status = 200,
                                                       .content_type = "text/plain",
                                                       .field = field,
                                                       .field_count = 1,
                                                       .body = text,
                                                       .body_bytes = strlen(text)});
}

static void on_request(void *argument, struct mpo_http_request *request)
{
    struct http_case *self = argument;
    char key[96];
    if (strstr(request->path, "smuggled") != NULL)
        atomic_fetch_add(&self->smuggled, 1);
    switch (request->route) {
    case HELLO:
        answer_text(request, "hello\n", 6);
        break;
    case ECHO:
        answer_text(request, request->body, request->body_bytes);
        break;
    case SECRET_GET:
    case SECRET_POST:
        snprintf(key, sizeof key, "%s %d", request->key == NULL ? "nobody" : request->key,
                 (int)request->key_index);
        answer_text(request, key, strlen(key));
        break;
    case ITEMS:
        answer_text(request, request->rest, strlen(request->rest));
        break;
    case HEAD:
        answer_head(request);
        break;
    case STREAM:
        mpo_http_begin(request, &(struct mpo_http_answer){
                                    .status = 200, .content_type = "text/event-stream"});
        hold_request(self, request);
        break;
    default:
        hold_request(self, request);
    }
    atomic_fetch_add(&self->requests, 1);
}

static void forget_request(struct http_case *self, int place)
{
    int last = atomic_load(&self->held_count) - 1;
    self->held[place] = self->held[last];
    atomic_store(&self->held_count, last);
}

static void on_gone(void *argument, struct mpo_http_request *request)
{
    struct http_case *self = argument;
    for (int i = atomic_load(&self->held_count) - 1; i >= 0; i--)
        if (self->held[i] == request && request->context == self)
            forget_request(self, i);
    atomic_fetch_add(&self->gone, 1);
}

static void on_backlog(void *argument, struct mpo_http_request *request, bool full)
{
    struct http_case *self = argument;
    size_t unsent = mpo_http_unsent(request);
    if (full)
        atomic_store(&self->unsent_full, unsent);
    else if (unsent > atomic_load(&self->unsent_empty))
        atomic_store(&self->unsent_empty, unsent);
    atomic_fetch_add(full ? &self->full : &self->empty, 1);
}

/* All that are held; those that end are held no more. */
static void obey_order(struct http_case *self, int order)
{
    for (int i = atomic_load(&self->held_count) - 1; i >= 0; i--) {
        struct mpo_http_request *request = self->held[i];
        if (order == HTTP_CASE_WRITE || order == HTTP_CASE_LAST)
            mpo_http_write(request, self->piece, self->piece_bytes);
        if (order == HTTP_CASE_WRITE)
            continue;
        forget_request(self, i);
        if (order == HTTP_CASE_ANSWER)
            answer_text(request, "late\n", 5);
        else if (order == HTTP_CASE_END || order == HTTP_CASE_LAST)
            mpo_http_end(request);
        else
            mpo_http_cut(request);
    }
}

static void on_notify(void *argument)
{
    struct http_case *self = argument;
    int order = atomic_exchange(&self->order, HTTP_CASE_NOTHING);
    atomic_fetch_add(&self->notified, 1);
    if (order == HTTP_CASE_NOTHING)
        return;
    obey_order(self, order);
    atomic_fetch_add(&self->orders_done, 1);
}

static void on_tick(void *argument)
{
    struct http_case *self = argument;
    atomic_fetch_add(&self->ticks, 1);
}

static void on_done(void *argument, const struct mpo_http_done *done)
{
    struct http_case *self = argument;
    struct http_case_done *kept =
        &self->done[atomic_load(&self->done_count) % HTTP_CASE_DONE];
    *kept = (struct http_case_done){
        .route = done->route, .status = done->status, .gone = done->gone};
    snprintf(kept->method, sizeof kept->method, "%s", done->method);
    snprintf(kept->path, sizeof kept->path, "%s", done->path);
    snprintf(kept->key, sizeof kept->key, "%s", done->key == NULL ? "" : done->key);
    atomic_fetch_add(&self->done_count, 1);
}

/* ---- life ---- */

void http_case_prepare(struct http_case *self)
{
    memset(self, 0, sizeof *self);
    snprintf(self->folder, sizeof self->folder, "/tmp/mpo-http-XXXXXX");
    assert_non_null(mkdtemp(self->folder));
    snprintf(self->file, sizeof self->file, "unix:%s/socket", self->folder);
    self->spec = (struct mpo_http_spec){
        .address = self->file,
        .route = routes,
        .route_count = sizeof routes / sizeof *routes,
        .callbacks = {.on_request = on_request,
                      .on_gone = on_gone,
                      .on_backlog = on_backlog,
                      .on_notify = on_notify,
                      .on_tick = on_tick,
                      .on_done = on_done,
                      .argument = self},
    };
}

static void *run_server(void *argument)
{
    struct http_case *self = argument;
    if (mpo_http_run(self->http) != MPO_OK) {
        fprintf(stderr, "mpo_http_run: %s\n", mpo_error_text());
        abort();
    }
    return NULL;
}

void http_case_start(struct http_case *self)
{
    assert_ok(mpo_http_open(&self->spec, &self->http));
    http_case_run(self);
}

void http_case_run(struct http_case *self)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    assert_int_equal(pthread_create(&self->thread, NULL, run_server, self), 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    self->runs = true;
}

void http_case_stop(struct http_case *self)
{
    if (self->runs) {
        mpo_http_stop(self->http, 0.0);
        pthread_join(self->thread, NULL);
    }
    mpo_http_close(&self->http);
    assert_null(self->http);
    assert_int_equal(self->held_count, 0);
    assert_int_equal(self->smuggled, 0);
    if (strncmp(self->spec.address, "unix:", 5) == 0)
        assert_int_equal(access(self->spec.address + 5, F_OK), -1);
    assert_int_equal(rmdir(self->folder), 0);
    self->runs = false;
}

void http_case_await(atomic_int *count, int least)
{
    double until = http_case_now() + HTTP_CASE_PATIENCE;
    while (atomic_load(count) < least && http_case_now() < until)
        nap();
    assert_true(atomic_load(count) >= least);
}

void http_case_order(struct http_case *self, enum http_case_order order)
{
    int before = atomic_load(&self->orders_done);
    atomic_store(&self->order, (int)order);
    mpo_http_notify(self->http);
    http_case_await(&self->orders_done, before + 1);
}

/* ---- clients ---- */

int http_case_connect(const struct http_case *self)
{
    const struct timeval patience = {.tv_sec = (time_t)HTTP_CASE_PATIENCE};
    struct sockaddr_un file = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bool is_file = strncmp(self->spec.address, "unix:", 5) == 0;
    int client = socket(is_file ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(client >= 0);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    snprintf(file.sun_path, sizeof file.sun_path, "%.100s",
             is_file ? self->spec.address + 5 : "");
    port.sin_port = htons((uint16_t)mpo_http_port(self->http));
    int error = is_file ? connect(client, (struct sockaddr *)&file, sizeof file)
                        : connect(client, (struct sockaddr *)&port, sizeof port);
    assert_int_equal(error, 0);
    return client;
}

/* The server may have closed already. */
void http_case_send(int client, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(client, bytes, count, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        count -= (size_t)sent;
    }
}

void http_case_say(int client, const char *text)
{
    http_case_send(client, text, strlen(text));
}

char *http_case_read_all(int client, size_t *count)
{
    size_t room = 1 << 16;
    size_t bytes = 0;
    char *text = runner_allocate(room, 1);
    ssize_t got = 0;
    while ((got = recv(client, text + bytes, room - bytes - 1, 0)) > 0) {
        bytes += (size_t)got;
        if (room - bytes > 4096)
            continue;
        room *= 2;
        text = realloc(text, room);
        assert_non_null(text);
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        fail_msg("%s", "the server neither answers nor closes");
    text[bytes] = '\0';
    if (count != NULL)
        *count = bytes;
    return text;
}

/* The header byte by byte, so that nothing of the next answer is taken. */
char *http_case_read_answer(int client)
{
    size_t room = 1 << 16;
    char *text = runner_allocate(room, 1);
    size_t bytes = 0;
    while (bytes < 4 || memcmp(text + bytes - 4, "\r\n\r\n", 4) != 0) {
        assert_true(bytes < room - 1);
        assert_int_equal(recv(client, text + bytes, 1, 0), 1);
        bytes++;
    }
    const char *length = strcasestr(text, "\r\nContent-Length: ");
    size_t body = length == NULL ? 0 : strtoul(length + 18, NULL, 10);
    assert_true(bytes + body < room);
    if (body > 0)
        assert_int_equal(recv(client, text + bytes, body, MSG_WAITALL), body);
    return text;
}

char *http_case_ask(const struct http_case *self, const char *text)
{
    int client = http_case_connect(self);
    http_case_say(client, text);
    char *answer = http_case_read_all(client, NULL);
    close(client);
    return answer;
}

void http_case_catch_up(const struct http_case *self)
{
    char *answer = http_case_ask(
        self, "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
}

int http_case_status(const char *answer)
{
    if (strncmp(answer, "HTTP/1.1 ", 9) != 0)
        return 0;
    return (int)strtol(answer + 9, NULL, 10);
}

int http_case_count_answers(const char *text)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, "HTTP/1.1 ")) != NULL; at++)
        count += at[9] >= '1' && at[9] <= '5';
    return count;
}

void http_case_expect_end(int client)
{
    char byte = 0;
    ssize_t got = recv(client, &byte, 1, 0);
    assert_true(got == 0 || (got < 0 && errno == ECONNRESET));
}
