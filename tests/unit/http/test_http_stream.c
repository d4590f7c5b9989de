/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers in pieces, clients that are slow or leave, and the end of the server.
 */
#include "http/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_case.h"
#include "runner.h"

static struct http_case server;

static int set_up(void **state)
{
    (void)state;
    http_case_prepare(&server);
    http_case_start(&server);
    return 0;
}

static int set_up_port(void **state)
{
    (void)state;
    http_case_prepare(&server);
    server.spec.address = "127.0.0.1";
    http_case_start(&server);
    return 0;
}

static int set_up_impatient(void **state)
{
    (void)state;
    http_case_prepare(&server);
    server.spec.deadlines.write = 0.15;
    http_case_start(&server);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    http_case_stop(&server);
    return 0;
}

static int begin_request(const char *path, const char *version)
{
    char text[128];
    int before = server.requests;
    int client = http_case_connect(&server);
    snprintf(text, sizeof text, "GET %s HTTP/%s\r\nHost: localhost\r\n\r\n", path, version);
    http_case_say(client, text);
    http_case_await(&server.requests, before + 1);
    return client;
}

static void write_piece(const char *piece, size_t bytes)
{
    server.piece = piece;
    server.piece_bytes = bytes;
    http_case_order(&server, HTTP_CASE_WRITE);
}

/* ---- pieces ---- */

static void pieces_come_as_chunks_and_the_connection_goes_on(void **state)
{
    (void)state;
    int client = begin_request("/stream", "1.1");
    char *head = http_case_read_answer(client); /* before there is a piece */
    char chunk[64] = "";
    assert_non_null(strstr(head, "Transfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(head, "Content-Type: text/event-stream\r\n"));
    assert_null(strstr(head, "Content-Length"));
    free(head);
    write_piece("data: one\n\n", 11);
    assert_int_equal(recv(client, chunk, 16, MSG_WAITALL), 16);
    assert_string_equal(chunk, "b\r\ndata: one\n\n\r\n");
    write_piece("", 0); /* would be the last chunk */
    write_piece("0123456789abcdef", 16);
    http_case_order(&server, HTTP_CASE_END);
    http_case_say(client,
                  "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    char *rest = http_case_read_all(client, NULL);
    const char expected[] = "10\r\n0123456789abcdef\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert_memory_equal(rest, expected, sizeof expected - 1);
    free(rest);
    close(client);
}

static void pieces_for_1_0_end_with_the_connection(void **state)
{
    (void)state;
    int client = begin_request("/stream", "1.0");
    write_piece("one", 3);
    write_piece("two", 3);
    http_case_order(&server, HTTP_CASE_END);
    char *answer = http_case_read_all(client, NULL);
    assert_null(strstr(answer, "chunked"));
    assert_non_null(strstr(answer, "Connection: close\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\nonetwo");
    free(answer);
    close(client);
}

static void a_cut_stream_is_seen_to_be_cut(void **state)
{
    char byte = 0;
    (void)state;
    int client = begin_request("/stream", "1.1");
    write_piece("one", 3);
    http_case_order(&server, HTTP_CASE_CUT);
    char *answer = http_case_read_all(client, NULL);
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n3\r\none\r\n");
    free(answer);
    close(client);
    client = begin_request("/stream", "1.0");
    write_piece("one", 3);
    free(http_case_read_answer(client));
    assert_int_equal(recv(client, &byte, 1, 0), 1);
    http_case_order(&server, HTTP_CASE_CUT);
    ssize_t got = 0;
    while ((got = recv(client, &byte, 1, 0)) > 0)
        ;
    assert_int_equal(got, -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
}

static void head_of_a_stream_has_no_pieces(void **state)
{
    (void)state;
    int client = http_case_connect(&server);
    http_case_say(client, "HEAD /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    http_case_await(&server.requests, 1);
    write_piece("one", 3);
    http_case_order(&server, HTTP_CASE_END);
    http_case_say(client,
                  "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    char *answers = http_case_read_all(client, NULL);
    assert_int_equal(http_case_count_answers(answers), 2);
    assert_null(strstr(answers, "one"));
    free(answers);
    close(client);
}

/* ---- slow clients ---- */

/* How much is left when it has caught up depends on how much the kernel takes at once, so it
 * is tried with several amounts. The kernel may take more meanwhile. */
static void a_slow_client_is_told_once_and_once_when_it_has_caught_up(void **state)
{
    enum { PIECE = 32 << 10, ROUNDS = 8 };
    static char piece[PIECE];
    static char room[PIECE];
    (void)state;
    memset(piece, 'x', sizeof piece);
    int client = begin_request("/stream", "1.1");
    free(http_case_read_answer(client));
    for (int round = 1; round <= ROUNDS; round++) {
        size_t count = 0;
        for (int before = server.full; server.full == before || count < 32; count++) {
            assert_true(count < 1000);
            write_piece(piece, sizeof piece - 1000 * (size_t)round);
        }
        assert_true(server.unsent_full > MPO_HTTP_BACKLOG_FULL);
        size_t wanted = count * (server.piece_bytes + 8); /* with the size and line ends */
        while (wanted > 0) {
            ssize_t got =
                recv(client, room, wanted < sizeof room ? wanted : sizeof room, 0);
            assert_true(got > 0);
            wanted -= (size_t)got;
        }
        http_case_await(&server.empty, server.full);
        assert_true(server.unsent_empty < MPO_HTTP_BACKLOG_EMPTY);
        assert_int_equal(server.empty, server.full);
    }
    close(client);
    http_case_await(&server.gone, 1);
}

static void a_client_that_takes_nothing_is_given_up(void **state)
{
    static char piece[1 << 20];
    (void)state;
    int client = begin_request("/stream", "1.1");
    double began = http_case_now();
    write_piece(piece, sizeof piece);
    http_case_await(&server.gone, 1);
    assert_between(http_case_now() - began, 0.1, HTTP_CASE_PATIENCE);
    close(client);
    /* the same where all is written, and nobody is to be told */
    int done = server.done_count;
    client = begin_request("/stream", "1.1");
    http_case_order(&server, HTTP_CASE_LAST); /* the same piece, in one go */
    http_case_await(&server.done_count, done + 1);
    assert_true(server.done[done].gone);
    assert_int_equal(server.gone, 1);
    close(client);
}

static void a_silent_stream_is_no_slow_client(void **state)
{
    (void)state;
    int client = begin_request("/stream", "1.1");
    usleep(400000);
    write_piece("one", 3);
    usleep(400000);
    http_case_order(&server, HTTP_CASE_END);
    usleep(100000);
    close(client);
    assert_int_equal(server.gone, 0);
}

/* ---- clients that leave ---- */

enum leaving { CLOSES, RESETS, HALF_CLOSES, CLOSES_AFTER_MORE, LEAVINGS };

static void leave_server(int client, enum leaving how)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (how == RESETS)
        setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    if (how == CLOSES_AFTER_MORE)
        http_case_say(client, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    if (how == HALF_CLOSES)
        shutdown(client, SHUT_WR);
    else
        close(client);
}

static void a_client_that_leaves_is_noticed_at_once(void **state)
{
    static const char *const paths[] = {"/later", "/stream"};
    (void)state;
    for (int i = 0; i < 2 * LEAVINGS; i++) {
        enum leaving how = (enum leaving)(i / 2);
        int gone = server.gone;
        int client = begin_request(paths[i % 2], "1.1");
        usleep(2000);
        assert_int_equal(server.gone, gone);
        leave_server(client, how);
        http_case_await(&server.gone, gone + 1);
        assert_int_equal(server.held_count, 0);
        if (how == HALF_CLOSES)
            close(client);
    }
}

static void a_client_that_left_before_it_was_heard_is_noticed(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        int client = http_case_connect(&server);
        http_case_say(client, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
        close(client);
    }
    http_case_await(&server.done_count, 50);
    http_case_await(&server.gone, server.requests);
}

/* ---- other threads, and the end ---- */

static void notifications_are_gathered(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++)
        mpo_http_notify(server.http);
    http_case_catch_up(&server);
    int seen = server.notified;
    assert_between(seen, 1, 100000);
    http_case_catch_up(&server);
    assert_int_equal(server.notified, seen); /* none is told for nothing */
    mpo_http_notify(server.http);
    http_case_await(&server.notified, seen + 1);
    http_case_await(&server.ticks, 1);
}

static void a_draining_server_answers_and_closes(void **state)
{
    (void)state;
    int idle = http_case_connect(&server);
    http_case_say(idle, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    free(http_case_read_answer(idle));
    int waiting = begin_request("/later", "1.1");
    mpo_http_drain(server.http);
    http_case_expect_end(idle);
    char *answer = http_case_ask(&server, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_int_equal(http_case_status(answer), 200);
    assert_non_null(strstr(answer, "Connection: close\r\n"));
    free(answer);
    http_case_order(&server, HTTP_CASE_ANSWER);
    answer = http_case_read_all(waiting, NULL);
    assert_int_equal(http_case_status(answer), 200);
    assert_non_null(strstr(answer, "Connection: close\r\n"));
    free(answer);
    close(waiting);
    close(idle);
}

static void a_draining_server_hears_who_has_just_connected(void **state)
{
    (void)state;
    int fresh = http_case_connect(&server);
    usleep(20000);
    mpo_http_drain(server.http);
    usleep(20000);
    http_case_say(fresh, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    char *answer = http_case_read_all(fresh, NULL);
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    close(fresh);
}

static void a_stop_refuses_who_has_just_connected(void **state)
{
    (void)state;
    int waiting = begin_request("/later", "1.1");
    int silent = http_case_connect(&server);
    usleep(20000);
    mpo_http_stop(server.http, 20.0);
    char *answer = http_case_read_all(silent, NULL);
    assert_int_equal(http_case_status(answer), 503);
    assert_non_null(strstr(answer, "Retry-After: 5\r\n"));
    assert_non_null(strstr(answer, "\"code\":\"draining\""));
    free(answer);
    http_case_order(&server, HTTP_CASE_ANSWER);
    pthread_join(server.thread, NULL);
    server.runs = false;
    close(silent);
    close(waiting);
}

static void a_stop_waits_for_what_is_being_answered(void **state)
{
    (void)state;
    int waiting = begin_request("/later", "1.1");
    int half = http_case_connect(&server);
    http_case_say(half, "POST /echo HTTP/1.1\r\nHost: loc");
    http_case_catch_up(&server);
    mpo_http_stop(server.http, 1000.0);
    http_case_expect_end(half);
    usleep(20000);
    http_case_order(&server, HTTP_CASE_ANSWER);
    double began = http_case_now();
    pthread_join(server.thread, NULL);
    assert_true(http_case_now() - began < HTTP_CASE_PATIENCE);
    server.runs = false;
    char *answer = http_case_read_all(waiting, NULL);
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    close(waiting);
    close(half);
    assert_int_equal(server.gone, 0);
}

static void a_stop_does_not_wait_longer_than_it_may(void **state)
{
    (void)state;
    int waiting = begin_request("/later", "1.1");
    int stream = begin_request("/stream", "1.1");
    double began = http_case_now();
    mpo_http_stop(server.http, 1000.0);
    mpo_http_stop(server.http, 0.1);
    mpo_http_stop(server.http, 200.0);
    pthread_join(server.thread, NULL);
    assert_between(http_case_now() - began, 0.09, HTTP_CASE_PATIENCE);
    server.runs = false;
    assert_int_equal(server.gone, 2);
    close(waiting);
    close(stream);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define with_port(test)   cmocka_unit_test_setup_teardown(test, set_up_port, tear_down)
#define impatient(test)   cmocka_unit_test_setup_teardown(test, set_up_impatient, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_server(pieces_come_as_chunks_and_the_connection_goes_on),
        with_port(pieces_for_1_0_end_with_the_connection),
        with_port(a_cut_stream_is_seen_to_be_cut),
        with_server(head_of_a_stream_has_no_pieces),
        with_server(a_slow_client_is_told_once_and_once_when_it_has_caught_up),
        with_port(a_slow_client_is_told_once_and_once_when_it_has_caught_up),
        impatient(a_client_that_takes_nothing_is_given_up),
        impatient(a_silent_stream_is_no_slow_client),
        with_server(a_client_that_leaves_is_noticed_at_once),
        with_port(a_client_that_leaves_is_noticed_at_once),
        with_port(a_client_that_left_before_it_was_heard_is_noticed),
        with_server(notifications_are_gathered),
        with_server(a_draining_server_answers_and_closes),
        with_port(a_draining_server_answers_and_closes),
        with_server(a_draining_server_hears_who_has_just_connected),
        with_server(a_stop_refuses_who_has_just_connected),
        with_port(a_stop_refuses_who_has_just_connected),
        with_port(a_stop_waits_for_what_is_being_answered),
        with_server(a_stop_does_not_wait_longer_than_it_may),
    };
    return run_cases("http stream", tests);
}
