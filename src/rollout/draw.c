/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Responses of a unit: its prompts are admitted while there are m free rows, the row
 * machine steps until none lives, and its events are added up; or, with rows that never end,
 * the virtual responses that end in them (ends.h).
 *
 * A prompt's m rows share its prefill. What is computed, and in which order, depends on the
 * unit alone. Nothing here allocates.
 */
#include "rollout_impl.h"

#include <math.h>
#include <string.h>

static bool integrates_ends(const struct mpo_rollout *rollout)
{
    return rollout->spec.purpose == MPO_ROLLOUT_INTEGRATES;
}

static bool keeps_masses(const struct mpo_rollout *rollout)
{
    return rollout->spec.purpose == MPO_ROLLOUT_END_MASSES;
}

struct mpo_decode_row mpo_rollout_row(const struct mpo_rollout *rollout,
                                      const struct mpo_rollout_step *step, int32_t slot,
                                      int32_t share, int64_t j)
{
    bool scores_later = mpo_rollout_scores_later(rollout, step);
    struct mpo_decode_row row = {
        .slot = (int32_t)step->prompt[slot],
        .share = share,
        .free_count = rollout->spec.max_tokens,
        .mu = mpo_rollout_exponents(rollout, step),
        .end_bias = step->end_bias,
        .weighted_only = step->weighted_only || scores_later,
        .moments = !scores_later,
        .rule = {.greedy = step->greedy,
                 .seed = rollout->spec.seed,
                 .counter = {.step = (uint64_t)step->step,
                             .prompt = (uint64_t)(step->first_slot + slot),
                             .response = (uint64_t)(step->first_response + j)}},
    };
    if (integrates_ends(rollout) || keeps_masses(rollout)) {
        row.end_bias = MPO_ENDS_BIAS;
        row.rule.greedy = false;
        row.ends = integrates_ends(rollout);
        row.moments = integrates_ends(rollout);
    } else if (step->filter != NULL) {
        row.rule.filter = *step->filter;
    }
    return row;
}

/* The sums of a row are those of its response, but for what is of the row alone. */
static void begin_ends(struct mpo_rollout *rollout, int32_t row)
{
    struct mpo_integrals *all = &rollout->integrals;
    ptrdiff_t policies = rollout->row_policies;
    ptrdiff_t response = rollout->response[row];
    rollout->ends[row] =
        (struct mpo_ends){.policy_count = rollout->row_policies,
                          .log_total = -INFINITY,
                          .survival = 1.0,
                          .drawn = rollout->drawn + row * policies,
                          .whole = all->whole + response * policies,
                          .served = all->served + response * policies,
                          .divergence = all->divergence + response * policies};
    memset(rollout->ends[row].drawn, 0, (size_t)policies * sizeof(double));
}

/* The rows of the next prompt. */
static enum mpo_status admit_prompt(struct mpo_rollout *rollout,
                                    struct mpo_rollout_unit *unit)
{
    enum mpo_status status = MPO_OK;
    int32_t responses = rollout->spec.responses;
    int32_t leader = -1;
    for (int32_t j = 0; j < responses; j++) {
        int32_t index = 0;
        struct mpo_decode_row row =
            mpo_rollout_row(rollout, unit->step, unit->next_slot, leader, j);
        MPO_TRY(mpo_decode_admit(rollout->spec.decode, &row, &index));
        if (j == 0)
            leader = index;
        rollout->response[index] = unit->next_slot * responses + j;
        if (rollout->tail != NULL)
            mpo_decode_text_begin(&rollout->tail[index]);
        if (integrates_ends(rollout))
            begin_ends(rollout, index);
    }
    unit->next_slot++;
cleanup:
    return status;
}

static void account_token(struct mpo_responses *all, int32_t index,
                          const struct mpo_decode_event *event)
{
    size_t response = (size_t)index;
    all->token[response * (size_t)all->max_tokens + (size_t)event->position] = event->token;
    all->token_count[response] = event->position + 1;
    all->ended[response] = (event->flags & MPO_DECODE_ENDED) != 0;
    all->log_proposal[response] += event->log_q;
}

void mpo_rollout_account_figures(struct mpo_responses *all, int32_t index,
                                 const struct mpo_decode_event *event)
{
    size_t policies = (size_t)all->policy_count;
    size_t response = (size_t)index;
    bool ends = (event->flags & MPO_DECODE_ENDED) != 0;
    all->end_surprise[response] += (ends ? 1.0 : 0.0) - event->moments->end_probability;
    all->entropy[response] += event->moments->entropy;
    for (size_t h = 0; h < policies; h++) {
        all->log_policy[response * policies + h] += event->log_policy[h];
        all->control[response * policies + h] +=
            event->log_policy[h] - event->expectation[h];
    }
}

void mpo_rollout_account(struct mpo_responses *all, int32_t index,
                         const struct mpo_decode_event *event)
{
    account_token(all, index, event);
    mpo_rollout_account_figures(all, index, event);
}

/* Add what ends at this position, and after the last one what is cut. */
static void account_ends(struct mpo_rollout *rollout, const struct mpo_rollout_step *step,
                         const struct mpo_decode_event *event)
{
    struct mpo_integrals *all = &rollout->integrals;
    struct mpo_ends *ends = &rollout->ends[event->row];
    int32_t response = rollout->response[event->row];
    const int32_t *end_token = NULL;
    mpo_ends_add(
        ends, &(struct mpo_ends_position){
                  .mu = mpo_rollout_exponents(rollout, step),
                  .moments = event->moments,
                  .expectation = event->expectation,
                  .log_policy = event->log_policy,
                  .end_log_policy = event->end_log_policy,
                  .end_count = mpo_policies_end_tokens(rollout->spec.policies, &end_token),
                  .end_bias = step->end_bias,
              });
    if ((event->flags & (MPO_DECODE_CUT | MPO_DECODE_ENDED)) == 0)
        return;
    if ((event->flags & MPO_DECODE_CUT) != 0) /* an end has hardly the chance e^-100 */
        mpo_ends_cut(ends);
    all->log_total[response] = ends->log_total;
    all->length[response] = ends->length;
    all->truncated[response] = ends->survival;
}

/* What a row that has ended after all, with a chance of about e^-100, did not see has no
 * mass. */
static void account_masses(struct mpo_rollout *rollout,
                           const struct mpo_decode_event *event)
{
    struct mpo_end_masses *all = &rollout->masses;
    ptrdiff_t first = (ptrdiff_t)rollout->response[event->row] * all->max_tokens;
    double end = event->moments->end_probability;
    double stay = log1p(-end);
    all->log_stay[first + event->position] = event->moments->log_z + stay;
    all->log_odds[first + event->position] = log(end) - stay - MPO_ENDS_BIAS;
    if ((event->flags & MPO_DECODE_ENDED) == 0)
        return;
    for (int32_t t = event->position + 1; t < all->max_tokens; t++) {
        all->log_stay[first + t] = -INFINITY;
        all->log_odds[first + t] = -INFINITY;
    }
}

/* Whether the response stops here, because of a stop text or the watcher. */
static enum mpo_status look_for_stop(struct mpo_rollout *rollout,
                                     const struct mpo_rollout_step *step,
                                     const struct mpo_decode_event *event, bool *stops)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_responses *all = &rollout->responses;
    size_t response = (size_t)rollout->response[event->row];
    *stops = step->watch != NULL &&
             !step->watch(step->watcher, all->token + response * (size_t)all->max_tokens,
                          event->position + 1);
    if (rollout->tail == NULL)
        return MPO_OK;
    MPO_TRY(mpo_decode_text_add(&rollout->tail[event->row], event->token));
    *stops = *stops || rollout->tail[event->row].is_stopped;
cleanup:
    return status;
}

static enum mpo_status handle_event(struct mpo_rollout *rollout,
                                    struct mpo_rollout_unit *unit,
                                    const struct mpo_decode_event *event)
{
    enum mpo_status status = MPO_OK;
    bool stops = false;
    if ((event->flags & MPO_DECODE_FAILED) != 0)
        return mpo_rollout_raise(rollout, event);
    if (integrates_ends(rollout)) {
        account_ends(rollout, unit->step, event);
    } else if (keeps_masses(rollout)) {
        account_masses(rollout, event);
    } else {
        account_token(&rollout->responses, rollout->response[event->row], event);
        if (!mpo_rollout_scores_later(rollout, unit->step))
            mpo_rollout_account_figures(&rollout->responses, rollout->response[event->row],
                                        event);
        MPO_TRY(look_for_stop(rollout, unit->step, event, &stops));
    }
    if (stops)
        mpo_decode_cancel(rollout->spec.decode, event->row);
    unit->live_tokens++;
    if (stops || (event->flags & (MPO_DECODE_ENDED | MPO_DECODE_CUT)) != 0)
        unit->live_tokens -= event->position + 1;
cleanup:
    return status;
}

/* Other groups decode other units at the same time and are assumed to be equally far. */
static void report_position(const struct mpo_rollout *rollout,
                            const struct mpo_rollout_unit *unit, int32_t token_count)
{
    const struct mpo_rollout_step *step = unit->step;
    int32_t group_count = mpo_comm_group_count(rollout->spec.comm);
    int32_t begun = (unit->next_slot - unit->first_slot) * rollout->spec.responses;
    int32_t live = mpo_decode_live_rows(rollout->spec.decode);
    if (step->report == NULL)
        return;
    double of_unit = begun - live + (double)unit->live_tokens / rollout->spec.max_tokens;
    step->report(step->reporter,
                 unit->first_slot * rollout->spec.responses + group_count * of_unit,
                 group_count * token_count);
}

enum mpo_status mpo_rollout_draw_unit(struct mpo_rollout *rollout,
                                      const struct mpo_rollout_step *step,
                                      int32_t first_slot, int32_t prompt_count)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode *decode = rollout->spec.decode;
    struct mpo_rollout_unit unit = {.step = step,
                                    .first_slot = first_slot,
                                    .next_slot = first_slot,
                                    .end_slot = first_slot + prompt_count};
    mpo_decode_clear(decode);
    for (int32_t count = 1; count > 0 && !mpo_rollout_gives_up(rollout, step);) {
        const struct mpo_decode_event *event = NULL;
        while (unit.next_slot < unit.end_slot &&
               mpo_decode_free_rows(decode) >= rollout->spec.responses)
            MPO_TRY(admit_prompt(rollout, &unit));
        MPO_TRY(mpo_decode_step(decode, &event, &count));
        for (int32_t i = 0; i < count; i++)
            MPO_TRY(handle_event(rollout, &unit, &event[i]));
        if (count > 0)
            report_position(rollout, &unit, count);
    }
    if (mpo_rollout_scores_later(rollout, step))
        for (int32_t slot = first_slot; slot < unit.end_slot && !rollout->is_cut; slot++)
            MPO_TRY(mpo_rollout_score_unit(rollout, step, slot));
cleanup:
    return status;
}
