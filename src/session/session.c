/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a session: ranks, prompts, policies, exchange, mixture, rollout. Each phase ends
 * in an agreement, so that one rank's failure is everybody's.
 */
#include "session_impl.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/stop.h"
#include "base/utf8.h"
#include "needs.h"
#include "plan.h"

enum mpo_status mpo_session_read_prompts(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_session_size *size = &session->size;
    const struct mpo_config *config = session->config;
    struct mpo_prompts_spec prompts = size->prompts;
    bool has_prompt = size->prompt != NULL && size->prompt[0] != '\0';
    bool given = prompts.path != NULL; /* not those of the configuration */
    if (!given) {
        prompts.path = config->prompts.file;
        prompts.format = config->prompts.format;
        prompts.prefill = config->prompts.prefill;
    }
    MPO_CHECK(strcmp(prompts.path, "-") != 0 || has_prompt || mpo_comm_job_size() == 1,
              MPO_ERR_USAGE,
              "%s: expected a file, found -: only one of %d ranks has the standard input",
              given ? "--input" : "prompts.file", mpo_comm_job_size());
    if (has_prompt)
        MPO_TRY(mpo_prompts_open_single(size->prompt, prompts.prefill, &session->prompts));
    else
        MPO_TRY(mpo_prompts_open(&prompts, &session->prompts));
    MPO_CHECK(
        !size->distinct_prompts || size->prompts_max <= mpo_prompts_count(session->prompts),
        MPO_ERR_CONFIG,
        "rollout.prompts_per_step: expected at most %lld, the number of prompts, found %d",
        (long long)mpo_prompts_count(session->prompts), size->prompts_max);
cleanup:
    return status;
}

enum mpo_status mpo_session_open_groups(struct mpo_session *session,
                                        int32_t ranks_per_group)
{
    int32_t policy_count = session->config->policy_count;
    enum mpo_status status =
        mpo_placement_open_comm(policy_count, ranks_per_group, &session->comm);
    if (status == MPO_OK)
        session->placement = mpo_placement_of(policy_count, session->comm);
    return status;
}

enum mpo_status mpo_session_open_ranks(struct mpo_session *session)
{
    int64_t ranks = session->config->exchange.ranks_per_group;
    return mpo_session_open_groups(session, ranks == MPO_AUTO_INTEGER ? 0 : (int32_t)ranks);
}

enum mpo_status mpo_session_describe_policies(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = session->config;
    MPO_NEW(config->policy_count, &session->policy_specs);
    MPO_NEW(config->policy_count, &session->temperature);
    for (int32_t h = 0; h < config->policy_count; h++) {
        const struct mpo_config_policies *policy = &config->policies[h];
        session->temperature[h] = policy->temperature;
        session->policy_specs[h] = (struct mpo_policy_spec){
            .name = policy->name,
            .kind = policy->kind,
            .model = policy->model,
            .lora = policy->lora,
            .lora_scale = policy->lora_scale,
            .system = policy->system,
            .request = policy->request,
            .chat_template = policy->chat_template,
            .temperature = policy->temperature,
            .devices = (int32_t)policy->devices,
        };
    }
cleanup:
    return status;
}

static enum mpo_status check_policies(const void *asker, const char *kind)
{
    const struct mpo_session *session = asker;
    return mpo_policies_check_device(session->policy_specs, session->config->policy_count,
                                     kind);
}

enum mpo_status mpo_session_open_device(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    int32_t first = 0;
    int32_t count = 0;
    struct mpo_device_wish wish = {
        .choice = session->config->run.device, .check = check_policies, .asker = session};
    mpo_placement_block(&session->placement, mpo_comm_group_rank(session->comm), &first,
                        &count);
    wish.count = mpo_plan_devices(session->config, first, count);
    MPO_TRY(mpo_comm_local_before(session->comm, wish.count, &wish.before));
    MPO_TRY(mpo_device_open(&wish, session->comm, &session->device));
cleanup:
    return status;
}

/* The cores that this rank may run on, over the ranks that may run on the same ones, unless
 * the user says otherwise: launchers bind ranks to cores of their own, or to none. */
enum mpo_status mpo_session_choose_threads(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    int64_t wanted = session->config->run.threads;
    int32_t sharing = 0;
    struct mpo_host host;
    mpo_host_describe(&host);
    MPO_TRY(mpo_comm_local_same(session->comm, host.core_set_hash, &sharing));
    int32_t each = host.usable_core_count / sharing;
    session->thread_count = wanted != MPO_AUTO_INTEGER ? (int32_t)wanted
                            : each > 0                 ? each
                                                       : 1;
cleanup:
    return status;
}

/* Before anybody makes room: the longest given response is the longest response. */
static enum mpo_status open_policies(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = session->comm;
    struct mpo_policies_spec spec = mpo_plan_policies(session);
    struct mpo_policies_room room = mpo_plan_room(session);
    MPO_TRY(mpo_policies_open(&spec, comm, &session->policies));
    if (mpo_plan_has_responses(&session->size)) {
        MPO_TRY(mpo_policies_encode_responses(session->policies, comm, session->prompts));
        room.response_tokens = mpo_policies_longest_response(session->policies);
    }
    MPO_TRY(mpo_policies_encode_prompts(session->policies, comm, session->prompts,
                                        room.response_tokens));
    MPO_TRY(mpo_policies_make_room(session->policies, comm, &room));
cleanup:
    return status;
}

/* Policies that leave their rows on the host, if any, are among these of the rank; rounded
 * rows are those of all of them. */
static void place_policies(const struct mpo_session *session, struct mpo_mixture_spec *spec)
{
    int32_t first = 0;
    int32_t count = 0;
    mpo_placement_block(&session->placement, mpo_comm_group_rank(session->comm), &first,
                        &count);
    spec->placed_first = first;
    for (int32_t k = 0; k < count; k++)
        if (spec->bf16_rows ||
            !mpo_policy_rows_on_device(mpo_policies_local(session->policies, k)))
            spec->placed_count = count;
}

static enum mpo_status open_mixture(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    struct mpo_mixture_spec spec =
        mpo_plan_mixture(session, mpo_policies_vocab_size(session->policies));
    spec.exchange = session->exchange;
    place_policies(session, &spec);
    spec.end_count = mpo_policies_end_tokens(session->policies, &spec.end_token);
    spec.masked_count = mpo_policies_masked_tokens(session->policies, &spec.masked);
    MPO_TRY(mpo_mixture_open(&spec, &session->mixture));
cleanup:
    return status;
}

static enum mpo_status open_exchange(struct mpo_session *session)
{
    struct mpo_exchange_spec spec =
        mpo_plan_exchange(session->config, &session->placement, &session->size,
                          mpo_policies_vocab_size(session->policies));
    spec.rows_on_device = mpo_plan_rows_on_device(session);
    return mpo_exchange_open(&spec, session->comm, &session->exchange);
}

static enum mpo_status open_decode(struct mpo_session *session)
{
    const struct mpo_decode_spec spec = {
        .comm = session->comm,
        .policies = session->policies,
        .exchange = session->exchange,
        .mixture = session->mixture,
        .timing = &session->timing,
        .placement = session->placement,
        .row_capacity = mpo_plan_rows(&session->size),
        .prompt_slots = (int32_t)mpo_prompts_count(session->prompts),
        .given_positions = mpo_plan_given_positions(&session->size),
    };
    return mpo_decode_open(&spec, &session->decode);
}

static enum mpo_status open_rollout(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_session_size *size = &session->size;
    session->prompts_max = size->prompts_max > 0
                               ? size->prompts_max
                               : size->unit_prompts * mpo_comm_group_count(session->comm);
    MPO_TRY(open_mixture(session));
    MPO_TRY(open_decode(session));
    struct mpo_rollout_spec rollout = {
        .comm = session->comm,
        .policies = session->policies,
        .decode = session->decode,
        .timing = &session->timing,
        .seed = (uint64_t)session->config->run.seed,
        .policy_count = session->config->policy_count,
        .prompts_max = session->prompts_max,
        .unit_prompts = size->unit_prompts,
        .row_capacity = mpo_plan_rows(size),
        .responses = size->responses,
        .max_tokens = (int32_t)session->config->rollout.max_tokens,
        .stop = size->stop,
        .stop_count = size->stop_count,
        .scores_responses = mpo_plan_has_responses(size),
    };
    MPO_TRY(mpo_rollout_open(&rollout, &session->rollout));
cleanup:
    return status;
}

/* True on all ranks when a survey found nothing that would keep a figure from being known.
 * What single policies failed in, opening will find again and report. Collective. */
static enum mpo_status is_known(const struct mpo_session *session,
                                const struct mpo_policies_survey *survey, bool *known)
{
    enum mpo_status status = MPO_OK;
    double all = survey->all_loaded && survey->vocab_size > 0 ? 1.0 : 0.0;
    for (int32_t i = 0; i < survey->local_count; i++)
        if (survey->local[i].prompts.status != MPO_OK)
            all = 0.0;
    MPO_TRY(mpo_comm_min(session->comm, &all, 1));
    *known = all > 0.0;
cleanup:
    return status;
}

/* Whether all that this rank will put on its device has room there, before weights are
 * read. */
static enum mpo_status check_device_memory(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policies_survey survey = {0};
    struct mpo_exchange_plan plan = {0};
    struct mpo_host host = {0};
    bool known = false;
    if (session->device.total_bytes == 0)
        return MPO_OK;
    struct mpo_policies_survey_spec spec = mpo_plan_survey(session);
    MPO_TRY(mpo_policies_survey(&spec, session->comm, &survey));
    MPO_TRY(mpo_failure_raise(&survey.vocabulary)); /* all ranks said so already */
    MPO_TRY(mpo_failure_raise(&survey.responses));
    MPO_TRY(is_known(session, &survey, &known));
    if (!known)
        goto cleanup;
    struct mpo_exchange_spec exchange = mpo_plan_exchange(
        session->config, &session->placement, &session->size, survey.vocab_size);
    exchange.rows_on_device = mpo_plan_rows_on_device(session);
    if (mpo_exchange_survey(&exchange, session->comm, &plan) != MPO_OK)
        plan.rank_bytes = 0; /* opening it will say what is wrong */
    mpo_host_describe(&host);
    struct mpo_needs_device device =
        mpo_plan_device(session, &survey, &host, plan.rank_bytes);
    MPO_TRY(mpo_comm_agree(mpo_needs_check_device(&device)));
cleanup:
    mpo_policies_survey_release(&survey);
    return status;
}

enum mpo_status mpo_session_configure(const char *command, int argc, char *const *argv,
                                      struct mpo_config **config)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    MPO_TRY(mpo_comm_agree(mpo_config_open(command, argc, argv, config)));
    mpo_comm_expect("set-up", -1, (*config)->run.setup_deadline);
    MPO_TRY(mpo_comm_agree(mpo_config_print(*config, &text)));
    MPO_TRY(mpo_comm_agree(
        mpo_comm_same(XXH64(text, strlen(text), 0), "configuration and flags")));
cleanup:
    free(text);
    return status;
}

static const char *command_of(const struct mpo_session_spec *spec)
{
    return spec->command != NULL ? spec->command : "fit";
}

/* The configuration of the specification, read where it is not open yet. */
static enum mpo_status choose_config(const struct mpo_session_spec *spec,
                                     struct mpo_config **own)
{
    enum mpo_status status = MPO_OK;
    char **argv = NULL; /* [1 + flag_count], texts borrowed */
    if (spec->settings != NULL)
        return MPO_OK;
    status = mpo_memory_take((size_t)spec->flag_count + 1, sizeof *argv, "flags",
                             (void **)&argv);
    MPO_TRY(mpo_comm_agree(status));
    argv[0] = (char *)spec->config;
    for (int32_t i = 0; i < spec->flag_count; i++)
        argv[i + 1] = (char *)spec->flags[i];
    MPO_TRY(mpo_session_configure(command_of(spec), spec->flag_count + 1, argv, own));
cleanup:
    free(argv);
    return status;
}

/* Waits, reports and requests to stop are of the process, and so is a session. */
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
    (*out)->size = size->unit_prompts > 0 ? *size : mpo_plan_fit(config);
    (*out)->device.kind = "none";
cleanup:
    return status;
}

static enum mpo_status open_phases(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_agree(mpo_session_read_prompts(session)));
    MPO_TRY(mpo_comm_agree(mpo_comm_same(mpo_prompts_hash(session->prompts), "prompts")));
    MPO_TRY(mpo_session_open_ranks(session));
    MPO_TRY(mpo_comm_agree(mpo_session_describe_policies(session)));
    MPO_TRY(mpo_comm_agree(mpo_session_open_device(session)));
    MPO_TRY(mpo_session_choose_threads(session));
    MPO_TRY(mpo_comm_agree(mpo_plan_check_rows(&session->size)));
    MPO_TRY(check_device_memory(session));
    MPO_TRY(open_policies(session));
    MPO_TRY(open_exchange(session));
    MPO_TRY(mpo_comm_agree(open_rollout(session)));
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
              "a session is open in this process; close it before another is opened");
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
    MPO_TRY(open_phases(*out));
cleanup:
    mpo_config_close(&own);
    return status;
}

enum mpo_status mpo_session_open(const struct mpo_session_spec *spec,
                                 struct mpo_session **out)
{
    enum mpo_status status = MPO_OK;
    bool owns_job = false;
    bool sets_reporter = spec->report.say != NULL;
    struct mpo_reporter before = {0};
    *out = NULL;
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
    struct mpo_session *self = *session;
    if (self == NULL)
        return;
    mpo_rollout_close(&self->rollout);
    mpo_decode_close(&self->decode);
    mpo_mixture_close(&self->mixture);
    mpo_exchange_close(&self->exchange);
    mpo_policies_close(&self->policies);
    free(self->temperature);
    free(self->policy_specs);
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
    const struct mpo_config_run *run = &session->config->run;
    double signal_number = mpo_stop_signal();
    MPO_TRY(mpo_comm_max(session->comm, &signal_number, 1));
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
