/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots into rows, and what becomes of a row's tokens.
 *
 * A prompt keeps its slot until its last row has ended, so a slot's number names it. With
 * echo and log-probabilities the prompt is its first token alone, and the others are given
 * tokens of each row: they are looked up in the same steps in which other rows draw, so that
 * memory does not grow with their number.
 */
#include "answer.h"
#include "engine_impl.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/timing.h"

/* ---- requests end ---- */

static void put_event(struct mpo_engine *engine, const struct mpo_serve_event *event)
{
    mpo_link_put(engine->spec.link, event);
}

/* @param keeps  its cells, for prompts to come */
static void free_row(struct mpo_engine *engine, int32_t row, bool keeps)
{
    struct engine_row *self = &engine->row[row];
    struct engine_slot *slot = &engine->slot[self->slot];
    bool was_isolated = self->request->isolated;
    mpo_schedule_leave_row(engine->schedule, self->slot);
    if (--slot->open_rows == 0)
        slot->request = NULL;
    self->request = NULL;
    self->is_paused = false;
    engine->has_freed = true;
    mpo_engine_leave_cells(engine, row, keeps && !was_isolated);
    if (was_isolated && slot->request == NULL)
        mpo_engine_forget_cells(engine);
}

void mpo_engine_end_request(struct mpo_engine *engine, struct mpo_serve_request *request)
{
    for (int32_t row = 0; row < engine->row_count; row++)
        if (engine->row[row].request == request) {
            mpo_decode_cancel(engine->spec.decode, row);
            free_row(engine, row, false);
        }
    for (int32_t slot = 0; slot < engine->spec.slot_capacity; slot++)
        if (engine->slot[slot].request == request) {
            if (!engine->slot[slot].is_coming) /* else the encoders write into it */
                mpo_schedule_drop(engine->schedule, slot);
            engine->slot[slot].request = NULL;
        }
    (void)mpo_schedule_withdraw(engine->schedule, request);
    if (request->refusal.http_status != 0)
        put_event(engine, &(struct mpo_serve_event){.request = request,
                                                    .kind = MPO_SERVE_REFUSED,
                                                    .choice = -1,
                                                    .refusal = &request->refusal});
    put_event(engine, &(struct mpo_serve_event){
                          .request = request, .kind = MPO_SERVE_DONE, .choice = -1});
    request->is_ended = true;
    engine->has_freed = true;
}

void mpo_engine_forget_ended(struct mpo_engine *engine)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < engine->active_count; i++)
        if (!engine->active[i]->is_ended)
            engine->active[kept++] = engine->active[i];
    engine->active_count = kept;
}

double mpo_engine_patience(const struct mpo_engine *engine)
{
    double now = mpo_timing_now();
    double until = engine->last_record + engine->spec.idle_seconds;
    if (engine->spec.lines != NULL && !engine->others_sleep && engine->coming_count == 0)
        return 0.0; /* they may sleep first */
    for (int32_t i = 0; i < engine->active_count; i++) {
        const struct mpo_serve_request *request = engine->active[i];
        double limit = request->seated_prompts == 0 ? engine->spec.queue_seconds
                                                    : engine->spec.deadline_seconds;
        until = fmin(until, request->submitted + limit);
    }
    return fmax(until - now, 0.0);
}

/* ---- slots into rows ---- */

int32_t mpo_engine_longest(const struct mpo_engine *engine, int32_t slot)
{
    int32_t longest = 0;
    for (int32_t h = 0; h < engine->spec.policy_count; h++) {
        int32_t length = engine->length[(ptrdiff_t)slot * engine->spec.policy_count + h];
        longest = length > longest ? length : longest;
    }
    return longest;
}

static struct mpo_decode_row describe_row(const struct mpo_engine *engine,
                                          const struct mpo_schedule_prompt *place,
                                          int32_t choice)
{
    const struct mpo_serve_request *request = place->owner;
    int32_t given = engine->slot[place->slot].given_count;
    const struct mpo_serve_prompt *prompt =
        given > 0 ? &request->prompt[place->prompt] : NULL;
    return (struct mpo_decode_row){
        .slot = place->slot,
        .share = -1,
        .given = given > 0 ? prompt->token + prompt->token_count - given : NULL,
        .given_count = given,
        .given_is_prompt = true,
        .whole_prompt = request->isolated,
        .parks = engine->prefixes != NULL && !request->isolated,
        .free_count = engine->slot[place->slot].free_count,
        .mu = request->mu,
        .end_bias = request->end_bias,
        .weighted_only = request->weighted_only,
        .rule = {.greedy = request->greedy,
                 .filter = request->filter,
                 .bias = request->bias,
                 .bias_count = request->bias_count,
                 .changes = mpo_engine_penalises(request),
                 .seed = request->seed,
                 .counter = {.prompt = (uint64_t)place->prompt,
                             .response = (uint64_t)choice}},
        .top_count = request->top_logprobs,
    };
}

static enum mpo_status seat_row(struct mpo_engine *engine,
                                const struct mpo_schedule_prompt *place, int32_t choice,
                                int32_t *leader)
{
    enum mpo_status status = MPO_OK;
    struct mpo_serve_request *request = place->owner;
    struct mpo_decode_row wish = describe_row(engine, place, choice);
    int32_t index = -1;
    wish.share = *leader;
    if (*leader < 0)
        mpo_engine_begin_with_cells(engine, &wish);
    MPO_TRY(mpo_decode_admit(engine->spec.decode, &wish, &index));
    if (*leader < 0)
        *leader = index;
    struct engine_row *row = &engine->row[index];
    const struct mpo_decode_stops stops = {(const char *const *)request->stop,
                                           request->stop_count};
    row->request = request;
    row->slot = place->slot;
    row->prompt = place->prompt;
    row->choice = choice;
    row->drawn = 0;
    row->bias_count = request->bias_count;
    if (request->bias_count > 0)
        memcpy(row->bias, request->bias, (size_t)request->bias_count * sizeof *row->bias);
    MPO_TRY(mpo_decode_text_begin_with(&row->tail, &stops));
    mpo_answer_text_begin(&row->tail, request);
    engine->slot[place->slot].open_rows++;
    mpo_engine_remember(engine, place->slot, index);
cleanup:
    return status;
}

/* A choice that has no token to look up or to draw is complete at once. */
static void put_empty(struct mpo_engine *engine, const struct mpo_schedule_prompt *place)
{
    for (int32_t choice = 0; choice < place->rows; choice++) {
        put_event(engine, &(struct mpo_serve_event){.request = place->owner,
                                                    .kind = MPO_SERVE_CHOICE,
                                                    .prompt = place->prompt,
                                                    .choice = choice,
                                                    .finish = MPO_SERVE_FINISH_LENGTH});
        mpo_schedule_leave_row(engine->schedule, place->slot);
    }
    engine->slot[place->slot].request = NULL;
}

static void complete_prompt(struct mpo_engine *engine, struct mpo_serve_request *request)
{
    if (--request->open_prompts == 0)
        mpo_engine_end_request(engine, request);
}

static enum mpo_status seat_prompt(struct mpo_engine *engine,
                                   const struct mpo_schedule_prompt *place)
{
    enum mpo_status status = MPO_OK;
    struct mpo_serve_request *request = place->owner;
    struct engine_slot *slot = &engine->slot[place->slot];
    int32_t cached = 0;
    int32_t leader = -1;
    const int32_t *length =
        engine->length + (ptrdiff_t)place->slot * engine->spec.policy_count;
    slot->given_count = mpo_engine_given_count(request, place->prompt);
    MPO_TRY(mpo_engine_find_cells(engine, place->slot, &cached));
    int32_t given = slot->given_count;
    for (int32_t h = 0; h < engine->spec.policy_count; h++)
        engine->told_length[h] = length[h] + given;
    request->seated_prompts++;
    put_event(engine, &(struct mpo_serve_event){.request = request,
                                                .kind = MPO_SERVE_SEATED,
                                                .prompt = place->prompt,
                                                .choice = -1,
                                                .cached_tokens = cached,
                                                .length = engine->told_length});
    mpo_schedule_charge(engine->schedule, request->client,
                        mpo_engine_longest(engine, place->slot) + given - cached, 0);
    if (given + slot->free_count == 0) {
        put_empty(engine, place);
        complete_prompt(engine, request);
        return MPO_OK;
    }
    if (request->isolated)
        mpo_engine_forget_cells(engine);
    mpo_engine_tell_figures(engine, place->slot);
    for (int32_t choice = 0; choice < place->rows; choice++)
        MPO_TRY(seat_row(engine, place, choice, &leader));
cleanup:
    return status;
}

enum mpo_status mpo_engine_seat(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    struct mpo_schedule_prompt place = {0};
    mpo_engine_hold_prompts(engine);
    while (mpo_schedule_take_seat(engine->schedule, &place)) {
        MPO_TRY(seat_prompt(engine, &place));
        mpo_engine_hold_prompts(engine);
    }
cleanup:
    return status;
}

/* ---- tokens of rows ---- */

/* Penalties are biases on the tokens that were drawn, beside those of the request. */
static enum mpo_status penalise_token(struct mpo_engine *engine, int32_t index,
                                      int32_t token)
{
    struct engine_row *row = &engine->row[index];
    const struct mpo_serve_request *request = row->request;
    int32_t at = request->bias_count;
    while (at < row->bias_count && row->bias[at].token != token)
        at++;
    if (at == row->bias_count) {
        row->bias[at] = (struct mpo_mixture_bias){token, -request->presence_penalty};
        row->bias_count++;
    }
    row->bias[at].value -= request->frequency_penalty;
    return mpo_decode_rebias(engine->spec.decode, index, row->bias, row->bias_count);
}

static void put_token(struct mpo_engine *engine, const struct engine_row *row,
                      const struct mpo_decode_event *event)
{
    bool is_given = (event->flags & MPO_DECODE_GIVEN) != 0;
    put_event(engine, &(struct mpo_serve_event){
                          .request = row->request,
                          .kind = is_given ? MPO_SERVE_GIVEN : MPO_SERVE_TOKEN,
                          .prompt = row->prompt,
                          .choice = row->choice,
                          .token = event->token,
                          .ends = (event->flags & MPO_DECODE_ENDED) != 0,
                          .log_q = event->log_q,
                          .log_z = event->moments->log_z,
                          .log_policy = event->log_policy,
                          .top_count = row->request->top_logprobs,
                          .top_token = event->top_token,
                          .top_log_q = event->top_log_q});
}

/* How the row finishes with this token. */
static enum mpo_status find_finish(struct engine_row *row,
                                   const struct mpo_decode_event *event,
                                   enum mpo_serve_finish *finish)
{
    enum mpo_status status = MPO_OK;
    bool is_given = (event->flags & MPO_DECODE_GIVEN) != 0;
    bool ends = (event->flags & MPO_DECODE_ENDED) != 0;
    *finish = ends                                   ? MPO_SERVE_FINISH_END
              : (event->flags & MPO_DECODE_CUT) != 0 ? MPO_SERVE_FINISH_LENGTH
                                                     : MPO_SERVE_FINISH_NONE;
    if (is_given || ends || row->request->stop_count == 0)
        return MPO_OK;
    MPO_TRY(mpo_decode_text_add(&row->tail, event->token));
    if (row->tail.is_stopped)
        *finish = MPO_SERVE_FINISH_STOP;
cleanup:
    return status;
}

static void finish_row(struct mpo_engine *engine, int32_t index,
                       enum mpo_serve_finish finish)
{
    struct engine_row *row = &engine->row[index];
    struct mpo_serve_request *request = row->request;
    int32_t slot = row->slot;
    put_event(engine, &(struct mpo_serve_event){.request = request,
                                                .kind = MPO_SERVE_CHOICE,
                                                .prompt = row->prompt,
                                                .choice = row->choice,
                                                .finish = finish,
                                                .stop = row->tail.stop});
    if (finish == MPO_SERVE_FINISH_STOP && engine->prefixes != NULL && !request->isolated)
        mpo_decode_park(engine->spec.decode, index);
    else if (finish == MPO_SERVE_FINISH_STOP)
        mpo_decode_cancel(engine->spec.decode, index);
    free_row(engine, index, true);
    if (engine->slot[slot].request == NULL)
        complete_prompt(engine, request);
}

enum mpo_status mpo_engine_hear(struct mpo_engine *engine,
                                const struct mpo_decode_event *event)
{
    enum mpo_status status = MPO_OK;
    struct engine_row *row = &engine->row[event->row];
    enum mpo_serve_finish finish = MPO_SERVE_FINISH_NONE;
    if (row->request == NULL)
        return MPO_OK; /* its request has ended in this very step */
    if (event->failure != NULL) {
        mpo_serve_refuse(&row->request->refusal, 500, "row_failed", "", "%s",
                         event->failure->text);
        row->request->refusal.never_retry = true;
        mpo_engine_end_request(engine, row->request);
        return MPO_OK;
    }
    put_token(engine, row, event);
    mpo_engine_add_token(engine, event);
    MPO_TRY(find_finish(row, event, &finish));
    if ((event->flags & MPO_DECODE_GIVEN) == 0) {
        row->drawn++;
        mpo_schedule_charge(engine->schedule, row->request->client, 0, 1);
        if (finish == MPO_SERVE_FINISH_NONE && mpo_engine_penalises(row->request))
            MPO_TRY(penalise_token(engine, event->row, event->token));
    }
    if (finish != MPO_SERVE_FINISH_NONE)
        finish_row(engine, event->row, finish);
cleanup:
    return status;
}
