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
 * Beside steps it comes in two parts. With BEGIN_OFFER the ranks have the messages and hand them
 * to their encoders (encoder.h); after END_OFFER refusals and counts go to the root as above.
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
    struct mpo_encoder_prompt
        own; /* its text of [bytes]; of token ids too, which malloc has
                                      aligned */
    size_t bytes;
    struct verdict *verdict;
    size_t verdict_bytes;
};

static void release_offer(struct offer *offer)
{
    free(offer->verdict);
    mpo_encoder_prompt_free(&offer->own);
}

static enum mpo_status allocate_texts(struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(offer->bytes, &offer->own.text);
    MPO_NEW(MPO_PROMPTS_MESSAGE_COUNT_MAX, &offer->own.messages);
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
    struct mpo_encoder_prompt *own = &offer->own;
    const char *at = own->text;
    const char *end = own->text + offer->bytes;
    int32_t count = 0;
    const char *text = next_text(&at);
    for (; at < end && count < MPO_PROMPTS_MESSAGE_COUNT_MAX; text = next_text(&at))
        own->messages[count++] = (struct mpo_message){text, next_text(&at)};
    own->prompt = (struct mpo_prompt){
        .text = "", .messages = own->messages, .message_count = count, .prefill = text};
}

/* ---- encoding ---- */

static enum mpo_status encode_prompt(struct mpo_decode *decode, const struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    for (int32_t k = 0; k < decode->local_count; k++)
        MPO_TRY(mpo_policy_encode(mpo_policies_local(decode->spec.policies, k),
                                  decode->control->slot, &offer->own.prompt,
                                  &offer->verdict->length[decode->first_policy + k]));
cleanup:
    return status;
}

static enum mpo_status encode_tokens(struct mpo_decode *decode, const struct offer *offer)
{
    enum mpo_status status = MPO_OK;
    const int32_t *token = (const void *)offer->own.text;
    int32_t count = (int32_t)(offer->bytes / sizeof *token);
    for (int32_t k = 0; k < decode->local_count; k++) {
        MPO_TRY(mpo_policy_encode_tokens(mpo_policies_local(decode->spec.policies, k),
                                         decode->control->slot, token, count));
        offer->verdict->length[decode->first_policy + k] = count;
    }
cleanup:
    return status;
}

/* ---- an offer ---- */

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
        write_prompt(source->prompt, offer->own.text);
    else
        memcpy(offer->own.text, source->token, offer->bytes);
}

/* The prompt reaches all ranks, unless one has no room for it; source is NULL but at the
 * root. */
static enum mpo_status pass_prompt(struct mpo_decode *decode, struct offer *offer,
                                   const struct source *source)
{
    enum mpo_status status = MPO_OK;
    offer->bytes = (size_t)decode->control->bytes;
    mpo_failure_keep(&offer->verdict->failure, allocate_texts(offer));
    MPO_TRY(agree_on_verdict(decode, offer));
    if (offer->verdict->failure.status != MPO_OK)
        goto cleanup;
    if (source != NULL)
        write_source(source, offer);
    MPO_TRY(mpo_exchange_broadcast(decode->spec.exchange, offer->own.text, offer->bytes));
    if (decode->control->kind != MPO_DECODE_OFFER_TOKENS)
        read_prompt(offer);
cleanup:
    return status;
}

/* Its tokens in the slots of this rank's policies. */
static enum mpo_status make_tokens(struct mpo_decode *decode, const struct offer *offer)
{
    int32_t kind = decode->control->kind;
    int32_t *length = offer->verdict->length + decode->first_policy;
    if (kind == MPO_DECODE_END_OFFER)
        return mpo_encoder_take(decode->encoder, decode->control->slot, length);
    return kind == MPO_DECODE_OFFER_TOKENS ? encode_tokens(decode, offer)
                                           : encode_prompt(decode, offer);
}

/* All ranks; source is NULL but at the root. */
static enum mpo_status pass_on(struct mpo_decode *decode, struct offer *offer,
                               const struct source *source)
{
    enum mpo_status status = MPO_OK;
    int32_t kind = decode->control->kind;
    MPO_TRY(make_verdicts(decode, offer));
    if (kind != MPO_DECODE_END_OFFER)
        MPO_TRY(pass_prompt(decode, offer, source));
    if (offer->verdict->failure.status != MPO_OK)
        goto cleanup;
    if (kind == MPO_DECODE_BEGIN_OFFER) {
        mpo_encoder_submit(decode->encoder, decode->control->slot, &offer->own);
        goto cleanup;
    }
    mpo_failure_keep(&offer->verdict->failure, make_tokens(decode, offer));
    MPO_TRY(agree_on_verdict(decode, offer));
    if (offer->verdict->failure.status == MPO_OK && decode->spec.parked_rows > 0)
        MPO_TRY(mpo_decode_gather_tokens(decode, offer->verdict->length));
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
    MPO_CHECK(decode->encoder == NULL || !mpo_encoder_has(decode->encoder, slot),
              MPO_ERR_USAGE, "prompt slot %d, whose prompt is being encoded", slot);
    for (int32_t row = 0; row < decode->row_count; row++)
        MPO_CHECK(!waits_for_prompt(decode, row) || decode->root[row].wish.slot != slot,
                  MPO_ERR_USAGE, "prompt slot %d, whose prompt row %d waits for", slot,
                  row);
cleanup:
    return status;
}

/* Tell all ranks of a prompt, or of the end of its encoding, and do what follows. */
static enum mpo_status tell_offer(struct mpo_decode *decode, enum mpo_decode_kind kind,
                                  int32_t slot, const struct source *source)
{
    enum mpo_status status = MPO_OK;
    struct offer offer = {0};
    int32_t *length = decode->length + (ptrdiff_t)slot * decode->policy_count;
    size_t length_bytes = (size_t)decode->policy_count * sizeof *length;
    memset(decode->record, 0, decode->record_bytes);
    memset(length, 0, length_bytes);
    decode->control->slot = slot;
    if (source != NULL)
        decode->control->bytes =
            source->prompt != NULL
                ? (int64_t)prompt_bytes(source->prompt)
                : (int64_t)source->token_count * (int64_t)sizeof *source->token;
    MPO_TRY(mpo_decode_tell(decode, kind));
    MPO_TRY(pass_on(decode, &offer, source));
    MPO_TRY(mpo_failure_raise(&offer.verdict->failure));
    memcpy(length, offer.verdict->length, length_bytes);
cleanup:
    release_offer(&offer);
    return status;
}

static enum mpo_status offer_source(struct mpo_decode *decode, enum mpo_decode_kind kind,
                                    int32_t slot, const struct source *source)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_decode_check_root(decode, __func__));
    MPO_TRY(check_slot(decode, slot));
    MPO_TRY(tell_offer(decode, kind, slot, source));
cleanup:
    return status;
}

static void copy_lengths(const struct mpo_decode *decode, int32_t slot, int32_t *lengths)
{
    if (lengths != NULL)
        memcpy(lengths, decode->length + (ptrdiff_t)slot * decode->policy_count,
               (size_t)decode->policy_count * sizeof *lengths);
}

enum mpo_status mpo_decode_offer(struct mpo_decode *decode, int32_t slot,
                                 const struct mpo_prompt *prompt, int32_t *lengths)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode);
    MPO_TRY(mpo_prompt_check(prompt));
    MPO_TRY(
        offer_source(decode, MPO_DECODE_OFFER, slot, &(struct source){.prompt = prompt}));
    copy_lengths(decode, slot, lengths);
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
    MPO_TRY(offer_source(decode, MPO_DECODE_OFFER_TOKENS, slot,
                         &(struct source){.token = token, .token_count = token_count}));
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

/* ---- beside steps ---- */

static void note_encoded(void *argument)
{
    const struct mpo_decode *decode = argument;
    if (decode->beside.encoded != NULL)
        decode->beside.encoded(decode->beside.argument);
}

enum mpo_status mpo_decode_encode_beside(struct mpo_decode *decode,
                                         const struct mpo_decode_beside *beside)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy **local = NULL;
    MPO_ARGUMENTS(decode, beside);
    MPO_CHECK(decode->encoder == NULL, MPO_ERR_USAGE,
              "prompts are encoded beside the steps already");
    decode->beside = *beside;
    MPO_NEW(decode->local_count, &local);
    for (int32_t k = 0; k < decode->local_count; k++)
        local[k] = mpo_policies_local(decode->spec.policies, k);
    const struct mpo_encoder_spec spec = {.policy = local,
                                          .policy_count = decode->local_count,
                                          .slot_count = decode->spec.prompt_slots,
                                          .encoded = note_encoded,
                                          .argument = decode};
    MPO_TRY(mpo_encoder_open(&spec, &decode->encoder));
cleanup:
    free(local);
    return status;
}

void mpo_decode_end_encoding(struct mpo_decode *decode)
{
    if (decode != NULL)
        mpo_encoder_close(&decode->encoder);
}

static enum mpo_status check_encoder(const struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(decode->encoder != NULL, MPO_ERR_USAGE,
              "no prompt can be encoded beside the steps before mpo_decode_encode_beside");
cleanup:
    return status;
}

enum mpo_status mpo_decode_begin_offer(struct mpo_decode *decode, int32_t slot,
                                       const struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode);
    MPO_TRY(mpo_prompt_check(prompt));
    MPO_TRY(check_encoder(decode));
    MPO_TRY(offer_source(decode, MPO_DECODE_BEGIN_OFFER, slot,
                         &(struct source){.prompt = prompt}));
cleanup:
    return status;
}

static bool is_under_way(const struct mpo_decode *decode, int32_t slot)
{
    return decode->encoder != NULL && slot >= 0 && slot < decode->spec.prompt_slots &&
           mpo_encoder_has(decode->encoder, slot);
}

enum mpo_decode_progress mpo_decode_offer_progress(struct mpo_decode *decode, int32_t slot)
{
    if (!is_under_way(decode, slot) || !mpo_encoder_is_done(decode->encoder, slot))
        return MPO_DECODE_NOT_ENCODED;
    bool knows = decode->beside.others != NULL;
    int64_t number = mpo_encoder_number(decode->encoder, slot);
    return !knows || decode->beside.others(decode->beside.argument) >= number
               ? MPO_DECODE_ENCODED
               : MPO_DECODE_ENCODED_HERE;
}

enum mpo_status mpo_decode_end_offer(struct mpo_decode *decode, int32_t slot,
                                     int32_t *lengths)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode);
    MPO_TRY(mpo_decode_check_root(decode, __func__));
    MPO_CHECK(is_under_way(decode, slot), MPO_ERR_USAGE,
              "prompt slot %d, of which nothing is encoded", slot);
    MPO_TRY(tell_offer(decode, MPO_DECODE_END_OFFER, slot, NULL));
    copy_lengths(decode, slot, lengths);
cleanup:
    return status;
}
