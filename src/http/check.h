/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What of a request follows from its header alone: may this Host, this page, this key; which
 * route. Knows no sockets.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"
#include "http.h"
#include "keys.h"
#include "origins.h"
#include "parse.h"

/** What requests are held against; all borrowed but what rules_open makes. */
struct mpo_http_rules {
    const struct mpo_http_route *route; /* [route_count] */
    int32_t route_count;
    struct mpo_http_origins *origins;
    struct mpo_http_keys *keys; /* NULL: there are none */
    char *no_such_path;         /* owned: the message that lists the routes */
};

/** Methods of a path in Allow at most: "GET, HEAD, POST, OPTIONS". */
#define MPO_HTTP_ALLOW_BYTES 32

/** What is made of a header. */
struct mpo_http_verdict {
    struct mpo_http_refusal refusal; /* status 0: it is for the route */
    enum mpo_http_method method;
    int32_t route;                    /* -1: none */
    const char *rest;                 /* decoded in the place of the path; "" */
    int32_t key_index;                /* -1: no key */
    const char *key;                  /* its name; NULL */
    const char *origin;               /* to be named as allowed; NULL: no headers of CORS */
    char allow[MPO_HTTP_ALLOW_BYTES]; /* methods of the path, for 405 and OPTIONS */
};

/** Check the routes and make what is made of them. Local. */
enum mpo_status mpo_http_rules_open(const struct mpo_http_spec *spec,
                                    struct mpo_http_rules *rules);
void mpo_http_rules_close(struct mpo_http_rules *rules);

/** Hold a header against the rules; after HEADER_DONE, once. Local. */
void mpo_http_check(const struct mpo_http_rules *rules,
                    const struct mpo_http_parser *parser, struct mpo_http_verdict *out);
