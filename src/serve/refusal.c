/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a request gets no answer: status, code and words of one refusal.
 */
#include "serve_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RETRY_SECONDS 5 /* of a server that is not ready, or not any more */

void mpo_serve_refuse(struct mpo_serve_refusal *refusal, int http_status, const char *code,
                      const char *param, const char *format, ...)
{
    va_list arguments;
    if (refusal->http_status != 0)
        return;
    *refusal = (struct mpo_serve_refusal){
        .http_status = http_status,
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

struct mpo_http_error mpo_serve_refusal_error(const struct mpo_serve_refusal *refusal)
{
    return (struct mpo_http_error){
        .status = refusal->http_status,
        .code = refusal->code,
        .param = refusal->param[0] != '\0' ? refusal->param : NULL,
        .message = refusal->message,
        .retry_after = refusal->retry_after_seconds,
        .never_retry = refusal->never_retry,
    };
}

void mpo_serve_refuse_stopping(struct mpo_serve_refusal *refusal)
{
    mpo_serve_refuse(refusal, 503, "draining", "",
                     "the server is stopping; try again later");
}

void mpo_serve_refuse_late(struct mpo_serve_request *request, double waited_seconds,
                           const struct mpo_serve_patience *patience)
{
    double queue = patience->queue_seconds;
    double deadline = patience->deadline_seconds;
    if (request->seated_prompts == 0 && queue > 0.0 && waited_seconds > queue)
        mpo_serve_refuse(&request->refusal, 503, "queue_timeout", "",
                         "the request has waited %.0f s for free rows; try again later, or "
                         "raise serve.queue_seconds or serve.rows",
                         queue);
    if (deadline > 0.0 && waited_seconds > deadline) {
        mpo_serve_refuse(&request->refusal, 504, "deadline_exceeded", "",
                         "the response is not complete after %.0f s; ask for fewer tokens, "
                         "or raise serve.deadline",
                         deadline);
        request->refusal.never_retry = true;
    }
}
