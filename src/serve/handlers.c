/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes, and the answers that need no row. Nothing here waits: what takes long is a call
 * (calls.c).
 */
#include "server_impl.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/timing.h"
#include "models.h"
#include "mpo/comm.h"
#include "mpo/version.h"
#include "page.h"
#include "tokens.h"

/* ---- routes ---- */

enum route {
    ROUTE_CHAT,
    ROUTE_COMPLETIONS,
    ROUTE_MODELS,
    ROUTE_MODEL,
    ROUTE_TOKENIZE,
    ROUTE_DETOKENIZE,
    ROUTE_TOKENIZER_INFO,
    ROUTE_MPO,
    ROUTE_METRICS,
    ROUTE_HEALTH,
    ROUTE_VERSION,
    ROUTE_OPENAPI,
    ROUTE_PAGE, /* its files, in the order of page.def */
    ROUTE_COUNT = ROUTE_PAGE + MPO_PAGE_FILE_COUNT
};

const struct mpo_http_route server_routes[] = {
    [ROUTE_CHAT] = {MPO_HTTP_POST, "/v1/chat/completions", true},
    [ROUTE_COMPLETIONS] = {MPO_HTTP_POST, "/v1/completions", true},
    [ROUTE_MODELS] = {MPO_HTTP_GET, "/v1/models", true},
    [ROUTE_MODEL] = {MPO_HTTP_GET, "/v1/models/*", true},
    [ROUTE_TOKENIZE] = {MPO_HTTP_POST, "/tokenize", true},
    [ROUTE_DETOKENIZE] = {MPO_HTTP_POST, "/detokenize", true},
    [ROUTE_TOKENIZER_INFO] = {MPO_HTTP_GET, "/tokenizer_info", true},
    [ROUTE_MPO] = {MPO_HTTP_GET, "/v1/mpo", true},
    [ROUTE_METRICS] = {MPO_HTTP_GET, "/metrics", true},
    [ROUTE_HEALTH] = {MPO_HTTP_GET, "/health", false},
    [ROUTE_VERSION] = {MPO_HTTP_GET, "/version", false},
    [ROUTE_OPENAPI] = {MPO_HTTP_GET, "/openapi.json", false},
#define MPO_PAGE(path, name, type)                                                         \
    [ROUTE_PAGE + MPO_PAGE_FILE_##name] = {MPO_HTTP_GET, path, false},
#include "page.def"
#undef MPO_PAGE
};
const int32_t server_route_count = ROUTE_COUNT;

enum mpo_metric_path server_path_of(int32_t route)
{
    static const enum mpo_metric_path path[ROUTE_PAGE] = {
        [ROUTE_CHAT] = MPO_METRIC_PATH_CHAT,
        [ROUTE_COMPLETIONS] = MPO_METRIC_PATH_COMPLETIONS,
        [ROUTE_MODELS] = MPO_METRIC_PATH_MODELS,
        [ROUTE_MODEL] = MPO_METRIC_PATH_MODELS,
        [ROUTE_TOKENIZE] = MPO_METRIC_PATH_TOKENIZE,
        [ROUTE_DETOKENIZE] = MPO_METRIC_PATH_DETOKENIZE,
        [ROUTE_TOKENIZER_INFO] = MPO_METRIC_PATH_TOKENIZER_INFO,
        [ROUTE_MPO] = MPO_METRIC_PATH_MPO,
        [ROUTE_METRICS] = MPO_METRIC_PATH_METRICS,
        [ROUTE_HEALTH] = MPO_METRIC_PATH_HEALTH,
        [ROUTE_VERSION] = MPO_METRIC_PATH_VERSION,
        [ROUTE_OPENAPI] = MPO_METRIC_PATH_OPENAPI,
    };
    if (route >= ROUTE_PAGE && route < ROUTE_COUNT)
        return MPO_METRIC_PATH_PAGE;
    return route >= 0 && route < ROUTE_PAGE ? path[route] : MPO_METRIC_PATH_OTHER;
}

/* ---- answers ---- */

void server_refuse(struct mpo_server *server, struct mpo_http_request *http,
                   const struct mpo_serve_refusal *refusal)
{
    if (server->engine.metrics != NULL)
        mpo_metrics_add(server->engine.metrics, MPO_METRIC_REQUESTS_REFUSED,
                        (int32_t)mpo_metrics_code(refusal->code), 1.0);
    const struct mpo_http_error error = mpo_serve_refusal_error(refusal);
    mpo_http_refuse(http, &error);
}

static void refuse_for_memory(struct mpo_server *server, struct mpo_http_request *http)
{
    struct mpo_serve_refusal refusal = {0};
    mpo_serve_refuse(&refusal, 500, "out_of_memory", "",
                     "there is no memory for the answer; try again later");
    server_refuse(server, http, &refusal);
}

/* A text that was made for this answer; NULL: there was no memory. */
static void answer_text(struct mpo_server *server, struct mpo_http_request *http,
                        int status, const char *type, char *text)
{
    if (text == NULL) {
        refuse_for_memory(server, http);
        return;
    }
    mpo_http_answer(http, &(struct mpo_http_answer){.status = status,
                                                    .content_type = type,
                                                    .body = text,
                                                    .body_bytes = strlen(text)});
    free(text);
}

/* It takes milliseconds to make, in which nobody else would be served. */
static void answer_openapi(struct mpo_server *server, struct mpo_http_request *http)
{
    if (server->openapi == NULL) {
        refuse_for_memory(server, http);
        return;
    }
    mpo_http_answer(http, &(struct mpo_http_answer){.status = 200,
                                                    .content_type = "application/json",
                                                    .body = server->openapi,
                                                    .body_bytes = strlen(server->openapi)});
}

void server_answer_json(struct mpo_server *server, struct mpo_http_request *http,
                        char *text)
{
    answer_text(server, http, 200, "application/json", text);
}

static void answer_json(struct mpo_server *server, struct mpo_http_request *http,
                        int status, json_t *body)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    answer_text(server, http, status, "application/json", text);
}

/* ---- what the server is ---- */

static const char *state_name(int state)
{
    switch (state) {
    case SERVER_READY:
        return "ok";
    case SERVER_LOADING:
        return "loading";
    case SERVER_DRAINING:
        return "draining";
    default:
        return "lost";
    }
}

/* The longest round trip, and the longest time since a group was heard of. */
static void find_worst_group(const struct mpo_server *server, double *round_trip,
                             double *silence)
{
    double now = mpo_timing_now();
    for (int32_t g = 0; g < server->engine.group_count; g++) {
        struct mpo_link_use use = mpo_link_use(server->engine.link[g]);
        double heard = fmax(use.last_step, use.last_idle);
        *round_trip = fmax(*round_trip, use.round_trip);
        if (heard > 0.0)
            *silence = fmax(*silence, now - heard);
    }
}

static void answer_health(struct mpo_server *server, struct mpo_http_request *http)
{
    int state = server->state;
    json_t *body = json_pack("{s:s}", "status", state_name(state));
    if (state == SERVER_READY) {
        double round_trip = 0.0;
        double silence = 0.0;
        find_worst_group(server, &round_trip, &silence);
        json_object_set_new(body, "ranks", json_integer(server->engine.rank_count));
        json_object_set_new(body, "round_trip_seconds", json_real(round_trip));
        if (silence > 0.0)
            json_object_set_new(body, "heard_seconds_ago", json_real(silence));
    }
    answer_json(server, http, state == SERVER_READY ? 200 : 503, body);
}

static void add_use(struct mpo_link_use *sum, const struct mpo_link_use *more)
{
    sum->rows_live += more->rows_live;
    sum->rows_paused += more->rows_paused;
    sum->requests_running += more->requests_running;
    sum->requests_waiting += more->requests_waiting;
    sum->cells_used += more->cells_used;
    sum->rows_kept += more->rows_kept;
    sum->cells_kept += more->cells_kept;
    sum->steps += more->steps;
}

static json_t *describe_use(const struct mpo_server *server, const struct mpo_link_use *use,
                            int32_t group_count)
{
    const struct mpo_serve_catalog *catalog = server->engine.catalog;
    return json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:I, s:i, s:I, s:I, s:I}", "rows",
        group_count * catalog->row_capacity, "rows_live", use->rows_live, "rows_paused",
        use->rows_paused, "requests_running", use->requests_running, "requests_waiting",
        use->requests_waiting, "cells_used", (json_int_t)use->cells_used, "rows_kept",
        use->rows_kept, "cells_kept", (json_int_t)use->cells_kept, "steps",
        (json_int_t)use->steps, "max_model_len", (json_int_t)catalog->context_tokens);
}

/* All groups together, and each. */
static json_t *describe_uses(const struct mpo_server *server, json_t **groups)
{
    struct mpo_link_use sum = {0};
    *groups = json_array();
    for (int32_t g = 0; g < server->engine.group_count; g++) {
        struct mpo_link_use use = mpo_link_use(server->engine.link[g]);
        add_use(&sum, &use);
        json_array_append_new(*groups, describe_use(server, &use, 1));
    }
    sum.requests_waiting += mpo_dispatch_waiting(server->dispatch);
    return describe_use(server, &sum, server->engine.group_count);
}

/* What the page reads. */
static void answer_mpo(struct mpo_server *server, struct mpo_http_request *http)
{
    const struct mpo_serve_catalog *catalog = server->engine.catalog;
    json_t *policies = json_array();
    json_t *groups = NULL;
    json_t *use = describe_uses(server, &groups);
    for (int32_t h = 0; h < mpo_serve_named_count(catalog); h++)
        json_array_append_new(policies,
                              json_pack("{s:s, s:b, s:b}", "name", catalog->policy_name[h],
                                        "reference", h >= catalog->objective_count,
                                        "system", catalog->has_system[h]));
    answer_json(server, http, 200,
                json_pack("{s:o, s:s, s:o, s:o, s:i, s:o, s:s, s:s, s:s}", "policies",
                          policies, "mixture",
                          mpo_mixing_name(catalog->blend_name != NULL ? MPO_MIXING_ADAPTERS
                                                                      : MPO_MIXING_LOGITS),
                          "models", mpo_serve_models_list(catalog), "use", use, "groups",
                          server->engine.group_count, "group_use", groups, "version",
                          mpo_version(), "engine", mpo_policy_engine_version(),
                          "system_fingerprint", server->engine.fingerprint));
}

static void answer_version(struct mpo_server *server, struct mpo_http_request *http)
{
    answer_json(server, http, 200,
                json_pack("{s:s, s:s}", "version", mpo_version(), "engine",
                          mpo_policy_engine_version()));
}

/* ---- metrics ---- */

static void answer_metrics(struct mpo_server *server, struct mpo_http_request *http)
{
    size_t bytes = 0;
    mpo_metrics_set(server->engine.metrics, MPO_METRIC_HTTP_CONNECTIONS, 0,
                    mpo_http_connections(server->http));
    char *text = mpo_metrics_text(server->engine.metrics, &bytes);
    answer_text(server, http, 200, MPO_METRICS_CONTENT_TYPE, text);
}

/* ---- models and tokens ---- */

/* A body, or why there is none. */
static void answer_or_refuse(struct mpo_server *server, struct mpo_http_request *http,
                             char *body, const struct mpo_serve_refusal *refusal)
{
    if (refusal->http_status != 0)
        server_refuse(server, http, refusal);
    else
        answer_text(server, http, 200, "application/json", body);
}

static void answer_about_tokens(struct mpo_server *server, struct mpo_http_request *http)
{
    struct mpo_serve_refusal refusal = {0};
    const struct mpo_serve_catalog *catalog = server->engine.catalog;
    char *body = NULL;
    if (http->route == ROUTE_DETOKENIZE)
        body = mpo_serve_detokenize_json(catalog, http->body, http->body_bytes, &refusal);
    else
        body = mpo_serve_tokenizer_info_json(catalog, &refusal);
    answer_or_refuse(server, http, body, &refusal);
}

static void answer_model(struct mpo_server *server, struct mpo_http_request *http)
{
    struct mpo_serve_refusal refusal = {0};
    char *body = mpo_serve_model_json(server->engine.catalog, http->rest, &refusal);
    answer_or_refuse(server, http, body, &refusal);
}

/* ---- the page ---- */

static void answer_page(struct mpo_server *server, struct mpo_http_request *http,
                        const struct mpo_page_file *file)
{
    static const struct mpo_http_field field[] = {
        {"Content-Security-Policy",
         "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},
        {"Cache-Control", "no-cache"},
    };
    if (!server->config->serve.page) {
        struct mpo_serve_refusal refusal = {0};
        mpo_serve_refuse(&refusal, 404, "not_found", "",
                         "the page is off; start the server with --page=true");
        server_refuse(server, http, &refusal);
        return;
    }
    mpo_http_answer(http, &(struct mpo_http_answer){
                              .status = 200,
                              .content_type = file->content_type,
                              .field = field,
                              .field_count = (int32_t)(sizeof field / sizeof *field),
                              .body = file->bytes,
                              .body_bytes = file->count});
}

/* ---- dispatch ---- */

/* Endpoints that need models. */
static void handle_loaded(struct mpo_server *server, struct mpo_http_request *http)
{
    switch (http->route) {
    case ROUTE_CHAT:
        server_read_body(server, http, SERVER_CHAT);
        return;
    case ROUTE_COMPLETIONS:
        server_read_body(server, http, SERVER_COMPLETION);
        return;
    case ROUTE_TOKENIZE:
        server_read_body(server, http, SERVER_TOKENIZE);
        return;
    case ROUTE_MODELS:
        answer_text(server, http, 200, "application/json",
                    mpo_serve_models_json(server->engine.catalog));
        return;
    case ROUTE_MODEL:
        answer_model(server, http);
        return;
    case ROUTE_DETOKENIZE:
    case ROUTE_TOKENIZER_INFO:
        answer_about_tokens(server, http);
        return;
    case ROUTE_MPO:
        answer_mpo(server, http);
        return;
    case ROUTE_OPENAPI:
        answer_openapi(server, http);
        return;
    default:
        answer_metrics(server, http);
        return;
    }
}

static bool route_draws(int32_t route)
{
    return route == ROUTE_CHAT || route == ROUTE_COMPLETIONS;
}

bool server_refuses(struct mpo_server *server, struct mpo_http_request *http, bool draws)
{
    struct mpo_serve_refusal refusal = {0};
    int state = server->state;
    if (state == SERVER_READY || (state == SERVER_DRAINING && !draws))
        return false;
    if (state == SERVER_LOADING)
        mpo_serve_refuse(&refusal, 503, "loading", "",
                         "the models are being loaded; try again soon");
    else if (state == SERVER_DRAINING)
        mpo_serve_refuse(&refusal, 503, "draining", "",
                         "the server is stopping and accepts no new requests");
    else
        mpo_serve_refuse(&refusal, 503, "peer_lost", "",
                         "the server lost one of its ranks and is stopping");
    server_refuse(server, http, &refusal);
    return true;
}

void server_handle(void *argument, struct mpo_http_request *http)
{
    struct mpo_server *server = argument;
    switch (http->route) {
    case ROUTE_HEALTH:
        answer_health(server, http);
        return;
    case ROUTE_VERSION:
        answer_version(server, http);
        return;
    default:
        break;
    }
    if (http->route >= ROUTE_PAGE && http->route < ROUTE_COUNT) {
        answer_page(server, http, &mpo_page_files[http->route - ROUTE_PAGE]);
        return;
    }
    if (!server_refuses(server, http, route_draws(http->route)))
        handle_loaded(server, http);
}
