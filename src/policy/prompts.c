/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts into slots: each policy keeps its own tokens of a prompt, because templates and
 * system texts differ.
 *
 * A slot owns one array of just its tokens, made beside it and put there when it is whole.
 * No two slots share anything that grows, so that one thread can encode into a slot while
 * another one feeds from others.
 */
#include "policy_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"

enum mpo_status mpo_policy_tokens_reserve(struct mpo_policy_tokens *tokens, size_t count)
{
    enum mpo_status status = MPO_OK;
    size_t wanted = (size_t)tokens->count + count;
    MPO_CHECK(wanted <= INT32_MAX, MPO_ERR_DATA,
              "the prompt has up to %zu tokens, expected at most %d", wanted, INT32_MAX);
    MPO_TRY(mpo_memory_grow((void **)&tokens->token, &tokens->capacity, wanted,
                            sizeof *tokens->token, "prompt tokens"));
cleanup:
    return status;
}

bool mpo_policy_cuts_rows(const struct mpo_policy *policy)
{
    return policy->ops->cuts_rows == NULL || policy->ops->cuts_rows(policy->self);
}

int32_t mpo_policy_trained_tokens(const struct mpo_policy *policy)
{
    return policy->ops->trained_tokens != NULL ? policy->ops->trained_tokens(policy->self)
                                               : 0;
}

static enum mpo_status check_slot(const struct mpo_policy *policy, int32_t slot)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(slot >= 0 && slot < policy->slot_count, MPO_ERR_USAGE,
              "policy '%s': prompt slot %d of %d", policy->name, slot, policy->slot_count);
cleanup:
    return status;
}

/* The slot gets a copy that fits. */
static enum mpo_status fill_slot(struct mpo_policy_slot *slot,
                                 const struct mpo_policy_tokens *tokens)
{
    enum mpo_status status = MPO_OK;
    int32_t *token = NULL;
    MPO_NEW(tokens->count, &token);
    memcpy(token, tokens->token, (size_t)tokens->count * sizeof *token);
    free(slot->token);
    slot->token = token;
    slot->count = tokens->count;
cleanup:
    return status;
}

enum mpo_status mpo_policy_encode(struct mpo_policy *policy, int32_t slot,
                                  const struct mpo_prompt *prompt, int32_t *token_count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policy);
    struct mpo_policy_tokens tokens = {0};
    MPO_TRY(check_slot(policy, slot));
    MPO_TRY(policy->ops->encode(policy->self, prompt, &tokens));
    MPO_CHECK(tokens.count >= 1, MPO_ERR_INTERNAL, "policy '%s' made no token of a prompt",
              policy->name);
    MPO_TRY(fill_slot(&policy->slot[slot], &tokens));
    if (token_count != NULL)
        *token_count = policy->slot[slot].count;
cleanup:
    free(tokens.token);
    return status;
}

enum mpo_status mpo_policy_encode_tokens(struct mpo_policy *policy, int32_t slot,
                                         const int32_t *token, int32_t token_count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policy, token);
    struct mpo_policy_tokens tokens = {0};
    MPO_TRY(check_slot(policy, slot));
    MPO_CHECK(token_count >= 1, MPO_ERR_DATA,
              "the prompt has no token for policy '%s'; expected at least one",
              policy->name);
    for (int32_t i = 0; i < token_count; i++)
        MPO_CHECK(token[i] >= 0 && (token[i] < policy->token_count ||
                                    (i == 0 && token[i] == policy->begin_token)),
                  MPO_ERR_DATA,
                  "token %d of the prompt is %d, expected one of the %d of policy '%s'",
                  i + 1, token[i], policy->token_count, policy->name);
    if (policy->ops->check_tokens != NULL)
        MPO_TRY(policy->ops->check_tokens(policy->self, token, token_count));
    MPO_TRY(mpo_policy_tokens_reserve(&tokens, (size_t)token_count));
    memcpy(tokens.token, token, (size_t)token_count * sizeof *token);
    tokens.count = token_count;
    MPO_TRY(fill_slot(&policy->slot[slot], &tokens));
cleanup:
    free(tokens.token);
    return status;
}

int32_t mpo_policy_prompt_tokens(const struct mpo_policy *policy, int32_t slot)
{
    return slot >= 0 && slot < policy->slot_count ? policy->slot[slot].count : 0;
}

int32_t mpo_policy_prompt(const struct mpo_policy *policy, int32_t slot,
                          const int32_t **tokens)
{
    int32_t count = mpo_policy_prompt_tokens(policy, slot);
    *tokens = count > 0 ? policy->slot[slot].token : NULL;
    return count;
}

int32_t mpo_policy_show(const struct mpo_policy *policy, int32_t token, bool *special,
                        char *text, int32_t capacity)
{
    *special = false;
    if (policy->ops->show == NULL || token < 0 || token >= policy->token_count)
        return mpo_policy_piece(policy, token, false, text, capacity);
    return policy->ops->show(policy->self, token, special, text, capacity);
}

bool mpo_policy_remark_on_text(const struct mpo_policy *policy, const char *text,
                               struct mpo_remarks *remarks)
{
    char line[MPO_REMARK_BYTES];
    bool found = policy->ops->remark != NULL &&
                 policy->ops->remark(policy->self, text, line, sizeof line);
    if (found)
        mpo_remarks_add(remarks, "%s", line);
    return found;
}

bool mpo_policy_remark(const struct mpo_policy *policy, const struct mpo_prompt *prompt,
                       struct mpo_remarks *remarks)
{
    bool found = mpo_policy_remark_on_text(policy, prompt->prefill, remarks);
    for (int32_t i = 0; i < prompt->message_count && !found; i++)
        found = mpo_policy_remark_on_text(policy, prompt->messages[i].content, remarks);
    return found;
}

enum mpo_status mpo_policy_check_length(const struct mpo_policy *policy, int32_t slot,
                                        int32_t response_tokens, bool given)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policy);
    int64_t trained_tokens = mpo_policy_trained_tokens(policy);
    int64_t length = mpo_policy_prompt_tokens(policy, slot);
    /* The longer one of the two is what has to be shorter. */
    const char *advice = !given ? "shorten or remove it, or lower max_tokens"
                         : response_tokens > length
                             ? "shorten the response, or remove its line"
                             : "shorten the prompt, or remove its line";
    MPO_CHECK(
        trained_tokens == 0 || length + response_tokens <= trained_tokens, MPO_ERR_DATA,
        "the prompt has %lld tokens for policy '%s', which with %s %d is more than the "
        "model's context of %lld; %s",
        (long long)length, policy->name, given ? "a response of" : "max_tokens",
        response_tokens, (long long)trained_tokens, advice);
cleanup:
    return status;
}

/* ---- a file of prompts ---- */

/* Raise a failure again with the prompt's place before it. */
static enum mpo_status name_place(enum mpo_status failure,
                                  const struct mpo_prompts *prompts, int64_t index)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_prompt *prompt = mpo_prompts_get(prompts, index);
    if (failure != MPO_OK)
        MPO_FAIL(failure, "%s:%lld: %s", mpo_prompts_path(prompts),
                 (long long)prompt->line_number, mpo_error_text());
cleanup:
    return status;
}

enum mpo_status mpo_policy_encode_file(struct mpo_policy *policy,
                                       const struct mpo_policy_prompts *file)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_prompts *prompts = file->prompts;
    int64_t count = mpo_prompts_count(prompts);
    bool given = file->responses->offset != NULL;
    bool remarked = false;
    for (int64_t i = 0; i < count; i++) {
        const struct mpo_prompt *prompt = mpo_prompts_get(prompts, i);
        status = mpo_policy_encode(policy, (int32_t)i, prompt, NULL);
        MPO_TRY(name_place(status, prompts, i));
        remarked = remarked || mpo_policy_remark(policy, prompt, file->remarks);
    }
    for (int64_t i = 0; i < count; i++) {
        int32_t response =
            given ? mpo_policy_responses_longest(file->responses, i, 1) : file->max_tokens;
        status = mpo_policy_check_length(policy, (int32_t)i, response, given);
        MPO_TRY(name_place(status, prompts, i));
    }
cleanup:
    return status;
}

enum mpo_status mpo_policies_encode_prompts(struct mpo_policies *policies,
                                            const struct mpo_comm *comm,
                                            const struct mpo_prompts *prompts,
                                            int32_t max_tokens)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, comm, prompts);
    struct mpo_policy_prompts file = {prompts, &policies->responses, max_tokens,
                                      &policies->of_texts};
    for (int32_t i = 0; status == MPO_OK && i < policies->local_count; i++)
        status = mpo_policy_encode_file(&policies->local[i], &file);
    MPO_TRY(mpo_comm_agree(status)); /* of the whole job */
    MPO_TRY(mpo_remarks_report(&policies->of_texts, comm));
cleanup:
    return status;
}
