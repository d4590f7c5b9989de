/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a request gets no answer: status, code and words of one refusal, and its JSON.
 *
 * A message may quote what a client sent, cut anywhere; it is mended before it becomes JSON,
 * which can hold UTF-8 alone.
 */
#include "serve_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/utf8.h"

#define RETRY_SECONDS 5 /* of a server that is not ready, or not any more */

static const char *type_of(int http_status)
{
    switch (http_status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    default:
        return http_status >= 500 ? "server_error" : "invalid_request_error";
    }
}

void mpo_serve_refuse(struct mpo_serve_refusal *refusal, int http_status, const char *code,
                      const char *param, const char *format, ...)
{
    va_list arguments;
    if (refusal->http_status != 0)
        return;
    *refusal = (struct mpo_serve_refusal){
        .http_status = http_status,
        .type = type_of(http_status),
        .code = code,
        .retry_after_seconds = http_status == 503   ? RETRY_SECONDS
                               : http_status == 429 ? 1
                                                    : 0,
        .never_retry = http_status == 504 || strcmp(code, "row_failed") == 0,
    };
    snprintf(refusal->param, sizeof refusal->param, "%s", param != NULL ? param : "");
    va_start(arguments, format);
    vsnprintf(refusal->message, sizeof refusal->message, format, arguments);
    va_end(arguments);
}

/* Owned by the caller; NULL without memory. */
static json_t *mended(const char *text)
{
    char room[sizeof((struct mpo_serve_refusal *)0)->message * MPO_UTF8_REPAIR_FACTOR + 1];
    size_t bytes = strlen(text);
    memcpy(room, text, bytes + 1);
    mpo_utf8_repair(room, (int32_t)bytes);
    return json_string(room);
}

char *mpo_serve_refusal_json(const struct mpo_serve_refusal *refusal)
{
    json_t *param = refusal->param[0] != '\0' ? mended(refusal->param) : json_null();
    json_t *body =
        json_pack("{s:{s:o, s:s, s:o, s:s}}", "error", "message", mended(refusal->message),
                  "type", refusal->type, "param", param, "code", refusal->code);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}
