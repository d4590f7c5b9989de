/*
 * Answers: responses that are given, not made, as tokens.
 *
 * All ranks must score the same tokens, so rank zero alone makes them, with its first
 * policy, and they travel to the others once, before any policy makes room for them. An
 * answer that the policies could never have drawn is refused here: later it would be a sum
 * with an infinity in it.
 */
#include "policy_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define ANSWER_TOKENS_MAX 1000000

/* Tokens of all answers while they are made. */
struct maker {
    const struct mpo_answers_spec *spec;
    int32_t *token;
    size_t token_count;
    size_t token_capacity;
    int32_t end_token;
};

static int compare_tokens(const void *left, const void *right)
{
    int32_t a = *(const int32_t *)left;
    int32_t b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

static enum mpo_status refuse_masked(const struct maker *maker,
                                     const struct mpo_prompt *prompt, size_t first)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_answers_spec *spec = maker->spec;
    for (size_t i = first; i < maker->token_count && spec->masked_count > 0; i++) {
        struct mpo_token token = {0};
        const int32_t *id = &maker->token[i];
        if (bsearch(id, spec->masked, (size_t)spec->masked_count, sizeof *id,
                    compare_tokens) == NULL)
            continue;
        spec->policy->ops->token(spec->policy->self, *id, &token);
        MPO_FAIL(MPO_ERR_DATA,
                 "%s:%lld: the response holds token %d ('%.40s'), which the policies never "
                 "give",
                 mpo_prompts_path(spec->prompts), (long long)prompt->line_number, *id,
                 token.text);
    }
cleanup:
    return status;
}

static enum mpo_status add_answer(struct maker *maker, const struct mpo_prompt *prompt,
                                  const char *text)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policy *policy = maker->spec->policy;
    const char *path = mpo_prompts_path(maker->spec->prompts);
    size_t first = maker->token_count;
    size_t room = strlen(text) + 8;
    int32_t count = 0;
    MPO_CHECK(!prompt->ended || maker->end_token >= 0, MPO_ERR_DATA,
              "%s:%lld: the vocabulary names no end token for a whole response; expected "
              "ended: false",
              path, (long long)prompt->line_number);
    MPO_TRY(mpo_memory_grow((void **)&maker->token, &maker->token_capacity, first + room,
                            sizeof *maker->token, "responses"));
    status = policy->ops->tokenise(policy->self, text, maker->token + first,
                                   (int32_t)room - 1, &count);
    if (status != MPO_OK)
        MPO_FAIL(status, "%s:%lld: %s", path, (long long)prompt->line_number,
                 mpo_error_text());
    maker->token_count += (size_t)count;
    if (prompt->ended)
        maker->token[maker->token_count++] = maker->end_token;
    size_t length = maker->token_count - first;
    MPO_CHECK(length >= 1 && length <= ANSWER_TOKENS_MAX, MPO_ERR_DATA,
              "%s:%lld: a response of %zu tokens, expected 1 to %d", path,
              (long long)prompt->line_number, length, ANSWER_TOKENS_MAX);
    MPO_TRY(refuse_masked(maker, prompt, first));
cleanup:
    return status;
}

static void choose_end_token(struct maker *maker)
{
    const struct mpo_policy *policy = maker->spec->policy;
    struct mpo_vocabulary vocabulary = {0};
    policy->ops->vocabulary(policy->self, &vocabulary);
    maker->end_token = vocabulary.end_token;
}

/* Rank zero's part. */
static enum mpo_status add_answers(struct maker *maker, struct mpo_policy_answers *out)
{
    enum mpo_status status = MPO_OK;
    size_t done = 0;
    if (maker->spec->policy == NULL)
        return MPO_OK; /* another rank */
    choose_end_token(maker);
    for (int64_t i = 0; i < mpo_prompts_count(maker->spec->prompts); i++) {
        const struct mpo_prompt *prompt = mpo_prompts_get(maker->spec->prompts, i);
        for (int32_t j = 0; j < out->per_prompt; j++) {
            MPO_TRY(add_answer(maker, prompt, prompt->answer[j]));
            out->offset[++done] = maker->token_count;
        }
    }
cleanup:
    return status;
}

enum mpo_status mpo_policy_answers_make(const struct mpo_answers_spec *spec,
                                        struct mpo_policy_answers *out)
{
    struct maker maker = {.spec = spec};
    size_t prompts = (size_t)mpo_prompts_count(spec->prompts);
    out->per_prompt = mpo_prompts_get(spec->prompts, 0)->answer_count;
    size_t count = prompts * (size_t)out->per_prompt;
    enum mpo_status status =
        mpo_memory_take(count + 1, sizeof *out->offset, "responses", (void **)&out->offset);
    status = mpo_comm_agree(status == MPO_OK ? add_answers(&maker, out) : status);
    out->token = maker.token;
    if (status == MPO_OK)
        status = mpo_comm_broadcast(spec->comm, out->offset,
                                    (count + 1) * sizeof *out->offset, 0);
    if (status != MPO_OK)
        return status;
    if (out->token == NULL)
        status = mpo_memory_take(out->offset[count], sizeof *out->token, "responses",
                                 (void **)&out->token);
    status = mpo_comm_agree(status);
    if (status == MPO_OK)
        status = mpo_comm_broadcast(spec->comm, out->token,
                                    out->offset[count] * sizeof *out->token, 0);
    return status;
}

void mpo_policy_answers_free(struct mpo_policy_answers *answers)
{
    free(answers->offset);
    free(answers->token);
    *answers = (struct mpo_policy_answers){0};
}

int32_t mpo_policy_answers_longest(const struct mpo_policy_answers *answers, int64_t first,
                                   int64_t count)
{
    size_t longest = 0;
    size_t per_prompt = (size_t)answers->per_prompt;
    for (size_t i = (size_t)first * per_prompt; i < (size_t)(first + count) * per_prompt;
         i++)
        if (answers->offset[i + 1] - answers->offset[i] > longest)
            longest = answers->offset[i + 1] - answers->offset[i];
    return (int32_t)longest;
}
