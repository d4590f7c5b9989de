/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of steps: who comes, who leaves, and what becomes of a step's events.
 */
#include "engine_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/timing.h"

/* Prompts are offered and taken for so long between two steps, so that rows do not wait for
 * them. */
#define OFFER_SECONDS 0.005

/* ---- open and close ---- */

static enum mpo_status open_rows(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_engine_spec *spec = &engine->spec;
    char *longest = NULL;
    MPO_NEW(MPO_DECODE_STOP_BYTES_MAX + 1, &longest);
    memset(longest, 'x', MPO_DECODE_STOP_BYTES_MAX);
    const char *const text[] = {longest};
    const struct mpo_decode_stops room = {text, 1};
    MPO_NEW(engine->row_count, &engine->row);
    for (int32_t row = 0; row < engine->row_count; row++) {
        MPO_TRY(mpo_decode_text_open_tail(&engine->row[row].tail, spec->policies, &room));
        MPO_NEW(spec->bias_max, &engine->row[row].bias);
    }
cleanup:
    free(longest);
    return status;
}

enum mpo_status mpo_engine_open(const struct mpo_engine_spec *spec, struct mpo_engine **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_engine *engine = NULL;
    const struct mpo_schedule_spec schedule = {
        .row_capacity = spec->row_capacity,
        .slot_capacity = spec->slot_capacity,
        .queue_capacity = spec->queue_capacity,
        .cell_capacity = spec->cell_capacity,
        .client_count = spec->client_count,
    };
    MPO_NEW(1, &engine);
    engine->spec = *spec;
    engine->row_count = spec->row_capacity + spec->parked_rows;
    MPO_TRY(mpo_schedule_open(&schedule, &engine->schedule));
    MPO_NEW(spec->queue_capacity + spec->slot_capacity, &engine->active);
    MPO_NEW(spec->slot_capacity, &engine->slot);
    MPO_NEW(spec->slot_capacity, &engine->coming);
    MPO_NEW(spec->slot_capacity * spec->policy_count, &engine->length);
    MPO_NEW(spec->policy_count, &engine->told_length);
    MPO_TRY(open_rows(engine));
    MPO_TRY(mpo_engine_open_reuse(engine));
cleanup:
    if (status != MPO_OK)
        mpo_engine_close(&engine);
    *out = engine;
    return status;
}

void mpo_engine_close(struct mpo_engine **engine)
{
    struct mpo_engine *self = *engine;
    if (self == NULL)
        return;
    mpo_engine_close_reuse(self);
    for (int32_t row = 0; self->row != NULL && row < self->row_count; row++) {
        mpo_decode_text_close(&self->row[row].tail);
        free(self->row[row].bias);
    }
    free(self->row);
    free(self->told_length);
    free(self->length);
    free(self->coming);
    free(self->slot);
    free(self->active);
    mpo_schedule_close(&self->schedule);
    free(self);
    *engine = NULL;
}

/* ---- what is in use ---- */

static void show_use(struct mpo_engine *engine, const struct mpo_link_use *use)
{
    struct mpo_metrics *metrics = engine->spec.metrics;
    const double *seconds = engine->spec.timing->seconds;
    double share = (double)use->cells_used / (double)engine->spec.cell_capacity;
    mpo_metrics_set(metrics, MPO_METRIC_ROWS, 0, use->rows_live);
    mpo_metrics_set(metrics, MPO_METRIC_PREFIX_CACHE_ROWS, 0, use->rows_kept);
    mpo_metrics_set(metrics, MPO_METRIC_PREFIX_CACHE_CELLS, 0, (double)use->cells_kept);
    mpo_metrics_set(metrics, MPO_METRIC_NUM_REQUESTS_PAUSED, 0, use->requests_paused);
    mpo_metrics_set(metrics, MPO_METRIC_PROMPTS_ENCODING, 0, engine->coming_count);
    for (int32_t h = 0; h < engine->spec.policy_count; h++)
        mpo_metrics_set(metrics, MPO_METRIC_KV_CACHE_USAGE_PERC, h, share);
    mpo_metrics_set(metrics, MPO_METRIC_STAGE_SECONDS, MPO_METRIC_STAGE_DECODE,
                    seconds[MPO_TIMED_decode]);
    mpo_metrics_set(metrics, MPO_METRIC_STAGE_SECONDS, MPO_METRIC_STAGE_EXCHANGE,
                    seconds[MPO_TIMED_exchange]);
    mpo_metrics_set(metrics, MPO_METRIC_STAGE_SECONDS, MPO_METRIC_STAGE_MIXTURE,
                    seconds[MPO_TIMED_mixture]);
    if (use->round_trip != engine->shown_round_trip)
        mpo_metrics_observe(metrics, MPO_METRIC_ROUND_TRIP, 0, use->round_trip);
    engine->shown_round_trip = use->round_trip;
}

static void note_use(struct mpo_engine *engine)
{
    struct mpo_link_use use = engine->use;
    use.rows_live = engine->spec.row_capacity - mpo_schedule_free_rows(engine->schedule);
    use.cells_used = engine->spec.cell_capacity - mpo_schedule_free_cells(engine->schedule);
    if (engine->prefixes != NULL) {
        use.rows_kept = mpo_prefixes_kept_rows(engine->prefixes);
        use.cells_kept = mpo_prefixes_kept_cells(engine->prefixes);
    }
    use.requests_waiting = 0;
    use.requests_paused = 0;
    for (int32_t i = 0; i < engine->active_count; i++) {
        use.requests_waiting += engine->active[i]->seated_prompts == 0;
        use.requests_paused += engine->active[i]->is_paused;
    }
    use.requests_running = engine->active_count - use.requests_waiting;
    use.rows_paused = engine->paused_rows;
    use.round_trip =
        engine->spec.lines != NULL ? mpo_lines_round_trip(engine->spec.lines) : 0.0;
    show_use(engine, &use);
    engine->use = use;
    mpo_link_show(engine->spec.link, &use);
}

/* ---- requests come ---- */

static void admit_request(struct mpo_engine *engine, struct mpo_serve_request *request)
{
    const struct mpo_schedule_request entry = {
        .owner = request,
        .client = request->client,
        .prompt_count = request->prompt_count,
        .rows = mpo_serve_choices(request),
        .isolated = request->isolated,
    };
    request->submitted = mpo_timing_now() - request->waited_seconds;
    request->open_prompts = request->prompt_count;
    request->seated_prompts = 0;
    request->is_ended = false;
    engine->active[engine->active_count++] = request;
    if (!mpo_schedule_enter(engine->schedule, &entry)) {
        mpo_serve_refuse(&request->refusal, 429, "queue_full", "",
                         "%d requests wait already; try again later",
                         engine->spec.queue_capacity);
        mpo_engine_end_request(engine, request);
    }
}

static void handle_news(struct mpo_engine *engine, const struct mpo_link_news *news)
{
    struct mpo_serve_request *request = news->submitted;
    while (request != NULL) {
        struct mpo_serve_request *next = request->next;
        admit_request(engine, request);
        request = next;
    }
}

/* ---- requests leave ---- */

static void sweep_requests(struct mpo_engine *engine, bool stops)
{
    double now = mpo_timing_now();
    for (int32_t i = 0; i < engine->active_count; i++) {
        struct mpo_serve_request *request = engine->active[i];
        if (request->is_ended)
            continue;
        mpo_serve_refuse_late(request, now - request->submitted,
                              &(struct mpo_serve_patience){
                                  .queue_seconds = engine->spec.queue_seconds,
                                  .deadline_seconds = engine->spec.deadline_seconds});
        if (stops)
            mpo_serve_refuse_stopping(&request->refusal);
        if (request->is_cancelled || request->refusal.http_status != 0)
            mpo_engine_end_request(engine, request);
    }
    mpo_engine_forget_ended(engine);
}

/* ---- pauses ---- */

static void apply_pauses(struct mpo_engine *engine)
{
    engine->paused_rows = 0;
    for (int32_t row = 0; row < engine->row_count; row++) {
        struct engine_row *self = &engine->row[row];
        if (self->request == NULL)
            continue;
        bool pauses = self->request->is_paused;
        if (pauses != self->is_paused)
            mpo_decode_pause(engine->spec.decode, row, pauses);
        self->is_paused = pauses;
        engine->paused_rows += pauses;
    }
}

/* Whether a step would do something. */
static bool can_step(const struct mpo_engine *engine)
{
    return mpo_decode_live_rows(engine->spec.decode) > engine->paused_rows;
}

/* ---- the loop ---- */

/* Nothing to do: the other ranks sleep by their lines, and get a sign of life from this one
 * now and then. */
static enum mpo_status show_life(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    bool may_sleep = engine->spec.lines != NULL && !engine->others_sleep &&
                     engine->coming_count == 0; /* else there is more to come soon */
    double since = mpo_timing_now() - engine->last_record;
    if (!may_sleep && since < engine->spec.idle_seconds)
        return MPO_OK;
    MPO_TRY(mpo_decode_idle(engine->spec.decode));
    engine->last_record = mpo_timing_now();
    engine->others_sleep = engine->spec.lines != NULL;
    engine->use.last_idle = engine->last_record;
cleanup:
    return status;
}

static enum mpo_status step_rows(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    MPO_TRY(mpo_decode_step(engine->spec.decode, &event, &count));
    engine->last_record = mpo_timing_now();
    engine->use.last_step = engine->last_record;
    engine->others_sleep = false;
    engine->use.steps++;
    engine->use.positions = count;
    mpo_metrics_add(engine->spec.metrics, MPO_METRIC_STEPS, 0, 1.0);
    if (engine->coming_count > 0 && !engine->offers_wait)
        mpo_metrics_add(engine->spec.metrics, MPO_METRIC_STEPS_BESIDE_ENCODING, 0, 1.0);
    mpo_metrics_observe(engine->spec.metrics, MPO_METRIC_STEP_POSITIONS, 0, count);
    for (int32_t i = 0; i < count; i++)
        MPO_TRY(mpo_engine_hear(engine, &event[i]));
    mpo_engine_forget_ended(engine);
cleanup:
    return status;
}

/* Prompts that come together are known together, so that one can wait for another. */
static enum mpo_status offer_prompts(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    double until = mpo_timing_now() + OFFER_SECONDS;
    bool is_offered = true;
    bool is_taken = true;
    while ((is_offered || is_taken) && !engine->offers_wait) {
        MPO_TRY(mpo_engine_offer(engine, &is_offered));
        MPO_TRY(mpo_engine_take(engine, can_step(engine), &is_taken));
        engine->offers_wait = (is_offered || is_taken) && mpo_timing_now() > until;
    }
cleanup:
    return status;
}

static enum mpo_status run_turn(struct mpo_engine *engine, bool *ends)
{
    enum mpo_status status = MPO_OK;
    bool waits = !can_step(engine) && !engine->offers_wait && !engine->prompts_wait &&
                 !engine->has_freed;
    struct mpo_link_news news =
        mpo_link_listen(engine->spec.link, waits, mpo_engine_patience(engine));
    handle_news(engine, &news);
    sweep_requests(engine, news.stops);
    engine->offers_wait = false;
    engine->has_freed = false;
    MPO_TRY(offer_prompts(engine));
    MPO_TRY(mpo_engine_seat(engine));
    mpo_engine_forget_ended(engine);
    apply_pauses(engine);
    if (can_step(engine))
        MPO_TRY(step_rows(engine));
    else
        MPO_TRY(show_life(engine));
    note_use(engine);
    mpo_link_send(engine->spec.link);
    *ends = news.stops;
cleanup:
    return status;
}

enum mpo_status mpo_engine_run(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    bool ends = false;
    engine->last_record = mpo_timing_now();
    while (!ends)
        MPO_TRY(run_turn(engine, &ends));
    if (engine->spec.lines != NULL)
        mpo_lines_ignore(engine->spec.lines);
    MPO_TRY(mpo_decode_release(engine->spec.decode));
cleanup:
    return status;
}
