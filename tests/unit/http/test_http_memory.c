/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that runs out once, at every allocation of the server and of its event loop in turn:
 * it does not open, or a connection is lost; the next client is served as ever.
 */
#include "http/http.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "allocations.h"
#include "http_case.h"
#include "runner.h"

static struct http_case server;
static atomic_int
    countdown; /* allocations of the server until the one that fails; 0: none */
static pthread_t client_thread;
static atomic_bool counts_client; /* while it opens the server */

static bool fails_now(void)
{
    if (pthread_equal(pthread_self(), client_thread) && !atomic_load(&counts_client))
        return false;
    int left = atomic_load(&countdown);
    while (left > 0 && !atomic_compare_exchange_weak(&countdown, &left, left - 1))
        ;
    return left == 1;
}

/* The event loop's, which come from its library. */
static void *loop_malloc(size_t bytes)
{
    return malloc(bytes);
}

static void *loop_realloc(void *memory, size_t bytes)
{
    return realloc(memory, bytes);
}

static bool has_ended(int client)
{
    char byte = 0;
    return recv(client, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* An answer, or the end of the connection. */
static void ask_once(const char *text, bool ordered, enum http_case_order order)
{
    int held = server.held_count;
    int done = server.done_count;
    int client = http_case_connect(&server);
    http_case_say(client, text);
    if (ordered) {
        double until = http_case_now() + HTTP_CASE_PATIENCE;
        while (server.held_count == held && server.done_count == done &&
               !has_ended(client) && http_case_now() < until)
            usleep(200);
        if (order == HTTP_CASE_END && server.held_count > held)
            http_case_order(&server, HTTP_CASE_WRITE);
        http_case_order(&server, order);
    }
    char *answer = http_case_read_all(client, NULL);
    int status = http_case_status(answer);
    assert_true(status == 0 || status == 200 || status == 404);
    free(answer);
    close(client);
}

#define END " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

static void use_server(void)
{
    static char piece[20000];
    memset(piece, 'p', sizeof piece);
    server.piece = piece;
    server.piece_bytes = sizeof piece;
    ask_once("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\nGET /items/a" END, false, 0);
    ask_once("GET /none" END, false, 0);
    ask_once("POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
             "Transfer-Encoding: "
             "chunked\r\n\r\n14\r\n01234567890123456789\r\n1\r\na\r\n0\r\n\r\n",
             false, 0);
    ask_once("GET /later" END, true, HTTP_CASE_ANSWER);
    ask_once("GET /stream" END, true, HTTP_CASE_END);
}

/* @return whether the fault happened */
static bool fail_at(int allocation)
{
    http_case_prepare(&server);
    atomic_store(&countdown, allocation);
    atomic_store(&counts_client, true);
    enum mpo_status status = mpo_http_open(&server.spec, &server.http);
    atomic_store(&counts_client, false);
    if (status != MPO_OK) {
        assert_status(status, MPO_ERR_MEMORY);
        assert_int_equal(countdown, 0);
        http_case_stop(&server);
        return true;
    }
    http_case_run(&server);
    use_server();
    bool happened = atomic_exchange(&countdown, 0) == 0;
    char *answer = http_case_ask(&server, "GET /hello" END);
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    http_case_stop(&server);
    return happened;
}

static void one_failure_costs_one_connection_at_most(void **state)
{
    int count = 1;
    (void)state;
    while (fail_at(count))
        count++;
    assert_true(count > 40);
    print_message("%d allocations\n", count - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_failure_costs_one_connection_at_most),
    };
    client_thread = pthread_self();
    allocations_fail_when(fails_now);
    event_set_mem_functions(loop_malloc, loop_realloc, free);
    return run_cases("http memory", tests);
}
