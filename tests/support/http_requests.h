/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Requests that a server must refuse, and such that it must take, as bytes. Every refused one
 * is followed by another request, which a server that is fooled about the end of the first
 * would answer too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/** What follows a refused request, and must not be answered. */
#define HTTP_SMUGGLED "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

struct http_request_case {
    const char *name;
    char *bytes; /* owned by the list */
    size_t count;
    int status;       /* of the answer */
    const char *code; /* of the error; NULL: taken */
    const char *body; /* of the request, where it is taken */
};

#define HTTP_REQUESTS_MAX 128

struct http_requests {
    struct http_request_case item[HTTP_REQUESTS_MAX];
    int count;
};

/** Requests that are refused, and after which the connection is closed. */
void http_requests_refused(struct http_requests *out);

/** Requests that are taken: for /echo, which says the body, and for /hello. */
void http_requests_taken(struct http_requests *out);

void http_requests_release(struct http_requests *requests);
