/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session as a handle: its configuration and its ranks, the phases that open it
 * (phases.c), the steps of its loop, and its end.
 */
#include "parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/argument.h"
#include "base/stop.h"
#include "plan.h"
#include "spec.h"

/* All ranks must have read the same. Collective over all ranks. */
static enum mpo_status compare_config(enum mpo_status opened,
                                      const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    MPO_TRY(mpo_comm_agree(opened));
    mpo_comm_expect("set-up", -1, config->run.setup_deadline);
    MPO_TRY(mpo_comm_agree(mpo_config_print(config, &text)));
    MPO_TRY(mpo_comm_agree(
        mpo_comm_same(XXH64(text, strlen(text), 0), "configuration and flags")));
cleanup:
    free(text);
    return status;
}

enum mpo_status mpo_session_configure(const char *command, int argc, char *const *argv,
                                      struct mpo_config **config)
{
    enum mpo_status opened = mpo_config_open(command, argc, argv, config);
    return compare_config(opened, *config);
}

static const char *command_of(const struct mpo_session_spec *spec)
{
    return spec->command != NULL ? spec->command : "fit";
}

/* As the specification has it: of a file or of a text. Local. */
static enum mpo_status read_config(const struct mpo_session_spec *spec,
                                   struct mpo_config **own)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_text source = {spec->config_text, spec->config_folder};
    char **argv = NULL; /* [1 + flag_count], texts borrowed */
    int argc = 0;
    MPO_TRY(mpo_session_check_spec(spec));
    MPO_NEW(spec->flag_count + 1, &argv);
    if (spec->config != NULL)
        argv[argc++] = (char *)spec->config;
    for (int32_t i = 0; i < spec->flag_count; i++)
        argv[argc++] = (char *)spec->flags[i];
    MPO_TRY(spec->config != NULL
                ? mpo_config_open(command_of(spec), argc, argv, own)
                : mpo_config_open_text(command_of(spec), &source, argc, argv, own));
cleanup:
    free(argv);
    return status;
}

/* The configuration of the specification, read where it is not open yet. */
static enum mpo_status choose_config(const struct mpo_session_spec *spec,
                                     struct mpo_config **own)
{
    if (spec->settings != NULL)
        return mpo_comm_agree(mpo_session_check_spec(spec));
    enum mpo_status opened = read_config(spec, own);
    return compare_config(opened, *own);
}

/* A process has one session, because it has one job, one reporter and one request
 * to stop. */
static bool is_open;

enum mpo_status mpo_session_make(const char *command, const struct mpo_config *config,
                                 const struct mpo_session_size *size,
                                 struct mpo_session **out)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(1, out);
    is_open = true;
    (*out)->command = command;
    (*out)->config = config;
    (*out)->size = mpo_session_is_sized(size) ? *size : mpo_plan_fit(config);
    (*out)->device.kind = "none";
cleanup:
    return status;
}

/* The ranks: those of the caller, unless a job has begun already. */
static enum mpo_status begin_job(const struct mpo_session_spec *spec, bool *owns)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm_spec ranks = {.communicator = spec->communicator,
                                        .on_failure = spec->on_failure,
                                        .argument = spec->argument};
    MPO_CHECK(!is_open, MPO_ERR_USAGE,
              "this process has an open session; close it before opening another");
    if (mpo_comm_has_begun() && ranks.communicator == NULL && ranks.on_failure == NULL)
        return MPO_OK;
    MPO_TRY(mpo_comm_begin(&ranks));
    *owns = true;
cleanup:
    return status;
}

static enum mpo_status open_all(const struct mpo_session_spec *spec,
                                struct mpo_session **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config *own = NULL;
    MPO_TRY(choose_config(spec, &own));
    MPO_TRY(mpo_comm_agree(mpo_session_make(
        command_of(spec), own != NULL ? own : spec->settings, &spec->size, out)));
    (*out)->own_config = own;
    own = NULL;
    MPO_TRY(mpo_session_open_phases(*out));
cleanup:
    mpo_config_close(&own);
    return status;
}

enum mpo_status mpo_session_open(const struct mpo_session_spec *spec,
                                 struct mpo_session **out)
{
    enum mpo_status status = MPO_OK;
    bool owns_job = false;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    bool sets_reporter = spec->report.say != NULL;
    struct mpo_reporter before = {0};
    if (sets_reporter)
        before = mpo_report_to(spec->report);
    MPO_TRY(begin_job(spec, &owns_job));
    MPO_TRY(open_all(spec, out));
    (*out)->owns_job = owns_job;
    (*out)->sets_reporter = sets_reporter;
    (*out)->reporter = before;
cleanup:
    if (status == MPO_OK)
        return MPO_OK;
    mpo_session_close(out);
    if (owns_job)
        mpo_comm_end();
    if (sets_reporter)
        mpo_report_to(before);
    return status;
}

void mpo_session_close(struct mpo_session **session)
{
    struct mpo_session *self = session != NULL ? *session : NULL;
    if (self == NULL)
        return;
    mpo_rollout_close(&self->rollout);
    mpo_decode_close(&self->decode);
    mpo_mixture_close(&self->mixture);
    mpo_exchange_close(&self->exchange);
    mpo_policies_close(&self->policies);
    free(self->temperature);
    free(self->policy_specs);
    free(self->adapters);
    free(self->blended);
    free(self->blend_names);
    free((double *)self->blend.share);
    mpo_prompts_close(&self->prompts);
    mpo_comm_close(&self->comm);
    mpo_config_close(&self->own_config);
    if (self->owns_job)
        mpo_comm_end();
    if (self->sets_reporter)
        mpo_report_to(self->reporter);
    mpo_stop_forget();
    is_open = false;
    free(self);
    *session = NULL;
}

const struct mpo_config *mpo_session_config(const struct mpo_session *session)
{
    return session->config;
}

const struct mpo_comm *mpo_session_comm(const struct mpo_session *session)
{
    return session->comm;
}

const struct mpo_prompts *mpo_session_prompts(const struct mpo_session *session)
{
    return session->prompts;
}

const struct mpo_policies *mpo_session_policies(const struct mpo_session *session)
{
    return session->policies;
}

struct mpo_exchange *mpo_session_exchange(const struct mpo_session *session)
{
    return session->exchange;
}

struct mpo_mixture *mpo_session_mixture(const struct mpo_session *session)
{
    return session->mixture;
}

struct mpo_decode *mpo_session_decode(const struct mpo_session *session)
{
    return session->decode;
}

struct mpo_rollout *mpo_session_rollout(const struct mpo_session *session)
{
    return session->rollout;
}

enum mpo_status mpo_session_begin_step(struct mpo_session *session,
                                       const struct mpo_session_progress *progress)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(session, progress);
    MPO_ARGUMENTS(progress->unit);
    const struct mpo_config_run *run = &session->config->run;
    double signal_number = mpo_stop_signal();
    MPO_TRY(mpo_comm_max(session->comm, &signal_number, 1));
    if (signal_number > 0.0)
        mpo_stop_hear((int)signal_number); /* whichever rank got it: rank zero answers */
    MPO_CHECK(signal_number == 0.0, MPO_REQUEUE, "stopped by %s after %lld of %lld %s",
              mpo_stop_name((int)signal_number), (long long)progress->done,
              (long long)progress->total, progress->unit);
    mpo_comm_expect(session->command, progress->step,
                    session->has_stepped ? run->step_deadline : run->setup_deadline);
    session->has_stepped = true;
cleanup:
    return status;
}

void mpo_session_stop(void)
{
    mpo_stop_request();
}

enum mpo_status mpo_session_end_loop(enum mpo_status status)
{
    if (status != MPO_OK && status != MPO_REQUEUE)
        return mpo_comm_fail(status);
    return mpo_comm_agree(status);
}
