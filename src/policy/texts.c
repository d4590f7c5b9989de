/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts of clients, who mean the tokens themselves: to tokens of the first policy's
 * vocabulary, and back. Nothing here reads or writes what feed does, so that a server can
 * answer in one thread while another one decodes.
 */
#include "policy_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/utf8.h"

void mpo_policies_describe_texts(const struct mpo_policies *policies,
                                 struct mpo_policies_texts *out)
{
    const struct mpo_policy *policy = &policies->local[0];
    policy->ops->texts(policy->self, out);
}

enum mpo_status mpo_policies_tokenise(const struct mpo_policies *policies, const char *text,
                                      bool special, int32_t **token, int32_t *token_count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, text, token, token_count);
    const struct mpo_policy *policy = &policies->local[0];
    struct mpo_policy_tokens tokens = {0};
    if (text[0] != '\0')
        MPO_TRY(policy->ops->parse(policy->self, text, special, &tokens));
    *token = tokens.token;
    *token_count = tokens.count;
    tokens.token = NULL;
cleanup:
    free(tokens.token);
    return status;
}

enum mpo_status mpo_policies_tokenise_prompt(const struct mpo_policies *policies,
                                             const struct mpo_prompt *prompt,
                                             int32_t **token, int32_t *token_count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, token, token_count);
    const struct mpo_policy *policy = &policies->local[0];
    struct mpo_policy_tokens tokens = {0};
    MPO_TRY(policy->ops->encode(policy->self, prompt, &tokens));
    *token = tokens.token;
    *token_count = tokens.count;
    tokens.token = NULL;
cleanup:
    free(tokens.token);
    return status;
}

enum mpo_status mpo_policies_check_states(const struct mpo_policies *policies,
                                          const int32_t *token, int32_t token_count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, token);
    for (int32_t k = 0; k < policies->local_count; k++) {
        const struct mpo_policy *policy = &policies->local[k];
        for (int32_t i = 0; i < token_count && policy->ops->check_tokens != NULL; i++)
            MPO_TRY(policy->ops->check_tokens(policy->self, &token[i], 1));
    }
cleanup:
    return status;
}

int32_t mpo_policies_show(const struct mpo_policies *policies, int32_t token, char *text,
                          int32_t capacity)
{
    const struct mpo_policy *policy = &policies->local[0];
    bool special = false;
    if (token >= 0 && token == policy->begin_token && policy->ops->show != NULL)
        return policy->ops->show(policy->self, token, &special, text, capacity);
    return mpo_policy_show(policy, token, &special, text, capacity);
}

enum mpo_status mpo_policies_detokenise(const struct mpo_policies *policies,
                                        const int32_t *token, int32_t token_count,
                                        char **text)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, token, text);
    const struct mpo_policy *policy = &policies->local[0];
    struct mpo_policies_texts texts = {0};
    char *made = NULL;
    size_t capacity = 0;
    size_t length = 0;
    policy->ops->texts(policy->self, &texts);
    MPO_TRY(mpo_memory_grow((void **)&made, &capacity, 1, 1, "a text"));
    for (int32_t i = 0; i < token_count; i++) {
        MPO_TRY(mpo_memory_grow((void **)&made, &capacity, length + MPO_TOKEN_TEXT_BYTES, 1,
                                "a text"));
        int32_t bytes =
            mpo_policies_show(policies, token[i], made + length, MPO_TOKEN_TEXT_BYTES);
        MPO_CHECK(bytes >= 0, MPO_ERR_DATA, "token %d has a text of over %d bytes",
                  token[i], MPO_TOKEN_TEXT_BYTES - 1);
        length += (size_t)bytes;
    }
    if (texts.adds_space && made[0] == ' ')
        memmove(made, made + 1, length--);
    MPO_TRY(mpo_memory_grow((void **)&made, &capacity, length * MPO_UTF8_REPAIR_FACTOR + 1,
                            1, "a text"));
    mpo_utf8_repair(made, (int32_t)length);
    *text = made;
    made = NULL;
cleanup:
    free(made);
    return status;
}
