/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Specifications of stages and sums of their memory, each in one place: what a session
 * opens, what doctor compares with what is free and what launch asks a batch system for are
 * the same figures.
 */
#include "plan.h"

#include <math.h>
#include <string.h>

#include "end_bias.h"

/* ---- a fit ---- */

/* What the descent balances is measured, and of what is drawn. */
static enum mpo_status check_rewards(const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    if (config->estimator.objective != MPO_BALANCE_REWARD)
        return MPO_OK;
    MPO_CHECK(config->rewards.command[0] != '\0', MPO_ERR_CONFIG,
              "estimator.objective: reward needs a program that measures rewards, found "
              "none; set rewards.command (mpo help fit)");
    MPO_CHECK(config->estimator.target == MPO_TARGET_SERVED, MPO_ERR_CONFIG,
              "estimator.objective: reward balances the rewards of what is served, found "
              "estimator.target: whole; set it to served");
    MPO_CHECK(config->policy_count > 1 || !isnan(config->policies[0].reward_zero),
              MPO_ERR_CONFIG,
              "policies.%s.reward_zero: expected a number, because there is "
              "neither a reference nor another policy to measure it on; give "
              "it, or add a policy with role: reference",
              config->policies[0].name);
    for (int32_t k = 0; k < config->objective_count; k++)
        MPO_CHECK(!(config->policies[k].reward_one <= config->policies[k].reward_zero),
                  MPO_ERR_CONFIG,
                  "policies.%s: expected reward_one above reward_zero, found %g and %g; "
                  "negate a reward that is better when it is smaller",
                  config->policies[k].name, config->policies[k].reward_one,
                  config->policies[k].reward_zero);
cleanup:
    return status;
}

enum mpo_status mpo_plan_check_fit(const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(!(config->fit.resume && config->fit.force), MPO_ERR_USAGE,
              "--resume continues the record and --force moves it aside; give only one");
    bool is_served = config->estimator.target == MPO_TARGET_SERVED;
    MPO_CHECK(
        is_served || !mpo_plan_blends(config), MPO_ERR_CONFIG,
        "estimator.target: whole needs responses of the mixture of logits, found "
        "rollout.mixture: adapters, whose one policy is no product of the others; use "
        "target: served, or mixture: logits");
    MPO_CHECK(!is_served || config->rollout.proposal == MPO_PROPOSAL_MIXTURE,
              MPO_ERR_CONFIG,
              "estimator.target: served takes its gradient from responses of the mixture, "
              "found rollout.proposal: reference; use mixture, or target: whole");
    MPO_CHECK(
        config->rollout.proposal == MPO_PROPOSAL_MIXTURE ||
            isnan(config->rollout.end_bias) || config->rollout.end_bias == 0.0,
        MPO_ERR_CONFIG,
        "rollout.end_bias: with rollout.proposal: reference responses are those of the "
        "reference as it is, found a tilt of %g; leave it out, or use proposal: mixture",
        config->rollout.end_bias);
    MPO_CHECK(
        !is_served || config->descent.stop_gap == 0.0 || config->rollout.responses > 1,
        MPO_ERR_CONFIG,
        "descent.stop_gap: with estimator.target: served it needs rollout.responses of "
        "2 or more, found %lld; the imbalance is not known from single responses",
        (long long)config->rollout.responses);
    MPO_TRY(check_rewards(config));
cleanup:
    return status;
}

bool mpo_plan_warms_up(const struct mpo_config *config)
{
    return config->estimator.target == MPO_TARGET_WHOLE &&
           config->rollout.proposal == MPO_PROPOSAL_MIXTURE &&
           isnan(config->rollout.end_bias);
}

uint64_t mpo_plan_warm_up_bytes(const struct mpo_config *config,
                                const struct mpo_session_size *size, int64_t prompt_count)
{
    bool is_fit = size->machine.row_capacity == 0;
    return is_fit && mpo_plan_warms_up(config)
               ? mpo_session_warm_up_bytes(config, size, prompt_count)
               : 0;
}

struct mpo_session_size mpo_plan_fit(const struct mpo_config *config)
{
    return (struct mpo_session_size){
        .prompts_max = (int32_t)config->rollout.prompts_per_step,
        .unit_prompts = (int32_t)config->rollout.unit_prompts,
        .responses = (int32_t)config->rollout.responses,
        .advice = "lower rollout.unit_prompts, responses or max_tokens",
        .distinct_prompts = true,
    };
}

/* ---- stages ---- */

bool mpo_plan_blends(const struct mpo_config *config)
{
    return config->rollout.mixture == MPO_MIXING_ADAPTERS;
}

/* A machine hosts its blends and nothing else. */
static bool has_blends_alone(const struct mpo_config *config,
                             const struct mpo_session_size *size)
{
    return mpo_plan_blends(config) && size->machine.blends > 0;
}

int32_t mpo_plan_policy_count(const struct mpo_config *config,
                              const struct mpo_session_size *size)
{
    if (has_blends_alone(config, size))
        return size->machine.blends;
    return config->policy_count + (mpo_plan_blends(config) ? 1 : 0);
}

int32_t mpo_plan_first_blend(const struct mpo_config *config,
                             const struct mpo_session_size *size)
{
    return has_blends_alone(config, size) ? 0 : config->policy_count;
}

int32_t mpo_plan_ranks_per_group(const struct mpo_config *config)
{
    int64_t ranks = config->exchange.ranks_per_group;
    if (mpo_plan_blends(config))
        return 1;
    return ranks == MPO_AUTO_INTEGER ? 0 : (int32_t)ranks;
}

int32_t mpo_plan_rows(const struct mpo_session_size *size)
{
    if (size->machine.row_capacity > 0)
        return size->machine.row_capacity;
    return size->row_capacity > 0 ? size->row_capacity
                                  : size->unit_prompts * size->responses;
}

enum mpo_status mpo_plan_check_rows(const struct mpo_session_size *size)
{
    enum mpo_status status = MPO_OK;
    int32_t rows = mpo_plan_rows(size);
    MPO_CHECK(
        rows <= MPO_ROW_COUNT_MAX, MPO_ERR_CONFIG,
        "expected at most %d rows at once, found %d: units of %d prompts x %d responses",
        MPO_ROW_COUNT_MAX, rows, size->unit_prompts, size->responses);
    MPO_CHECK(rows >= size->responses, MPO_ERR_CONFIG,
              "expected %d (the responses to a prompt) to %d rows at once, found %d",
              size->responses, MPO_ROW_COUNT_MAX, rows);
cleanup:
    return status;
}

bool mpo_plan_has_responses(const struct mpo_session_size *size)
{
    return size->prompts.response_count > 0;
}

int32_t mpo_plan_given_positions(const struct mpo_config *config,
                                 const struct mpo_session_size *size)
{
    if (size->machine.row_capacity > 0)
        return size->machine.given_positions;
    return mpo_plan_has_responses(size) || mpo_plan_blends(config)
               ? MPO_DECODE_GIVEN_POSITIONS
               : 0;
}

enum mpo_decode_prefill mpo_plan_prefill(const struct mpo_session_size *size)
{
    return size->machine.row_capacity > 0 ? MPO_DECODE_MIXED : MPO_DECODE_ALONE;
}

int32_t mpo_plan_prompt_slots(const struct mpo_session_size *size,
                              const struct mpo_prompts *prompts)
{
    if (size->machine.row_capacity > 0)
        return size->machine.prompt_slots;
    return prompts != NULL ? (int32_t)mpo_prompts_count(prompts) : 1;
}

/* Positions of one step at most. */
static int32_t position_rows(const struct mpo_config *config,
                             const struct mpo_session_size *size)
{
    return mpo_decode_positions(&(struct mpo_decode_spec){
        .row_capacity = mpo_plan_rows(size),
        .given_positions = mpo_plan_given_positions(config, size),
        .prefill = mpo_plan_prefill(size),
    });
}

/* Of a step that only draws, or only scores. */
static int32_t usual_rows(const struct mpo_config *config,
                          const struct mpo_session_size *size)
{
    bool draws_beside = mpo_plan_prefill(size) == MPO_DECODE_MIXED;
    return draws_beside ? mpo_plan_rows(size) : position_rows(config, size);
}

/* Prompts whose cells are held at once at most. A prompt holds them while one of its rows
 * lives, and another can join as long as its m rows are free: the most are held when one
 * row of each is left and one prompt has just joined. */
static int32_t held_prompts(const struct mpo_session_size *size)
{
    int32_t crowded = mpo_plan_rows(size) - size->responses + 1;
    return crowded < size->unit_prompts ? crowded : size->unit_prompts;
}

static bool rounds_rows(const struct mpo_config *config)
{
    return config->exchange.rows == MPO_ROW_TYPE_BF16;
}

int32_t mpo_plan_devices(const struct mpo_config *config, int32_t first, int32_t count)
{
    int64_t devices = 1;
    for (int32_t h = first; h < first + count && h < config->policy_count; h++)
        if (config->policies[h].devices > devices)
            devices = config->policies[h].devices;
    return (int32_t)devices;
}

bool mpo_plan_rows_on_device(const struct mpo_session *session)
{
    return session->device.total_bytes > 0 && /* memory of its own */
           mpo_exchange_carries_device_rows(session->config->exchange.transport,
                                            session->comm);
}

struct mpo_policies_spec mpo_plan_policies(const struct mpo_session *session)
{
    const struct mpo_prompts *prompts = session->prompts;
    return (struct mpo_policies_spec){
        .policies = session->hosted,
        .placement = session->placement,
        .thread_count = session->thread_count,
        .prompt_slots = mpo_plan_prompt_slots(&session->size, prompts),
        .device = &session->device,
        .rows_on_device = mpo_plan_rows_on_device(session),
        .prompt_time = session->prompt_time,
        .hash_models = session->config->record.hash_models,
        .batch_invariant = session->config->run.batch_invariant,
        .device_rows = session->config->run.device_rows,
        .kv = session->config->run.kv,
    };
}

struct mpo_policies_room mpo_plan_room(const struct mpo_session *session)
{
    const struct mpo_session_size *size = &session->size;
    return (struct mpo_policies_room){
        .row_capacity = mpo_plan_rows(size) + size->machine.parked_rows,
        .position_capacity = position_rows(session->config, size),
        .held_prompts = held_prompts(size),
        .response_tokens = (int32_t)session->config->rollout.max_tokens,
        .context_tokens = size->machine.context_tokens,
        .scores = mpo_plan_given_positions(session->config, size) > 0,
        .mixes_prompts = size->machine.mixes_prompts,
    };
}

struct mpo_policies_survey_spec mpo_plan_survey(const struct mpo_session *session)
{
    struct mpo_policies_survey_spec spec = {
        .policies = mpo_plan_policies(session),
        .room = mpo_plan_room(session),
        .prompts = session->prompts,
        .responses_given = mpo_plan_has_responses(&session->size),
    };
    spec.policies.hash_models = false; /* it would read all of the files */
    return spec;
}

struct mpo_mixture_spec mpo_plan_mixture(const struct mpo_session *session,
                                         int32_t vocab_size)
{
    return (struct mpo_mixture_spec){
        .device = session->device.kind,
        .temperature = session->temperature,
        .policy_count = mpo_plan_policy_count(session->config, &session->size),
        .vocab_size = vocab_size,
        .row_capacity = position_rows(session->config, &session->size),
        .rows_on_device = mpo_plan_rows_on_device(session),
        .bf16_rows = rounds_rows(session->config),
    };
}

struct mpo_exchange_spec mpo_plan_exchange(const struct mpo_config *config,
                                           const struct mpo_placement *placement,
                                           const struct mpo_session_size *size,
                                           int32_t vocab_size)
{
    return (struct mpo_exchange_spec){
        .transport = config->exchange.transport,
        .pattern = config->exchange.pattern,
        .placement = *placement,
        .row_capacity = position_rows(config, size),
        .usual_rows = usual_rows(config, size),
        .vocab_size = vocab_size,
        .bf16_rows = rounds_rows(config),
    };
}

/* ---- memory of a rank that runs ---- */

uint64_t mpo_plan_host_rows(const struct mpo_session *session,
                            const struct mpo_policies_survey *survey,
                            uint64_t exchange_bytes)
{
    struct mpo_mixture_spec spec = mpo_plan_mixture(session, survey->vocab_size);
    spec.placed_count = survey->local_count;
    return mpo_mixture_host_bytes(&spec) + (spec.rows_on_device ? 0 : exchange_bytes);
}

static uint64_t device_rows(const struct mpo_session *session,
                            const struct mpo_policies_survey *survey,
                            uint64_t exchange_bytes)
{
    struct mpo_mixture_spec spec = mpo_plan_mixture(session, survey->vocab_size);
    for (int32_t i = 0; i < survey->local_count; i++)
        if (spec.bf16_rows || survey->local[i].need.devices == 0 ||
            !survey->local[i].need.keeps_rows)
            spec.placed_count = survey->local_count; /* as session.c places them */
    return mpo_mixture_device_bytes(&spec) + (spec.rows_on_device ? exchange_bytes : 0);
}

struct mpo_needs_device mpo_plan_device(const struct mpo_session *session,
                                        const struct mpo_policies_survey *survey,
                                        const struct mpo_host *host,
                                        uint64_t exchange_bytes)
{
    return (struct mpo_needs_device){
        .device = &session->device,
        .host = host->name,
        .policies = survey->local,
        .specs = session->hosted,
        .policy_count = survey->local_count,
        .rows_bytes = device_rows(session, survey, exchange_bytes),
        .library_bytes = mpo_needs_of_libraries(survey->local, survey->local_count,
                                                mpo_plan_rows_on_device(session) &&
                                                    mpo_comm_group_size(session->comm) > 1),
        .advice = session->size.advice,
    };
}

/* ---- a job that does not run ---- */

static void block_of_rank(const struct mpo_plan *plan, int32_t rank, int32_t *first,
                          int32_t *count)
{
    mpo_placement_block(&plan->placement, rank % plan->placement.group_size, first, count);
}

int32_t mpo_plan_node_devices(const struct mpo_plan *plan)
{
    int32_t most = 0;
    int32_t here = 0;
    for (int32_t rank = 0; rank < plan->rank_count; rank++) {
        int32_t first = 0;
        int32_t count = 0;
        block_of_rank(plan, rank, &first, &count);
        here = rank % plan->ranks_per_node == 0 ? 0 : here;
        here += mpo_plan_devices(plan->config, first, count);
        most = here > most ? here : most;
    }
    return most;
}

/* Policies of a rank's group on its node. */
static int32_t policies_near(const struct mpo_plan *plan, int32_t rank)
{
    int32_t root = rank - rank % plan->placement.group_size;
    int32_t node = rank - rank % plan->ranks_per_node;
    int32_t near = 0;
    for (int32_t other = node; other < node + plan->ranks_per_node; other++) {
        int32_t first = 0;
        int32_t count = 0;
        if (other < root || other >= root + plan->placement.group_size)
            continue;
        block_of_rank(plan, other, &first, &count);
        near += count;
    }
    return near;
}

/* Bytes for rows that a rank keeps, at most, whatever the transport: those of its
 * policies if other ranks read them, its slice of those on other nodes, and its policies'
 * rounded ones. */
static size_t rows_kept(const struct mpo_plan *plan, int32_t rank, int32_t own)
{
    struct mpo_exchange_spec spec = mpo_plan_exchange(
        plan->config, &plan->placement, &plan->size, plan->survey->vocab_size);
    int32_t group_size = plan->placement.group_size;
    int32_t far = plan->placement.policy_count - policies_near(plan, rank);
    const struct mpo_exchange_site site = {group_size, far == 0};
    int32_t tokens = mpo_exchange_plan_tokens(&spec, rank % group_size, &site);
    const struct mpo_mixture_spec rounded = {.bf16_rows = spec.bf16_rows,
                                             .vocab_size = spec.vocab_size,
                                             .row_capacity = spec.row_capacity,
                                             .placed_count = own};
    size_t bytes = mpo_mixture_host_bytes(&rounded);
    if (tokens < spec.vocab_size)
        bytes += mpo_exchange_most_bytes(&spec, own);
    spec.vocab_size = tokens;
    return bytes + (tokens > 0 ? mpo_exchange_most_bytes(&spec, far) : 0);
}

/* This process has the vocabularies and adapters of all policies, so its size is an upper
 * bound for a rank's. */
static struct mpo_needs rank_needs(const struct mpo_plan *plan, const struct mpo_host *host,
                                   int32_t rank)
{
    int32_t first = 0;
    int32_t count = 0;
    block_of_rank(plan, rank, &first, &count);
    struct mpo_needs needs = mpo_needs_of_rank(plan->survey->local + first, count, host,
                                               rows_kept(plan, rank, count));
    needs.work_bytes +=
        mpo_plan_warm_up_bytes(plan->config, &plan->size, MPO_END_BIAS_PROMPTS);
    return needs;
}

struct mpo_needs mpo_plan_node_needs(const struct mpo_plan *plan)
{
    struct mpo_needs most = {0};
    struct mpo_host host = {0};
    mpo_host_describe(&host);
    for (int32_t node = 0; node < plan->rank_count; node += plan->ranks_per_node) {
        struct mpo_needs sum = {0};
        for (int32_t rank = node; rank < node + plan->ranks_per_node; rank++) {
            struct mpo_needs needs = rank_needs(plan, &host, rank);
            mpo_needs_add(&sum, &needs);
        }
        if (mpo_needs_total(&sum) > mpo_needs_total(&most))
            most = sum;
    }
    return most;
}
