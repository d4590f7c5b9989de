/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors in the shape that clients of OpenAI's interface read. Knows no connection.
 *
 * A message and a field may quote what a client sent, cut anywhere; they are mended before
 * they become JSON, which can hold UTF-8 alone.
 */
#include "http.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static const char *find_error_type(int status)
{
    if (status >= 500)
        return "server_error";
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    default:
        return "invalid_request_error";
    }
}

/* NULL without memory. */
static json_t *mend_text(const char *text)
{
    size_t bytes = strlen(text);
    char *room = malloc(MPO_UTF8_REPAIR_FACTOR * bytes + 1);
    json_t *mended = NULL;
    if (room == NULL)
        return NULL;
    memcpy(room, text, bytes + 1);
    mpo_utf8_repair(room, (int32_t)bytes);
    mended = json_string(room);
    free(room);
    return mended;
}

char *mpo_http_error_body(const struct mpo_http_error *error)
{
    json_t *param = error->param != NULL ? mend_text(error->param) : json_null();
    json_t *root = json_pack(
        "{s: {s: o, s: s, s: o, s: s}}", "error", "message", mend_text(error->message),
        "type", find_error_type(error->status), "param", param, "code", error->code);
    char *body = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return body;
}
