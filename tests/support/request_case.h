/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Bodies of requests against the catalog of serve_case.h. A failure fails the test.
 */
#pragma once

#include "serve_case.h"

#define REQUEST_CASE_CLIENT 7

extern struct serve_case request_world;          /* open while a group of tests runs */
extern struct mpo_serve_refusal request_refusal; /* of the last body */

/** Set-up and tear-down of a group. */
int request_case_open(void **state);
int request_case_close(void **state);

/** Parse; the request is owned by the caller; NULL: refused. */
struct mpo_serve_request *request_parse(enum mpo_serve_kind kind, const char *body);

/** The least body of a kind, the prompt "a b", with more members. */
struct mpo_serve_request *request_parse_with(enum mpo_serve_kind kind, const char *members);

/** The same, which must be taken. */
struct mpo_serve_request *request_expect(enum mpo_serve_kind kind, const char *members);
void request_expect_taken(enum mpo_serve_kind kind, const char *members);

/** The same, which must be refused so. @param word  in the message */
void request_expect_refused(enum mpo_serve_kind kind, const char *members, const char *code,
                            const char *param, const char *word);
