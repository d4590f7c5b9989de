/* SPDX-License-Identifier: Apache-2.0 */
/**
 * One request out of bytes that come in any pieces. Knows no sockets: the fuzz target feeds it.
 *
 * A parser is made when a request begins and released when its answer is out. It stops
 * twice: after the header, so that what can be refused is refused before its body is read,
 * and after the body, so that the next request of the connection is left alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/status.h"
#include "http.h"

enum mpo_http_stage {
    MPO_HTTP_IN_HEADER,
    MPO_HTTP_HEADER_DONE, /* stopped; mpo_http_parser_go_on */
    MPO_HTTP_IN_BODY,
    MPO_HTTP_WHOLE, /* stopped for good */
    MPO_HTTP_BROKEN /* refused; what follows cannot be read either */
};

/** Why a request is refused here; status 0: it is not. */
struct mpo_http_refusal {
    int status;
    const char *code;
    const char *message; /* a constant, or `text`, or owned by what outlives this */
    char text[320];
};

struct mpo_http_parser;

/** What has been read, from HEADER_DONE on; owned by the parser. */
struct mpo_http_head {
    const char *method; /* "GET"; "-" before it is known */
    const char *target; /* path and query as they were sent; "-" before it is known */
    char *path;         /* without the query */
    const char *query;  /* after ?; "" */
    const char *host;
    bool has_chunks;  /* HTTP/1.1, which knows them */
    bool keeps_alive; /* the client wants to send more */
    bool has_body;    /* bytes or chunks follow the header */
    bool expects_continue;
};

/** @param limits  borrowed; no field is 0 */
enum mpo_status mpo_http_parser_open(const struct mpo_http_limits *limits,
                                     struct mpo_http_parser **out);
void mpo_http_parser_close(struct mpo_http_parser **parser);

/**
 * Read bytes until they end or the parser stops. Local. The same bytes in any pieces lead to
 * the same end.
 *
 * @param taken  out: how many were read
 * @return MPO_ERR_MEMORY; what is wrong with the bytes is no failure but stage BROKEN
 */
enum mpo_status mpo_http_parser_feed(struct mpo_http_parser *parser, const char *bytes,
                                     size_t count, size_t *taken);

/** Let it read the body; after HEADER_DONE. */
void mpo_http_parser_go_on(struct mpo_http_parser *parser);

enum mpo_http_stage mpo_http_parser_stage(const struct mpo_http_parser *parser);
const struct mpo_http_head *mpo_http_parser_head(const struct mpo_http_parser *parser);
const struct mpo_http_refusal *
mpo_http_parser_refusal(const struct mpo_http_parser *parser);

/** The first header of that name, in any case; NULL. From HEADER_DONE on. */
const char *mpo_http_parser_field(const struct mpo_http_parser *parser, const char *name);

/** The body so far, ended by a NUL, "" where there is none. */
const char *mpo_http_parser_body(const struct mpo_http_parser *parser, size_t *bytes);

/** Bytes of memory that the body takes. */
size_t mpo_http_parser_room(const struct mpo_http_parser *parser);

/** Release the body; header and path stay. */
void mpo_http_parser_drop_body(struct mpo_http_parser *parser);
