/*
 * The decode loop: one unit, from its prompts to its last finished row.
 *
 *     begin      every policy prefills each prompt once           batch rows = prompts
 *     repeat     normalise, exchange, combine, draw, broadcast
 *                rows that drew an end token or are full leave
 *                every policy extends the live rows by their token batch rows = live rows
 *
 * At the first position all rows of a prompt share one batch row, so `source` says which
 * one a live row draws from; later each live row has its own. Nothing here allocates.
 */
#include "rollout_impl.h"

#include <string.h>

struct unit {
    const struct mpo_rollout_step *step;
    int32_t first_slot;
    int32_t live_count;
    int32_t batch_rows; /* B of the present position */
    int32_t position;   /* response tokens of every live row */
    double clock;       /* when the present stage began */
};

static void end_stage(struct mpo_rollout *rollout, struct unit *unit,
                      enum mpo_timed_stage stage)
{
    unit->clock = mpo_timing_add(rollout->spec.timing, stage, unit->clock);
}

/* Prefill: one batch row a prompt. */
static enum mpo_status begin_unit(struct mpo_rollout *rollout, struct unit *unit,
                                  int32_t prompt_count)
{
    enum mpo_status status = MPO_OK;
    int32_t responses = rollout->spec.responses;
    for (int32_t k = 0; k < rollout->local_count; k++)
        MPO_TRY(mpo_policy_begin(mpo_policies_local(rollout->spec.policies, k),
                                 unit->step->prompt + unit->first_slot, prompt_count,
                                 responses, rollout->logits + k * prompt_count));
    unit->batch_rows = prompt_count;
    unit->live_count = prompt_count * responses;
    for (int32_t row = 0; row < unit->live_count; row++) {
        rollout->live[row] = row;
        rollout->source[row] = row / responses;
    }
cleanup:
    return status;
}

/* Every policy appends each live row's drawn token. */
static enum mpo_status extend_rows(struct mpo_rollout *rollout, struct unit *unit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_batch batch = {
        .row = rollout->live, .token = rollout->token, .row_count = unit->live_count};
    for (int32_t k = 0; k < rollout->local_count; k++)
        MPO_TRY(mpo_policy_extend(mpo_policies_local(rollout->spec.policies, k), &batch,
                                  rollout->logits + k * unit->live_count));
    unit->batch_rows = unit->live_count;
    for (int32_t i = 0; i < unit->live_count; i++)
        rollout->source[i] = i;
cleanup:
    return status;
}

enum mpo_status mpo_rollout_normalise(struct mpo_rollout *rollout, int32_t batch_rows)
{
    enum mpo_status status = MPO_OK;
    int32_t first = 0;
    int32_t count = 0;
    mpo_comm_policy_block(rollout->spec.comm, mpo_comm_group_rank(rollout->spec.comm),
                          &first, &count);
    for (int32_t k = 0; k < count; k++)
        MPO_TRY(mpo_mixture_normalise(rollout->spec.mixture, first + k, batch_rows,
                                      rollout->logits + k * batch_rows,
                                      rollout->log_norm + k * batch_rows));
cleanup:
    return status;
}

static void draw_uniforms(struct mpo_rollout *rollout, const struct unit *unit)
{
    for (int32_t i = 0; i < unit->live_count; i++) {
        int32_t row = rollout->live[i];
        struct mpo_rng_counter counter = {
            .step = (uint64_t)unit->step->step,
            .prompt = (uint64_t)(unit->first_slot + row / rollout->spec.responses),
            .response = (uint64_t)(row % rollout->spec.responses),
            .position = (uint64_t)unit->position,
        };
        rollout->uniform[i] = mpo_rng_uniform(rollout->spec.seed, MPO_RNG_TOKENS, counter);
    }
}

/* Add this position's figures of live row i to its response. */
static void account(struct mpo_rollout *rollout, const struct unit *unit, int32_t i)
{
    struct mpo_responses *all = &rollout->responses;
    size_t policies = (size_t)all->policy_count;
    size_t response =
        (size_t)unit->first_slot * (size_t)all->responses + (size_t)rollout->live[i];
    size_t batch_row = (size_t)rollout->source[i];
    const struct mpo_mixture_moments *moments = &rollout->moments[batch_row];
    int32_t token = rollout->token[i];
    bool ends = rollout->is_end[token];
    all->token[response * (size_t)all->max_tokens + (size_t)unit->position] = token;
    all->token_count[response] = unit->position + 1;
    all->ended[response] = ends;
    all->log_proposal[response] += rollout->log_proposal[i];
    all->end_surprise[response] += (ends ? 1.0 : 0.0) - moments->end_probability;
    all->entropy[response] += moments->entropy;
    for (size_t h = 0; h < policies; h++) {
        double log_policy = rollout->log_policy[(size_t)i * policies + h];
        double expected = rollout->expectation[batch_row * policies + h];
        all->log_policy[response * policies + h] += log_policy;
        all->control[response * policies + h] += log_policy - expected;
    }
}

/* Who watches sees the token; a row whose text stops marks it by its complement. */
static void show_and_stop(struct mpo_rollout *rollout, const struct unit *unit, int32_t i)
{
    const struct mpo_responses *all = &rollout->responses;
    size_t response =
        (size_t)unit->first_slot * (size_t)all->responses + (size_t)rollout->live[i];
    const int32_t *token = all->token + response * (size_t)all->max_tokens;
    if (unit->step->watch != NULL)
        unit->step->watch(unit->step->watcher, token, unit->position + 1);
    if (!rollout->is_end[rollout->token[i]] &&
        mpo_rollout_stops(rollout, token, unit->position + 1))
        rollout->token[i] = ~rollout->token[i];
}

/* The root turns K rows into one and draws. */
static enum mpo_status mix_and_draw(struct mpo_rollout *rollout, const struct unit *unit,
                                    const struct mpo_rows *rows)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_mixture_combine(rollout->spec.mixture, rows, rollout->moments,
                                rollout->expectation));
    if (!unit->step->greedy)
        draw_uniforms(rollout, unit);
    struct mpo_mixture_draws draws = {
        .count = unit->live_count,
        .row = rollout->source,
        .uniform = unit->step->greedy ? NULL : rollout->uniform,
        .filter = unit->step->filter,
        .token = rollout->token,
        .log_proposal = rollout->log_proposal,
        .log_policy = rollout->log_policy,
    };
    MPO_TRY(mpo_mixture_draw(rollout->spec.mixture, &draws));
    for (int32_t i = 0; i < unit->live_count; i++) {
        account(rollout, unit, i);
        show_and_stop(rollout, unit, i);
    }
cleanup:
    return status;
}

/* Rows that drew an end token, stopped or are full leave the batch and free their cache. */
static enum mpo_status retire_rows(struct mpo_rollout *rollout, struct unit *unit)
{
    enum mpo_status status = MPO_OK;
    bool full = unit->position + 1 == rollout->spec.max_tokens;
    int32_t kept = 0;
    for (int32_t i = 0; i < unit->live_count; i++) {
        int32_t row = rollout->live[i];
        int32_t token = rollout->token[i];
        if (!full && token >= 0 && !rollout->is_end[token]) {
            rollout->live[kept] = row;
            rollout->token[kept++] = token;
            continue;
        }
        for (int32_t k = 0; k < rollout->local_count; k++)
            MPO_TRY(mpo_policy_truncate(mpo_policies_local(rollout->spec.policies, k), row,
                                        -1));
    }
    unit->live_count = kept;
cleanup:
    return status;
}

static enum mpo_status take_position(struct mpo_rollout *rollout, struct unit *unit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rows rows = {0};
    MPO_TRY(mpo_rollout_normalise(rollout, unit->batch_rows));
    end_stage(rollout, unit, MPO_TIMED_mixture);
    MPO_TRY(mpo_exchange_rows(rollout->spec.exchange, unit->batch_rows, rollout->logits,
                              rollout->log_norm, &rows));
    end_stage(rollout, unit, MPO_TIMED_exchange);
    if (mpo_comm_group_rank(rollout->spec.comm) == 0)
        MPO_TRY(mix_and_draw(rollout, unit, &rows));
    end_stage(rollout, unit, MPO_TIMED_mixture);
    MPO_TRY(mpo_exchange_tokens(rollout->spec.exchange, rollout->token, unit->live_count));
    end_stage(rollout, unit, MPO_TIMED_exchange);
    MPO_TRY(retire_rows(rollout, unit));
    unit->position++;
cleanup:
    return status;
}

/* Other groups decode the units beside this one: they are taken to be as far. */
static void report_position(const struct mpo_rollout *rollout, const struct unit *unit,
                            int32_t row_count, int32_t token_count)
{
    const struct mpo_rollout_step *step = unit->step;
    int32_t group_count = mpo_comm_group_count(rollout->spec.comm);
    double live = (double)unit->live_count * unit->position / rollout->spec.max_tokens;
    double of_unit = row_count - unit->live_count + live;
    if (step->report != NULL)
        step->report(step->reporter,
                     unit->first_slot * rollout->spec.responses + group_count * of_unit,
                     group_count * token_count);
}

enum mpo_status mpo_rollout_unit(struct mpo_rollout *rollout,
                                 const struct mpo_rollout_step *step, int32_t first_slot,
                                 int32_t prompt_count)
{
    enum mpo_status status = MPO_OK;
    struct unit unit = {.step = step, .first_slot = first_slot, .clock = mpo_timing_now()};
    MPO_TRY(begin_unit(rollout, &unit, prompt_count));
    while (unit.live_count > 0) {
        if (unit.position > 0)
            MPO_TRY(extend_rows(rollout, &unit));
        end_stage(rollout, &unit, MPO_TIMED_decode);
        int32_t token_count = unit.live_count;
        MPO_TRY(take_position(rollout, &unit));
        report_position(rollout, &unit, prompt_count * rollout->spec.responses,
                        token_count);
    }
cleanup:
    return status;
}
