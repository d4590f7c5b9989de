/*
 * The decode loop: one unit, from its prompts to its last finished row.
 *
 *     repeat     prompts wait, and there is room for the m rows of one:
 *                    every policy prefills those that fit         batch rows = prompts
 *                otherwise:
 *                    every policy extends the live rows           batch rows = live rows
 *                normalise, exchange, combine, draw, broadcast
 *                rows that drew an end token or are full leave
 *
 * A waiting prompt takes the lowest free rows. Its rows share one batch row at their first
 * position, so `source` says which one a row draws from; afterwards they join the batch and
 * each has its own. Every rank of a group decides alike, from the broadcast tokens. Nothing
 * here allocates.
 */
#include "rollout_impl.h"

#include <string.h>

struct unit {
    const struct mpo_rollout_step *step;
    int32_t first_slot;
    int32_t next_slot; /* first prompt slot that waits */
    int32_t end_slot;
    int32_t live_count;
    int32_t first;      /* live rows first .. live_count - 1 draw at this position */
    int32_t batch_rows; /* B of the present position */
    double clock;       /* when the present stage began */
};

static void end_stage(struct mpo_rollout *rollout, struct unit *unit,
                      enum mpo_timed_stage stage)
{
    unit->clock = mpo_timing_add(rollout->spec.timing, stage, unit->clock);
}

/* Waiting prompts that there is room for. */
static int32_t prompts_to_begin(const struct mpo_rollout *rollout, const struct unit *unit)
{
    int32_t waiting = unit->end_slot - unit->next_slot;
    int32_t room = (rollout->row_capacity - unit->live_count) / rollout->spec.responses;
    return waiting < room ? waiting : room;
}

/* The lowest free rows become those of the next prompts. */
static void seat_rows(struct mpo_rollout *rollout, struct unit *unit, int32_t prompt_count)
{
    int32_t responses = rollout->spec.responses;
    int32_t row = 0;
    for (int32_t i = 0; i < prompt_count * responses; i++) {
        while (rollout->rows[row].is_live)
            row++;
        rollout->rows[row] = (struct mpo_rollout_row){
            .response = unit->next_slot * responses + i, .is_live = true};
        rollout->source[unit->live_count] = i / responses;
        rollout->live[unit->live_count++] = row;
    }
}

/* Every policy prefills the next prompts; their rows alone draw. */
static enum mpo_status begin_prompts(struct mpo_rollout *rollout, struct unit *unit,
                                     int32_t prompt_count)
{
    enum mpo_status status = MPO_OK;
    unit->first = unit->live_count;
    seat_rows(rollout, unit, prompt_count);
    struct mpo_policy_entry entry = {.prompt = unit->step->prompt + unit->next_slot,
                                     .row = rollout->live + unit->first,
                                     .prompt_count = prompt_count,
                                     .rows_per_prompt = rollout->spec.responses};
    for (int32_t k = 0; k < rollout->local_count; k++)
        MPO_TRY(mpo_policy_begin(mpo_policies_local(rollout->spec.policies, k), &entry,
                                 rollout->logits + k * prompt_count));
    unit->next_slot += prompt_count;
    unit->batch_rows = prompt_count;
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
    unit->first = 0;
    unit->batch_rows = unit->live_count;
    for (int32_t i = 0; i < unit->live_count; i++)
        rollout->source[i] = i;
cleanup:
    return status;
}

static void draw_uniforms(struct mpo_rollout *rollout, const struct unit *unit)
{
    for (int32_t i = unit->first; i < unit->live_count; i++) {
        const struct mpo_rollout_row *row = &rollout->rows[rollout->live[i]];
        int32_t slot = row->response / rollout->spec.responses;
        struct mpo_rng_counter counter = {
            .step = (uint64_t)unit->step->step,
            .prompt = (uint64_t)(unit->step->first_slot + slot),
            .response = (uint64_t)(row->response % rollout->spec.responses),
            .position = (uint64_t)row->token_count,
        };
        rollout->uniform[i] = mpo_rng_uniform(rollout->spec.seed, MPO_RNG_TOKENS, counter);
    }
}

/* Add this position's figures of live row i to its response. */
static void account(struct mpo_rollout *rollout, int32_t i)
{
    struct mpo_responses *all = &rollout->responses;
    const struct mpo_rollout_row *row = &rollout->rows[rollout->live[i]];
    size_t policies = (size_t)all->policy_count;
    size_t response = (size_t)row->response;
    size_t batch_row = (size_t)rollout->source[i];
    const struct mpo_mixture_moments *moments = &rollout->moments[batch_row];
    int32_t token = rollout->token[i];
    bool ends = rollout->is_end[token];
    all->token[response * (size_t)all->max_tokens + (size_t)row->token_count] = token;
    all->token_count[response] = row->token_count + 1;
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

/* Who watches sees the token; a row that is to stop, or whose text does, marks it by its
 * complement. */
static void show_and_stop(struct mpo_rollout *rollout, const struct unit *unit, int32_t i)
{
    const struct mpo_responses *all = &rollout->responses;
    size_t response = (size_t)rollout->rows[rollout->live[i]].response;
    const int32_t *token = all->token + response * (size_t)all->max_tokens;
    int32_t token_count = all->token_count[response];
    bool goes_on = unit->step->watch == NULL ||
                   unit->step->watch(unit->step->watcher, token, token_count);
    if (!rollout->is_end[rollout->token[i]] &&
        (!goes_on || mpo_rollout_stops(rollout, token, token_count)))
        rollout->token[i] = ~rollout->token[i];
}

/* All ranks of the group turn K rows into one, and the root draws. */
static enum mpo_status mix_and_draw(struct mpo_rollout *rollout, const struct unit *unit,
                                    const struct mpo_rows *rows)
{
    enum mpo_status status = MPO_OK;
    bool is_root = mpo_comm_group_rank(rollout->spec.comm) == 0;
    int32_t first = unit->first;
    MPO_TRY(mpo_mixture_combine(rollout->spec.mixture, rows, &rollout->exponents,
                                rollout->moments, rollout->expectation));
    if (is_root && !unit->step->greedy)
        draw_uniforms(rollout, unit);
    struct mpo_mixture_draws draws = {
        .count = unit->live_count - first,
        .row = rollout->source + first,
        .kind = rollout->kind,
        .uniform = unit->step->greedy ? NULL : rollout->uniform + first,
        .rule = unit->step->greedy ? NULL : rollout->rule,
        .token = rollout->token + first,
        .log_proposal = rollout->log_proposal + first,
        .log_policy = rollout->log_policy + first * rollout->spec.policy_count,
    };
    MPO_TRY(mpo_mixture_draw(rollout->spec.mixture, &draws));
    for (int32_t i = first; is_root && i < unit->live_count; i++) {
        account(rollout, i);
        show_and_stop(rollout, unit, i);
    }
cleanup:
    return status;
}

/* Rows that drew an end token, stopped or are full leave the batch and free their cache. */
static enum mpo_status retire_rows(struct mpo_rollout *rollout, struct unit *unit)
{
    enum mpo_status status = MPO_OK;
    int32_t kept = unit->first;
    for (int32_t i = unit->first; i < unit->live_count; i++) {
        struct mpo_rollout_row *row = &rollout->rows[rollout->live[i]];
        int32_t token = rollout->token[i];
        row->token_count++;
        row->is_live = row->token_count < rollout->spec.max_tokens && token >= 0 &&
                       !rollout->is_end[token];
        for (int32_t k = 0; !row->is_live && k < rollout->local_count; k++)
            MPO_TRY(mpo_policy_truncate(mpo_policies_local(rollout->spec.policies, k),
                                        rollout->live[i], -1));
        if (row->is_live) {
            rollout->live[kept] = rollout->live[i];
            rollout->token[kept++] = token;
        }
    }
    unit->live_count = kept;
cleanup:
    return status;
}

static enum mpo_status take_position(struct mpo_rollout *rollout, struct unit *unit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rows rows = {0};
    MPO_TRY(mpo_rollout_exchange(rollout, unit->batch_rows, &rows));
    unit->clock = mpo_timing_now();
    MPO_TRY(mix_and_draw(rollout, unit, &rows));
    end_stage(rollout, unit, MPO_TIMED_mixture);
    MPO_TRY(mpo_exchange_tokens(rollout->spec.exchange, rollout->token + unit->first,
                                unit->live_count - unit->first));
    end_stage(rollout, unit, MPO_TIMED_exchange);
    MPO_TRY(retire_rows(rollout, unit));
cleanup:
    return status;
}

/* Other groups decode the units beside this one: they are taken to be as far. */
static void report_position(const struct mpo_rollout *rollout, const struct unit *unit,
                            int32_t token_count)
{
    const struct mpo_rollout_step *step = unit->step;
    int32_t group_count = mpo_comm_group_count(rollout->spec.comm);
    int32_t begun = (unit->next_slot - unit->first_slot) * rollout->spec.responses;
    double live_tokens = 0.0;
    if (step->report == NULL)
        return;
    for (int32_t i = 0; i < unit->live_count; i++)
        live_tokens += rollout->rows[rollout->live[i]].token_count;
    double of_unit = begun - unit->live_count + live_tokens / rollout->spec.max_tokens;
    step->report(step->reporter,
                 unit->first_slot * rollout->spec.responses + group_count * of_unit,
                 group_count * token_count);
}

enum mpo_status mpo_rollout_unit(struct mpo_rollout *rollout,
                                 const struct mpo_rollout_step *step, int32_t first_slot,
                                 int32_t prompt_count)
{
    enum mpo_status status = MPO_OK;
    struct unit unit = {.step = step,
                        .first_slot = first_slot,
                        .next_slot = first_slot,
                        .end_slot = first_slot + prompt_count,
                        .clock = mpo_timing_now()};
    for (int32_t k = 0; k < rollout->local_count; k++)
        mpo_policy_clear(mpo_policies_local(rollout->spec.policies, k));
    while (unit.next_slot < unit.end_slot || unit.live_count > 0) {
        int32_t begun = prompts_to_begin(rollout, &unit);
        MPO_TRY(begun > 0 ? begin_prompts(rollout, &unit, begun)
                          : extend_rows(rollout, &unit));
        end_stage(rollout, &unit, MPO_TIMED_decode);
        int32_t token_count = unit.live_count - unit.first;
        MPO_TRY(take_position(rollout, &unit));
        report_position(rollout, &unit, token_count);
    }
cleanup:
    return status;
}
