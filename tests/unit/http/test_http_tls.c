/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same server behind TLS, with a certificate that the test makes.
 */
#include "http/http.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http_case.h"
#include "runner.h"

static struct http_case server;
static char certificate[128];
static char key[128];
static SSL_CTX *trust;

static void write_certificate(void)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *self = X509_new();
    X509_NAME *name = X509_get_subject_name(self);
    ASN1_INTEGER_set(X509_get_serialNumber(self), 1);
    X509_gmtime_adj(X509_getm_notBefore(self), -60);
    X509_gmtime_adj(X509_getm_notAfter(self), 3600);
    X509_set_pubkey(self, pair);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost",
                               -1, -1, 0);
    X509_set_issuer_name(self, name);
    assert_true(X509_sign(self, pair, EVP_sha256()) > 0);
    FILE *stream = fopen(certificate, "w");
    PEM_write_X509(stream, self);
    fclose(stream);
    stream = fopen(key, "w");
    PEM_write_PrivateKey(stream, pair, NULL, NULL, 0, NULL, NULL);
    fclose(stream);
    X509_free(self);
    EVP_PKEY_free(pair);
}

static int set_up(void **state)
{
    (void)state;
    http_case_prepare(&server);
    server.spec.address = "127.0.0.1";
    snprintf(certificate, sizeof certificate, "%s/cert.pem", server.folder);
    snprintf(key, sizeof key, "%s/key.pem", server.folder);
    write_certificate();
    server.spec.tls_cert = certificate;
    server.spec.tls_key = key;
    trust = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(trust, SSL_VERIFY_PEER, NULL);
    assert_int_equal(SSL_CTX_load_verify_file(trust, certificate), 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(certificate);
    unlink(key);
    SSL_CTX_free(trust);
    http_case_stop(&server);
    return 0;
}

static SSL *connect_tls(void)
{
    SSL *client = SSL_new(trust);
    SSL_set_fd(client, http_case_connect(&server));
    assert_int_equal(SSL_connect(client), 1);
    return client;
}

static void close_tls(SSL *client)
{
    close(SSL_get_fd(client));
    SSL_free(client);
}

static void say(SSL *client, const char *text)
{
    assert_int_equal(SSL_write(client, text, (int)strlen(text)), strlen(text));
}

/* Until the end of the connection. */
static char *read_all(SSL *client, size_t *count)
{
    const size_t room = (size_t)8 << 20;
    char *text = runner_allocate(room, 1);
    int got = 0;
    *count = 0;
    while ((got = SSL_read(client, text + *count, (int)(room - *count - 1))) > 0)
        *count += (size_t)got;
    return text;
}

static void requests_are_answered_behind_tls(void **state)
{
    size_t count = 0;
    (void)state;
    http_case_start(&server);
    assert_non_null(strstr(mpo_http_url(server.http), "https://127.0.0.1:"));
    SSL *client = connect_tls();
    say(client, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
                "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    say(client, "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    char *answers = read_all(client, &count);
    assert_int_equal(http_case_count_answers(answers), 3);
    assert_int_equal(SSL_get_error(client, 0), SSL_ERROR_ZERO_RETURN); /* a whole answer */
    free(answers);
    close_tls(client);
}

static void a_large_body_goes_both_ways(void **state)
{
    const size_t wanted = (size_t)4 << 20;
    char *body = runner_allocate(wanted + 1, 1);
    size_t count = 0;
    (void)state;
    http_case_start(&server);
    for (size_t i = 0; i < wanted; i++)
        body[i] = (char)('a' + i % 23);
    SSL *client = connect_tls();
    say(client, "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                "Content-Length: 4194304\r\n\r\n");
    say(client, body);
    char *answer = read_all(client, &count);
    assert_true(count > wanted);
    assert_memory_equal(answer + count - wanted, body, wanted);
    free(answer);
    free(body);
    close_tls(client);
}

static void a_client_that_leaves_is_noticed_behind_tls(void **state)
{
    static char piece[1 << 20];
    (void)state;
    http_case_start(&server);
    SSL *waiting = connect_tls();
    say(waiting, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    http_case_await(&server.requests, 1);
    close_tls(waiting);
    http_case_await(&server.gone, 1);
    SSL *stream = connect_tls();
    say(stream, "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    http_case_await(&server.requests, 2);
    server.piece = piece;
    server.piece_bytes = sizeof piece;
    for (int i = 0; i < 8; i++)
        http_case_order(&server, HTTP_CASE_WRITE);
    http_case_await(&server.full, 1);
    close_tls(stream);
    http_case_await(&server.gone, 2);
}

static void what_is_no_tls_is_closed(void **state)
{
    (void)state;
    server.spec.deadlines.idle = 0.3;
    http_case_start(&server);
    char *answer = http_case_ask(&server, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_int_equal(http_case_count_answers(answer), 0);
    free(answer);
    int silent = http_case_connect(&server);
    http_case_expect_end(silent);
    close(silent);
    assert_int_equal(server.requests, 0);
}

static void expect_no_start(const char *word)
{
    assert_status(mpo_http_open(&server.spec, &server.http), MPO_ERR_CONFIG);
    assert_error_names(word);
}

static void bad_certificates_are_told(void **state)
{
    (void)state;
    server.spec.tls_key = NULL;
    expect_no_start("one of them");
    server.spec.tls_key = certificate;
    expect_no_start("tls_key");
    server.spec.tls_key = key;
    server.spec.tls_cert = key;
    expect_no_start("tls_cert");
    server.spec.tls_cert = "/dev/null";
    expect_no_start("tls_cert /dev/null");
    server.spec.tls_cert = server.file;
    assert_status(mpo_http_open(&server.spec, &server.http), MPO_ERR_INPUT);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_server(requests_are_answered_behind_tls),
        with_server(a_large_body_goes_both_ways),
        with_server(a_client_that_leaves_is_noticed_behind_tls),
        with_server(what_is_no_tls_is_closed),
        with_server(bad_certificates_are_told),
    };
    signal(SIGPIPE, SIG_IGN); /* of the clients */
    return run_cases("http tls", tests);
}
