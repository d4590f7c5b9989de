/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rollout.mixture: adapters draws from one policy, the base model with the adapters of all
 * policies. That is a mixture of these policies only where nothing but their adapters differs:
 * the same model, the same texts around a prompt, the same temperature. What needs files to be
 * opened (two paths of one model) is checked when a session opens them.
 */
#include "config_impl.h"

#include <string.h>

#include "mpo/policy.h"

static bool is_objective(const struct mpo_config_policies *policy)
{
    return policy->role == MPO_ROLE_OBJECTIVE;
}

/* Each on its own. */
static enum mpo_status check_policy(struct mpo_config_build *build, int32_t index)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_policies *policy = &build->config->policies[index];
    MPO_CHECK(strcmp(policy->kind, "table") != 0, MPO_ERR_CONFIG,
              "%s: rollout.mixture: adapters needs GGUF models with LoRA adapters, found "
              "'%s' of kind table; use rollout.mixture: logits",
              mpo_config_where_of(build, MPO_OPTION_policies_kind, index), policy->name);
    MPO_CHECK(policy->lora.count > 0 || !is_objective(policy), MPO_ERR_CONFIG,
              "%s: rollout.mixture: adapters needs an adapter for each objective, found "
              "none for '%s'; give its adapter, make it the reference if it is the base "
              "model, or use rollout.mixture: logits",
              mpo_config_where_of(build, MPO_OPTION_policies_lora, index), policy->name);
cleanup:
    return status;
}

/* The option in which two policies differ, -1 for none. */
static int find_difference(const struct mpo_config_policies *a,
                           const struct mpo_config_policies *b)
{
    const struct {
        int option;
        bool differs;
    } compared[] = {
        {MPO_OPTION_policies_system, strcmp(a->system, b->system) != 0},
        {MPO_OPTION_policies_request, strcmp(a->request, b->request) != 0},
        {MPO_OPTION_policies_chat_template,
         strcmp(a->chat_template, b->chat_template) != 0},
        {MPO_OPTION_policies_temperature, a->temperature != b->temperature},
        {MPO_OPTION_policies_devices, a->devices != b->devices},
    };
    for (size_t i = 0; i < sizeof compared / sizeof *compared; i++)
        if (compared[i].differs)
            return compared[i].option;
    return -1;
}

static enum mpo_status check_group(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    int64_t ranks = build->config->exchange.ranks_per_group;
    MPO_CHECK(
        ranks == MPO_AUTO_INTEGER || ranks == 1, MPO_ERR_CONFIG,
        "%s: with rollout.mixture: adapters each rank hosts all policies, which share "
        "one base model; expected 1 or auto, found %lld",
        mpo_config_where_of(build, MPO_OPTION_exchange_ranks_per_group, 0),
        (long long)ranks);
cleanup:
    return status;
}

enum mpo_status mpo_config_check_one_base(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    int32_t adapters = 0;
    if (config->rollout.mixture != MPO_MIXING_ADAPTERS)
        return MPO_OK;
    MPO_TRY(check_group(build));
    for (int32_t i = 0; i < config->policy_count; i++) {
        int option = find_difference(&config->policies[0], &config->policies[i]);
        MPO_TRY(check_policy(build, i));
        MPO_CHECK(option < 0, MPO_ERR_CONFIG,
                  "%s: rollout.mixture: adapters needs policies that differ in their "
                  "adapters alone, but '%s' and '%s' do not have the same %s; make them "
                  "equal, or use rollout.mixture: logits",
                  mpo_config_where_of(build, option, i), config->policies[0].name,
                  config->policies[i].name, mpo_config_options[option].name);
        adapters += config->policies[i].lora.count;
    }
    MPO_CHECK(
        adapters <= MPO_POLICY_ADAPTER_COUNT_MAX, MPO_ERR_CONFIG,
        "%s: rollout.mixture: adapters adds the adapters of all policies, expected at "
        "most %d, found %d; merge some of them, or use rollout.mixture: logits",
        build->path, MPO_POLICY_ADAPTER_COUNT_MAX, adapters);
cleanup:
    return status;
}
