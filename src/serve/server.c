/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP thread and its states.
 *
 *     loading -> ready -> draining -> (closed)
 *                  |          |
 *                  +---> lost <+      the job fails
 *
 * A signal wakes the event loop, whose thread takes no more requests; when those that it has
 * are complete, or it is late, it tells the decode threads to stop. Those themselves may be
 * waiting for another rank at that moment.
 */
#include "server_impl.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/reason.h"
#include "base/stop.h"
#include "base/thread.h"
#include "base/timing.h"
#include "mpo/comm.h"
#include "mpo/report.h"
#include "openapi.h"

/* mpirun kills the ranks a second after it has asked them to end. */
#define LAUNCHER_SECONDS 0.6

/* What is written last should reach its clients. */
#define FLUSH_SECONDS 0.5

/* mpirun reports the first rank that ended: the lost one, if it has noticed that by then. */
#define NOTICE_SECONDS 2

/* Steps without any sign of life, in deadlines of one. */
#define STILL_FACTOR 2.0

/* One that tokenises the longest text keeps nobody waiting who comes with another. */
#define READER_COUNT 2

/* ---- draining ---- */

static void drain_server(struct mpo_server *server)
{
    if (server->state != SERVER_READY || mpo_stop_signal() == 0)
        return;
    server->state = SERVER_DRAINING;
    server->drains_since = mpo_timing_now();
    mpo_http_drain(server->http);
}

static bool is_under_mpirun(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL;
}

/* mpirun says that it ends its ranks by its own signal, and Slurm waits longer. */
static bool is_hurried(void)
{
    return mpo_stop_is_from_parent() && is_under_mpirun() && mpo_stop_signal() == SIGTERM;
}

static void stop_drained(struct mpo_server *server)
{
    double patience = is_hurried() ? fmin(LAUNCHER_SECONDS, server->config->serve.drain)
                                   : server->config->serve.drain;
    if (server->has_stopped || server->drains_since == 0.0)
        return;
    if (server->call_count > 0 && mpo_timing_now() - server->drains_since < patience)
        return;
    server->has_stopped = true;
    server_end_line(server, true);
    for (int32_t group = 0; group < server->engine.group_count; group++)
        mpo_link_stop(server->engine.link[group]);
}

/* ---- a stuck decode thread ---- */

static void break_links(struct mpo_server *server)
{
    for (int32_t group = 0; group < server->engine.group_count; group++)
        mpo_link_break(server->engine.link[group]);
}

void mpo_server_lose_rank(void *argument, const char *text)
{
    struct mpo_server *server = argument;
    if (atomic_flag_test_and_set(&server->has_lost))
        return;
    snprintf(server->lost, sizeof server->lost, "%s", text);
    server->is_losing = true;
    break_links(server);
}

/* The decode thread's own waits have deadlines, but a policy's engine has none. */
static void look_at_clock(struct mpo_server *server, int32_t group)
{
    char text[sizeof server->lost] = "";
    double limit = STILL_FACTOR * server->config->run.step_deadline;
    struct mpo_link_use use = mpo_link_use(server->engine.link[group]);
    double last = fmax(fmax(use.last_step, use.last_idle), server->ready);
    if (limit <= 0.0 || use.rows_live == 0 || mpo_timing_now() - last <= limit)
        return;
    snprintf(
        text, sizeof text,
        "no step for %.0f s: rank %d is stuck; raise --run.step_deadline if a step may "
        "take this long",
        limit, group * (server->engine.rank_count / server->engine.group_count));
    mpo_server_lose_rank(server, text);
}

/* ---- callbacks of the event loop ---- */

/* Processor time of this thread. */
static void show_own_time(const struct mpo_server *server)
{
    struct timespec time = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    mpo_metrics_set(server->engine.metrics, MPO_METRIC_STAGE_SECONDS, MPO_METRIC_STAGE_HTTP,
                    (double)time.tv_sec + 1e-9 * (double)time.tv_nsec);
}

static void hear_notice(void *argument)
{
    struct mpo_server *server = argument;
    int state = server->state;
    if (state == SERVER_LOADING)
        return;
    if (state != SERVER_LOST && mpo_link_is_broken(server->engine.link[0])) {
        server->state = SERVER_LOST;
        server_lose_peer(server);
        server_lose_readings(server);
        mpo_http_stop(server->http, FLUSH_SECONDS);
        return;
    }
    server_take_events(server);
    server_end_line(server, false);
    server_take_readings(server);
    drain_server(server);
    stop_drained(server);
    for (int32_t group = 0; group < server->engine.group_count; group++)
        look_at_clock(server, group);
}

static void hear_clock(void *argument)
{
    const struct mpo_server *server = argument;
    hear_notice(argument);
    if (server->state != SERVER_LOADING)
        show_own_time(server);
}

static void lose_client(void *argument, struct mpo_http_request *http)
{
    if (http->context != NULL)
        server_lose_client(argument, http->context);
    else
        server_lose_reader(argument, http);
}

static void pause_client(void *argument, struct mpo_http_request *http, bool full)
{
    struct mpo_server *server = argument;
    struct server_call *call = http->context;
    if (call != NULL)
        server_pause_call(server, call, full);
}

static void log_request(const struct mpo_server *server, const struct mpo_http_done *done)
{
    if (server->config->serve.log_requests)
        mpo_report(MPO_REPORT_NOTE, "%s %s %s %d%s %.3f s %llu bytes%s%s", done->peer,
                   done->method, done->path, done->status,
                   done->gone ? " (client gone)" : "", done->seconds,
                   (unsigned long long)done->sent_bytes, done->key != NULL ? " key " : "",
                   done->key != NULL ? done->key : "");
}

static void note_done(void *argument, const struct mpo_http_done *done)
{
    const struct mpo_server *server = argument;
    if (server->engine.metrics != NULL)
        mpo_metrics_add(server->engine.metrics, MPO_METRIC_HTTP_REQUESTS,
                        mpo_metrics_route(server_path_of(done->route), done->status), 1.0);
    log_request(server, done);
}

/* ---- the thread ---- */

static void *run_thread(void *argument)
{
    struct mpo_server *server = argument;
    server->ran = mpo_http_run(server->http);
    if (server->is_losing && is_under_mpirun())
        nanosleep(&(struct timespec){.tv_sec = NOTICE_SECONDS}, NULL);
    if (server->is_losing)
        mpo_comm_leave(MPO_ERR_PEER, server->lost);
    return NULL;
}

static enum mpo_status start_thread(struct mpo_server *server)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_thread_start(&server->thread, "mpo-http", run_thread, server));
    server->has_thread = true;
cleanup:
    return status;
}

static const char *text_or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

static struct mpo_http_spec http_spec(struct mpo_server *server)
{
    const struct mpo_config_serve *options = &server->config->serve;
    return (struct mpo_http_spec){
        .address = options->address,
        .port = (int32_t)options->port,
        .key_file = text_or_null(options->key_file),
        .allow_open = options->allow_open,
        .hosts = text_or_null(options->hosts),
        .cors = text_or_null(options->cors),
        .tls_cert = text_or_null(options->tls_cert),
        .tls_key = text_or_null(options->tls_key),
        .route = server_routes,
        .route_count = server_route_count,
        .limits = {.connections = (int32_t)options->connections,
                   .body_bytes = (size_t)options->body},
        .callbacks = {.on_request = server_handle,
                      .on_gone = lose_client,
                      .on_backlog = pause_client,
                      .on_notify = hear_notice,
                      .on_tick = hear_clock,
                      .on_done = note_done,
                      .argument = server},
    };
}

/* The file is written at the end of loading, beside its name, and renamed. */
static enum mpo_status check_url_file(const char *path)
{
    enum mpo_status status = MPO_OK;
    char folder[PATH_MAX] = "";
    char *slash = NULL;
    if (path[0] == '\0')
        return MPO_OK;
    snprintf(folder, sizeof folder, "%s", path);
    slash = strrchr(folder, '/');
    if (slash == NULL)
        snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder] = '\0';
    MPO_CHECK(access(folder, W_OK | X_OK) == 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "serve.url_file: %s cannot be written: %s", path, strerror(errno));
cleanup:
    return status;
}

enum mpo_status mpo_server_open(const struct mpo_config *config, struct mpo_server **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_server *server = NULL;
    MPO_NEW(1, &server);
    const struct mpo_workers_spec readers = {.name = "mpo-reader",
                                             .thread_count = READER_COUNT,
                                             .notify = mpo_server_notify,
                                             .argument = server};
    server->config = config;
    server->state = SERVER_LOADING;
    server->max_waiting = (int32_t)config->serve.queue;
    struct mpo_http_spec spec = http_spec(server);
    MPO_TRY(check_url_file(config->serve.url_file));
    MPO_TRY(mpo_http_open(&spec, &server->http));
    MPO_NEW(mpo_server_client_count(server), &server->waiting_of);
    MPO_TRY(mpo_workers_open(&readers, &server->readers));
    MPO_TRY(start_thread(server));
cleanup:
    if (status != MPO_OK)
        mpo_server_close(&server);
    *out = server;
    return status;
}

int32_t mpo_server_client_count(const struct mpo_server *server)
{
    int32_t keys = mpo_http_key_count(server->http);
    return keys > 0 ? keys : 1; /* without keys all clients are one */
}

const char *mpo_server_url(const struct mpo_server *server)
{
    return mpo_http_url(server->http);
}

int32_t mpo_server_port(const struct mpo_server *server)
{
    return mpo_http_port(server->http);
}

void mpo_server_notify(void *server)
{
    mpo_http_notify(((struct mpo_server *)server)->http);
}

/* The job fails, in the main thread. */
static void say_last_words(void *argument)
{
    struct mpo_server *server = argument;
    break_links(server);
    mpo_http_stop(server->http, FLUSH_SECONDS);
    pthread_join(server->thread, NULL);
    server->has_thread = false;
}

enum mpo_status mpo_server_ready(struct mpo_server *server,
                                 const struct mpo_server_engine *engine)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_dispatch_open(
        &(struct mpo_dispatch_spec){.group_count = engine->group_count,
                                    .row_capacity = engine->catalog->row_capacity,
                                    .client_count = engine->client_count},
        &server->dispatch));
    server->engine = *engine;
    server->openapi = mpo_serve_openapi_json(engine->catalog);
    server->ready = mpo_timing_now();
    server->state = SERVER_READY;
    mpo_comm_last_words(say_last_words, server);
    mpo_stop_tell(mpo_server_notify, server);
    mpo_http_notify(server->http); /* for a signal that came before */
cleanup:
    return status;
}

void mpo_server_close(struct mpo_server **server)
{
    struct mpo_server *self = *server;
    if (self == NULL)
        return;
    mpo_stop_tell(NULL, NULL);
    mpo_comm_last_words(NULL, NULL);
    if (self->has_thread) {
        mpo_http_stop(self->http, FLUSH_SECONDS);
        pthread_join(self->thread, NULL);
    }
    server_close_readings(self);
    mpo_http_close(&self->http);
    free(self->openapi);
    mpo_dispatch_close(&self->dispatch);
    free(self->waiting_of);
    free(self);
    *server = NULL;
}
