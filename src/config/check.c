/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is checked across options, when all of them are read: options that must be given and
 * what stands for them, names and roles of policies, bounds, and sums.
 *
 * A message has the place of the option that it asks to be changed. What one value alone can
 * be wrong in is refused where it is assigned (value.c).
 */
#include "config_impl.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/simplex.h"
#include "mpo/policy.h"

#define NAME_BYTES_MAX 63

static const struct mpo_config_stand_in stand_ins[] = {
#define MPO_STANDS_FOR(command, name, section, option)                                     \
    {MPO_OPTION_##command##_##name, MPO_OPTION_##section##_##option},
#include "mpo/options.def"
};
#define STAND_IN_COUNT (sizeof stand_ins / sizeof *stand_ins)

const char *mpo_config_where_of(struct mpo_config_build *build, int option_index,
                                int32_t policy_index)
{
    struct mpo_config_assignment about = {
        .option = &mpo_config_options[option_index],
        .policy_index = policy_index,
        .place = build->place[option_index],
    };
    if (about.option->section == MPO_SECTION_policies)
        about.place = build->policy_place[policy_index];
    return mpo_config_where(build, &about);
}

static bool is_given(const struct mpo_config_build *build, int option_index)
{
    const char *text =
        *(char **)mpo_config_member(build->config, &mpo_config_options[option_index], 0);
    return text != NULL && *text != '\0';
}

/* One prompt on the command line makes the file of prompts needless. A command that only
 * asks about a configuration can do without what any command can do without. */
static bool is_needless(const struct mpo_config_build *build, int option_index)
{
    for (size_t i = 0; i < STAND_IN_COUNT; i++) {
        if ((int)stand_ins[i].option != option_index)
            continue;
        if (mpo_config_is_query(build->command) ||
            (mpo_config_is_own(&mpo_config_options[stand_ins[i].own], build->command) &&
             is_given(build, (int)stand_ins[i].own)))
            return true;
    }
    return false;
}

/* `--prompt "$question"` with an empty variable would use all prompts of the file. In a
 * file an empty prompt is the written-out default. */
static enum mpo_status check_stand_ins(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < STAND_IN_COUNT; i++) {
        int own = (int)stand_ins[i].own;
        const char *initial = mpo_config_options[own].initial;
        MPO_CHECK(build->place[own].flag == NULL || is_given(build, own) || initial == NULL,
                  MPO_ERR_USAGE,
                  "%s: expected a value, found an empty text; without the flag, %s is used",
                  mpo_config_where_of(build, own, 0),
                  initial[0] != '\0' ? initial
                                     : mpo_config_options[stand_ins[i].option].full_name);
    }
cleanup:
    return status;
}

/* An option without a default is a text (options.def); NULL means not given. */
static enum mpo_status check_option(struct mpo_config_build *build, int option_index)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_option *option = &mpo_config_options[option_index];
    bool is_listed = option->section == MPO_SECTION_policies;
    bool is_own = mpo_config_is_own(option, build->command);
    for (int32_t k = 0; k < (is_listed ? build->config->policy_count : 1); k++) {
        char **member = mpo_config_member(build->config, option, k);
        MPO_CHECK(!is_own || (*member != NULL && **member != '\0'), MPO_ERR_USAGE,
                  "--%s: expected a value, found none (%s)", option->name,
                  option->sentence);
        MPO_CHECK((*member != NULL && **member != '\0') ||
                      is_needless(build, option_index) ||
                      mpo_config_sections[option->section].scope == MPO_SCOPE_COMMAND,
                  MPO_ERR_CONFIG, "%s: expected a value, found none (%s)",
                  mpo_config_where_of(build, option_index, k), option->sentence);
        if (*member == NULL)
            MPO_TRY(mpo_memory_copy_text("", member));
    }
cleanup:
    return status;
}

/* A default is no value for a path that was given as nothing. */
static enum mpo_status check_record_path(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(build->config->record.file[0] != '\0', MPO_ERR_CONFIG,
              "%s: expected the name of a file, found none; without it, mpo.h5 is written",
              mpo_config_where_of(build, MPO_OPTION_record_file, 0));
cleanup:
    return status;
}

/* First what the command wants for itself, which may stand for what else is missing. */
static enum mpo_status check_required(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    for (int own = 1; own >= 0; own--)
        for (int i = 0; i < MPO_OPTION_COUNT; i++)
            if (mpo_config_options[i].initial == NULL &&
                mpo_config_is_own(&mpo_config_options[i], build->command) == (own == 1))
                MPO_TRY(check_option(build, i));
cleanup:
    return status;
}

/* What is wrong with a name, or NULL. A dot would make --policies.NAME.key ambiguous. */
static const char *name_fault(const char *name)
{
    if (strlen(name) > NAME_BYTES_MAX)
        return "at most 63 bytes";
    if (strcmp(name, "uniform") == 0)
        return "another name, because --weights=uniform has a meaning of its own";
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)name;
    while (*at != '\0') {
        utf8proc_int32_t letter = 0;
        utf8proc_ssize_t bytes = utf8proc_iterate(at, -1, &letter);
        if (bytes <= 0 || utf8proc_category(letter) == UTF8PROC_CATEGORY_CC)
            return "no control characters";
        if (letter == '.')
            return "no dot, because of flags like --policies.NAME.key";
        if (letter == ',' || letter == '=' || letter == ';')
            return "no comma, '=' or ';', because of options like --objectives=A,B and "
                   "--min=NAME=0.1";
        at += bytes;
    }
    return NULL;
}

/* By name, and policies of one name in the order of the file. */
static int compare_names(const void *left, const void *right)
{
    const struct mpo_config_policies *a = *(const struct mpo_config_policies *const *)left;
    const struct mpo_config_policies *b = *(const struct mpo_config_policies *const *)right;
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : (a > b) - (a < b);
}

static enum mpo_status check_names_differ(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    const struct mpo_config_policies **sorted = NULL;
    char quoted[MPO_QUOTE_BYTES];
    MPO_NEW(config->policy_count, &sorted);
    for (int32_t i = 0; i < config->policy_count; i++)
        sorted[i] = &config->policies[i];
    qsort(sorted, (size_t)config->policy_count, sizeof(*sorted), compare_names);
    for (int32_t i = 1; i < config->policy_count; i++)
        MPO_CHECK(strcmp(sorted[i - 1]->name, sorted[i]->name) != 0, MPO_ERR_CONFIG,
                  "%s: expected a unique name, found '%s', which policies[%td] already has",
                  mpo_config_where_of(build, MPO_OPTION_policies_name,
                                      (int32_t)(sorted[i] - config->policies)),
                  mpo_quote(sorted[i]->name, quoted), sorted[i - 1] - config->policies);
cleanup:
    free(sorted);
    return status;
}

static enum mpo_status check_names(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    char quoted[MPO_QUOTE_BYTES];
    for (int32_t i = 0; i < config->policy_count; i++) {
        const char *name = config->policies[i].name;
        const char *fault = name_fault(name);
        MPO_CHECK(fault == NULL, MPO_ERR_CONFIG, "%s: expected %s, found '%s'",
                  mpo_config_where_of(build, MPO_OPTION_policies_name, i), fault,
                  mpo_quote(name, quoted));
    }
    MPO_TRY(check_names_differ(build));
cleanup:
    return status;
}

static bool is_reference(const struct mpo_config_policies *policy)
{
    return policy->role == MPO_ROLE_REFERENCE;
}

/* Objectives come first: the first K policies are those that weights belong to. */
static enum mpo_status check_and_sort_roles(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config *config = build->config;
    int32_t count = config->policy_count;
    int32_t reference = -1;
    for (int32_t i = 0; i < count; i++) {
        if (!is_reference(&config->policies[i]))
            continue;
        MPO_CHECK(
            reference < 0, MPO_ERR_CONFIG,
            "%s: expected at most one policy with role reference, found '%s' and '%s'",
            mpo_config_where_of(build, MPO_OPTION_policies_role, i),
            config->policies[i].name, config->policies[reference].name);
        reference = i;
    }
    config->objective_count = count - (reference >= 0);
    MPO_CHECK(config->objective_count > 0, MPO_ERR_CONFIG,
              "%s: policies: expected at least one policy with role objective, found none",
              build->path);
    if (reference >= 0) {
        struct mpo_config_policies moved = config->policies[reference];
        memmove(&config->policies[reference], &config->policies[reference + 1],
                (size_t)(count - 1 - reference) * sizeof moved);
        config->policies[count - 1] = moved;
    }
cleanup:
    return status;
}

static enum mpo_status check_initial(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_numbers *initial = &build->config->descent.initial;
    double sum = 0;
    if (initial->count == 0)
        return MPO_OK;
    MPO_CHECK(initial->count == build->config->objective_count, MPO_ERR_CONFIG,
              "%s: expected %d numbers, one per objective, found %d",
              mpo_config_where_of(build, MPO_OPTION_descent_initial, 0),
              build->config->objective_count, initial->count);
    for (int32_t i = 0; i < initial->count; i++)
        sum += initial->value[i];
    MPO_CHECK(mpo_sums_to_one(sum), MPO_ERR_CONFIG,
              "%s: expected weights that sum to 1, found a sum of %.9g",
              mpo_config_where_of(build, MPO_OPTION_descent_initial, 0), sum);
cleanup:
    return status;
}

/* Checks of each policy, made while policies are in the order of the file, which gives the
 * places for messages. */
static enum mpo_status check_bounds(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    for (int32_t i = 0; i < config->policy_count; i++) {
        const struct mpo_config_policies *policy = &config->policies[i];
        bool is_bounded = policy->min > 0.0 || policy->max < 1.0;
        MPO_CHECK(!is_reference(policy) || !is_bounded, MPO_ERR_CONFIG,
                  "%s: expected no min and max for '%s', because a reference has no weight",
                  mpo_config_where_of(build, MPO_OPTION_policies_min, i), policy->name);
        MPO_CHECK(policy->min <= policy->max, MPO_ERR_CONFIG,
                  "%s: expected min to be at most max, found min %g and max %g for '%s'",
                  mpo_config_where_of(build, MPO_OPTION_policies_min, i), policy->min,
                  policy->max, policy->name);
    }
cleanup:
    return status;
}

/* One scale is that of every adapter. */
static enum mpo_status check_adapters(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < build->config->policy_count; i++) {
        const struct mpo_config_policies *policy = &build->config->policies[i];
        int32_t scales = policy->lora_scale.count;
        MPO_CHECK(policy->lora.count > 0 || scales != 1 ||
                      policy->lora_scale.value[0] == 1.0,
                  MPO_ERR_CONFIG,
                  "%s: expected no lora_scale for '%s', which has no adapter (lora), found "
                  "%g",
                  mpo_config_where_of(build, MPO_OPTION_policies_lora_scale, i),
                  policy->name, policy->lora_scale.value[0]);
        MPO_CHECK(scales == 1 || scales == policy->lora.count, MPO_ERR_CONFIG,
                  "%s: expected one scale, or one for each of the %d adapters of '%s', "
                  "found %d",
                  mpo_config_where_of(build, MPO_OPTION_policies_lora_scale, i),
                  policy->lora.count, policy->name, scales);
    }
cleanup:
    return status;
}

/* Bounds that no weights keep. */
static enum mpo_status check_bound_sums(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    double low = 0.0;
    double high = 0.0;
    for (int32_t k = 0; k < config->objective_count; k++) {
        low += config->policies[k].min;
        high += config->policies[k].max;
    }
    MPO_CHECK(low <= 1.0 + MPO_SUM_TOLERANCE, MPO_ERR_CONFIG,
              "%s: policies: expected minima that sum to at most 1, found a sum of %.9g",
              build->path, low);
    MPO_CHECK(high >= 1.0 - MPO_SUM_TOLERANCE, MPO_ERR_CONFIG,
              "%s: policies: expected maxima that sum to at least 1, found a sum of %.9g",
              build->path, high);
cleanup:
    return status;
}

static enum mpo_status check_rollout(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    int64_t row_count = config->rollout.unit_prompts * config->rollout.responses;
    MPO_CHECK(row_count <= MPO_ROW_COUNT_MAX, MPO_ERR_CONFIG,
              "%s: expected rollout.unit_prompts x rollout.responses to be at most %d, "
              "found %lld x %lld",
              mpo_config_where_of(build, MPO_OPTION_rollout_unit_prompts, 0),
              MPO_ROW_COUNT_MAX, (long long)config->rollout.unit_prompts,
              (long long)config->rollout.responses);
    bool needs_reference = config->rollout.proposal == MPO_PROPOSAL_REFERENCE;
    MPO_CHECK(!needs_reference || config->objective_count < config->policy_count,
              MPO_ERR_CONFIG,
              "%s: reference needs one policy with role reference, found none; add it to "
              "policies or use mixture",
              mpo_config_where_of(build, MPO_OPTION_rollout_proposal, 0));
cleanup:
    return status;
}

/* Exponents that do not sum to 1 leave the rest to the reference. */
static enum mpo_status check_exponents(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    bool has_reference = config->objective_count < config->policy_count;
    MPO_CHECK(has_reference || config->rollout.strength == 1.0, MPO_ERR_CONFIG,
              "%s: a strength of %g needs one policy with role reference, found none; add "
              "the model that the policies were trained from",
              mpo_config_where_of(build, MPO_OPTION_rollout_strength, 0),
              config->rollout.strength);
    for (int32_t k = 0; k < config->objective_count; k++)
        MPO_CHECK(has_reference || config->policies[k].scale == 1.0, MPO_ERR_CONFIG,
                  "%s: a scale of %g needs one policy with role reference, found none; add "
                  "the model that '%s' was trained from",
                  mpo_config_where_of(build, MPO_OPTION_policies_scale, k),
                  config->policies[k].scale, config->policies[k].name);
    MPO_CHECK(
        !has_reference || config->policies[config->policy_count - 1].scale == 1.0,
        MPO_ERR_CONFIG, "%s: expected no scale for '%s', because a reference has none",
        mpo_config_where_of(build, MPO_OPTION_policies_scale, config->policy_count - 1),
        config->policies[config->policy_count - 1].name);
cleanup:
    return status;
}

/* ---- names of rewards ---- */

const char *mpo_config_reward_name(const struct mpo_config_policies *policy)
{
    return *policy->reward != '\0' ? policy->reward : policy->name;
}

bool mpo_config_is_line_field(const char *name)
{
    static const char *const fields[] = {
        "control",  "end_bias",    "ended",       "exponents",    "finish",
        "id",       "left",        "log_mixture", "log_policy",   "log_z",
        "messages", "prefill",     "prompt",      "prompt_index", "response",
        "sample",   "token_count", "token_ids",   "tokens",       "tries"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(name, fields[i]) == 0)
            return true;
    return false;
}

/* A policy may have such a name where nothing measures its reward. */
static enum mpo_status check_rewards(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = build->config;
    for (int32_t k = 0; k < config->objective_count; k++) {
        const struct mpo_config_policies *policy = &config->policies[k];
        bool is_used = *config->rewards.command != '\0' || *policy->reward != '\0';
        MPO_CHECK(
            !is_used || config->stored != NULL ||
                !mpo_config_is_line_field(mpo_config_reward_name(policy)),
            MPO_ERR_CONFIG,
            "%s: expected a name for the reward of '%s' that no other field of a line "
            "has, found '%s'; set policies.%s.reward to another name, which the "
            "program writes",
            mpo_config_where_of(build, MPO_OPTION_policies_reward, k), policy->name,
            mpo_config_reward_name(policy), policy->name);
    }
cleanup:
    return status;
}

enum mpo_status mpo_config_check(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(build->config->policy_count > 0, MPO_ERR_CONFIG,
              "%s: policies: expected a list of at least one policy, found none",
              build->path);
    MPO_TRY(check_stand_ins(build));
    MPO_TRY(check_required(build));
    MPO_TRY(check_record_path(build));
    MPO_TRY(check_names(build));
    MPO_TRY(check_bounds(build));
    MPO_TRY(check_adapters(build));
    MPO_TRY(mpo_config_check_one_base(build));
    MPO_TRY(check_and_sort_roles(build));
    MPO_TRY(check_bound_sums(build));
    MPO_TRY(check_initial(build));
    MPO_TRY(check_rollout(build));
    MPO_TRY(check_exponents(build));
    MPO_TRY(check_rewards(build));
cleanup:
    return status;
}

enum mpo_status mpo_config_bounds(const struct mpo_config *config, double **bounds)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(config, bounds);
    int32_t count = config->objective_count;
    bool is_bounded = false;
    *bounds = NULL;
    for (int32_t k = 0; k < count; k++)
        is_bounded |= config->policies[k].min > 0.0 || config->policies[k].max < 1.0;
    if (!is_bounded)
        return MPO_OK;
    MPO_NEW(2 * count, bounds);
    for (int32_t k = 0; k < count; k++) {
        (*bounds)[k] = config->policies[k].min;
        (*bounds)[count + k] = config->policies[k].max;
    }
cleanup:
    return status;
}
