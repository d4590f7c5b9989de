/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may call: keys, names of the server, pages of browsers; and what is refused before
 * anybody can call.
 */
#include "http/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "http_case.h"
#include "runner.h"

static struct http_case server;
static char key_file[128];

/* A server on a port of loopback; `file` has the keys, NULL: none. */
static void prepare_server(const char *file)
{
    http_case_prepare(&server);
    server.spec.address = "127.0.0.1";
    snprintf(key_file, sizeof key_file, "%s/keys", server.folder);
    if (file == NULL)
        return;
    FILE *stream = fopen(key_file, "w");
    assert_non_null(stream);
    fputs(file, stream);
    fclose(stream);
    chmod(key_file, 0600);
    server.spec.key_file = key_file;
}

static void stop_server(void)
{
    unlink(key_file);
    http_case_stop(&server);
}

/* The answer to a request line with these headers. */
static void expect_status(const char *line, const char *headers, int status,
                          const char *words)
{
    char text[4096];
    snprintf(text, sizeof text, "%s HTTP/1.1\r\n%sConnection: close\r\n\r\n", line,
             headers);
    char *answer = http_case_ask(&server, text);
    if (http_case_status(answer) != status || strstr(answer, words) == NULL)
        fail_msg("%s, %s: expected %d with '%s', found: %s", line, headers, status, words,
                 answer);
    free(answer);
}

static void expect_missing(const char *line, const char *headers, const char *word)
{
    char text[4096];
    snprintf(text, sizeof text, "%s HTTP/1.1\r\n%sConnection: close\r\n\r\n", line,
             headers);
    char *answer = http_case_ask(&server, text);
    if (http_case_status(answer) == 0 || strstr(answer, word) != NULL)
        fail_msg("%s, %s: expected no '%s', found: %s", line, headers, word, answer);
    free(answer);
}

#define HOST "Host: localhost\r\n"
#define KEY  HOST "Authorization: Bearer "

/* ---- keys ---- */

static void a_key_is_asked_for_where_the_route_says_so(void **state)
{
    (void)state;
    prepare_server("# comment\n\nalice:opensesame\r\nbob.2-x_:sk-0123456789\ncarol:a:b\n");
    http_case_start(&server);
    assert_int_equal(mpo_http_key_count(server.http), 3);
    expect_status("GET /hello", HOST, 200, "hello");
    expect_status("GET /hello", KEY "wrong\r\n", 200, "hello");
    expect_status("GET /secret", KEY "opensesame\r\n", 200, "\r\n\r\nalice 0");
    expect_status("POST /secret", KEY "sk-0123456789\r\n", 200, "\r\n\r\nbob.2-x_ 1");
    expect_status("GET /secret", HOST "authorization: bearer   a:b \r\n", 200,
                  "\r\n\r\ncarol 2");
    static const char *const wrong[] = {
        HOST,
        KEY "\r\n",
        KEY "opensesam\r\n",
        KEY "opensesamee\r\n",
        KEY "OPENSESAME\r\n",
        KEY "opensesame x\r\n",
        KEY "alice\r\n",
        KEY "alice:opensesame\r\n",
        KEY "comment\r\n",
        HOST "Authorization: Basic opensesame\r\n",
        HOST "Authorization: opensesame\r\n",
        HOST "X-Api-Key: opensesame\r\n",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        expect_status("GET /secret", wrong[i], 401, "WWW-Authenticate: Bearer\r\n");
        expect_status("GET /secret", wrong[i], 401,
                      "\"type\":\"authentication_error\",\"param\":null,\"code\":"
                      "\"invalid_api_key\"");
        expect_missing("GET /secret", wrong[i], "opensesame");
    }
    stop_server();
}

static void without_keys_everything_is_open(void **state)
{
    (void)state;
    prepare_server(NULL);
    http_case_start(&server);
    assert_int_equal(mpo_http_key_count(server.http), 0);
    expect_status("GET /secret", KEY "anything\r\n", 200, "\r\n\r\nnobody -1");
    stop_server();
}

static void expect_no_start(enum mpo_status status, const char *word)
{
    assert_status(mpo_http_open(&server.spec, &server.http), status);
    assert_error_names(word);
    assert_null(server.http);
}

static void a_key_file_is_private_and_has_keys(void **state)
{
    static const struct {
        const char *text;
        const char *word;
    } bad[] = {
        {"", "found none"},
        {"# nothing\n", "found none"},
        {"alice\n", "line 1"},
        {"alice:\n", "line 1"},
        {":key\n", "line 1"},
        {"alice:key\nbob key\n", "line 2"},
        {"al ice:key\n", "line 1"},
        {"alice: key\n", "line 1"},
        {"alice:key\nbob:key\n", "there already"},
        {"alice:k\xc3\xa4y\n", "line 1"},
        {"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg:key\n",
         "line 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        prepare_server(bad[i].text);
        expect_no_start(MPO_ERR_CONFIG, bad[i].word);
        stop_server();
    }
    static const mode_t open_modes[] = {0640, 0604, 0620, 0777, 0610};
    for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++) {
        prepare_server("alice:opensesame\n");
        chmod(key_file, open_modes[i]);
        expect_no_start(MPO_ERR_CONFIG, "chmod 600");
        assert_null(strstr(mpo_error_text(), "opensesame"));
        stop_server();
    }
    prepare_server(NULL);
    server.spec.key_file = key_file;
    expect_no_start(MPO_ERR_INPUT, key_file);
    server.spec.key_file = server.folder;
    expect_no_start(MPO_ERR_CONFIG, "expected a file");
    stop_server();
}

/* ---- names and pages ---- */

static void on_loopback_the_host_is_one_of_ours(void **state)
{
    static const char *const ours[] = {
        "localhost",  "LOCALHOST:1", "127.0.0.1",  "127.0.0.1:80", "[::1]",
        "[::1]:8080", "gpu.lan",     "GPU.lan:80", "[fe80::1]:80", "10.0.0.7:65535"};
    static const char *const others[] = {"evil.example",
                                         "localhost.evil.example",
                                         "127.0.0.1.evil.example",
                                         "localhost.",
                                         "xlocalhost",
                                         "gpu.lan.example",
                                         "127.0.0.2",
                                         "[::2]",
                                         "gpu",
                                         "0.0.0.0",
                                         "10.0.0.77",
                                         "2130706433"};
    char header[128];
    (void)state;
    prepare_server(NULL);
    server.spec.hosts = "gpu.lan, [fe80::1],10.0.0.7";
    http_case_start(&server);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        snprintf(header, sizeof header, "Host: %s\r\n", ours[i]);
        expect_status("GET /hello", header, 200, "hello");
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        snprintf(header, sizeof header, "Host: %s\r\n", others[i]);
        expect_status("GET /hello", header, 403, "\"code\":\"host_not_allowed\"");
        expect_status("POST /echo", header, 403, "\"type\":\"permission_error\"");
    }
    stop_server();
}

static void elsewhere_any_host_is_ours(void **state)
{
    (void)state;
    prepare_server(NULL);
    server.spec.address = "0.0.0.0";
    expect_no_start(MPO_ERR_CONFIG, "allow_open");
    server.spec.allow_open = true;
    http_case_start(&server);
    expect_status("GET /hello", "Host: any.example\r\n", 200, "hello");
    stop_server();
    prepare_server("alice:opensesame\n");
    server.spec.address = "0.0.0.0";
    http_case_start(&server);
    assert_non_null(strstr(mpo_http_url(server.http), "http://0.0.0.0:"));
    stop_server();
}

static void a_foreign_page_starts_nothing(void **state)
{
    (void)state;
    prepare_server(NULL);
    http_case_start(&server);
    expect_status("POST /echo", HOST, 200, "");
    expect_status("POST /echo", HOST "Origin: http://localhost\r\n", 200, "");
    expect_status("POST /echo", "Host: localhost:80\r\nOrigin: https://localhost:80\r\n",
                  200, "");
    static const char *const foreign[] = {"https://evil.example",
                                          "http://localhost:3000",
                                          "null",
                                          "http://127.0.0.1",
                                          "http://localhost.evil",
                                          "file://",
                                          "localhost",
                                          ""};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        char header[128];
        snprintf(header, sizeof header, HOST "Origin: %s\r\n", foreign[i]);
        int before = server.requests;
        expect_status("POST /echo", header, 403, "\"code\":\"origin_not_allowed\"");
        assert_int_equal(server.requests, before);
        /* it cannot read what it GETs */
        expect_missing("GET /hello", header, "Access-Control");
        expect_missing("OPTIONS /echo", header, "Access-Control");
    }
    stop_server();
}

static void listed_origins_may_call(void **state)
{
    static const char listed[] = HOST "Origin: https://chat.example\r\n";
    (void)state;
    prepare_server("alice:opensesame\n");
    server.spec.cors = "https://chat.example,http://localhost:3000, chrome-extension://abc";
    http_case_start(&server);
    expect_status("POST /echo", listed, 200,
                  "Access-Control-Allow-Origin: https://chat.example\r\n");
    expect_status("POST /echo", HOST "Origin: chrome-extension://abc\r\n", 200,
                  "Vary: Origin");
    expect_status("POST /echo", HOST "Origin: https://chat.example.evil\r\n", 403, "");
    expect_status("POST /echo", HOST "Origin: https://chat.example:444\r\n", 403, "");
    /* a page can read why it is refused */
    expect_status("GET /secret", listed, 401,
                  "Access-Control-Allow-Origin: https://chat.example\r\n");
    expect_status("GET /nothing", listed, 404, "Access-Control-Allow-Origin: ");
    expect_status("OPTIONS /secret",
                  HOST "Origin: http://localhost:3000\r\n"
                       "Access-Control-Request-Method: POST\r\n"
                       "Access-Control-Request-Headers: authorization,content-type\r\n",
                  204, "Access-Control-Allow-Headers: authorization,content-type\r\n");
    expect_status("OPTIONS /secret", listed, 204,
                  "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n");
    stop_server();
}

static void lists_are_checked(void **state)
{
    static const char *const bad_cors[] = {"https://a.example/", "a.example", "https://",
                                           "https://a/b",        "://a",      "null"};
    static const char *const bad_hosts[] = {"a:80", "http://a", "*", "a/b", "x@a"};
    (void)state;
    prepare_server(NULL);
    for (size_t i = 0; i < sizeof bad_cors / sizeof *bad_cors; i++) {
        server.spec.cors = bad_cors[i];
        expect_no_start(MPO_ERR_CONFIG, "cors");
    }
    server.spec.cors = "*";
    http_case_start(&server);
    expect_status("POST /echo", HOST "Origin: https://any.example\r\n", 200,
                  "Access-Control-Allow-Origin: https://any.example\r\n");
    stop_server();
    prepare_server(NULL);
    for (size_t i = 0; i < sizeof bad_hosts / sizeof *bad_hosts; i++) {
        server.spec.hosts = bad_hosts[i];
        expect_no_start(MPO_ERR_CONFIG, "hosts");
    }
    stop_server();
    prepare_server("alice:opensesame\n");
    server.spec.cors = "https://a.example,*";
    expect_no_start(MPO_ERR_CONFIG, "list the origins");
    stop_server();
}

/* ---- places ---- */

static void a_place_that_is_taken_is_told(void **state)
{
    struct mpo_http *second = NULL;
    (void)state;
    prepare_server(NULL);
    http_case_start(&server);
    struct mpo_http_spec spec = server.spec;
    spec.port = mpo_http_port(server.http);
    assert_status(mpo_http_open(&spec, &second), MPO_ERR_OUTPUT);
    assert_error_names("taken");
    stop_server();
    http_case_prepare(&server);
    http_case_start(&server);
    assert_string_equal(mpo_http_url(server.http), server.file);
    assert_int_equal(mpo_http_port(server.http), 0);
    assert_status(mpo_http_open(&server.spec, &second), MPO_ERR_OUTPUT);
    assert_error_names(server.file + 5);
    http_case_stop(&server);
}

static void a_socket_file_is_private_and_a_dead_one_is_replaced(void **state)
{
    struct sockaddr_un file = {.sun_family = AF_UNIX};
    struct stat about;
    (void)state;
    http_case_prepare(&server);
    snprintf(file.sun_path, sizeof file.sun_path, "%.100s", server.file + 5);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&file, sizeof file), 0);
    close(dead);
    http_case_start(&server);
    assert_int_equal(stat(server.file + 5, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    http_case_stop(&server);
    /* but no file that is none of ours */
    http_case_prepare(&server);
    FILE *plain = fopen(server.file + 5, "w");
    fclose(plain);
    expect_no_start(MPO_ERR_OUTPUT, server.file + 5);
    assert_int_equal(unlink(server.file + 5), 0);
    http_case_stop(&server);
}

static void bad_places_are_refused(void **state)
{
    char longest[256];
    (void)state;
    prepare_server(NULL);
    server.spec.address = "no.such.host.invalid";
    expect_no_start(MPO_ERR_CONFIG, "no.such.host.invalid");
    server.spec.address = "192.0.2.1"; /* of nobody (RFC 5737) */
    expect_no_start(MPO_ERR_CONFIG, "192.0.2.1");
    server.spec.address = "unix:";
    expect_no_start(MPO_ERR_CONFIG, "unix:");
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    memcpy(longest, "unix:/", 6);
    server.spec.address = longest;
    expect_no_start(MPO_ERR_CONFIG, "107");
    snprintf(longest, sizeof longest, "unix:%s/none/socket", server.folder);
    expect_no_start(MPO_ERR_OUTPUT, "none/socket");
    server.spec.address = "127.0.0.1";
    http_case_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_asked_for_where_the_route_says_so),
        cmocka_unit_test(without_keys_everything_is_open),
        cmocka_unit_test(a_key_file_is_private_and_has_keys),
        cmocka_unit_test(on_loopback_the_host_is_one_of_ours),
        cmocka_unit_test(elsewhere_any_host_is_ours),
        cmocka_unit_test(a_foreign_page_starts_nothing),
        cmocka_unit_test(listed_origins_may_call),
        cmocka_unit_test(lists_are_checked),
        cmocka_unit_test(a_place_that_is_taken_is_told),
        cmocka_unit_test(a_socket_file_is_private_and_a_dead_one_is_replaced),
        cmocka_unit_test(bad_places_are_refused),
    };
    return run_cases("http access", tests);
}
