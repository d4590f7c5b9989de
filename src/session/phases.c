/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The phases of opening a session, in flow order: prompts, ranks, device, policies,
 * exchange, mixture, decode, rollout. Each ends in an agreement, so that one rank's failure
 * is a failure of all. doctor and launch run the first of them by themselves.
 */
#include "parts.h"

#include <stdlib.h>
#include <string.h>

#include "blend.h"
#include "context.h"
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
              "%s: expected a file, found -: only one of %d ranks can read standard input",
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
    int32_t policy_count = mpo_plan_policy_count(session->config, &session->size);
    enum mpo_status status = MPO_OK;
    int64_t *time = &session->prompt_time;
    MPO_TRY(mpo_placement_open_comm(policy_count, ranks_per_group, &session->comm));
    session->placement = mpo_placement_of(policy_count, session->comm);
    /* `today` may end between two ranks */
    (void)mpo_config_read_date(session->config->prompts.date, time);
    MPO_TRY(mpo_comm_broadcast(session->comm, time, sizeof *time, 0));
cleanup:
    return status;
}

enum mpo_status mpo_session_open_ranks(struct mpo_session *session)
{
    return mpo_session_open_groups(session, mpo_plan_ranks_per_group(session->config));
}

/* The adapters of a policy: the first, and what is added to it. */
static void describe_adapters(const struct mpo_config_policies *policy,
                              struct mpo_policy_spec *spec, struct mpo_policy_adapter *more)
{
    const struct mpo_numbers *scale = &policy->lora_scale;
    spec->lora = policy->lora.count > 0 ? policy->lora.text[0] : "";
    spec->lora_scale = scale->value[0];
    spec->more = more;
    for (int32_t i = 1; i < policy->lora.count; i++)
        more[spec->more_count++] = (struct mpo_policy_adapter){
            policy->lora.text[i], scale->value[scale->count > 1 ? i : 0]};
}

enum mpo_status mpo_session_describe_policies(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = session->config;
    const int32_t hosted = mpo_plan_policy_count(config, &session->size);
    int32_t adapter_count = 0;
    for (int32_t h = 0; h < config->policy_count; h++)
        adapter_count += config->policies[h].lora.count;
    MPO_CHECK(session->size.machine.blends == 0 || mpo_plan_blends(config), MPO_ERR_USAGE,
              "a session: size.machine.blends: expected 0 with rollout.mixture: logits, "
              "found %d",
              session->size.machine.blends);
    MPO_NEW(adapter_count, &session->adapters);
    adapter_count = 0;
    MPO_NEW(config->policy_count + hosted, &session->policy_specs);
    MPO_NEW(config->policy_count + hosted, &session->temperature);
    session->hosted = session->policy_specs;
    for (int32_t h = 0; h < config->policy_count; h++) {
        const struct mpo_config_policies *policy = &config->policies[h];
        session->temperature[h] = policy->temperature;
        session->policy_specs[h] = (struct mpo_policy_spec){
            .name = policy->name,
            .kind = policy->kind,
            .model = policy->model,
            .system = policy->system,
            .request = policy->request,
            .chat_template = policy->chat_template,
            .temperature = policy->temperature,
            .devices = (int32_t)policy->devices,
        };
        describe_adapters(policy, &session->policy_specs[h],
                          session->adapters + adapter_count);
        adapter_count += session->policy_specs[h].more_count;
    }
    if (mpo_plan_blends(config))
        MPO_TRY(mpo_session_describe_blends(session));
cleanup:
    return status;
}

static enum mpo_status check_policies(const void *asker, const char *kind)
{
    const struct mpo_session *session = asker;
    return mpo_policies_check_device(
        session->hosted, mpo_plan_policy_count(session->config, &session->size), kind);
}

struct told {
    const char *key;
    bool is_told; /* as one that the command does not look at */
};

static void look_for_key(void *context, const char *key, const char *why)
{
    struct told *told = context;
    (void)why;
    told->is_told = told->is_told || strcmp(key, told->key) == 0;
}

static bool is_told_by_command(const struct mpo_session *session, const char *key)
{
    struct told told = {.key = key};
    mpo_config_visit_idle(session->config, session->command, look_for_key, &told);
    return told.is_told;
}

/* Flags that are about the other kind of device, or other kinds of policies; of a fit what
 * its file says too. At the root. */
static void warn_of_idle(const struct mpo_session *session)
{
    const struct mpo_config *config = session->config;
    const bool is_cpu = session->device.total_bytes == 0;
    const bool is_fit = strcmp(session->command, "fit") == 0;
    const char *told = is_cpu ? "policies.devices" : "run.batch_invariant";
    const char *key = NULL;
    if (mpo_comm_rank(session->comm) != 0)
        return;
    if (mpo_config_is_flagged(config, told))
        mpo_report(MPO_REPORT_WARNING, "%s has no effect here: policies run on %s", told,
                   is_cpu ? "the CPU" : "devices");
    const int32_t hosted = mpo_plan_policy_count(config, &session->size);
    for (int32_t i = 0;
         (key = mpo_policies_idle_option(session->hosted, hosted, i)) != NULL; i++)
        if (strcmp(key, told) != 0 && !is_told_by_command(session, key) &&
            (mpo_config_is_flagged(config, key) ||
             (is_fit && mpo_config_is_written(config, key))))
            mpo_report(MPO_REPORT_WARNING,
                       "%s has no effect here: no policy is of a kind that heeds it", key);
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
    warn_of_idle(session);
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
    if (session->device.total_bytes > 0 && each > 0)
        mpo_comm_own_core();
cleanup:
    return status;
}

/* The longest given response sets the response tokens, so responses come before room. */
static enum mpo_status open_policies(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = session->comm;
    struct mpo_policies_spec spec = mpo_plan_policies(session);
    struct mpo_policies_room room = mpo_plan_room(session);
    MPO_TRY(mpo_policies_open(&spec, comm, &session->policies));
    if (session->prompts == NULL)
        return mpo_policies_make_room(session->policies, comm, &room);
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
static void choose_placed(const struct mpo_session *session, struct mpo_mixture_spec *spec)
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
    choose_placed(session, &spec);
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

/* As open_policies made room for. */
static int32_t response_tokens(const struct mpo_session *session)
{
    if (session->size.machine.row_capacity > 0)
        return 0; /* rows share a room */
    return mpo_plan_has_responses(&session->size)
               ? mpo_policies_longest_response(session->policies)
               : mpo_plan_room(session).response_tokens;
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
        .parked_rows = session->size.machine.parked_rows,
        .prompt_slots = mpo_plan_prompt_slots(&session->size, session->prompts),
        .given_positions = mpo_plan_given_positions(session->config, &session->size),
        .reports_ends = session->size.integrates_ends,
        .response_tokens = response_tokens(session),
        .top_max = session->size.machine.top_max,
        .bias_max = session->size.machine.bias_max,
        .prefill = mpo_plan_prefill(&session->size),
        .prefill_tokens = session->size.machine.prefill_tokens,
        .prefill_step = session->size.machine.prefill_step,
        .prefill_stretch = session->size.machine.prefill_stretch,
        .prefill_idle = session->size.machine.prefill_idle,
    };
    return mpo_decode_open(&spec, &session->decode);
}

struct mpo_rollout_spec mpo_session_rollout_spec(struct mpo_session *session)
{
    return (struct mpo_rollout_spec){
        .comm = session->comm,
        .policies = session->policies,
        .decode = session->decode,
        .timing = &session->timing,
        .blend = mpo_plan_blends(session->config) ? &session->blend : NULL,
        .seed = (uint64_t)session->config->run.seed,
        .policy_count = session->config->policy_count,
        .row_capacity = mpo_plan_rows(&session->size),
        .max_tokens = (int32_t)session->config->rollout.max_tokens,
    };
}

static enum mpo_status open_rollout(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_session_size *size = &session->size;
    if (size->machine.row_capacity > 0)
        return MPO_OK;
    session->prompts_max = size->prompts_max > 0
                               ? size->prompts_max
                               : size->unit_prompts * mpo_comm_group_count(session->comm);
    struct mpo_rollout_spec rollout = mpo_session_rollout_spec(session);
    rollout.prompts_max = session->prompts_max;
    rollout.unit_prompts = size->unit_prompts;
    rollout.responses = size->responses;
    rollout.stop = size->stop;
    rollout.stop_count = size->stop_count;
    rollout.try_limit = size->try_limit;
    rollout.purpose = mpo_plan_has_responses(size) ? MPO_ROLLOUT_SCORES
                      : size->integrates_ends      ? MPO_ROLLOUT_INTEGRATES
                      : size->try_limit > 0        ? MPO_ROLLOUT_EXACT
                                                   : MPO_ROLLOUT_DRAWS;
    MPO_TRY(mpo_rollout_open(&rollout, &session->rollout));
cleanup:
    return status;
}

/* True on all ranks when a survey found all that the figures depend on. Opening will meet
 * the failures of single policies again, and reports them. Collective. */
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

/* Whether this rank's device has memory for all that will lie there, before weights are
 * read. */
static enum mpo_status check_device_memory(const struct mpo_session *session,
                                           const struct mpo_policies_survey *survey)
{
    enum mpo_status status = MPO_OK;
    struct mpo_host host = {0};
    if (session->device.total_bytes == 0)
        return MPO_OK;
    mpo_host_describe(&host);
    struct mpo_needs_device device = mpo_plan_device(
        session, survey, &host, mpo_context_exchange_bytes(session, survey->vocab_size));
    MPO_TRY(mpo_comm_agree(mpo_needs_check_device(&device)));
cleanup:
    return status;
}

/* What depends on the memory that there is. A context that was lowered is looked at anew. */
static enum mpo_status look_at_memory(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policies_survey survey = {0};
    bool known = false;
    bool again = session->size.machine.shrinks || session->device.total_bytes > 0;
    while (again) {
        struct mpo_policies_survey_spec spec = mpo_plan_survey(session);
        mpo_policies_survey_release(&survey);
        MPO_TRY(mpo_policies_survey(&spec, session->comm, &survey));
        MPO_TRY(mpo_failure_raise(&survey.vocabulary)); /* all ranks have reported it */
        MPO_TRY(mpo_failure_raise(&survey.responses));
        MPO_TRY(is_known(session, &survey, &known));
        if (!known)
            goto cleanup;
        MPO_TRY(mpo_context_fit(session, &survey, &again));
    }
    if (known)
        MPO_TRY(check_device_memory(session, &survey));
cleanup:
    mpo_policies_survey_release(&survey);
    return status;
}

enum mpo_status mpo_session_open_phases(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    if (session->size.machine.row_capacity == 0) {
        MPO_TRY(mpo_comm_agree(mpo_session_read_prompts(session)));
        MPO_TRY(
            mpo_comm_agree(mpo_comm_same(mpo_prompts_hash(session->prompts), "prompts")));
    }
    MPO_TRY(mpo_session_open_ranks(session));
    MPO_TRY(mpo_comm_agree(mpo_session_describe_policies(session)));
    MPO_TRY(mpo_comm_agree(mpo_session_open_device(session)));
    MPO_TRY(mpo_session_choose_threads(session));
    MPO_TRY(mpo_comm_agree(mpo_plan_check_rows(&session->size)));
    MPO_TRY(look_at_memory(session));
    MPO_TRY(open_policies(session));
    MPO_TRY(open_exchange(session));
    MPO_TRY(mpo_comm_agree(open_mixture(session)));
    MPO_TRY(mpo_comm_agree(open_decode(session)));
    MPO_TRY(mpo_comm_agree(open_rollout(session)));
cleanup:
    return status;
}
