/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Responses that are given, not made, as tokens.
 *
 * All ranks must score the same tokens, so rank zero alone makes them, with its first
 * policy, and they travel to the others once, before any policy makes room for them. A
 * response that the policies could never have drawn is refused here: later it would be a
 * sum with an infinity in it.
 *
 * A text has many spellings in tokens, and the tokeniser's need not be the one that was
 * drawn, whose probability is the one to compare with. So a response may come as its
 * tokens. A text beside them is no more than a check: it must be theirs.
 */
#include "policy_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/utf8.h"

#define RESPONSE_TOKENS_MAX 1000000

/* A tokeniser writes a space as a letter of three bytes, each of which may be a token. */
#define TOKENS_PER_BYTE 3

/* Tokens of all responses while they are made. */
struct maker {
    const struct mpo_prompts *prompts;
    struct mpo_policies *policies;
    int32_t *token;
    size_t token_count;
    size_t token_capacity;
    char *text; /* of tokens that are given */
    size_t text_capacity;
    int32_t end_token;
    bool remarked;
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
    const struct mpo_policies *policies = maker->policies;
    const struct mpo_policy *policy = policies->local;
    for (size_t i = first; i < maker->token_count && policies->masked_count > 0; i++) {
        struct mpo_token token = {0};
        const int32_t *id = &maker->token[i];
        if (bsearch(id, policies->masked, (size_t)policies->masked_count, sizeof *id,
                    compare_tokens) == NULL)
            continue;
        policy->ops->token(policy->self, *id, &token);
        MPO_FAIL(MPO_ERR_DATA,
                 "%s:%lld: the response has token %d ('%.40s'), which the policies never "
                 "generate",
                 mpo_prompts_path(maker->prompts), (long long)prompt->line_number, *id,
                 token.text);
    }
cleanup:
    return status;
}

/* ---- tokens that are given ---- */

static bool is_end(const struct mpo_policies *policies, int32_t token)
{
    return policies->end_count > 0 &&
           bsearch(&token, policies->end_token, (size_t)policies->end_count, sizeof token,
                   compare_tokens) != NULL;
}

/* Their text as generate prints it, into maker->text. */
static enum mpo_status make_text(struct maker *maker,
                                 const struct mpo_given_response *response)
{
    enum mpo_status status = MPO_OK;
    size_t length = 0;
    for (int32_t i = 0; i < response->token_count; i++) {
        MPO_TRY(mpo_memory_grow((void **)&maker->text, &maker->text_capacity,
                                length + MPO_TOKEN_TEXT_BYTES, 1, "responses"));
        const int32_t bytes = mpo_policy_piece(maker->policies->local, response->token[i],
                                               length == 0, maker->text + length,
                                               (int32_t)(maker->text_capacity - length));
        MPO_CHECK(bytes >= 0, MPO_ERR_INTERNAL, "token %d has a text of over %d bytes",
                  response->token[i], MPO_TOKEN_TEXT_BYTES - 1);
        length += (size_t)bytes;
    }
    MPO_TRY(mpo_memory_grow((void **)&maker->text, &maker->text_capacity,
                            length * MPO_UTF8_REPAIR_FACTOR + 1, 1, "responses"));
    mpo_utf8_repair(maker->text, (int32_t)length);
cleanup:
    return status;
}

static enum mpo_status check_text(struct maker *maker, const struct mpo_prompt *prompt,
                                  const struct mpo_given_response *response)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(make_text(maker, response));
    const bool agree =
        prompt->stopped ? strncmp(maker->text, response->text, strlen(response->text)) == 0
                        : strcmp(maker->text, response->text) == 0;
    MPO_CHECK(agree, MPO_ERR_DATA,
              "%s:%lld: the response is '%.40s', but its token ids are those of '%.40s'; "
              "give one of the two",
              mpo_prompts_path(maker->prompts), (long long)prompt->line_number,
              response->text, maker->text);
cleanup:
    return status;
}

static enum mpo_status check_token(const struct maker *maker,
                                   const struct mpo_prompt *prompt,
                                   const struct mpo_given_response *response, int32_t index)
{
    enum mpo_status status = MPO_OK;
    const int32_t token = response->token[index];
    MPO_CHECK(token >= 0 && token < maker->policies->vocab_size, MPO_ERR_DATA,
              "%s:%lld: token id %d of the response is %d, expected 0 to %d",
              mpo_prompts_path(maker->prompts), (long long)prompt->line_number, index + 1,
              token, maker->policies->vocab_size - 1);
    MPO_CHECK(index == response->token_count - 1 || !is_end(maker->policies, token),
              MPO_ERR_DATA,
              "%s:%lld: token id %d of the response is %d, an end token; expected one only "
              "as the last of the %d",
              mpo_prompts_path(maker->prompts), (long long)prompt->line_number, index + 1,
              token, response->token_count);
cleanup:
    return status;
}

static enum mpo_status add_tokens(struct maker *maker, const struct mpo_prompt *prompt,
                                  const struct mpo_given_response *response)
{
    enum mpo_status status = MPO_OK;
    const size_t count = (size_t)response->token_count;
    for (int32_t i = 0; i < response->token_count; i++)
        MPO_TRY(check_token(maker, prompt, response, i));
    const int32_t last = response->token[count - 1];
    const bool ends = is_end(maker->policies, last);
    MPO_CHECK(!prompt->says_ended || prompt->ended == ends, MPO_ERR_DATA,
              "%s:%lld: the line has \"ended\": %s, but its last token id, %d, is %s; "
              "leave out \"ended\"",
              mpo_prompts_path(maker->prompts), (long long)prompt->line_number,
              prompt->ended ? "true" : "false", last,
              ends ? "an end token" : "no end token");
    MPO_TRY(mpo_memory_grow((void **)&maker->token, &maker->token_capacity,
                            maker->token_count + count, sizeof *maker->token, "responses"));
    memcpy(maker->token + maker->token_count, response->token,
           count * sizeof *maker->token);
    maker->token_count += count;
    if (response->text != NULL)
        MPO_TRY(check_text(maker, prompt, response));
cleanup:
    return status;
}

/* ---- responses ---- */

static enum mpo_status add_text(struct maker *maker, const struct mpo_prompt *prompt,
                                const char *text)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policy *policy = maker->policies->local;
    const char *path = mpo_prompts_path(maker->prompts);
    size_t first = maker->token_count;
    size_t room = TOKENS_PER_BYTE * strlen(text) + 8;
    int32_t count = 0;
    MPO_CHECK(room <= INT32_MAX, MPO_ERR_DATA, "%s:%lld: the response is longer than %d MB",
              path, (long long)prompt->line_number, INT32_MAX / TOKENS_PER_BYTE >> 20);
    MPO_CHECK(!prompt->ended || maker->end_token >= 0, MPO_ERR_DATA,
              "%s:%lld: the vocabulary has no end token for a whole response; expected "
              "\"ended\": false",
              path, (long long)prompt->line_number);
    MPO_TRY(mpo_memory_grow((void **)&maker->token, &maker->token_capacity, first + room,
                            sizeof *maker->token, "responses"));
    status = policy->ops->tokenise(policy->self, text, maker->token + first,
                                   (int32_t)room - 1, &count);
    if (status != MPO_OK)
        MPO_FAIL(status, "%s:%lld: %s", path, (long long)prompt->line_number,
                 mpo_error_text());
    maker->token_count += (size_t)count;
    if (!maker->remarked)
        maker->remarked =
            mpo_policy_remark_on_text(policy, text, &maker->policies->of_texts);
    if (prompt->ended)
        maker->token[maker->token_count++] = maker->end_token;
cleanup:
    return status;
}

static enum mpo_status add_response(struct maker *maker, const struct mpo_prompt *prompt,
                                    const struct mpo_given_response *response)
{
    enum mpo_status status = MPO_OK;
    size_t first = maker->token_count;
    if (response->token != NULL)
        MPO_TRY(add_tokens(maker, prompt, response));
    else
        MPO_TRY(add_text(maker, prompt, response->text));
    size_t length = maker->token_count - first;
    MPO_CHECK(length >= 1 && length <= RESPONSE_TOKENS_MAX, MPO_ERR_DATA,
              "%s:%lld: a response of %zu tokens, expected 1 to %d",
              mpo_prompts_path(maker->prompts), (long long)prompt->line_number, length,
              RESPONSE_TOKENS_MAX);
    MPO_TRY(refuse_masked(maker, prompt, first));
cleanup:
    return status;
}

static void choose_end_token(struct maker *maker)
{
    const struct mpo_policy *policy = maker->policies->local;
    struct mpo_vocabulary vocabulary = {0};
    policy->ops->vocabulary(policy->self, &vocabulary);
    maker->end_token = vocabulary.end_token;
}

/* Rank zero's part. */
static enum mpo_status add_responses(struct maker *maker, struct mpo_policy_responses *out)
{
    enum mpo_status status = MPO_OK;
    size_t done = 0;
    choose_end_token(maker);
    for (int64_t i = 0; i < out->prompt_count; i++) {
        const struct mpo_prompt *prompt = mpo_prompts_get(maker->prompts, i);
        for (int32_t j = 0; j < out->per_prompt; j++) {
            MPO_TRY(add_response(maker, prompt, &prompt->response[j]));
            out->offset[++done] = maker->token_count;
        }
    }
cleanup:
    return status;
}

/* Rank zero's tokens to all. */
static enum mpo_status share_responses(const struct mpo_comm *comm, size_t count,
                                       struct mpo_policy_responses *out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_broadcast(comm, out->offset, (count + 1) * sizeof *out->offset, 0));
    if (out->token == NULL)
        status = mpo_memory_take(out->offset[count], sizeof *out->token, "responses",
                                 (void **)&out->token);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(
        mpo_comm_broadcast(comm, out->token, out->offset[count] * sizeof *out->token, 0));
cleanup:
    return status;
}

enum mpo_status mpo_policies_encode_responses(struct mpo_policies *policies,
                                              const struct mpo_comm *comm,
                                              const struct mpo_prompts *prompts)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, comm, prompts);
    struct maker maker = {.prompts = prompts, .policies = policies};
    struct mpo_policy_responses made = {
        .per_prompt = mpo_prompts_get(prompts, 0)->response_count,
        .prompt_count = mpo_prompts_count(prompts),
    };
    size_t count = (size_t)made.prompt_count * (size_t)made.per_prompt;
    status =
        mpo_memory_take(count + 1, sizeof *made.offset, "responses", (void **)&made.offset);
    if (status == MPO_OK && mpo_comm_rank(comm) == 0)
        status = add_responses(&maker, &made);
    free(maker.text);
    status = mpo_comm_agree(status);
    made.token = maker.token;
    if (status == MPO_OK)
        status = share_responses(comm, count, &made);
    mpo_policy_responses_free(status == MPO_OK ? &policies->responses : &made);
    if (status == MPO_OK)
        policies->responses = made;
    return status;
}

void mpo_policy_responses_free(struct mpo_policy_responses *responses)
{
    free(responses->offset);
    free(responses->token);
    *responses = (struct mpo_policy_responses){0};
}

int32_t mpo_policies_response(const struct mpo_policies *policies, int64_t prompt,
                              int32_t response, const int32_t **tokens)
{
    const struct mpo_policy_responses *all = &policies->responses;
    size_t index = (size_t)prompt * (size_t)all->per_prompt + (size_t)response;
    *tokens = all->token + all->offset[index];
    return (int32_t)(all->offset[index + 1] - all->offset[index]);
}

bool mpo_policies_response_ends(const struct mpo_policies *policies, int64_t prompt,
                                int32_t response)
{
    const int32_t *token = NULL;
    const int32_t count = mpo_policies_response(policies, prompt, response, &token);
    return is_end(policies, token[count - 1]);
}

int32_t mpo_policy_responses_longest(const struct mpo_policy_responses *responses,
                                     int64_t first, int64_t count)
{
    size_t longest = 0;
    const size_t *offset = responses->offset;
    size_t per_prompt = (size_t)responses->per_prompt;
    for (size_t i = (size_t)first * per_prompt; i < (size_t)(first + count) * per_prompt;
         i++)
        if (offset[i + 1] - offset[i] > longest)
            longest = offset[i + 1] - offset[i];
    return (int32_t)longest;
}

int32_t mpo_policies_longest_response(const struct mpo_policies *policies)
{
    const struct mpo_policy_responses *all = &policies->responses;
    return mpo_policy_responses_longest(all, 0, all->prompt_count);
}
