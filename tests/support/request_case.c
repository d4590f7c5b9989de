/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of requests.
 */
#include "request_case.h"

#include <stdio.h>
#include <string.h>

#include "runner.h"

#define BODY_BYTES (1 << 16)

struct serve_case request_world;
struct mpo_serve_refusal request_refusal;

int request_case_open(void **state)
{
    (void)state;
    serve_case_open(&request_world);
    return 0;
}

int request_case_close(void **state)
{
    (void)state;
    serve_case_close(&request_world);
    return 0;
}

struct mpo_serve_request *request_parse(enum mpo_serve_kind kind, const char *body)
{
    struct mpo_serve_request *request = NULL;
    const struct mpo_serve_body sent = {kind, body, strlen(body), REQUEST_CASE_CLIENT};
    mpo_serve_request_parse(&request_world.catalog, &sent, &request, &request_refusal);
    assert_true((request == NULL) == (request_refusal.http_status != 0));
    return request;
}

struct mpo_serve_request *request_parse_with(enum mpo_serve_kind kind, const char *members)
{
    static const char *const begin[] = {
        [MPO_SERVE_CHAT] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a b\"}]",
        [MPO_SERVE_COMPLETION] = "{\"prompt\": \"a b\"",
    };
    static char body[BODY_BYTES];
    assert_true(snprintf(body, sizeof body, "%s%s%s}", begin[kind],
                         *members != '\0' ? ", " : "", members) < BODY_BYTES);
    return request_parse(kind, body);
}

struct mpo_serve_request *request_expect(enum mpo_serve_kind kind, const char *members)
{
    struct mpo_serve_request *request = request_parse_with(kind, members);
    if (request == NULL)
        fail_msg("%s: %s", members, request_refusal.message);
    return request;
}

void request_expect_taken(enum mpo_serve_kind kind, const char *members)
{
    struct mpo_serve_request *request = request_expect(kind, members);
    mpo_serve_request_close(&request);
}

void request_expect_refused(enum mpo_serve_kind kind, const char *members, const char *code,
                            const char *param, const char *word)
{
    const struct mpo_serve_refusal *refusal = &request_refusal;
    struct mpo_serve_request *request = request_parse_with(kind, members);
    if (request != NULL)
        fail_msg("%s: taken", members);
    if (strcmp(refusal->code, code) != 0 || strcmp(refusal->param, param) != 0 ||
        strstr(refusal->message, word) == NULL)
        fail_msg("%s: %s, %s, %s; expected %s, %s, %s", members, refusal->code,
                 refusal->param, refusal->message, code, param, word);
    assert_int_equal(refusal->http_status,
                     strcmp(code, "model_not_found") == 0 ? 404 : 400);
}
