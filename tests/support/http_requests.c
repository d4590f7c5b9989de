/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists. A NUL is written as \1 in them, so that they are texts.
 */
#include "http_requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

struct row {
    const char *name;
    const char *text;
    int status;
    const char *code;
};

#define BAD     400, "malformed_request"
#define POST    "POST /echo HTTP/1.1\r\nHost: localhost\r\n"
#define GET     "GET /hello HTTP/1.1\r\nHost: localhost\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

/* What tells two readers of the same bytes different things, and what is no HTTP. */
static const struct row refused[] = {
    {"two lengths", POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", BAD},
    {"two equal lengths", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", BAD},
    {"a list of lengths", POST "Content-Length: 3, 3\r\n\r\nabc", BAD},
    {"length, then chunks",
     POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD},
    {"chunks, then length",
     POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", BAD},
    {"a space before the colon", POST "Content-Length : 3\r\n\r\nabc", BAD},
    {"a tab before the colon", POST "Content-Length\t: 3\r\n\r\nabc", BAD},
    {"a length with a sign", POST "Content-Length: +3\r\n\r\nabc", BAD},
    {"a negative length", POST "Content-Length: -3\r\n\r\nabc", BAD},
    {"a hexadecimal length", POST "Content-Length: 0x3\r\n\r\nabc", BAD},
    {"a length with a space", POST "Content-Length: 3 0\r\n\r\nabc", BAD},
    {"a length that is none", POST "Content-Length:\r\n\r\nabc", BAD},
    {"a length beyond 64 bits", POST "Content-Length: 18446744073709551619\r\n\r\nabc",
     BAD},
    {"line feeds alone", "GET /hello HTTP/1.1\nHost: localhost\n\n", BAD},
    {"a line feed alone in the header",
     "GET /hello HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n", BAD},
    {"a line feed alone at the end", GET "\n", BAD},
    {"a carriage return alone", GET "A: b\rC: d\r\n\r\n", BAD},
    {"a NUL in a value", GET "A: b\1c\r\n\r\n", BAD},
    {"a NUL in a name", GET "A\1b: c\r\n\r\n", BAD},
    {"a NUL in the path", "GET /hel\1lo HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"a folded line", GET "A: b\r\n c\r\n\r\n", BAD},
    {"a folded first line", "GET /hello HTTP/1.1\r\n Host: localhost\r\n\r\n", BAD},
    {"a name without a colon", GET "A\r\n\r\n", BAD},
    {"an empty name", GET ": b\r\n\r\n", BAD},
    {"a space in a name", GET "A b: c\r\n\r\n", BAD},
    {"no host", "GET /hello HTTP/1.1\r\n\r\n", BAD},
    {"no host in 1.0", "GET /hello HTTP/1.0\r\n\r\n", BAD},
    {"two hosts", GET "Host: localhost\r\n\r\n", BAD},
    {"two hosts that differ", GET "host: other\r\n\r\n", BAD},
    {"an empty host", "GET /hello HTTP/1.1\r\nHost:\r\n\r\n", BAD},
    {"a host with a path", "GET /hello HTTP/1.1\r\nHost: localhost/x\r\n\r\n", BAD},
    {"a host with a user", "GET /hello HTTP/1.1\r\nHost: a@localhost\r\n\r\n", BAD},
    {"a host with a bad port", "GET /hello HTTP/1.1\r\nHost: localhost:80a\r\n\r\n", BAD},
    {"a whole address as path",
     "GET http://localhost/hello HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"a path without a slash", "GET hello HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"a star as path", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"a fragment", "GET /hello#x HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"a tunnel", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"two tokens", POST "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", BAD},
    {"two origins", POST "Origin: http://a\r\nOrigin: http://b\r\n\r\n", BAD},
    {"chunks in 1.0",
     "POST /echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: "
     "chunked\r\n\r\n0\r\n\r\n",
     BAD},
    {"chunks twice", POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BAD},
    {"two lines of chunks",
     POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD},
    {"chunks and another coding", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     BAD},
    {"a coding without chunks", POST "Transfer-Encoding: identity\r\n\r\n", BAD},
    {"a chunk that is almost chunked", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
     BAD},
    {"a chunk size with 0x", CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", BAD},
    {"a chunk size with a sign", CHUNKED "+3\r\nabc\r\n0\r\n\r\n", BAD},
    {"a chunk size with a space", CHUNKED "3 \r\nabc\r\n0\r\n\r\n", BAD},
    {"a chunk size that is none", CHUNKED "\r\nabc\r\n0\r\n\r\n", BAD},
    {"a chunk size beyond 64 bits", CHUNKED "10000000000000003\r\nabc\r\n0\r\n\r\n", BAD},
    {"a line feed after a chunk size", CHUNKED "3\nabc\r\n0\r\n\r\n", BAD},
    {"a line feed after a chunk", CHUNKED "3\r\nabc\n0\r\n\r\n", BAD},
    {"a chunk that is longer", CHUNKED "3\r\nabcd\r\n0\r\n\r\n", BAD},
    {"a chunk extension with a NUL", CHUNKED "3;a=\1\r\nabc\r\n0\r\n\r\n", BAD},
    {"a bad trailer", CHUNKED "3\r\nabc\r\n0\r\nA : b\r\n\r\n", BAD},
    {"another expectation", POST "Expect: gold\r\nContent-Length: 3\r\n\r\nabc", BAD},
    {"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD},
    {"HTTP/2.0", "GET /hello HTTP/2.0\r\nHost: localhost\r\n\r\n", BAD},
    {"HTTP/0.9", "GET /hello HTTP/0.9\r\nHost: localhost\r\n\r\n", BAD},
    {"HTTP/1.2", "GET /hello HTTP/1.2\r\nHost: localhost\r\n\r\n", BAD},
    {"HTTP/01.1", "GET /hello HTTP/01.1\r\nHost: localhost\r\n\r\n", BAD},
    {"another protocol", "GET /hello RTSP/1.0\r\nHost: localhost\r\n\r\n", BAD},
    {"no protocol", "GET /hello\r\nHost: localhost\r\n\r\n", BAD},
    {"a small method", "get /hello HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"an unknown method", "BREW /hello HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"a tab for a space", "GET\t/hello\tHTTP/1.1\r\nHost: localhost\r\n\r\n", BAD},
    {"a space at the end of the line", "GET /hello HTTP/1.1 \r\nHost: localhost\r\n\r\n",
     BAD},
    {"a greeting of TLS", "\x16\x03\x01\x02\x05\x01\x02", BAD},
};

static const struct row taken[] = {
    {"a plain one", GET "\r\n", 200, NULL},
    {"in 1.0", "GET /hello HTTP/1.0\r\nHost: localhost\r\n\r\n", 200, NULL},
    {"a query", "GET /hello?a=b HTTP/1.1\r\nHost: localhost:8080\r\n\r\n", 200, NULL},
    {"an empty line before", "\r\n" GET "\r\n", 200, NULL},
    {"spaces around a value", "GET /hello HTTP/1.1\r\nHost: \t localhost \t\r\n\r\n", 200,
     NULL},
    {"an empty value", GET "A:\r\n\r\n", 200, NULL},
    {"an offer of another protocol", GET "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", 200,
     NULL},
    {"a length", POST "Content-Length: 3\r\n\r\nabc", 200, NULL},
    {"a length with zeros", POST "Content-Length: 0003\r\n\r\nabc", 200, NULL},
    {"a length of zero", POST "Content-Length: 0\r\n\r\n", 200, NULL},
    {"chunks", CHUNKED "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, NULL},
    {"a chunk with an extension", CHUNKED "3;a=b;c=\"d e\"\r\nabc\r\n0\r\n\r\n", 200, NULL},
    {"chunks with a trailer", CHUNKED "3\r\nabc\r\n0\r\nHost: other\r\n\r\n", 200, NULL},
    {"no chunk", CHUNKED "0\r\n\r\n", 200, NULL},
};

/* ---- lists ---- */

static void add_bytes(struct http_requests *list, const struct row *row, char *bytes,
                      size_t count)
{
    struct http_request_case *item = &list->item[list->count];
    if (list->count == HTTP_REQUESTS_MAX) {
        fputs("too many requests for their list\n", stderr);
        abort();
    }
    *item = (struct http_request_case){row->name, bytes, count, row->status, row->code, ""};
    if (row->code == NULL &&
        (strstr(bytes, "abc") != NULL || strstr(bytes, "\r\nab\r\n") != NULL))
        item->body = "abc";
    list->count++;
}

static void add_row(struct http_requests *list, const struct row *row)
{
    size_t count = strlen(row->text);
    size_t after = row->code == NULL ? 0 : strlen(HTTP_SMUGGLED);
    char *bytes = runner_allocate(count + after + 1, 1);
    memcpy(bytes, row->text, count);
    for (size_t i = 0; i < count; i++)
        if (bytes[i] == '\1' && row->text[0] != '\x16')
            bytes[i] = '\0';
    memcpy(bytes + count, HTTP_SMUGGLED, after);
    add_bytes(list, row, bytes, count + after);
}

/* `text` with %s replaced by `times` copies of `unit`. */
static void add_long(struct http_requests *list, const struct row *row, const char *unit,
                     int times)
{
    char *bytes = NULL;
    size_t count = 0;
    FILE *stream = open_memstream(&bytes, &count);
    const char *place = strstr(row->text, "%s");
    fwrite(row->text, 1, (size_t)(place - row->text), stream);
    for (int i = 0; i < times; i++)
        fputs(unit, stream);
    fputs(place + 2, stream);
    if (row->code != NULL)
        fputs(HTTP_SMUGGLED, stream);
    fclose(stream);
    add_bytes(list, row, bytes, count);
}

void http_requests_refused(struct http_requests *out)
{
    static const struct row large[] = {
        {"a path of 1025 bytes", "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", 414,
         "uri_too_long"},
        {"a path of 20000 bytes", "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", 414,
         "uri_too_long"},
        {"65 header lines", GET "%s\r\n", 431, "header_too_large"},
        {"a header of 16385 bytes", GET "A: %s\r\n\r\n", 431, "header_too_large"},
        {"a chunk extension of 16 KiB", CHUNKED "3;a=%s\r\nabc\r\n0\r\n\r\n", 431,
         "header_too_large"},
        {"a trailer of 16 KiB", CHUNKED "3\r\nabc\r\n0\r\nA: %s\r\n\r\n", 431,
         "header_too_large"},
        {"a length of 4 MiB and 1", POST "Content-Length: 4194305\r\n\r\n%s", 413,
         "body_too_large"},
    };
    /* the header without the letters of its last value */
    int fixed = (int)strlen(GET "A: \r\n\r\n");
    *out = (struct http_requests){0};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        add_row(out, &refused[i]);
    add_long(out, &large[0], "p", 1024);
    add_long(out, &large[1], "p", 20000);
    add_long(out, &large[2], "A: b\r\n", 64);
    add_long(out, &large[3], "v", 16385 - fixed);
    add_long(out, &large[4], "v", 16384);
    add_long(out, &large[5], "v", 16384);
    add_long(out, &large[6], "b", 1);
}

void http_requests_taken(struct http_requests *out)
{
    static const struct row large[] = {
        {"a path of 1024 bytes", "GET /hello?%s HTTP/1.1\r\nHost: localhost\r\n\r\n", 200,
         NULL},
        {"64 header lines", GET "%s\r\n", 200, NULL},
        {"a header of 16384 bytes", GET "A: %s\r\n\r\n", 200, NULL},
        {"a trailer after a long header",
         POST "A: %s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
              "B: 0123456789012345678901234567890123456789012345678901234567890123\r\n\r\n",
         200, NULL},
    };
    int fixed = (int)strlen(GET "A: \r\n\r\n");
    *out = (struct http_requests){0};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        add_row(out, &taken[i]);
    add_long(out, &large[0], "p", 1024 - 7);
    add_long(out, &large[1], "A: b\r\n", 63);
    add_long(out, &large[2], "v", 16384 - fixed);
    add_long(out, &large[3], "v", 16384 - fixed - 40);
}

void http_requests_release(struct http_requests *requests)
{
    for (int i = 0; i < requests->count; i++)
        free(requests->item[i].bytes);
    requests->count = 0;
}
