/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls: requests that draw or score, until the last byte.
 *
 * A call outlives its client. The decode thread may still send events of a request that was
 * cancelled, so everything is kept until its DONE. Where there are several groups, a call waits
 * here until one of them has room (dispatch.h), and ends here if it is cancelled or late
 * meanwhile.
 */
#include "server_impl.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/timing.h"

/* ---- the list ---- */

static void link_call(struct mpo_server *server, struct server_call *call)
{
    call->next = server->call;
    if (server->call != NULL)
        server->call->previous = call;
    server->call = call;
    server->call_count++;
    server->waiting_count++;
    server->waiting_of[call->request->client]++;
}

static void leave_queue(struct mpo_server *server, struct server_call *call)
{
    if (call->is_seated)
        return;
    call->is_seated = true;
    server->waiting_count--;
    server->waiting_of[call->request->client]--;
}

static void free_call(struct mpo_server *server, struct server_call *call)
{
    leave_queue(server, call);
    mpo_dispatch_end(server->dispatch, &call->entry);
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        server->call = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
    server->call_count--;
    if (call->http != NULL)
        call->http->context = NULL;
    mpo_answer_close(&call->answer);
    mpo_serve_request_close(&call->request);
    free(call);
}

/* ---- metrics ---- */

static void count_metric(const struct mpo_server *server, enum mpo_metric metric,
                         int32_t series, double value)
{
    mpo_metrics_add(server->engine.metrics, metric, series, value);
}

static void observe_metric(const struct mpo_server *server, const struct server_call *call,
                           enum mpo_metric metric, double value)
{
    mpo_metrics_observe(server->engine.metrics, metric, call->series, value);
}

static void count_token(struct mpo_server *server, struct server_call *call)
{
    double now = mpo_timing_now();
    if (call->first_token == 0.0) {
        call->first_token = now;
        observe_metric(server, call, MPO_METRIC_TIME_TO_FIRST_TOKEN, now - call->arrived);
        observe_metric(server, call, MPO_METRIC_REQUEST_PREFILL_TIME, now - call->seated);
    } else {
        observe_metric(server, call, MPO_METRIC_INTER_TOKEN_LATENCY,
                       now - call->last_token);
    }
    call->last_token = now;
    count_metric(server, MPO_METRIC_GENERATION_TOKENS, call->series, 1.0);
}

static void count_seat(struct mpo_server *server, struct server_call *call,
                       const struct mpo_serve_event *event)
{
    int32_t longest = 0;
    for (int32_t h = 0; h < server->engine.catalog->policy_count; h++)
        longest = event->length[h] > longest ? event->length[h] : longest;
    count_metric(server, MPO_METRIC_PROMPT_TOKENS, call->series, longest);
    count_metric(server, MPO_METRIC_PREFIX_CACHE_QUERIES, call->series, longest);
    count_metric(server, MPO_METRIC_PREFIX_CACHE_HITS, call->series, event->cached_tokens);
    mpo_dispatch_seat(server->dispatch, &call->entry, longest - event->cached_tokens);
    if (call->seated != 0.0)
        return;
    call->seated = mpo_timing_now();
    observe_metric(server, call, MPO_METRIC_REQUEST_QUEUE_TIME,
                   call->seated - call->arrived);
    count_metric(server, MPO_METRIC_NUM_REQUESTS_WAITING, call->series, -1.0);
    count_metric(server, MPO_METRIC_NUM_REQUESTS_RUNNING, call->series, 1.0);
}

static void count_end(struct mpo_server *server, struct server_call *call)
{
    struct mpo_answer_usage usage = {0};
    enum mpo_metric gauge = call->seated == 0.0 ? MPO_METRIC_NUM_REQUESTS_WAITING
                                                : MPO_METRIC_NUM_REQUESTS_RUNNING;
    count_metric(server, gauge, call->series, -1.0);
    mpo_answer_usage(call->answer, &usage);
    if (call->request->refusal.http_status != 0)
        count_metric(server, MPO_METRIC_REQUESTS_REFUSED,
                     (int32_t)mpo_metrics_code(call->request->refusal.code), 1.0);
    if (call->is_cancelled || call->request->refusal.http_status != 0)
        return;
    observe_metric(server, call, MPO_METRIC_E2E_REQUEST_LATENCY,
                   mpo_timing_now() - call->arrived);
    observe_metric(server, call, MPO_METRIC_REQUEST_PROMPT_TOKENS,
                   (double)usage.prompt_tokens);
    observe_metric(server, call, MPO_METRIC_REQUEST_GENERATION_TOKENS,
                   (double)usage.completion_tokens);
    if (call->first_token != 0.0)
        observe_metric(server, call, MPO_METRIC_REQUEST_DECODE_TIME,
                       call->last_token - call->first_token);
}

/* ---- what is ready is sent ---- */

#define FIELD_COUNT 4

struct head {
    struct mpo_http_field field[FIELD_COUNT];
    int32_t field_count;
    char retry[16];
};

static void add_field(struct head *head, const char *name, const char *value)
{
    head->field[head->field_count++] = (struct mpo_http_field){name, value};
}

static void fill_head(const struct server_call *call, const struct mpo_answer_ready *ready,
                      struct head *head)
{
    const struct mpo_serve_refusal *refusal = ready->refusal;
    add_field(head, "X-Request-Id", call->request->id);
    if (call->request->ignored[0] != '\0')
        add_field(head, "X-Mpo-Ignored", call->request->ignored);
    if (refusal != NULL && refusal->retry_after_seconds > 0) {
        snprintf(head->retry, sizeof head->retry, "%d", refusal->retry_after_seconds);
        add_field(head, "Retry-After", head->retry);
    }
    if (refusal != NULL && refusal->never_retry)
        add_field(head, "x-should-retry", "false");
}

static void cancel_call(struct mpo_server *server, struct server_call *call,
                        enum mpo_metric_cause cause)
{
    if (call->is_cancelled)
        return;
    call->is_cancelled = true;
    count_metric(server, MPO_METRIC_REQUESTS_CANCELLED, (int32_t)cause, 1.0);
    if (call->entry.group >= 0)
        mpo_link_cancel(server->engine.link[call->entry.group], call->request);
}

static void send_whole(struct server_call *call, const struct mpo_answer_ready *ready)
{
    struct head head = {0};
    fill_head(call, ready, &head);
    mpo_http_answer(call->http,
                    &(struct mpo_http_answer){.status = ready->http_status,
                                              .content_type = "application/json",
                                              .field = head.field,
                                              .field_count = head.field_count,
                                              .body = ready->bytes,
                                              .body_bytes = ready->count});
}

static void begin_stream(struct server_call *call, const struct mpo_answer_ready *ready)
{
    struct head head = {0};
    fill_head(call, ready, &head);
    add_field(&head, "Cache-Control", "no-cache");
    mpo_http_begin(call->http,
                   &(struct mpo_http_answer){.status = ready->http_status,
                                             .content_type = "text/event-stream",
                                             .field = head.field,
                                             .field_count = head.field_count});
    call->has_begun = true;
}

static void send_ready(struct mpo_server *server, struct server_call *call)
{
    struct mpo_answer_ready ready = {0};
    mpo_answer_ready(call->answer, &ready);
    if (ready.is_lost)
        cancel_call(server, call, MPO_METRIC_CAUSE_MEMORY);
    if (call->http == NULL || ready.http_status == 0)
        return;
    if (!ready.is_stream && !ready.is_complete)
        return;
    if (!ready.is_stream) {
        send_whole(call, &ready);
    } else {
        if (!call->has_begun)
            begin_stream(call, &ready);
        mpo_http_write(call->http, ready.bytes, ready.count);
        if (ready.is_complete)
            mpo_http_end(call->http);
    }
    if (ready.is_complete)
        call->http = NULL;
    mpo_answer_sent(call->answer);
}

/* ---- groups ---- */

/* A prompt's tokens are not known before a policy has made them. */
#define BYTES_A_TOKEN 4

static void describe_chat(const struct mpo_serve_request *request,
                          struct mpo_dispatch_entry *entry)
{
    for (int32_t i = 0; i < request->chat.message_count; i++) {
        const struct mpo_message *message = &request->chat.messages[i];
        mpo_dispatch_add(&entry->prompt, message->role, strlen(message->role) + 1);
        mpo_dispatch_add(&entry->prompt, message->content, strlen(message->content) + 1);
        entry->tokens += (int64_t)strlen(message->content) / BYTES_A_TOKEN;
    }
}

static void enter_line(struct mpo_server *server, struct server_call *call)
{
    const struct mpo_serve_request *request = call->request;
    struct mpo_dispatch_entry *entry = &call->entry;
    entry->client = request->client;
    entry->prompt_count = request->prompt_count;
    entry->prompt_rows = mpo_serve_choices(request);
    entry->isolated = request->isolated;
    if (request->kind == MPO_SERVE_CHAT)
        describe_chat(request, entry);
    else
        mpo_dispatch_add(&entry->prompt, request->prompt[0].token,
                         (size_t)request->prompt[0].token_count *
                             sizeof *request->prompt[0].token);
    for (int32_t i = 0; request->kind != MPO_SERVE_CHAT && i < request->prompt_count; i++)
        entry->tokens += request->prompt[i].token_count;
    mpo_dispatch_enter(server->dispatch, entry);
}

static struct server_call *call_of(struct mpo_dispatch_entry *entry)
{
    return (void *)((char *)entry - offsetof(struct server_call, entry));
}

/* Who can leave the line goes to its group. */
static void hand_over(struct mpo_server *server)
{
    struct mpo_dispatch_entry *entry = NULL;
    double now = mpo_timing_now();
    if (server->has_stopped || server->state == SERVER_LOST)
        return;
    while ((entry = mpo_dispatch_take(server->dispatch)) != NULL) {
        struct server_call *call = call_of(entry);
        call->request->waited_seconds = now - call->entered;
        mpo_link_submit(server->engine.link[entry->group], call->request);
    }
}

/* ---- a call begins ---- */

bool server_is_full(const struct mpo_server *server, int32_t client,
                    struct mpo_serve_refusal *refusal)
{
    int32_t most = server->max_waiting;
    int32_t share = server->engine.client_count > 1 ? (most + 1) / 2 : most;
    bool full = server->waiting_count >= most;
    if (full || server->waiting_of[client] >= share) {
        mpo_serve_refuse(refusal, 429, "queue_full", "",
                         "%d requests%s wait for rows already; try again later, or raise "
                         "serve.queue",
                         full ? most : share, full ? "" : " with this key");
        refusal->retry_after_seconds = 1 + server->waiting_count / 16;
        if (refusal->retry_after_seconds > 60)
            refusal->retry_after_seconds = 60;
    }
    return refusal->http_status != 0;
}

static struct server_call *make_call(struct mpo_server *server,
                                     struct mpo_serve_request *request)
{
    struct server_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return NULL;
    if (mpo_answer_open(server->engine.catalog, request, server->engine.fingerprint,
                        &call->answer) != MPO_OK) {
        free(call);
        return NULL;
    }
    call->request = request;
    call->entered = mpo_timing_now();
    request->owner = call;
    enter_line(server, call);
    return call;
}

void server_begin_call(struct mpo_server *server, struct mpo_http_request *http,
                       struct mpo_serve_request *request, double arrived)
{
    struct server_call *call = make_call(server, request);
    if (call == NULL) {
        struct mpo_serve_refusal refusal = {0};
        mpo_serve_refuse(&refusal, 500, "out_of_memory", "",
                         "there is no memory for the answer; try again later");
        mpo_serve_request_close(&request);
        server_refuse(server, http, &refusal);
        return;
    }
    call->http = http;
    call->arrived = arrived;
    call->series = mpo_metrics_model(server->engine.metrics, request->model);
    http->context = call;
    link_call(server, call);
    count_metric(server, MPO_METRIC_NUM_REQUESTS_WAITING, call->series, 1.0);
    hand_over(server);
}

/* ---- events ---- */

static void handle_event(struct mpo_server *server, struct server_call *call,
                         const struct mpo_serve_event *event)
{
    if (event->kind == MPO_SERVE_SEATED) {
        leave_queue(server, call);
        count_seat(server, call, event);
    } else if (event->kind == MPO_SERVE_TOKEN) {
        count_token(server, call);
        mpo_dispatch_draw(server->dispatch, &call->entry);
    } else if (event->kind == MPO_SERVE_GIVEN) {
        count_metric(server, MPO_METRIC_SCORED_POSITIONS, call->series, 1.0);
    } else if (event->kind == MPO_SERVE_CHOICE) {
        count_metric(server, MPO_METRIC_REQUEST_SUCCESS,
                     mpo_metrics_finish(call->series, mpo_metrics_finish_of(event->finish)),
                     1.0);
        mpo_dispatch_leave(server->dispatch, &call->entry);
    }
    mpo_answer_take(call->answer, event);
}

static void end_call(struct mpo_server *server, struct server_call *call)
{
    count_end(server, call);
    free_call(server, call);
}

static void take_events(struct mpo_server *server, struct mpo_link *link)
{
    const struct mpo_serve_event *event = NULL;
    int32_t count_events = mpo_link_take(link, &event);
    for (int32_t i = 0; i < count_events; i++) {
        struct server_call *call = event[i].request->owner;
        bool is_last = i + 1 == count_events || event[i + 1].request != event[i].request;
        bool is_done = event[i].kind == MPO_SERVE_DONE;
        handle_event(server, call, &event[i]);
        if (is_last || is_done)
            send_ready(server, call);
        if (is_done)
            end_call(server, call);
    }
}

void server_take_events(struct mpo_server *server)
{
    for (int32_t group = 0; group < server->engine.group_count; group++)
        take_events(server, server->engine.link[group]);
    hand_over(server);
}

/* ---- calls that no group has ---- */

static void refuse_call(struct mpo_server *server, struct server_call *call)
{
    const struct mpo_serve_event refused = {.request = call->request,
                                            .kind = MPO_SERVE_REFUSED,
                                            .choice = -1,
                                            .refusal = &call->request->refusal};
    mpo_answer_take(call->answer, &refused);
    send_ready(server, call);
    end_call(server, call);
}

/* Clocks run in the order in which calls came. */
void server_end_line(struct mpo_server *server, bool stops)
{
    struct mpo_dispatch_entry *entry = NULL;
    double now = mpo_timing_now();
    while ((entry = mpo_dispatch_first(server->dispatch)) != NULL) {
        struct server_call *call = call_of(entry);
        if (stops)
            mpo_serve_refuse_stopping(&call->request->refusal);
        mpo_serve_refuse_late(call->request, now - call->entered,
                              &(struct mpo_serve_patience){
                                  .queue_seconds = server->config->serve.queue_seconds,
                                  .deadline_seconds = server->config->serve.deadline});
        if (call->request->refusal.http_status == 0)
            break;
        refuse_call(server, call);
    }
}

void server_pause_call(struct mpo_server *server, struct server_call *call, bool pauses)
{
    if (call->entry.group >= 0)
        mpo_link_pause(server->engine.link[call->entry.group], call->request, pauses);
}

void server_lose_client(struct mpo_server *server, struct server_call *call)
{
    call->http = NULL;
    cancel_call(server, call, MPO_METRIC_CAUSE_CLIENT);
    if (call->entry.group < 0)
        end_call(server, call);
}

void server_lose_peer(struct mpo_server *server)
{
    struct mpo_serve_refusal refusal = {0};
    mpo_serve_refuse(&refusal, 503, "peer_lost", "",
                     "the server lost one of its ranks and is stopping; try again "
                     "later");
    for (struct server_call *call = server->call; call != NULL; call = call->next) {
        mpo_answer_refuse(call->answer, &refusal);
        send_ready(server, call);
    }
}
