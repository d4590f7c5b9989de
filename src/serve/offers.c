/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts into slots, in the order in which they come.
 *
 *     take_offer -> coming -> measured                   a chat: every rank encodes it beside steps
 *                                                        token ids: when it is their turn
 *
 * A prompt is measured when its tokens are there and all that were offered before it are
 * measured, so nobody overtakes another by a shorter text. Steps go on meanwhile: they wait for
 * tokens only where no row moves, and then for the other ranks' alone. A slot whose request has
 * ended stays taken until its tokens are there, for encoders write into it.
 */
#include "engine_impl.h"

#include <stddef.h>

static struct engine_coming *coming_at(const struct mpo_engine *engine, int32_t index)
{
    return &engine->coming[(engine->coming_first + index) % engine->spec.slot_capacity];
}

/* ---- refusals ---- */

/* Of an offer: the client's, while any other failure is the job's. */
static bool is_refusal(enum mpo_status status)
{
    return status == MPO_ERR_DATA || status == MPO_ERR_CONFIG || status == MPO_ERR_MEMORY ||
           status == MPO_ERR_USAGE;
}

static void refuse_offer(struct mpo_serve_request *request, enum mpo_status status)
{
    if (status == MPO_ERR_DATA || status == MPO_ERR_CONFIG)
        mpo_serve_refuse(&request->refusal, 400, "template_error",
                         request->kind == MPO_SERVE_CHAT ? "messages" : "prompt", "%s",
                         mpo_error_text());
    else
        mpo_serve_refuse(&request->refusal, 500, "row_failed", "", "%s", mpo_error_text());
}

/* ---- how long it is ---- */

/* Each token that is drawn may need a bias of its own. */
static void check_penalties(const struct mpo_engine *engine,
                            struct mpo_serve_request *request, int32_t free_count)
{
    int32_t most = engine->spec.bias_max - request->bias_count;
    if (mpo_engine_penalises(request) && free_count > most)
        mpo_serve_refuse(&request->refusal, 400, "invalid_value", "max_tokens",
                         "expected at most %d tokens with presence_penalty or "
                         "frequency_penalty, found %d",
                         most, free_count);
}

/* How many tokens a row of the slot may draw. */
static void measure_prompt(struct mpo_engine *engine, struct mpo_serve_request *request,
                           const struct mpo_schedule_prompt *place)
{
    struct engine_slot *slot = &engine->slot[place->slot];
    int32_t given = mpo_engine_given_count(request, place->prompt);
    int32_t longest = mpo_engine_longest(engine, place->slot);
    int32_t left = engine->spec.context_tokens - longest - given;
    slot->free_count = request->max_tokens;
    if (left < slot->free_count && !request->gave_max_tokens && left > 0)
        slot->free_count = left;
    if (left < slot->free_count || left < 0) {
        mpo_serve_refuse(&request->refusal, 400, "context_length_exceeded",
                         request->kind == MPO_SERVE_CHAT ? "messages" : "prompt",
                         "the prompt has %d tokens for the policy that has most and "
                         "max_tokens is %d, expected at most %d together; shorten the "
                         "prompt or lower max_tokens",
                         longest + given, request->max_tokens, engine->spec.context_tokens);
        return;
    }
    check_penalties(engine, request, slot->free_count);
    if (!mpo_schedule_measure(engine->schedule, place->slot, longest,
                              given + slot->free_count))
        mpo_serve_refuse(&request->refusal, 400, "context_length_exceeded", "n",
                         "%d choices of %d tokens after a prompt of %d need more than the "
                         "%lld tokens that all rows hold; lower n or max_tokens",
                         place->rows, given + slot->free_count, longest,
                         (long long)engine->spec.cell_capacity);
}

/* ---- offers ---- */

enum mpo_status mpo_engine_offer(struct mpo_engine *engine, bool *is_offered)
{
    enum mpo_status status = MPO_OK;
    struct engine_coming coming = {.is_begun = false};
    *is_offered = mpo_schedule_take_offer(engine->schedule, &coming.place);
    if (!*is_offered)
        return MPO_OK;
    struct mpo_serve_request *request = coming.place.owner;
    int32_t slot = coming.place.slot;
    engine->slot[slot] = (struct engine_slot){
        .request = request, .prompt = coming.place.prompt, .is_coming = true};
    if (request->kind == MPO_SERVE_CHAT) {
        enum mpo_status begun =
            mpo_decode_begin_offer(engine->spec.decode, slot, &request->chat);
        coming.is_begun = begun == MPO_OK;
        engine->others_sleep = false;
        if (is_refusal(begun))
            refuse_offer(request, begun);
        else
            MPO_TRY(begun);
    }
    *coming_at(engine, engine->coming_count++) = coming;
    if (request->refusal.http_status != 0)
        mpo_engine_end_request(engine, request);
cleanup:
    return status;
}

/* ---- tokens ---- */

static bool is_there(const struct mpo_engine *engine, const struct engine_coming *coming,
                     bool steps)
{
    if (!coming->is_begun)
        return true;
    enum mpo_decode_progress progress =
        mpo_decode_offer_progress(engine->spec.decode, coming->place.slot);
    return progress == MPO_DECODE_ENCODED ||
           (progress == MPO_DECODE_ENCODED_HERE && !steps);
}

/* Token ids are taken as they are. */
static enum mpo_status offer_ids(struct mpo_engine *engine,
                                 const struct mpo_schedule_prompt *place, int32_t *length)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_serve_request *request = place->owner;
    const struct mpo_serve_prompt *prompt = &request->prompt[place->prompt];
    int32_t count = prompt->token_count - mpo_engine_given_count(request, place->prompt);
    MPO_TRY(
        mpo_decode_offer_tokens(engine->spec.decode, place->slot, prompt->token, count));
    for (int32_t h = 0; h < engine->spec.policy_count; h++)
        length[h] = count;
cleanup:
    return status;
}

enum mpo_status mpo_engine_take(struct mpo_engine *engine, bool steps, bool *is_taken)
{
    enum mpo_status status = MPO_OK;
    const struct engine_coming coming = *coming_at(engine, 0);
    struct engine_slot *slot = &engine->slot[coming.place.slot];
    int32_t *length =
        engine->length + (ptrdiff_t)coming.place.slot * engine->spec.policy_count;
    enum mpo_status made = MPO_OK;
    *is_taken = engine->coming_count > 0 && is_there(engine, &coming, steps);
    if (!*is_taken)
        return MPO_OK;
    engine->coming_first = (engine->coming_first + 1) % engine->spec.slot_capacity;
    engine->coming_count--;
    slot->is_coming = false;
    struct mpo_serve_request *request = slot->request; /* NULL: it has ended */
    if (coming.is_begun)
        made = mpo_decode_end_offer(engine->spec.decode, coming.place.slot, length);
    else if (request != NULL)
        made = offer_ids(engine, &coming.place, length);
    engine->others_sleep = false;
    if (!is_refusal(made))
        MPO_TRY(made);
    if (request == NULL) {
        mpo_schedule_drop(engine->schedule, coming.place.slot);
        return MPO_OK;
    }
    if (made == MPO_OK)
        measure_prompt(engine, request, &coming.place);
    else
        refuse_offer(request, made);
    if (request->refusal.http_status != 0)
        mpo_engine_end_request(engine, request);
cleanup:
    return status;
}
