/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policies of a rank: loading and agreement.
 *
 * Opening has phases, each closed by an agreement of all ranks, so that every error is
 * printed once and no rank is left waiting: load the models, agree on the vocabulary.
 * Prompts and room come after it, in calls of their own.
 */
#include "policy_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"

/* ---- kinds ---- */

static size_t kind_count(void)
{
    size_t count = 0;
    while (mpo_policy_kinds[count] != NULL)
        count++;
    return count;
}

/* By the content, where that says more than the suffix; whatever is a model in some form
 * belongs to the kind that can say what to do with it. */
static const char *find_kind(const char *model)
{
    enum mpo_policy_form form = mpo_policy_file_form(model);
    bool is_model = form != MPO_FORM_NONE && form != MPO_FORM_OTHER;
    return mpo_registry_policy_kind(is_model ? "model.gguf" : model);
}

static enum mpo_status choose_kind(const struct mpo_policy_spec *spec, size_t *index)
{
    enum mpo_status status = MPO_OK;
    const char *kind = spec->kind;
    if (mpo_is_auto(kind))
        kind = find_kind(spec->model);
    for (*index = 0; mpo_policy_kinds[*index] != NULL; (*index)++)
        if (strcmp(mpo_policy_kinds[*index]->kind, kind) == 0)
            return MPO_OK;
    MPO_FAIL(MPO_ERR_DEVICE,
             "policy '%s' needs kind %s, which this build does not have; it has: %s",
             spec->name, kind, mpo_policy_kinds_built());
cleanup:
    return status;
}

/* A kind missing from this build is reported when its policy is loaded. */
enum mpo_status mpo_policies_check_device(const struct mpo_policy_spec *policies,
                                          int32_t policy_count, const char *kind)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, kind);
    for (int32_t i = 0; i < policy_count; i++) {
        size_t index = 0;
        if (choose_kind(&policies[i], &index) == MPO_OK &&
            mpo_policy_kinds[index]->check_device != NULL)
            MPO_TRY(mpo_policy_kinds[index]->check_device(kind));
    }
cleanup:
    return status;
}

static bool has_name(const char *const *names, const char *name)
{
    for (size_t i = 0; names != NULL && names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static bool is_ignored(const struct mpo_policy_spec *policy, const char *option)
{
    size_t index = 0;
    return choose_kind(policy, &index) == MPO_OK &&
           has_name(mpo_policy_kinds[index]->ignores, option);
}

const char *mpo_policies_idle_option(const struct mpo_policy_spec *policies,
                                     int32_t policy_count, int32_t index)
{
    size_t kind = 0;
    if (policy_count < 1 || choose_kind(&policies[0], &kind) != MPO_OK ||
        mpo_policy_kinds[kind]->ignores == NULL)
        return NULL;
    for (const char *const *option = mpo_policy_kinds[kind]->ignores; *option != NULL;
         option++) {
        bool is_idle = true;
        for (int32_t i = 1; i < policy_count; i++)
            is_idle = is_idle && is_ignored(&policies[i], *option);
        if (is_idle && index-- == 0)
            return *option;
    }
    return NULL;
}

const char *mpo_policy_engine_version(void)
{
    for (size_t kind = 0; mpo_policy_kinds[kind] != NULL; kind++)
        if (mpo_policy_kinds[kind]->engine_version != NULL)
            return mpo_policy_kinds[kind]->engine_version();
    return "none";
}

enum mpo_status mpo_policies_unite_adapters(const struct mpo_policy_adapter *adapters,
                                            int32_t count, const char *path, int64_t *rank)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(adapters, path, rank);
    for (size_t kind = 0; mpo_policy_kinds[kind] != NULL; kind++)
        if (mpo_policy_kinds[kind]->unite != NULL)
            return mpo_policy_kinds[kind]->unite(adapters, count, path, rank);
    MPO_FAIL(MPO_ERR_DEVICE,
             "adapters need kind llama, which this build does not have; it has: %s",
             mpo_policy_kinds_built());
cleanup:
    return status;
}

enum mpo_status mpo_policies_hash_model(const char *policy, const char *path, char hex[65])
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policy, path, hex);
    for (size_t kind = 0; mpo_policy_kinds[kind] != NULL; kind++)
        if (mpo_policy_kinds[kind]->hash_model != NULL)
            return mpo_policy_kinds[kind]->hash_model(policy, path, hex);
    MPO_FAIL(MPO_ERR_DEVICE,
             "models need kind llama, which this build does not have; it has: %s",
             mpo_policy_kinds_built());
cleanup:
    return status;
}

/* ---- open ---- */

static bool is_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* The engine would not look at them. */
static enum mpo_status check_options(const struct mpo_policy_spec *spec,
                                     const struct mpo_policy_ops *ops)
{
    enum mpo_status status = MPO_OK;
    const char *template = spec->chat_template;
    const struct {
        const char *name;
        bool is_given;
    } options[] = {
        {"lora", is_given(spec->lora)},
        {"system", is_given(spec->system)},
        {"request", is_given(spec->request)},
        {"template",
         is_given(template) && !mpo_is_auto(template) && strcmp(template, "raw") != 0},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        MPO_CHECK(!options[i].is_given || !has_name(ops->refuses, options[i].name),
                  MPO_ERR_CONFIG,
                  "policy '%s': expected no %s, which has no effect on a policy of kind %s "
                  "(%s); leave it out, or give another model",
                  spec->name, options[i].name, ops->kind, spec->model);
cleanup:
    return status;
}

enum mpo_status mpo_policy_open(const struct mpo_policy_spec *spec,
                                const struct mpo_policies_spec *common,
                                const struct mpo_policy_ops *ops, void **library,
                                struct mpo_policy *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_vocabulary vocabulary = {0};
    *out = (struct mpo_policy){.ops = ops, .name = spec->name};
    MPO_CHECK(common->prompt_slots >= 1, MPO_ERR_INTERNAL,
              "%d prompts kept at once, expected 1 or more", common->prompt_slots);
    MPO_TRY(ops->open(spec, common, library, &out->self));
    MPO_TRY(check_options(spec, ops)); /* once there is such a file */
    ops->vocabulary(out->self, &vocabulary);
    out->token_count = vocabulary.size;
    out->begin_token = vocabulary.begin_token;
    MPO_NEW(common->prompt_slots, &out->slot);
    out->slot_count = common->prompt_slots;
cleanup:
    return status;
}

void mpo_policy_close(struct mpo_policy *policy)
{
    if (policy->ops != NULL)
        policy->ops->close(policy->self);
    for (int32_t slot = 0; slot < policy->slot_count; slot++)
        free(policy->slot[slot].token);
    free(policy->slot);
    free(policy->append);
    free(policy->fed);
    mpo_cells_close(&policy->cells);
    *policy = (struct mpo_policy){0};
}

enum mpo_status mpo_policies_load(struct mpo_policies *policies, int32_t local_index)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policy_spec *spec =
        &policies->spec.policies[policies->first_policy + local_index];
    size_t kind = 0;
    MPO_TRY(choose_kind(spec, &kind));
    MPO_TRY(mpo_guard_try((int32_t)kind, spec));
    MPO_TRY(mpo_policy_open(spec, &policies->spec, mpo_policy_kinds[kind],
                            &policies->library[kind], &policies->local[local_index]));
cleanup:
    return status;
}

void mpo_policies_collect_remarks(struct mpo_policies *policies)
{
    for (size_t kind = 0; mpo_policy_kinds[kind] != NULL; kind++)
        if (mpo_policy_kinds[kind]->remarks != NULL && policies->library[kind] != NULL)
            mpo_remarks_unite(&policies->remarks,
                              mpo_policy_kinds[kind]->remarks(policies->library[kind]));
}

static enum mpo_status load_local(struct mpo_policies *policies)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < policies->local_count; i++)
        MPO_TRY(mpo_policies_load(policies, i));
    mpo_policies_collect_remarks(policies);
cleanup:
    return status;
}

/* Ascending ids that carry a flag. */
static enum mpo_status list_tokens(const uint8_t *flags, int32_t vocab_size, uint8_t flag,
                                   int32_t **tokens, int32_t *count)
{
    enum mpo_status status = MPO_OK;
    *count = 0;
    for (int32_t id = 0; id < vocab_size; id++)
        *count += (flags[id] & flag) != 0;
    MPO_NEW(*count, tokens);
    int32_t at = 0;
    for (int32_t id = 0; id < vocab_size; id++)
        if (flags[id] & flag)
            (*tokens)[at++] = id;
cleanup:
    return status;
}

static enum mpo_status keep_vocabulary(struct mpo_policies *policies,
                                       const struct mpo_vocabulary_agreement *agreed)
{
    enum mpo_status status = MPO_OK;
    policies->vocab_size = agreed->vocab_size;
    mpo_remarks_unite(&policies->remarks, &agreed->remarks);
    MPO_TRY(list_tokens(agreed->flags, agreed->vocab_size, MPO_TOKEN_END,
                        &policies->end_token, &policies->end_count));
    MPO_TRY(list_tokens(agreed->flags, agreed->vocab_size, MPO_TOKEN_MASKED,
                        &policies->masked, &policies->masked_count));
    MPO_CHECK(policies->end_count > 0, MPO_ERR_DATA,
              "the vocabulary has no end-of-generation token: responses would never end");
cleanup:
    return status;
}

enum mpo_status mpo_policies_agree_on_vocabulary(struct mpo_policies *policies,
                                                 const struct mpo_comm *comm)
{
    enum mpo_status status = MPO_OK;
    struct mpo_vocabulary_agreement agreed = {.hashes = policies->hash};
    MPO_TRY(mpo_policy_vocabulary_agree(comm, &policies->spec, policies->local,
                                        policies->local_count, &agreed));
    MPO_TRY(mpo_comm_agree(keep_vocabulary(policies, &agreed)));
cleanup:
    free(agreed.flags);
    return status;
}

/* Texts of the specification are borrowed, and looked at whenever a policy is named. */
static enum mpo_status check_spec(const struct mpo_policies_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_OF("mpo_policies_open", spec->policies);
    MPO_TRY(mpo_placement_check(&spec->placement));
    MPO_CHECK(
        spec->thread_count >= 1 && spec->prompt_slots >= 1, MPO_ERR_USAGE,
        "policies: expected thread_count and prompt_slots of 1 or more, found %d and %d",
        spec->thread_count, spec->prompt_slots);
    for (int32_t h = 0; h < spec->placement.policy_count; h++) {
        const struct mpo_policy_spec *policy = &spec->policies[h];
        MPO_ARGUMENTS_OF("mpo_policies_open", policy->name, policy->kind, policy->model,
                         policy->lora, policy->system, policy->request,
                         policy->chat_template);
        MPO_CHECK(policy->more_count == 0 || policy->more != NULL, MPO_ERR_USAGE,
                  "policy '%s': expected %d adapters in more (more_count), found NULL",
                  policy->name, policy->more_count);
    }
cleanup:
    return status;
}

enum mpo_status mpo_policies_allocate(const struct mpo_policies_spec *spec,
                                      const struct mpo_comm *comm,
                                      struct mpo_policies **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policies *policies = NULL;
    MPO_TRY(check_spec(spec));
    MPO_NEW(1, &policies);
    *out = policies;
    MPO_NEW(spec->placement.policy_count, &policies->configured);
    memcpy(policies->configured, spec->policies,
           (size_t)spec->placement.policy_count * sizeof *spec->policies);
    policies->spec = *spec;
    policies->spec.policies = policies->configured;
    mpo_placement_block(&spec->placement, mpo_comm_group_rank(comm),
                        &policies->first_policy, &policies->local_count);
    MPO_NEW(policies->local_count, &policies->local);
    MPO_NEW(kind_count(), &policies->library);
    MPO_NEW(spec->placement.policy_count, &policies->hash);
cleanup:
    return status;
}

enum mpo_status mpo_policies_open(const struct mpo_policies_spec *spec,
                                  const struct mpo_comm *comm, struct mpo_policies **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec, comm);
    struct mpo_policies *policies = NULL;
    status = mpo_comm_agree(mpo_policies_allocate(spec, comm, &policies));
    if (status == MPO_OK)
        status = mpo_comm_agree(load_local(policies));
    if (status == MPO_OK)
        status = mpo_policies_agree_on_vocabulary(policies, comm);
    if (status == MPO_OK)
        status = mpo_remarks_report(&policies->remarks, comm);
    if (status != MPO_OK)
        mpo_policies_close(&policies);
    *out = policies;
    return status;
}

void mpo_policies_close(struct mpo_policies **out)
{
    struct mpo_policies *policies = out != NULL ? *out : NULL;
    if (policies == NULL)
        return;
    for (int32_t i = 0; policies->local != NULL && i < policies->local_count; i++)
        mpo_policy_close(&policies->local[i]);
    for (size_t kind = 0; policies->library != NULL && mpo_policy_kinds[kind] != NULL;
         kind++)
        mpo_policy_kinds[kind]->close_library(policies->library[kind]);
    mpo_policy_responses_free(&policies->responses);
    free(policies->configured);
    free(policies->hash);
    free(policies->library);
    free(policies->masked);
    free(policies->end_token);
    free(policies->local);
    free(policies);
    *out = NULL;
}

/* ---- text ---- */

int32_t mpo_policy_piece(const struct mpo_policy *policy, int32_t token, bool first,
                         char *text, int32_t capacity)
{
    if (capacity < 1)
        return -1;
    text[0] = '\0';
    if (token < 0 || token >= policy->token_count)
        return 0;
    return policy->ops->piece(policy->self, token, first, text, capacity);
}

int32_t mpo_policy_text(const struct mpo_policy *policy, const int32_t *tokens,
                        int32_t token_count, char *text, int32_t capacity)
{
    int32_t length = 0;
    if (capacity < 1)
        return -1;
    text[0] = '\0';
    for (int32_t i = 0; i < token_count; i++) {
        int32_t bytes = mpo_policy_piece(policy, tokens[i], length == 0, text + length,
                                         capacity - length);
        if (bytes < 0)
            return -1;
        length += bytes;
    }
    return length;
}

/* ---- what was agreed on ---- */

int32_t mpo_policies_local_count(const struct mpo_policies *policies)
{
    return policies->local_count;
}

struct mpo_policy *mpo_policies_local(const struct mpo_policies *policies, int32_t index)
{
    return &policies->local[index];
}

const struct mpo_policy_spec *mpo_policies_configured(const struct mpo_policies *policies,
                                                      int32_t policy)
{
    return &policies->spec.policies[policy];
}

int32_t mpo_policies_vocab_size(const struct mpo_policies *policies)
{
    return policies->vocab_size;
}

int32_t mpo_policies_end_tokens(const struct mpo_policies *policies, const int32_t **out)
{
    *out = policies->end_token;
    return policies->end_count;
}

int32_t mpo_policies_masked_tokens(const struct mpo_policies *policies, const int32_t **out)
{
    *out = policies->masked;
    return policies->masked_count;
}

int32_t mpo_policies_piece(const struct mpo_policies *policies, int32_t token, bool first,
                           char *text, int32_t capacity)
{
    return mpo_policy_piece(&policies->local[0], token, first, text, capacity);
}

int32_t mpo_policies_text(const struct mpo_policies *policies, const int32_t *tokens,
                          int32_t token_count, char *text, int32_t capacity)
{
    return mpo_policy_text(&policies->local[0], tokens, token_count, text, capacity);
}

void mpo_policies_describe(const struct mpo_policies *policies, int32_t index,
                           struct mpo_policy_info *out)
{
    const struct mpo_policy *policy = &policies->local[index];
    const struct mpo_policy_spec *spec =
        &policies->spec.policies[policies->first_policy + index];
    *out = (struct mpo_policy_info){
        .name = spec->name,
        .kind = policy->ops->kind,
        .model = spec->model,
        .sha256 = "",
        .lora = spec->lora,
        .lora_sha256 = "",
        .vocab_hash = policies->hash[policies->first_policy + index],
    };
    policy->ops->describe(policy->self, out);
}
