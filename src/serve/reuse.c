/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells of earlier rows, with which prompts begin: those of rows that ended, which stay
 * parked, and those of rows that live. A chat goes on from its last turn, questions share a
 * system text, choices of one context are scored side by side.
 *
 * Where prompts come together, the first is fed and the others wait for it, if they would
 * save MPO_HOLD_TOKENS more by that: what all of them share is computed once.
 *
 * A prompt whose own tokens are looked up begins as a row of the same weights that was, and
 * gets that row's figures: a row is fed and looked up only where it differs.
 *
 * What is kept takes cells that no request has reserved, and half of all at most: libllama
 * looks at every cell in use, if only to leave it out. The cells that rows share count for
 * each of them, so there are always enough.
 */
#include "engine_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define MPO_HOLD_TOKENS 16

/* Of all cells, that may be kept. */
#define KEPT_SHARE 2

enum mpo_status mpo_engine_open_reuse(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_engine_spec *spec = &engine->spec;
    const struct mpo_prefixes_spec prefixes = {.row_count = engine->row_count,
                                               .policy_count = spec->policy_count,
                                               .context_tokens = spec->context_tokens};
    MPO_NEW(spec->policy_count, &engine->told_token);
    MPO_NEW(spec->policy_count, &engine->told_part);
    MPO_NEW(spec->policy_count, &engine->told_count);
    MPO_NEW(engine->row_count, &engine->told_among);
    MPO_NEW(spec->policy_count, &engine->now.reused);
    MPO_NEW(spec->policy_count, &engine->later.reused);
    if (spec->parked_rows > 0) {
        MPO_TRY(mpo_prefixes_open(&prefixes, &engine->prefixes));
        MPO_TRY(mpo_scores_open(engine->row_count, spec->policy_count, &engine->scores));
    }
cleanup:
    return status;
}

void mpo_engine_close_reuse(struct mpo_engine *engine)
{
    mpo_scores_close(&engine->scores);
    mpo_prefixes_close(&engine->prefixes);
    free(engine->told_among);
    free(engine->told_count);
    free(engine->later.reused);
    free(engine->now.reused);
    free(engine->told_part);
    free(engine->told_token);
}

static struct mpo_scores_key key_of(const struct mpo_serve_request *request)
{
    return (struct mpo_scores_key){.mu = request->mu,
                                   .end_bias = request->end_bias,
                                   .weighted_only = request->weighted_only,
                                   .top_count = request->top_logprobs};
}

static const struct mpo_serve_prompt *given_prompt(const struct mpo_engine *engine,
                                                   int32_t slot)
{
    const struct mpo_serve_request *request = engine->slot[slot].request;
    return mpo_engine_looks_up(request) ? &request->prompt[engine->slot[slot].prompt]
                                        : NULL;
}

/* A prompt that is looked up can only begin as a row that has its figures. */
static const bool *choose_among(struct mpo_engine *engine,
                                const struct mpo_serve_request *request)
{
    struct mpo_scores_key key = key_of(request);
    for (int32_t row = 0; row < engine->row_count; row++)
        engine->told_among[row] = mpo_scores_are_of(engine->scores, row, &key);
    return engine->told_among;
}

/* The prompt of a slot, whole. @return false where nothing is reused */
static bool tell_prompt(struct mpo_engine *engine, int32_t slot)
{
    const struct mpo_serve_request *request = engine->slot[slot].request;
    if (engine->prefixes == NULL || request->isolated)
        return false;
    const struct mpo_serve_prompt *given = given_prompt(engine, slot);
    const int32_t *length = engine->length + (ptrdiff_t)slot * engine->spec.policy_count;
    for (int32_t h = 0; h < engine->spec.policy_count; h++) {
        (void)mpo_decode_prompt(engine->spec.decode, slot, h, &engine->told_token[h]);
        if (given != NULL)
            engine->told_token[h] = given->token;
        engine->told_count[h] = given != NULL ? given->token_count : length[h];
        engine->told_part[h] = !request->weighted_only || request->mu[h] != 0.0;
    }
    engine->told = (struct mpo_prefix_prompt){
        .token = engine->told_token,
        .count = engine->told_count,
        .takes_part = engine->told_part,
        .among = given != NULL ? choose_among(engine, request) : NULL};
    return true;
}

/* Not for a row that stands still: its client may take no bytes for long. */
void mpo_engine_hold_prompts(struct mpo_engine *engine)
{
    engine->prompts_wait = false;
    for (int32_t slot = 0; engine->prefixes != NULL && slot < engine->spec.slot_capacity;
         slot++) {
        if (!mpo_engine_is_offered(engine, slot) || !tell_prompt(engine, slot))
            continue;
        mpo_prefixes_find(engine->prefixes, &engine->told, false, &engine->later);
        mpo_prefixes_find(engine->prefixes, &engine->told, true, &engine->now);
        bool holds = engine->later.saved >= engine->now.saved + MPO_HOLD_TOKENS &&
                     !engine->row[engine->later.row].request->is_paused;
        mpo_schedule_hold(engine->schedule, slot, holds);
        engine->prompts_wait = engine->prompts_wait || holds;
    }
}

/* ---- what is kept ---- */

static void forget_row(struct mpo_engine *engine, int32_t row)
{
    mpo_decode_cancel(engine->spec.decode, row);
    mpo_prefixes_forget(engine->prefixes, row);
    mpo_scores_drop(engine->scores, row);
}

static bool keeps_too_much(const struct mpo_engine *engine)
{
    int64_t cells = mpo_prefixes_kept_cells(engine->prefixes);
    return mpo_prefixes_kept_rows(engine->prefixes) > engine->spec.parked_rows ||
           cells > mpo_schedule_free_cells(engine->schedule) ||
           cells > engine->spec.cell_capacity / KEPT_SHARE;
}

/* @param spared  row that stays; -1: none. @return whether that was enough */
static bool trim_cells(struct mpo_engine *engine, int32_t spared)
{
    int32_t row = mpo_prefixes_oldest(engine->prefixes, spared);
    while (keeps_too_much(engine) && row >= 0) {
        forget_row(engine, row);
        row = mpo_prefixes_oldest(engine->prefixes, spared);
    }
    return !keeps_too_much(engine);
}

static int32_t least_reused(const struct mpo_engine *engine)
{
    int32_t least = INT32_MAX;
    for (int32_t h = 0; h < engine->spec.policy_count; h++)
        if (engine->told_part[h] && engine->now.reused[h] < least)
            least = engine->now.reused[h];
    return least;
}

/* All policies have the same tokens. The last common one is fed again, for the logits of the
 * first that differs, and one has to be left for a row to do. */
static enum mpo_status offer_given(struct mpo_engine *engine, int32_t slot,
                                   const struct mpo_serve_prompt *given)
{
    enum mpo_status status = MPO_OK;
    struct engine_slot *self = &engine->slot[slot];
    int32_t most = given->token_count - (self->free_count > 0 ? 1 : 2);
    int32_t figures = mpo_scores_count(engine->scores, engine->now.row);
    int32_t known = least_reused(engine) - 1;
    known = known < most ? known : most;
    known = known < figures ? known : figures; /* what was drawn has none */
    MPO_TRY(mpo_decode_offer_tokens(engine->spec.decode, slot, given->token, known + 1));
    for (int32_t h = 0; h < engine->spec.policy_count; h++) {
        engine->length[(ptrdiff_t)slot * engine->spec.policy_count + h] = known + 1;
        engine->now.reused[h] = engine->told_part[h] ? known : 0;
    }
    self->given_count = given->token_count - 1 - known;
cleanup:
    return status;
}

enum mpo_status mpo_engine_find_cells(struct mpo_engine *engine, int32_t slot,
                                      int32_t *cached)
{
    enum mpo_status status = MPO_OK;
    struct mpo_prefix *found = &engine->now;
    *cached = 0;
    found->row = -1;
    if (engine->prefixes == NULL)
        return MPO_OK;
    if (tell_prompt(engine, slot))
        mpo_prefixes_find(engine->prefixes, &engine->told, true, found);
    engine->takes_over = !trim_cells(engine, found->row);
    if (found->row < 0)
        return MPO_OK;
    const struct mpo_serve_prompt *given = given_prompt(engine, slot);
    if (given != NULL)
        MPO_TRY(offer_given(engine, slot, given));
    *cached = least_reused(engine);
cleanup:
    return status;
}

void mpo_engine_begin_with_cells(struct mpo_engine *engine, struct mpo_decode_row *row)
{
    struct mpo_prefix *found = &engine->now;
    if (engine->prefixes == NULL || found->row < 0)
        return;
    row->reused = found->reused;
    row->source = found->row;
    row->takes_over =
        mpo_prefixes_is_kept(engine->prefixes, found->row) &&
        (engine->takes_over || mpo_prefixes_is_whole(engine->prefixes, found));
    mpo_prefixes_touch(engine->prefixes, found->row);
}

/* The leader's figures are those of all choices. */
static void begin_scores(struct mpo_engine *engine, int32_t slot, int32_t row)
{
    const struct mpo_serve_prompt *given = given_prompt(engine, slot);
    if (given == NULL || engine->row[row].choice > 0) {
        mpo_scores_drop(engine->scores, row);
        return;
    }
    struct mpo_scores_key key = key_of(engine->slot[slot].request);
    struct mpo_scores_begin begin = {.row = row,
                                     .capacity = given->token_count - 1,
                                     .source = engine->now.row,
                                     .count = given->token_count - 1 -
                                              engine->slot[slot].given_count};
    mpo_scores_begin(engine->scores, &key, &begin);
}

void mpo_engine_remember(struct mpo_engine *engine, int32_t slot, int32_t row)
{
    if (!tell_prompt(engine, slot))
        return;
    mpo_prefixes_begin(engine->prefixes, row, &engine->told);
    begin_scores(engine, slot, row);
}

void mpo_engine_tell_figures(struct mpo_engine *engine, int32_t slot)
{
    const struct mpo_serve_request *request = engine->slot[slot].request;
    const struct mpo_serve_prompt *given = given_prompt(engine, slot);
    int32_t known =
        given != NULL ? given->token_count - 1 - engine->slot[slot].given_count : 0;
    for (int32_t i = 0; i < known; i++) {
        struct mpo_score score = mpo_scores_get(engine->scores, engine->now.row, i);
        mpo_link_put(engine->spec.link,
                     &(struct mpo_serve_event){.request = engine->slot[slot].request,
                                               .kind = MPO_SERVE_GIVEN,
                                               .prompt = engine->slot[slot].prompt,
                                               .token = given->token[i + 1],
                                               .log_q = score.log_q,
                                               .log_z = score.log_z,
                                               .log_policy = score.log_policy,
                                               .top_count = request->top_logprobs,
                                               .top_token = score.top_token,
                                               .top_log_q = score.top_log_q});
    }
}

void mpo_engine_add_token(struct mpo_engine *engine, const struct mpo_decode_event *event)
{
    const struct engine_row *row = &engine->row[event->row];
    if (engine->prefixes == NULL || row->request->isolated)
        return;
    if ((event->flags & MPO_DECODE_GIVEN) == 0) {
        mpo_prefixes_add(engine->prefixes, event->row, event->token);
        return;
    }
    mpo_scores_add(engine->scores, event->row,
                   &(struct mpo_score){.log_q = event->log_q,
                                       .log_z = event->moments->log_z,
                                       .log_policy = event->log_policy,
                                       .top_log_q = event->top_log_q,
                                       .top_token = event->top_token});
    if ((event->flags & MPO_DECODE_CUT) != 0) /* its last token was not fed */
        mpo_prefixes_fill(engine->prefixes, event->row,
                          row->request->prompt[row->prompt].token_count - 1);
}

void mpo_engine_leave_cells(struct mpo_engine *engine, int32_t row, bool keeps)
{
    if (engine->prefixes == NULL)
        return;
    if (!keeps || mpo_prefixes_keep(engine->prefixes, row) == 0)
        forget_row(engine, row);
    (void)trim_cells(engine, -1);
}

void mpo_engine_forget_cells(struct mpo_engine *engine)
{
    mpo_decode_clear(engine->spec.decode);
    for (int32_t row = 0; engine->prefixes != NULL && row < engine->row_count; row++) {
        mpo_prefixes_forget(engine->prefixes, row);
        mpo_scores_drop(engine->scores, row);
    }
}
