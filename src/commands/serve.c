/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve: an OpenAI-compatible HTTP server of the mixture.
 *
 *     port and keys -> models -> ready -> steps -> drained
 *
 * The port is taken and the page is there before models are loaded, so that a wrong address
 * or key file is known at once and /health can say "loading". Rank zero has the HTTP thread.
 * The root of each group has a scheduler; the other ranks follow its control records.
 */
#include "commands/commands.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/stop.h"
#include "comm/lines.h"
#include "commands/report/log.h"
#include "serve/engine.h"
#include "serve/groups.h"
#include "serve/models.h"
#include "serve/server.h"
#include "serve/size.h"
#include "session/parts.h"

/* Signs of life to ranks that wait; more often where their patience is short. */
#define IDLE_SECONDS 10.0

/* The launcher ends the ranks when one of them is gone; who aborts meanwhile disturbs it. */
#define LAUNCHER_SECONDS 3

/* Rank zero reports first where both have waited too long. */
#define PATIENCE_FACTOR 1.5

struct serve {
    struct mpo_config *config;
    struct mpo_session *session;
    struct mpo_server *server; /* rank zero's */
    struct mpo_serve_catalog catalog;
    struct mpo_lines *lines; /* NULL: none */
    struct mpo_groups *groups;
    struct mpo_engine *engine;   /* a root's, like the metrics */
    struct mpo_metrics *metrics; /* of the job at rank zero, elsewhere of the group */
    int32_t client_count;
    struct mpo_session_machine machine;
    char fingerprint[17];
};

/* ---- sizes ---- */

/* Tokens of one row: what every model was trained for, and the pool. */
static enum mpo_status find_row_context(const struct serve *serve, int32_t *tokens)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policies *policies = serve->session->policies;
    double least = serve->machine.context_tokens;
    for (int32_t i = 0; i < mpo_policies_local_count(policies); i++) {
        int32_t trained = mpo_policy_trained_tokens(mpo_policies_local(policies, i));
        if (trained > 0 && trained < least)
            least = trained;
    }
    MPO_TRY(mpo_comm_min(serve->session->comm, &least, 1));
    *tokens = (int32_t)least;
cleanup:
    return status;
}

/* Rows are kept for other prompts only where all policies can take them back. */
static enum mpo_status check_reuse(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policies *policies = serve->session->policies;
    double reuses = 1.0;
    for (int32_t i = 0; i < mpo_policies_local_count(policies); i++)
        if (!mpo_policy_cuts_rows(mpo_policies_local(policies, i)))
            reuses = 0.0;
    MPO_TRY(mpo_comm_min(serve->session->comm, &reuses, 1));
    if (reuses == 0.0)
        serve->machine.parked_rows = 0;
cleanup:
    return status;
}

/* ---- open ---- */

static enum mpo_status open_server(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    if (mpo_comm_job_rank() == 0)
        status = mpo_server_open(serve->config, &serve->server);
    return mpo_comm_agree(status);
}

static enum mpo_status open_catalog(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    int32_t context_tokens = 0;
    MPO_TRY(find_row_context(serve, &context_tokens));
    MPO_TRY(check_reuse(serve));
    MPO_TRY(mpo_serve_models_open(serve->session, &serve->catalog));
    serve->catalog.context_tokens = context_tokens;
    serve->catalog.row_capacity = serve->machine.row_capacity;
cleanup:
    return status;
}

/* What answers depend on, beside the request: 16 hexadecimal digits. */
static enum mpo_status find_fingerprint(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    MPO_TRY(mpo_config_print(serve->config, &text));
    uint64_t hash = XXH64(text, strlen(text), 0);
    hash = XXH64(mpo_version(), strlen(mpo_version()), hash);
    hash = XXH64(mpo_policy_engine_version(), strlen(mpo_policy_engine_version()), hash);
    snprintf(serve->fingerprint, sizeof serve->fingerprint, "%016llx",
             (unsigned long long)hash);
cleanup:
    free(text);
    return status;
}

static double seconds_or_ever(double option)
{
    return option > 0.0 ? option : 1e300;
}

static bool is_root(const struct serve *serve)
{
    return mpo_comm_group_rank(serve->session->comm) == 0;
}

static double idle_seconds(const struct serve *serve)
{
    double patience = serve->config->run.step_deadline;
    return patience > 0.0 && patience < 3.0 * IDLE_SECONDS ? patience / 3.0 : IDLE_SECONDS;
}

static enum mpo_status open_metrics(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = serve->session->comm;
    bool is_zero = mpo_comm_rank(comm) == 0;
    if (!is_root(serve))
        return MPO_OK;
    MPO_TRY(find_fingerprint(serve));
    MPO_TRY(mpo_metrics_open(&serve->catalog, serve->config->serve.metrics_prefix,
                             is_zero ? mpo_comm_size(comm) : mpo_comm_group_size(comm),
                             is_zero ? mpo_comm_group_count(comm) : 1, &serve->metrics));
cleanup:
    return status;
}

static enum mpo_status open_engine(struct serve *serve)
{
    const struct mpo_config *config = serve->config;
    const struct mpo_session_machine *machine = &serve->machine;
    const struct mpo_engine_spec engine = {
        .decode = serve->session->decode,
        .policies = serve->session->policies,
        .link = is_root(serve) ? mpo_groups_links(serve->groups)[0] : NULL,
        .policy_count = serve->catalog.policy_count,
        .row_capacity = machine->row_capacity,
        .parked_rows = machine->parked_rows,
        .slot_capacity = machine->prompt_slots,
        .queue_capacity = (int32_t)config->serve.queue,
        .client_count = serve->client_count,
        .bias_max = machine->bias_max,
        .cell_capacity = machine->context_tokens,
        .context_tokens = serve->catalog.context_tokens,
        .queue_seconds = seconds_or_ever(config->serve.queue_seconds),
        .deadline_seconds = seconds_or_ever(config->serve.deadline),
        .idle_seconds = idle_seconds(serve),
        .lines = serve->lines,
        .metrics = serve->metrics,
        .timing = &serve->session->timing,
    };
    return is_root(serve) ? mpo_engine_open(&engine, &serve->engine) : MPO_OK;
}

/* ---- between ranks ---- */

static void let_launcher_end_us(void)
{
    nanosleep(&(struct timespec){.tv_sec = LAUNCHER_SECONDS}, NULL);
}

static enum mpo_status sleep_by_line(void *argument)
{
    const struct serve *serve = argument;
    enum mpo_status status =
        mpo_lines_sleep(serve->lines, PATIENCE_FACTOR * serve->config->run.step_deadline);
    if (status != MPO_OK)
        let_launcher_end_us();
    return status;
}

/* The root of another group has lost rank zero. */
static void leave_job(void *argument, const char *text)
{
    (void)argument;
    let_launcher_end_us();
    mpo_comm_leave(MPO_ERR_PEER, text);
}

static void wake_by_lines(void *argument)
{
    mpo_lines_wake(((struct serve *)argument)->lines);
}

static enum mpo_status open_lines(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_decode_rest rest = {sleep_by_line, wake_by_lines, serve};
    MPO_TRY(mpo_lines_open(serve->session->comm, &serve->lines));
    if (serve->lines != NULL)
        mpo_decode_set_rest(serve->session->decode, &rest);
cleanup:
    return status;
}

/* A prompt is encoded: the root's engine takes it, and other ranks tell their root. */
static void note_encoded(void *argument)
{
    const struct serve *serve = argument;
    if (is_root(serve))
        mpo_link_wake(mpo_groups_links(serve->groups)[0]);
    else if (serve->lines != NULL)
        mpo_lines_tell_done(serve->lines);
}

static int64_t count_encoded(void *argument)
{
    return mpo_lines_done(((struct serve *)argument)->lines);
}

static enum mpo_status open_encoder(struct serve *serve)
{
    const struct mpo_decode_beside beside = {.encoded = note_encoded,
                                             .others = serve->lines != NULL ? count_encoded
                                                                            : NULL,
                                             .argument = serve};
    return mpo_decode_encode_beside(serve->session->decode, &beside);
}

static enum mpo_status open_groups(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = serve->session->comm;
    const struct mpo_session_machine *machine = &serve->machine;
    double patience = serve->config->run.step_deadline;
    bool is_zero = mpo_comm_rank(comm) == 0;
    if (is_zero)
        serve->client_count = mpo_server_client_count(serve->server);
    MPO_TRY(mpo_comm_broadcast(comm, &serve->client_count, sizeof serve->client_count, 0));
    const struct mpo_groups_spec groups = {
        .link = {.policy_count = serve->catalog.policy_count,
                 .step_events = machine->row_capacity + machine->given_positions,
                 .notify = mpo_server_notify,
                 .argument = serve->server},
        .metrics = serve->metrics,
        .alive_seconds = idle_seconds(serve),
        .patience_seconds = is_zero ? patience : PATIENCE_FACTOR * patience,
        .lost = is_zero ? mpo_server_lose_rank : leave_job,
        .argument = serve->server,
    };
    MPO_TRY(mpo_groups_open(&groups, comm, &serve->groups));
cleanup:
    return status;
}

static enum mpo_status watch_lines(struct serve *serve)
{
    bool is_zero = mpo_comm_rank(serve->session->comm) == 0;
    const struct mpo_lines_watch watch = {
        .patience_seconds = serve->config->run.step_deadline,
        .lost = is_zero ? mpo_server_lose_rank : mpo_groups_report,
        .argument = is_zero ? (void *)serve->server : (void *)serve->groups,
    };
    return serve->lines != NULL && is_root(serve) ? mpo_lines_watch(serve->lines, &watch)
                                                  : MPO_OK;
}

/* To rank zero, whose server it stops: by a rank's line to its root, by that one's courier. */
static void share_stop(struct serve *serve)
{
    bool has_group = is_root(serve);
    void (*tell)(void *argument) = has_group ? mpo_groups_tell_stop : mpo_lines_tell_stop;
    void *argument = has_group ? (void *)serve->groups : (void *)serve->lines;
    if (mpo_comm_job_rank() == 0 || argument == NULL)
        return; /* the server hears of it; there are no sockets */
    mpo_stop_tell(tell, argument);
    if (mpo_stop_is_caught())
        tell(argument); /* it came during set-up */
}

/* Other ranks close their sockets from here on, which is no loss. Whoever could report one, or
 * notify the server, ends before it. */
static void close_server(struct serve *serve)
{
    mpo_lines_unwatch(serve->lines);
    mpo_groups_end(serve->groups);
    mpo_decode_end_encoding(serve->session != NULL ? serve->session->decode : NULL);
    mpo_stop_tell(NULL, NULL);
    mpo_server_close(&serve->server);
}

static enum mpo_status open_serve(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(open_server(serve));
    struct mpo_session_spec spec = {.command = "serve", .settings = serve->config};
    spec.size = mpo_serve_size(serve->config);
    MPO_TRY(mpo_session_open(&spec, &serve->session));
    serve->machine = serve->session->size.machine;
    MPO_TRY(open_catalog(serve));
    MPO_TRY(open_lines(serve));
    MPO_TRY(mpo_comm_agree(open_metrics(serve)));
    MPO_TRY(open_groups(serve));
    MPO_TRY(mpo_comm_agree(open_engine(serve)));
    MPO_TRY(mpo_comm_agree(open_encoder(serve)));
cleanup:
    return status;
}

/* ---- messages ---- */

/* From the login node's network to a compute node. */
static void tell_tunnel(const struct serve *serve)
{
    const char *login = getenv("SLURM_SUBMIT_HOST");
    const char *address = serve->config->serve.address;
    int32_t port = mpo_server_port(serve->server);
    char host[256] = "";
    if (getenv("SLURM_JOB_ID") == NULL || port == 0 ||
        gethostname(host, sizeof host - 1) != 0)
        return;
    login = login != NULL ? login : "LOGIN";
    if (strncmp(address, "127.", 4) == 0 || strcmp(address, "localhost") == 0)
        mpo_log_note("from your machine: ssh -N -J %s %s -L 8080:localhost:%d", login, host,
                     port);
    else
        mpo_log_note("from your machine: ssh -N -L 8080:%s:%d %s", host, port, login);
}

static void tell_models(const struct serve *serve)
{
    const struct mpo_serve_catalog *catalog = &serve->catalog;
    for (int32_t i = 0; i < catalog->model_count; i++)
        mpo_log_note("  %s", catalog->model[i].name);
}

/* For others to read: complete, or not there. */
static enum mpo_status write_url_file(const struct serve *serve, const char *path)
{
    enum mpo_status status = MPO_OK;
    char part[PATH_MAX] = "";
    FILE *file = NULL;
    int written = snprintf(part, sizeof part, "%s.part", path);
    MPO_CHECK(written > 0 && (size_t)written < sizeof part, MPO_ERR_CONFIG,
              "serve.url_file: the path is too long");
    file = fopen(part, "w");
    MPO_CHECK(file != NULL, MPO_ERR_OUTPUT, "serve.url_file: %s cannot be written", part);
    fprintf(file, "%s\n", mpo_server_url(serve->server));
    for (int32_t i = 0; i < serve->catalog.model_count; i++)
        fprintf(file, "%s\n", serve->catalog.model[i].name);
    bool is_whole = ferror(file) == 0;
    is_whole = fclose(file) == 0 && is_whole;
    file = NULL;
    MPO_CHECK(is_whole && rename(part, path) == 0, MPO_ERR_IO,
              "serve.url_file: %s cannot be written", path);
cleanup:
    if (file != NULL)
        fclose(file);
    return status;
}

static void tell_ready(const struct serve *serve)
{
    int32_t groups = mpo_comm_group_count(serve->session->comm);
    char count[32] = "";
    if (groups > 1)
        snprintf(count, sizeof count, "%d groups of ", groups);
    mpo_log_note("%s is ready, with %s%d rows that share %d tokens and these models:",
                 mpo_server_url(serve->server), count, serve->machine.row_capacity,
                 serve->machine.context_tokens);
}

static enum mpo_status announce_server(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    const char *path = serve->config->serve.url_file;
    const struct mpo_server_engine engine = {
        .catalog = &serve->catalog,
        .link = mpo_groups_links(serve->groups),
        .group_count = mpo_comm_group_count(serve->session->comm),
        .metrics = serve->metrics,
        .fingerprint = serve->fingerprint,
        .rank_count = mpo_comm_job_size(),
        .client_count = serve->client_count,
    };
    MPO_TRY(mpo_server_ready(serve->server, &engine));
    tell_ready(serve);
    tell_models(serve);
    tell_tunnel(serve);
    if (path[0] != '\0')
        MPO_TRY(write_url_file(serve, path));
cleanup:
    return status;
}

/* ---- run ---- */

static enum mpo_status run_serve(struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = serve->session->comm;
    mpo_comm_expect("serve", -1, serve->config->run.step_deadline);
    mpo_comm_work_apart(comm, true);
    if (is_root(serve))
        MPO_TRY(mpo_engine_run(serve->engine));
    else
        MPO_TRY(mpo_decode_follow(serve->session->decode));
    mpo_groups_finish(serve->groups);
    mpo_comm_work_apart(comm, false);
cleanup:
    return status;
}

/* A request to stop is how a server ends. Slurm's time limit asks to be run again. */
static enum mpo_status end_serve(const struct serve *serve)
{
    enum mpo_status status = MPO_OK;
    double requeues = mpo_stop_signal() == SIGUSR1;
    MPO_TRY(mpo_comm_max(serve->session->comm, &requeues, 1));
    MPO_CHECK(requeues == 0.0, MPO_REQUEUE, "stopped by SIGUSR1");
cleanup:
    return mpo_session_end_loop(status);
}

enum mpo_status mpo_command_size_serve(const struct mpo_config *config,
                                       struct mpo_session_size *size)
{
    *size = mpo_serve_size(config);
    return MPO_OK;
}

enum mpo_status mpo_command_check_models(const struct mpo_session *session)
{
    struct mpo_serve_catalog catalog = {0};
    enum mpo_status status = mpo_serve_models_open(session, &catalog);
    mpo_serve_models_close(&catalog);
    return status;
}

enum mpo_status mpo_command_serve(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct serve serve = {0};
    MPO_TRY(mpo_command_configure("serve", argc, argv, &serve.config));
    MPO_TRY(open_serve(&serve));
    status = watch_lines(&serve);
    share_stop(&serve);
    if (status == MPO_OK && mpo_comm_job_rank() == 0)
        status = announce_server(&serve);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_session_end_loop(run_serve(&serve)));
    close_server(&serve);
    MPO_TRY(end_serve(&serve));
cleanup:
    close_server(&serve);
    mpo_engine_close(&serve.engine);
    mpo_groups_close(&serve.groups);
    mpo_metrics_close(&serve.metrics);
    mpo_lines_close(&serve.lines);
    mpo_serve_models_close(&serve.catalog);
    mpo_session_close(&serve.session);
    mpo_config_close(&serve.config);
    return status;
}
