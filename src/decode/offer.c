/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt that comes while the machine runs: the root has its messages, every rank has
 * policies that make tokens of it.
 *
 *     root   control record: OFFER, slot, bytes
 *     all    allocate; whether they could goes to the root, and its verdict back
 *     root   the messages
 *     all    encode; refusals and token counts go to the root, and its verdict back
 *
 * A prompt travels as texts, each ended by a NUL: role and content of each message, then
 * the prefill; or as token ids.
 */
#include "decode_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"
#include "prompts/check.h"

/* A rank's result, besides the token counts of its policies. */
struct verdict {
    struct mpo_failure failure;
    int32_t length[]; /* [H] of its policies, in their place */
};

struct offer {
    char *text; /* [bytes]; of token ids too, which malloc has aligned */
    size_t bytes;
    struct mpo_message *messages;
    struct mpo_prompt prompt;
    struct verdict *verdict;
    size_t verdict_bytes;
};

static void release_offer(struct offer *offer)
{
    free(offer->verdict);
    free(offer->messages);
    free(offer->text);
}

static enum mpo_status allocate_texts(struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(offer->bytes, &offer->text);
    MPO_NEW(MPO_PROMPTS_MESSAGE_COUNT_MAX, &offer->messages);
cleanup:
    return status;
}

/* Combine the results of all ranks: all get that of the lowest failing rank, and the root
 * the token counts of all policies. Collective over the group. */
static enum mpo_status agree_on_verdict(struct mpo_decode *decode, struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = decode->spec.comm;
    int32_t root = mpo_comm_rank(comm) - mpo_comm_group_rank(comm);
    struct verdict *own = offer->verdict;
    struct verdict *other = (void *)((char *)own + offer->verdict_bytes);
    for (int32_t rank = 1; rank < mpo_comm_group_size(comm); rank++) {
        int32_t first = 0;
        int32_t count = 0;
        if (!decode->is_root && rank != mpo_comm_group_rank(comm))
            continue;
        MPO_TRY(mpo_comm_send(comm, root + rank, root, decode->is_root ? other : own,
                              offer->verdict_bytes));
        mpo_placement_block(&decode->spec.placement, rank, &first, &count);
        if (!decode->is_root)
            continue;
        memcpy(own->length + first, other->length + first,
               (size_t)count * sizeof *own->length);
        if (own->failure.status == MPO_OK)
            own->failure = other->failure;
    }
    MPO_TRY(
        mpo_exchange_broadcast(decode->spec.exchange, &own->failure, sizeof own->failure));
cleanup:
    return status;
}

/* ---- texts ---- */

static size_t prompt_bytes(const struct mpo_prompt *prompt)
{
    size_t bytes = strlen(prompt->prefill) + 1;
    for (int32_t i = 0; i < prompt->message_count; i++)
        bytes +=
            strlen(prompt->messages[i].role) + 1 + strlen(prompt->messages[i].content) + 1;
    return bytes;
}

static void append_text(char **at, const char *text)
{
    size_t bytes = strlen(text) + 1;
    memcpy(*at, text, bytes);
    *at += bytes;
}

static void write_prompt(const struct mpo_prompt *prompt, char *at)
{
    for (int32_t i = 0; i < prompt->message_count; i++) {
        append_text(&at, prompt->messages[i].role);
        append_text(&at, prompt->messages[i].content);
    }
    append_text(&at, prompt->prefill);
}

static const char *next_text(const char **at)
{
    const char *text = *at;
    *at += strlen(text) + 1;
    return text;
}

static void read_prompt(struct offer *offer)
{
    const char *at = offer->text;
    const char *end = offer->text + offer->bytes;
    int32_t count = 0;
    const char *text = next_text(&at);
    for (; at < end && count < MPO_PROMPTS_MESSAGE_COUNT_MAX; text = next_text(&at))
        offer->messages[count++] = (struct mpo_message){text, next_text(&at)};
    offer->prompt = (struct mpo_prompt){
        .text = "", .messages = offer->messages, .message_count = count, .prefill = text};
}

/* ---- encoding ---- */

static enum mpo_status encode_prompt(struct mpo_decode *decode, const struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    for (int32_t k = 0; k < decode->local_count; k++)
        MPO_TRY(mpo_policy_encode(mpo_policies_local(decode->spec.policies, k),
                                  decode->control->slot, &offer->prompt,
                                  &offer->verdict->length[decode->first_policy + k]));
cleanup:
    return status;
}

static enum mpo_status encode_tokens(struct mpo_decode *decode, const struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    const int32_t *token = (const void *)offer->text;
    int32_t count = (int32_t)(offer->bytes / sizeof *token);
    for (int32_t k = 0; k < decode->local_count; k++) {
        MPO_TRY(mpo_policy_encode_tokens(mpo_policies_local(decode->spec.policies, k),
                                         decode->control->slot, token, count));
        offer->verdict->length[decode->first_policy + k] = count;
    }
cleanup:
    return status;
}

/* ---- tokens to the root ---- */

static enum mpo_status keep_tokens(struct mpo_decode *decode, int32_t h,
                                   const int32_t *token, int32_t count)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode_tokens *prompt =
        decode->prompt + (ptrdiff_t)decode->control->slot * decode->policy_count + h;
    prompt->count = 0;
    MPO_TRY(mpo_memory_grow((void **)&prompt->token, &prompt->capacity, (size_t)count,
                            sizeof *prompt->token, "a prompt's tokens"));
    if (token != NULL)
        memcpy(prompt->token, token, (size_t)count * sizeof *token);
    prompt->count = count;
cleanup:
    return status;
}

/* From the rank that hosts policy h, maybe the root itself. */
static enum mpo_status bring_tokens(struct mpo_decode *decode, int32_t h, int32_t host,
                                    int32_t count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = decode->spec.comm;
    int32_t own = mpo_comm_group_rank(comm);
    int32_t root = mpo_comm_rank(comm) - own;
    int32_t slot = decode->control->slot;
    const int32_t *token = NULL;
    if (host == own)
        count = mpo_policy_prompt(
            mpo_policies_local(decode->spec.policies, h - decode->first_policy), slot,
            &token);
    if (decode->is_root)
        MPO_TRY(keep_tokens(decode, h, token, count));
    if (host == 0)
        return MPO_OK;
    int32_t *data = decode->is_root ? decode->prompt[slot * decode->policy_count + h].token
                                    : (int32_t *)token;
    MPO_TRY(mpo_comm_send(comm, root + host, root, data, (size_t)count * sizeof *data));
cleanup:
    return status;
}

/* What the root compares with rows that are there. Collective over the group. */
static enum mpo_status gather_tokens(struct mpo_decode *decode, const struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    int32_t own = mpo_comm_group_rank(decode->spec.comm);
    for (int32_t host = 0; host < mpo_comm_group_size(decode->spec.comm); host++) {
        int32_t first = 0;
        int32_t count = 0;
        if (!decode->is_root && host != own)
            continue;
        mpo_placement_block(&decode->spec.placement, host, &first, &count);
        for (int32_t h = first; h < first + count; h++)
            MPO_TRY(bring_tokens(decode, h, host, offer->verdict->length[h]));
    }
cleanup:
    return status;
}

int32_t mpo_decode_prompt(const struct mpo_decode *decode, int32_t slot, int32_t h,
                          const int32_t **token)
{
    bool is_there = decode->prompt != NULL && slot >= 0 &&
                    slot < decode->spec.prompt_slots && h >= 0 && h < decode->policy_count;
    ptrdiff_t at = (ptrdiff_t)slot * decode->policy_count + h;
    *token = is_there ? decode->prompt[at].token : NULL;
    return is_there && decode->length[at] > 0 ? decode->prompt[at].count : 0;
}

/* Two verdicts: this rank's and, at the root, another's. */
static enum mpo_status make_verdicts(const struct mpo_decode *decode, struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    offer->verdict_bytes = sizeof *offer->verdict +
                           (size_t)decode->policy_count * sizeof *offer->verdict->length;
    offer->verdict_bytes = (offer->verdict_bytes + 7) / 8 * 8;
    MPO_TRY(mpo_memory_take(2, offer->verdict_bytes, "a prompt", (void **)&offer->verdict));
cleanup:
    return status;
}

/* What the root offers: messages, or token ids. */
struct source {
    const struct mpo_prompt *prompt; /* NULL: token ids */
    const int32_t *token;            /* [token_count] */
    int32_t token_count;
};

static void write_source(const struct source *source, struct offer *offer)
{
    if (source->prompt != NULL)
        write_prompt(source->prompt, offer->text);
    else
        memcpy(offer->text, source->token, offer->bytes);
}

/* All ranks; source is NULL but at the root. */
static enum mpo_status pass_on(struct mpo_decode *decode, struct offer *offer,
                               const struct source *source)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(make_verdicts(decode, offer));
    offer->bytes = (size_t)decode->control->bytes;
    mpo_failure_keep(&offer->verdict->failure, allocate_texts(offer));
    MPO_TRY(agree_on_verdict(decode, offer));
    if (offer->verdict->failure.status != MPO_OK)
        goto cleanup;
    if (source != NULL)
        write_source(source, offer);
    MPO_TRY(mpo_exchange_broadcast(decode->spec.exchange, offer->text, offer->bytes));
    if (decode->control->kind == MPO_DECODE_OFFER_TOKENS) {
        mpo_failure_keep(&offer->verdict->failure, encode_tokens(decode, offer));
    } else {
        read_prompt(offer);
        mpo_failure_keep(&offer->verdict->failure, encode_prompt(decode, offer));
    }
    MPO_TRY(agree_on_verdict(decode, offer));
    if (offer->verdict->failure.status == MPO_OK && decode->spec.parked_rows > 0)
        MPO_TRY(gather_tokens(decode, offer));
cleanup:
    return status;
}

enum mpo_status mpo_decode_take_offer(struct mpo_decode *decode)
{
    struct offer offer = {0};
    enum mpo_status status = pass_on(decode, &offer, NULL);
    release_offer(&offer);
    return status; /* the root reports a refusal */
}

/* A row that was cancelled leaves before anything is fed. */
static bool waits_for_prompt(const struct mpo_decode *decode, int32_t row)
{
    const struct mpo_decode_root *root = &decode->root[row];
    bool goes_on = !decode->clears && root->leaves == MPO_DECODE_STAYS &&
                   decode->known[row].state == MPO_DECODE_WAITING;
    return root->is_new || goes_on;
}

static enum mpo_status check_slot(const struct mpo_decode *decode, int32_t slot)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(slot >= 0 && slot < decode->spec.prompt_slots, MPO_ERR_USAGE,
              "prompt slot %d, of %d", slot, decode->spec.prompt_slots);
    for (int32_t row = 0; row < decode->row_count; row++)
        MPO_CHECK(!waits_for_prompt(decode, row) || decode->root[row].wish.slot != slot,
                  MPO_ERR_USAGE, "prompt slot %d, whose prompt row %d waits for", slot,
                  row);
cleanup:
    return status;
}

int32_t mpo_decode_longest_prompt(const struct mpo_decode *decode, int32_t slot,
                                  const double *mu)
{
    const int32_t *length = decode->length + (ptrdiff_t)slot * decode->policy_count;
    int32_t longest = 0;
    for (int32_t h = 0; h < decode->policy_count; h++)
        if ((mu == NULL || mu[h] != 0.0) && length[h] > longest)
            longest = length[h];
    return longest;
}

static enum mpo_status offer_source(struct mpo_decode *decode, int32_t slot,
                                    const struct source *source, int32_t *lengths)
{
    enum mpo_status status = MPO_OK;
    struct offer offer = {0};
    MPO_TRY(mpo_decode_check_root(decode, __func__));
    MPO_TRY(check_slot(decode, slot));
    memset(decode->record, 0, decode->record_bytes);
    memset(decode->length + (ptrdiff_t)slot * decode->policy_count, 0,
           (size_t)decode->policy_count * sizeof *decode->length);
    decode->control->slot = slot;
    decode->control->bytes = source->prompt != NULL ? (int64_t)prompt_bytes(source->prompt)
                                                    : (int64_t)source->token_count *
                                                          (int64_t)sizeof *source->token;
    MPO_TRY(mpo_decode_tell(decode, source->prompt != NULL ? MPO_DECODE_OFFER
                                                           : MPO_DECODE_OFFER_TOKENS));
    MPO_TRY(pass_on(decode, &offer, source));
    MPO_TRY(mpo_failure_raise(&offer.verdict->failure));
    for (int32_t h = 0; h < decode->policy_count; h++) {
        int32_t length = offer.verdict->length[h];
        decode->length[(ptrdiff_t)slot * decode->policy_count + h] = length;
        if (lengths != NULL)
            lengths[h] = length;
    }
cleanup:
    release_offer(&offer);
    return status;
}

enum mpo_status mpo_decode_offer(struct mpo_decode *decode, int32_t slot,
                                 const struct mpo_prompt *prompt, int32_t *lengths)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode);
    MPO_TRY(mpo_prompt_check(prompt));
    MPO_TRY(offer_source(decode, slot, &(struct source){.prompt = prompt}, lengths));
cleanup:
    return status;
}

enum mpo_status mpo_decode_offer_tokens(struct mpo_decode *decode, int32_t slot,
                                        const int32_t *token, int32_t token_count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode, token);
    MPO_CHECK(token_count >= 1, MPO_ERR_USAGE,
              "a prompt of %d token ids, expected 1 or more", token_count);
    MPO_TRY(offer_source(
        decode, slot, &(struct source){.token = token, .token_count = token_count}, NULL));
cleanup:
    return status;
}

enum mpo_status mpo_decode_offer_text(struct mpo_decode *decode, int32_t slot,
                                      const char *text, int32_t *lengths)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode, text);
    const struct mpo_message message = {MPO_PROMPT_ROLE_USER, text};
    const struct mpo_prompt prompt = {
        .text = text, .messages = &message, .message_count = 1, .prefill = ""};
    return mpo_decode_offer(decode, slot, &prompt, lengths);
}
