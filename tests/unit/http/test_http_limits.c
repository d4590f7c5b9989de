/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deadlines, and what happens when there is no room: for connections, for bodies, for
 * descriptors.
 */
#define _GNU_SOURCE
#include "http/http.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http_case.h"
#include "runner.h"

static struct http_case server;

static void start_server(const struct mpo_http_limits *limits,
                         const struct mpo_http_deadlines *deadlines)
{
    http_case_prepare(&server);
    if (limits != NULL)
        server.spec.limits = *limits;
    if (deadlines != NULL)
        server.spec.deadlines = *deadlines;
    http_case_start(&server);
}

/* Send a text byte by byte, slowly, until the server ends the connection. */
static void drip_text(int client, const char *text, char **answer)
{
    double until = http_case_now() + HTTP_CASE_PATIENCE;
    struct timeval moment = {.tv_usec = 5000};
    char first = 0;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment);
    while (http_case_now() < until && recv(client, &first, 1, MSG_PEEK) < 0) {
        http_case_send(client, text, *text != '\0');
        text += *text != '\0';
    }
    moment = (struct timeval){.tv_sec = (time_t)HTTP_CASE_PATIENCE};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment);
    *answer = http_case_read_all(client, NULL);
}

/* ---- deadlines ---- */

static void single_bytes_prolong_no_deadline(void **state)
{
    static const struct {
        const char *begin;
        const char *drip;
        double least;
    } cases[] = {
        {"", "GET /hello HTTP/1.1\r\nA-long-header: that-never-comes-to-its-end-in-time",
         0.2},
        {"GET /hello HTTP/1.1\r\n", "", 0.2},
        {"\r\n", "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
         0.2},
        {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n",
         "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", 0.3},
        {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
         "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n1\r\ne\r\n1\r\nf\r\n1\r\ng\r\n1\r\nh\r\n"
         "1\r\ni\r\n1\r\nj\r\n",
         0.3},
        {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
         "1;a=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
         0.3},
    };
    (void)state;
    start_server(NULL, &(struct mpo_http_deadlines){.header = 0.2, .body = 0.3});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *answer = NULL;
        double began = http_case_now();
        int client = http_case_connect(&server);
        http_case_say(client, cases[i].begin);
        drip_text(client, cases[i].drip, &answer);
        assert_true(http_case_now() - began >= cases[i].least - 0.01);
        assert_int_equal(http_case_status(answer), 408);
        assert_non_null(strstr(answer, "\"code\":\"request_timeout\""));
        free(answer);
        close(client);
    }
    assert_int_equal(server.requests, 0);
    http_case_stop(&server);
}

/* 64 KiB at once, which earn more than any machine makes the rest wait, and as much again in
 * pieces, for longer than the 0.5 s that it had without them. */
static void a_body_that_comes_has_more_time(void **state)
{
    enum { FIRST = 64 << 10, PIECE = 4 << 10, PIECES = 16 };
    static char text[256 + FIRST];
    (void)state;
    start_server(NULL, &(struct mpo_http_deadlines){.body = 0.5, .body_64k = 1000.0});
    int client = http_case_connect(&server);
    int head = snprintf(text, 256,
                        "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                        "Content-Length: %d\r\n\r\n",
                        FIRST + PIECES * PIECE);
    memset(text + head, 'b', FIRST);
    http_case_send(client, text, (size_t)head + FIRST);
    for (int i = 0; i < PIECES; i++) {
        usleep(40000);
        http_case_send(client, text + head, PIECE);
    }
    char *answer = http_case_read_all(client, NULL);
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    close(client);
    http_case_stop(&server);
}

/* @return a connection whose request came in before it was idle for too long: on a busy
 * machine one may not, and is made again */
static int ask_before_idle(const char *text)
{
    double until = http_case_now() + HTTP_CASE_PATIENCE;
    int before = server.requests;
    for (;;) {
        char byte = 0;
        int client = http_case_connect(&server);
        http_case_say(client, text);
        while (server.requests == before &&
               recv(client, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0) {
            assert_true(http_case_now() < until);
            usleep(1000);
        }
        if (server.requests > before)
            return client;
        close(client);
    }
}

static void an_idle_connection_is_closed_without_a_word(void **state)
{
    (void)state;
    start_server(NULL, &(struct mpo_http_deadlines){.idle = 0.2});
    int fresh = http_case_connect(&server);
    double began = http_case_now();
    int used = ask_before_idle("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    free(http_case_read_answer(used));
    http_case_expect_end(fresh);
    http_case_expect_end(used);
    assert_between(http_case_now() - began, 0.1, HTTP_CASE_PATIENCE);
    close(fresh);
    close(used);
    /* waiting for an answer is not idle */
    int waiting = ask_before_idle("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    usleep(500000);
    http_case_order(&server, HTTP_CASE_ANSWER);
    char *answer = http_case_read_answer(waiting);
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    close(waiting);
    http_case_stop(&server);
}

/* ---- connections ---- */

static int open_idle(void)
{
    int client = http_case_connect(&server);
    http_case_say(client, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    free(http_case_read_answer(client));
    return client;
}

static void at_the_limit_the_longest_idle_one_makes_room(void **state)
{
    enum { LIMIT = 8 };
    int client[LIMIT + 3];
    (void)state;
    start_server(&(struct mpo_http_limits){.connections = LIMIT}, NULL);
    for (int i = 0; i < LIMIT; i++)
        client[i] = open_idle();
    /* the oldest is used once more */
    http_case_say(client[0], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    free(http_case_read_answer(client[0]));
    for (int i = LIMIT; i < LIMIT + 3; i++) {
        client[i] = open_idle();
        http_case_expect_end(client[i - LIMIT + 1]);
    }
    http_case_say(client[0], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    free(http_case_read_answer(client[0]));
    for (int i = 0; i < LIMIT + 3; i++)
        close(client[i]);
    http_case_stop(&server);
}

static void where_none_is_idle_a_new_one_is_refused(void **state)
{
    enum { LIMIT = 8 };
    int client[LIMIT];
    (void)state;
    start_server(&(struct mpo_http_limits){.connections = LIMIT}, NULL);
    for (int i = 0; i < LIMIT; i++) {
        client[i] = http_case_connect(&server);
        http_case_say(client[i], "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    http_case_await(&server.requests, LIMIT);
    for (int i = 0; i < 200; i++) { /* more than are refused at one time */
        char *answer = http_case_ask(&server, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_int_equal(http_case_status(answer), 503);
        assert_non_null(strstr(answer, "\"code\":\"too_many_connections\""));
        assert_non_null(strstr(answer, "Retry-After: 5\r\n"));
        free(answer);
    }
    http_case_order(&server, HTTP_CASE_ANSWER);
    for (int i = 0; i < LIMIT; i++) {
        free(http_case_read_answer(client[i]));
        close(client[i]);
    }
    char *answer = http_case_ask(&server, "GET /hello HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    http_case_stop(&server);
}

/* Until the server has read all that was sent. */
static void await_read(int client)
{
    double until = http_case_now() + HTTP_CASE_PATIENCE;
    int unread = 1;
    while (unread > 0) {
        assert_true(http_case_now() < until);
        assert_int_equal(ioctl(client, SIOCOUTQ, &unread), 0);
        usleep(1000);
    }
}

static void bodies_together_have_a_limit(void **state)
{
    static char half[64 << 10];
    int client[4];
    (void)state;
    start_server(&(struct mpo_http_limits){.bodies_bytes = 300 << 10}, NULL);
    memset(half, 'b', sizeof half);
    char *answer = NULL;
    for (int i = 0; i < 4; i++) {
        client[i] = http_case_connect(&server);
        http_case_say(client[i], "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                                 "Content-Length: 131072\r\n\r\n");
        http_case_send(client[i], half, sizeof half);
    }
    for (int i = 0; i < 4; i++)
        await_read(client[i]);
    int refused = 0;
    for (int i = 0; i < 4; i++) {
        http_case_send(client[i], half, sizeof half);
        answer = http_case_read_all(client[i], NULL);
        int status = http_case_status(answer);
        assert_true(status == 200 || status == 503);
        refused += status == 503;
        free(answer);
        close(client[i]);
    }
    assert_true(refused >= 1 && refused < 4);
    /* and is given back */
    for (int i = 0; i < 20; i++) {
        int again = http_case_connect(&server);
        http_case_say(again, "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                             "Content-Length: 131072\r\n\r\n");
        http_case_send(again, half, sizeof half);
        if (i % 2 == 0) {
            http_case_send(again, half, sizeof half);
            answer = http_case_read_all(again, NULL);
            assert_int_equal(http_case_status(answer), 200);
            free(answer);
        }
        close(again);
    }
    http_case_stop(&server);
}

/* ---- descriptors ---- */

static double thread_seconds(void)
{
    struct timespec used = {0};
    clockid_t clock = 0;
    assert_int_equal(pthread_getcpuclockid(server.thread, &clock), 0);
    clock_gettime(clock, &used);
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
}

/* Take every descriptor but `left`. @return how many, in `taken` */
static int fill_table(int *taken, int left)
{
    int count = 0;
    int next = 0;
    while ((next = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        taken[count++] = next;
    while (left-- > 0)
        close(taken[--count]);
    return count;
}

static void a_full_table_is_no_busy_loop_and_nobody_is_lost(void **state)
{
    enum { TABLE = 128 };
    struct rlimit before;
    static int taken[TABLE];
    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){TABLE, before.rlim_max}), 0);
    start_server(NULL, NULL);
    int busy = http_case_connect(&server);
    http_case_say(busy, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    http_case_await(&server.requests, 1);
    int count = fill_table(taken, 1);
    int client = http_case_connect(&server); /* with the last one; it waits in the queue */
    http_case_say(client, "GET /hello HTTP/1.0\r\nHost: a\r\n\r\n");
    double began = thread_seconds();
    usleep(500000);
    assert_true(thread_seconds() - began < 0.05);
    assert_int_equal(server.requests, 1);
    close(taken[--count]);
    char *answer = http_case_read_all(client, NULL);
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    close(client);
    while (count > 0)
        close(taken[--count]);
    http_case_order(&server, HTTP_CASE_ANSWER);
    free(http_case_read_answer(busy));
    close(busy);
    http_case_stop(&server);
    setrlimit(RLIMIT_NOFILE, &before);
}

static void a_full_table_closes_the_longest_idle_one(void **state)
{
    enum { TABLE = 128 };
    struct rlimit before;
    static int taken[TABLE];
    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){TABLE, before.rlim_max}), 0);
    start_server(NULL, NULL);
    int idle = open_idle();
    int younger = open_idle();
    int count = fill_table(taken, 1);
    int client = http_case_connect(&server);
    http_case_say(client, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    free(http_case_read_answer(client));
    http_case_expect_end(idle);
    http_case_say(younger, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    free(http_case_read_answer(younger));
    while (count > 0)
        close(taken[--count]);
    close(idle);
    close(younger);
    close(client);
    http_case_stop(&server);
    setrlimit(RLIMIT_NOFILE, &before);
}

static void a_server_that_finds_no_descriptor_is_not_opened(void **state)
{
    enum { TABLE = 64 };
    struct rlimit before;
    static int taken[TABLE];
    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){TABLE, before.rlim_max}), 0);
    http_case_prepare(&server);
    int count = fill_table(taken, 0);
    enum mpo_status status = MPO_ERR_MEMORY;
    while (count > 0 && status == MPO_ERR_MEMORY) {
        status = mpo_http_open(&server.spec, &server.http);
        if (status != MPO_OK)
            assert_error_names("ulimit -n");
        close(taken[--count]);
    }
    assert_ok(status);
    while (count > 0)
        close(taken[--count]);
    http_case_stop(&server);
    setrlimit(RLIMIT_NOFILE, &before);
}

static int count_descriptors(void)
{
    int count = 0;
    for (int i = 0; i < 1024; i++)
        count += fcntl(i, F_GETFD) >= 0;
    return count;
}

static void nothing_is_left_open(void **state)
{
    int client[64];
    (void)state;
    int before = count_descriptors();
    start_server(NULL, NULL);
    for (int i = 0; i < 64; i++) {
        client[i] = http_case_connect(&server);
        http_case_say(client[i], i % 3 == 0   ? "GET /la"
                                 : i % 3 == 1 ? "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                                              : "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    usleep(50000);
    http_case_stop(&server);
    for (int i = 0; i < 64; i++)
        close(client[i]);
    assert_int_equal(count_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_bytes_prolong_no_deadline),
        cmocka_unit_test(a_body_that_comes_has_more_time),
        cmocka_unit_test(an_idle_connection_is_closed_without_a_word),
        cmocka_unit_test(at_the_limit_the_longest_idle_one_makes_room),
        cmocka_unit_test(where_none_is_idle_a_new_one_is_refused),
        cmocka_unit_test(bodies_together_have_a_limit),
        cmocka_unit_test(a_full_table_is_no_busy_loop_and_nobody_is_lost),
        cmocka_unit_test(a_full_table_closes_the_longest_idle_one),
        cmocka_unit_test(a_server_that_finds_no_descriptor_is_not_opened),
        cmocka_unit_test(nothing_is_left_open),
    };
    return run_cases("http limits", tests);
}
