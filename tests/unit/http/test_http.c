/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole server: bytes in, bytes out. What must be refused is refused with one answer and
 * the end of the connection, however the bytes arrive.
 */
#include "http/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_case.h"
#include "http_requests.h"
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

static int tear_down(void **state)
{
    (void)state;
    http_case_stop(&server);
    return 0;
}

/* The answer to `text` on a connection of its own has this status and contains the words. */
static void expect_answer(const char *text, int status, const char *words)
{
    char *answer = http_case_ask(&server, text);
    if (http_case_status(answer) != status || strstr(answer, words) == NULL ||
        http_case_count_answers(answer) != 1)
        fail_msg("expected %d with '%s', found: %s", status, words, answer);
    free(answer);
}

#define CLOSE "Host: localhost\r\nConnection: close\r\n\r\n"

/* ---- hostile bytes ---- */

/* In two pieces, or byte by byte; what the server reads at once is up to the kernel. */
static void send_cut(int client, const struct http_request_case *item, size_t cut)
{
    if (cut == 0) {
        for (size_t i = 0; i < item->count; i++)
            http_case_send(client, item->bytes + i, 1);
        return;
    }
    http_case_send(client, item->bytes, cut);
    usleep(20);
    http_case_send(client, item->bytes + cut, item->count - cut);
}

static void check_refused(const struct http_request_case *item, size_t cut)
{
    int client = http_case_connect(&server);
    send_cut(client, item, cut);
    char *answer = http_case_read_all(client, NULL);
    if (http_case_status(answer) != item->status || strstr(answer, item->code) == NULL ||
        strstr(answer, "hello") != NULL ||
        strstr(answer, "Connection: close\r\n") == NULL ||
        http_case_count_answers(answer) != 1)
        fail_msg("%s, cut at %zu: expected %d %s, found: %s", item->name, cut, item->status,
                 item->code, answer);
    free(answer);
    close(client);
}

static void hostile_requests_get_one_refusal_and_the_end(void **state)
{
    struct http_requests list;
    (void)state;
    http_requests_refused(&list);
    for (int i = 0; i < list.count; i++)
        for (size_t cut = 0; cut <= list.item[i].count; cut++)
            if (cut < 2 || cut == list.item[i].count ||
                (list.item[i].count < 400 && cut % 3 == (size_t)i % 3))
                check_refused(&list.item[i], cut);
    http_requests_release(&list);
}

static void an_early_end_is_no_request(void **state)
{
    static const char text[] = "POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Length: 5\r\n\r\nabcde";
    (void)state;
    int before = server.requests;
    for (size_t cut = 0; cut + 1 < sizeof text; cut++) {
        int client = http_case_connect(&server);
        http_case_send(client, text, cut);
        shutdown(client, SHUT_WR);
        char *answer = http_case_read_all(client, NULL);
        assert_string_equal(answer, "");
        free(answer);
        close(client);
    }
    assert_int_equal(server.requests, before);
}

/* ---- good ones ---- */

static void good_requests_are_answered_and_the_connection_goes_on(void **state)
{
    struct http_requests list;
    (void)state;
    http_requests_taken(&list);
    for (int i = 0; i < list.count; i++) {
        int client = http_case_connect(&server);
        http_case_send(client, list.item[i].bytes, list.item[i].count);
        char *answer = http_case_read_answer(client);
        const char *expected =
            strstr(list.item[i].bytes, "POST") != NULL ? list.item[i].body : "hello\n";
        assert_int_equal(http_case_status(answer), 200);
        assert_string_equal(strstr(answer, "\r\n\r\n") + 4, expected);
        bool is_last = strstr(list.item[i].bytes, "HTTP/1.0") != NULL;
        assert_non_null(strstr(answer, is_last ? "Connection: close\r\n"
                                               : "Connection: keep-alive\r\n"));
        free(answer);
        http_case_say(client, "GET /hello HTTP/1.1\r\n" CLOSE);
        answer = http_case_read_all(client, NULL);
        assert_int_equal(http_case_count_answers(answer), is_last ? 0 : 1);
        free(answer);
        close(client);
    }
    http_requests_release(&list);
}

static void requests_in_one_piece_are_answered_in_order(void **state)
{
    char text[8192] = "";
    (void)state;
    for (int i = 0; i < 40; i++)
        append_text(text,
                    "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
                    "%03d",
                    i);
    append_text(text, "GET /hello HTTP/1.1\r\n" CLOSE);
    char *answers = http_case_ask(&server, text);
    assert_int_equal(http_case_count_answers(answers), 41);
    const char *at = answers;
    for (int i = 0; i < 40; i++) {
        char body[16];
        snprintf(body, sizeof body, "\r\n\r\n%03d", i);
        at = strstr(at, body);
        assert_non_null(at);
    }
    free(answers);
}

static void later_requests_wait_for_the_answer(void **state)
{
    (void)state;
    int before = server.requests;
    int client = http_case_connect(&server);
    http_case_say(client, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n"
                          "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    http_case_await(&server.requests, before + 1);
    http_case_say(client, "GET /hello HTTP/1.1\r\n" CLOSE);
    usleep(20000);
    assert_int_equal(server.requests, before + 1);
    http_case_order(&server, HTTP_CASE_ANSWER);
    char *answers = http_case_read_all(client, NULL);
    assert_int_equal(http_case_count_answers(answers), 3);
    assert_true(strstr(answers, "late\n") < strstr(answers, "hello\n"));
    free(answers);
    close(client);
}

static void head_is_get_without_the_body(void **state)
{
    (void)state;
    char *answer = http_case_ask(&server, "HEAD /hello HTTP/1.1\r\n" CLOSE);
    assert_int_equal(http_case_status(answer), 200);
    assert_non_null(strstr(answer, "Content-Length: 6\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    free(answer);
    answer = http_case_ask(&server, "HEAD /nothing HTTP/1.1\r\n" CLOSE);
    assert_int_equal(http_case_status(answer), 404);
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    free(answer);
}

static void headers_are_handed_over_and_values_begin_no_line(void **state)
{
    (void)state;
    char *answer =
        http_case_ask(&server, "GET /head?a=b&c HTTP/1.1\r\nUser-Agent: me\r\n" CLOSE);
    assert_non_null(strstr(answer, "\r\n\r\na=b&c|me|-|unix|0"));
    assert_non_null(strstr(answer, "X-Request-Id: a??Set-Cookie: b\r\n"));
    assert_non_null(strstr(answer, "\r\nDate: "));
    assert_non_null(strstr(answer, " GMT\r\n"));
    free(answer);
}

static void a_body_is_asked_for_where_the_client_waits(void **state)
{
    char line[64] = "";
    (void)state;
    int client = http_case_connect(&server);
    http_case_say(client, "POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                          "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_int_equal(recv(client, line, 25, MSG_WAITALL), 25);
    assert_string_equal(line, "HTTP/1.1 100 Continue\r\n\r\n");
    http_case_say(client, "abc");
    char *answer = http_case_read_answer(client);
    assert_int_equal(http_case_status(answer), 200);
    free(answer);
    /* a body that is refused is not asked for */
    http_case_say(client, "POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                          "Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n");
    answer = http_case_read_all(client, NULL);
    assert_int_equal(http_case_status(answer), 413);
    assert_int_equal(http_case_count_answers(answer), 1);
    free(answer);
    close(client);
    /* 1.0 knows no interim answers */
    expect_answer("POST /echo HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                  "Content-Length: 3\r\n\r\nabc",
                  200, "\r\n\r\nabc");
}

static void a_large_body_comes_back_whole(void **state)
{
    const size_t count = (size_t)4 << 20;
    char *body = runner_allocate(count, 1);
    size_t bytes = 0;
    (void)state;
    for (size_t i = 0; i < count; i++)
        body[i] = (char)('a' + i % 23);
    int client = http_case_connect(&server);
    http_case_say(client, "POST /echo HTTP/1.1\r\nContent-Length: 4194304\r\n" CLOSE);
    http_case_send(client, body, count);
    char *answer = http_case_read_all(client, &bytes);
    assert_true(bytes > count);
    assert_memory_equal(answer + bytes - count, body, count);
    free(answer);
    free(body);
    close(client);
}

/* ---- what is answered without asking anybody ---- */

static void other_paths_and_methods_say_what_there_is(void **state)
{
    (void)state;
    expect_answer("GET /hello/ HTTP/1.1\r\n" CLOSE, 404, "GET /hello, POST /echo");
    expect_answer("GET /hell%6f HTTP/1.1\r\n" CLOSE, 404, "\"code\":\"not_found\"");
    expect_answer("GET /items/ HTTP/1.1\r\n" CLOSE, 404, "not_found");
    expect_answer("POST /hello HTTP/1.1\r\n" CLOSE, 405, "Allow: GET, HEAD, OPTIONS\r\n");
    expect_answer("GET /echo HTTP/1.1\r\n" CLOSE, 405, "Allow: POST, OPTIONS\r\n");
    expect_answer("DELETE /secret HTTP/1.1\r\n" CLOSE, 405,
                  "Allow: GET, HEAD, POST, OPTIONS\r\n");
    expect_answer("PATCH /nothing HTTP/1.1\r\n" CLOSE, 404, "not_found");
    expect_answer("OPTIONS /echo HTTP/1.1\r\n" CLOSE, 204, "Allow: POST, OPTIONS\r\n");
    expect_answer("OPTIONS * HTTP/1.1\r\n" CLOSE, 204,
                  "Allow: GET, HEAD, POST, OPTIONS\r\n");
    expect_answer("OPTIONS /nothing HTTP/1.1\r\n" CLOSE, 404, "not_found");
    expect_answer("GET /hello HTTP/1.1\r\nHost: localhost\r\n" CLOSE, 400,
                  "\"type\":\"invalid_request_error\",\"param\":null");
}

static void a_refusal_without_a_body_keeps_the_connection(void **state)
{
    (void)state;
    char *answers = http_case_ask(&server, "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
                                           "PUT /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
                                           "GET /hello HTTP/1.1\r\n" CLOSE);
    assert_int_equal(http_case_count_answers(answers), 3);
    free(answers);
    /* its body may hold anything */
    answers = http_case_ask(&server, "POST /a HTTP/1.1\r\nHost: localhost\r\n"
                                     "Content-Length: 45\r\n\r\n"
                                     "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
                                     "GET /hello HTTP/1.1\r\n" CLOSE);
    assert_int_equal(http_case_count_answers(answers), 1);
    free(answers);
}

/* A connection that is closed before all is read is reset, and its answer lost. */
static void a_refusal_is_read_by_a_client_that_still_sends(void **state)
{
    static char body[1 << 20];
    (void)state;
    for (int i = 0; i < 5; i++) {
        int client = http_case_connect(&server);
        http_case_say(client, i % 2 == 0 ? "POST /nothing HTTP/1.1\r\nHost: localhost\r\n"
                                           "Content-Length: 3145728\r\n\r\n"
                                         : "POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                                           "Content-Length: 31457280\r\n\r\n");
        for (int piece = 0; piece < 3; piece++)
            http_case_send(client, body, sizeof body);
        char *answer = http_case_read_answer(client);
        assert_int_equal(http_case_status(answer), i % 2 == 0 ? 404 : 413);
        free(answer);
        assert_int_equal(recv(client, body, 1, 0), 0); /* an end, and no reset */
        close(client);
    }
}

static void what_a_star_stands_for_is_decoded(void **state)
{
    (void)state;
    expect_answer("GET /items/policy/a HTTP/1.1\r\n" CLOSE, 200, "\r\n\r\npolicy/a");
    expect_answer("GET /items/policy%2Fa%20b%c3%a4 HTTP/1.1\r\n" CLOSE, 200,
                  "\r\n\r\npolicy/a b\xc3\xa4");
    expect_answer("GET /items/%00 HTTP/1.1\r\n" CLOSE, 400, "NUL");
    expect_answer("GET /items/%4 HTTP/1.1\r\n" CLOSE, 400, "hexadecimal");
    expect_answer("GET /items/%zz HTTP/1.1\r\n" CLOSE, 400, "hexadecimal");
    expect_answer("GET /items/a% HTTP/1.1\r\n" CLOSE, 400, "hexadecimal");
}

static void every_answer_is_told_once(void **state)
{
    (void)state;
    free(http_case_ask(&server, "GET /hello?x HTTP/1.1\r\n" CLOSE));
    free(http_case_ask(&server, "POST /nothing HTTP/1.1\r\n" CLOSE));
    free(http_case_ask(&server, "BREW\r\n"));
    http_case_await(&server.done_count, 3);
    usleep(10000);
    assert_int_equal(server.done_count, 3);
    const struct http_case_done *done = server.done;
    assert_string_equal(done[0].method, "GET");
    assert_string_equal(done[0].path, "/hello");
    assert_int_equal(done[0].status, 200);
    assert_int_equal(done[0].route, 0);
    assert_false(done[0].gone);
    assert_string_equal(done[1].path, "/nothing");
    assert_int_equal(done[1].status, 404);
    assert_int_equal(done[1].route, -1);
    assert_string_equal(done[2].method, "-");
    assert_string_equal(done[2].path, "-");
    assert_int_equal(done[2].status, 400);
}

static void errors_are_json_whatever_is_in_them(void **state)
{
    (void)state;
    char *body = mpo_http_error_body(&(struct mpo_http_error){
        .status = 400, .code = "a\"b", .param = "p", .message = "x \" \\ \n \xff y"});
    assert_string_equal(body, "{\"error\":{\"message\":\"x \\\" \\\\ \\n \xef\xbf\xbd y\","
                              "\"type\":\"invalid_request_error\",\"param\":\"p\","
                              "\"code\":\"a\\\"b\"}}");
    free(body);
    body = mpo_http_error_body(
        &(struct mpo_http_error){.status = 503, .code = "draining", .message = ""});
    assert_string_equal(body, "{\"error\":{\"message\":\"\",\"type\":\"server_error\","
                              "\"param\":null,\"code\":\"draining\"}}");
    free(body);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define with_port(test)   cmocka_unit_test_setup_teardown(test, set_up_port, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_server(hostile_requests_get_one_refusal_and_the_end),
        with_server(an_early_end_is_no_request),
        with_server(good_requests_are_answered_and_the_connection_goes_on),
        with_server(requests_in_one_piece_are_answered_in_order),
        with_server(later_requests_wait_for_the_answer),
        with_port(later_requests_wait_for_the_answer),
        with_port(a_refusal_is_read_by_a_client_that_still_sends),
        with_server(head_is_get_without_the_body),
        with_server(headers_are_handed_over_and_values_begin_no_line),
        with_server(a_body_is_asked_for_where_the_client_waits),
        with_server(a_large_body_comes_back_whole),
        with_server(other_paths_and_methods_say_what_there_is),
        with_server(a_refusal_without_a_body_keeps_the_connection),
        with_server(what_a_star_stands_for_is_decoded),
        with_server(every_answer_is_told_once),
        cmocka_unit_test(errors_are_json_whatever_is_in_them),
    };
    return run_cases("http", tests);
}
