/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rollout of a step: units are dealt to the groups in turn, each group decodes its own
 * (its root leads, the other ranks follow), and the results are gathered on rank zero in
 * prompt order.
 */
#include "rollout_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/stop.h"

/* ---- open and close ---- */

static enum mpo_status allocate_scores(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    struct mpo_scores *scores = &rollout->scores;
    size_t count = (size_t)rollout->spec.prompts_max * (size_t)rollout->spec.responses;
    MPO_NEW(count, &scores->token_count);
    MPO_NEW(count, &scores->log_mixture);
    MPO_NEW(count, &scores->log_z);
    MPO_NEW(count * (size_t)rollout->spec.policy_count, &scores->log_policy);
    scores->responses = rollout->spec.responses;
    scores->policy_count = rollout->spec.policy_count;
cleanup:
    return status;
}

static enum mpo_status allocate_responses(const struct mpo_rollout *rollout, size_t count,
                                          struct mpo_responses *responses)
{
    enum mpo_status status = MPO_OK;
    size_t policies = (size_t)rollout->spec.policy_count;
    MPO_NEW(count, &responses->token_count);
    MPO_NEW(count, &responses->ended);
    MPO_NEW(count, &responses->log_proposal);
    MPO_NEW(count * policies, &responses->log_policy);
    MPO_NEW(count * policies, &responses->control);
    MPO_NEW(count, &responses->end_surprise);
    MPO_NEW(count, &responses->entropy);
    MPO_NEW(count * (size_t)rollout->spec.max_tokens, &responses->token);
    if (rollout->spec.purpose == MPO_ROLLOUT_EXACT)
        MPO_NEW(count, &responses->tries);
    responses->prompt = rollout->prompt;
    responses->responses = rollout->spec.responses;
    responses->policy_count = rollout->spec.policy_count;
    responses->max_tokens = rollout->spec.max_tokens;
cleanup:
    return status;
}

static void free_responses(struct mpo_responses *responses)
{
    free(responses->tries);
    free(responses->token);
    free(responses->entropy);
    free(responses->end_surprise);
    free(responses->control);
    free(responses->log_policy);
    free(responses->log_proposal);
    free(responses->ended);
    free(responses->token_count);
}

static enum mpo_status allocate_draws(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_spec *spec = &rollout->spec;
    size_t count = (size_t)spec->prompts_max * (size_t)spec->responses;
    MPO_TRY(allocate_responses(rollout, count, &rollout->responses));
    if (spec->purpose != MPO_ROLLOUT_EXACT)
        return MPO_OK;
    MPO_TRY(allocate_responses(rollout, (size_t)spec->row_capacity, &rollout->tries));
    MPO_NEW(spec->unit_prompts, &rollout->search);
cleanup:
    return status;
}

static enum mpo_status allocate_integrals(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    struct mpo_integrals *integrals = &rollout->integrals;
    size_t count = (size_t)rollout->spec.prompts_max * (size_t)rollout->spec.responses;
    size_t policies = (size_t)rollout->spec.policy_count;
    MPO_NEW(count, &integrals->log_total);
    MPO_NEW(count * policies, &integrals->whole);
    MPO_NEW(count * policies, &integrals->served);
    MPO_NEW(count * policies, &integrals->divergence);
    MPO_NEW(count, &integrals->length);
    MPO_NEW(count, &integrals->truncated);
    MPO_NEW(rollout->spec.row_capacity, &rollout->ends);
    MPO_NEW((size_t)rollout->spec.row_capacity * policies, &rollout->drawn);
    integrals->responses = rollout->spec.responses;
    integrals->policy_count = rollout->spec.policy_count;
cleanup:
    return status;
}

static enum mpo_status allocate_masses(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_spec *spec = &rollout->spec;
    size_t count = (size_t)spec->prompts_max * (size_t)spec->responses;
    MPO_NEW(count * (size_t)spec->max_tokens, &rollout->masses.log_stay);
    MPO_NEW(count * (size_t)spec->max_tokens, &rollout->masses.log_odds);
    rollout->masses.responses = spec->responses;
    rollout->masses.max_tokens = spec->max_tokens;
cleanup:
    return status;
}

static enum mpo_status allocate_results(struct mpo_rollout *rollout)
{
    switch (rollout->spec.purpose) {
    case MPO_ROLLOUT_SCORES:
        return allocate_scores(rollout);
    case MPO_ROLLOUT_INTEGRATES:
        return allocate_integrals(rollout);
    case MPO_ROLLOUT_END_MASSES:
        return allocate_masses(rollout);
    case MPO_ROLLOUT_DRAWS:
    case MPO_ROLLOUT_EXACT:
    default:
        return allocate_draws(rollout);
    }
}

/* Only the root of a group sees what its rows draw. */
static enum mpo_status open_tails(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_spec *spec = &rollout->spec;
    struct mpo_decode_stops stops = {spec->stop, spec->stop_count};
    MPO_TRY(mpo_decode_stops_check(&stops));
    if (spec->stop_count == 0 || mpo_comm_group_rank(spec->comm) != 0)
        return MPO_OK;
    MPO_NEW(spec->row_capacity, &rollout->tail);
    for (int32_t row = 0; row < spec->row_capacity; row++)
        MPO_TRY(mpo_decode_text_open_tail(&rollout->tail[row], spec->policies, &stops));
cleanup:
    return status;
}

enum mpo_status mpo_rollout_open(const struct mpo_rollout_spec *spec,
                                 struct mpo_rollout **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rollout *rollout = NULL;
    MPO_NEW(1, &rollout);
    rollout->spec = *spec;
    MPO_NEW(spec->row_capacity, &rollout->response);
    MPO_NEW(spec->prompts_max, &rollout->prompt);
    MPO_TRY(open_tails(rollout));
    MPO_TRY(allocate_results(rollout));
cleanup:
    if (status != MPO_OK)
        mpo_rollout_close(&rollout);
    *out = rollout;
    return status;
}

void mpo_rollout_close(struct mpo_rollout **out)
{
    struct mpo_rollout *rollout = *out;
    if (rollout == NULL)
        return;
    free(rollout->masses.log_odds);
    free(rollout->masses.log_stay);
    free(rollout->drawn);
    free(rollout->ends);
    free(rollout->integrals.truncated);
    free(rollout->integrals.length);
    free(rollout->integrals.divergence);
    free(rollout->integrals.served);
    free(rollout->integrals.whole);
    free(rollout->integrals.log_total);
    free(rollout->scores.log_policy);
    free(rollout->scores.log_z);
    free(rollout->scores.log_mixture);
    free(rollout->scores.token_count);
    free(rollout->search);
    free_responses(&rollout->tries);
    free_responses(&rollout->responses);
    for (int32_t row = 0; rollout->tail != NULL && row < rollout->spec.row_capacity; row++)
        mpo_decode_text_close(&rollout->tail[row]);
    free(rollout->tail);
    free(rollout->prompt);
    free(rollout->response);
    free(rollout);
    *out = NULL;
}

/* ---- a step ---- */

enum mpo_status mpo_rollout_raise(const struct mpo_rollout *rollout,
                                  const struct mpo_decode_event *event)
{
    enum mpo_status status = MPO_OK;
    int32_t response = rollout->response[event->row];
    int32_t responses = rollout->spec.responses;
    MPO_FAIL(event->failure->status, "prompt %lld, response %d: %s",
             (long long)rollout->prompt[response / responses], response % responses,
             event->failure->text);
cleanup:
    return status;
}

static int32_t unit_length(const struct mpo_rollout *rollout,
                           const struct mpo_rollout_step *step, int32_t first_slot)
{
    int32_t left = step->prompt_count - first_slot;
    return left < rollout->spec.unit_prompts ? left : rollout->spec.unit_prompts;
}

bool mpo_rollout_gives_up(struct mpo_rollout *rollout, const struct mpo_rollout_step *step)
{
    mpo_comm_share_stop();
    rollout->is_cut = rollout->is_cut || (step->yields && mpo_stop_signal() != 0);
    return rollout->is_cut;
}

/* What a request to stop cut short is nobody's result. */
static enum mpo_status agree_on_cut(const struct mpo_rollout *rollout,
                                    const struct mpo_rollout_step *step)
{
    enum mpo_status status = MPO_OK;
    double is_cut = rollout->is_cut;
    if (!step->yields)
        return MPO_OK;
    MPO_TRY(mpo_comm_max(rollout->spec.comm, &is_cut, 1));
    MPO_CHECK(is_cut == 0.0, MPO_REQUEUE, "stopped inside a response");
cleanup:
    return status;
}

/* This group's units, one after another. At its root. */
static enum mpo_status lead_units(struct mpo_rollout *rollout,
                                  const struct mpo_rollout_step *step)
{
    enum mpo_status status = MPO_OK;
    int32_t group_count = mpo_comm_group_count(rollout->spec.comm);
    int32_t unit = 0;
    for (int32_t slot = 0; slot < step->prompt_count; slot += rollout->spec.unit_prompts) {
        if (unit++ % group_count != mpo_comm_group(rollout->spec.comm) ||
            mpo_rollout_gives_up(rollout, step))
            continue;
        if (rollout->spec.purpose == MPO_ROLLOUT_SCORES)
            MPO_TRY(mpo_rollout_score_unit(rollout, step, slot));
        else if (rollout->spec.purpose == MPO_ROLLOUT_EXACT)
            MPO_TRY(mpo_rollout_exact_unit(rollout, step, slot,
                                           unit_length(rollout, step, slot)));
        else
            MPO_TRY(mpo_rollout_draw_unit(rollout, step, slot,
                                          unit_length(rollout, step, slot)));
    }
    MPO_TRY(mpo_decode_release(rollout->spec.decode));
cleanup:
    return status;
}

static enum mpo_status gather_units(struct mpo_rollout *rollout,
                                    const struct mpo_rollout_step *step,
                                    const struct mpo_rollout_part *parts, size_t part_count)
{
    enum mpo_status status = MPO_OK;
    double start = mpo_timing_now();
    for (int32_t slot = 0; slot < step->prompt_count; slot += rollout->spec.unit_prompts)
        MPO_TRY(mpo_rollout_gather(rollout, parts, part_count, slot,
                                   unit_length(rollout, step, slot)));
    mpo_timing_add(rollout->spec.timing, MPO_TIMED_exchange, start);
cleanup:
    return status;
}

static enum mpo_status decode_units(struct mpo_rollout *rollout,
                                    const struct mpo_rollout_step *step)
{
    enum mpo_status status = MPO_OK;
    rollout->is_cut = false;
    memcpy(rollout->prompt, step->prompt,
           (size_t)step->prompt_count * sizeof *rollout->prompt);
    if (mpo_comm_group_rank(rollout->spec.comm) == 0)
        MPO_TRY(lead_units(rollout, step));
    else
        MPO_TRY(mpo_decode_follow(rollout->spec.decode));
    MPO_TRY(agree_on_cut(rollout, step));
cleanup:
    return status;
}

static enum mpo_status check_step(const struct mpo_rollout *rollout,
                                  const struct mpo_rollout_step *step)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(step->prompt_count >= 0 && step->prompt_count <= rollout->spec.prompts_max,
              MPO_ERR_INTERNAL, "a step of %d prompts, room for %d", step->prompt_count,
              rollout->spec.prompts_max);
cleanup:
    return status;
}

/* Arrays begin empty: tokens add to them. */
static void clear_parts(const struct mpo_rollout *rollout,
                        const struct mpo_rollout_step *step,
                        const struct mpo_rollout_part *parts, size_t part_count)
{
    size_t count = (size_t)step->prompt_count * (size_t)rollout->spec.responses;
    for (size_t i = 0; i < part_count; i++)
        memset(parts[i].array, 0, count * parts[i].response_bytes);
}

/* A step into some arrays, of which the first `sum_count` begin empty: decode this group's
 * units, bring all together on rank zero. */
static enum mpo_status run_parts(struct mpo_rollout *rollout,
                                 const struct mpo_rollout_step *step,
                                 const struct mpo_rollout_part *parts, size_t part_count,
                                 size_t sum_count)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_step(rollout, step));
    clear_parts(rollout, step, parts, sum_count);
    MPO_TRY(decode_units(rollout, step));
    MPO_TRY(gather_units(rollout, step, parts, part_count));
cleanup:
    return status;
}

size_t mpo_rollout_parts(const struct mpo_responses *all, struct mpo_rollout_part *part)
{
    size_t policies = (size_t)all->policy_count;
    const struct mpo_rollout_part parts[] = {
        {all->token_count, sizeof *all->token_count},
        {all->ended, sizeof *all->ended},
        {all->log_proposal, sizeof *all->log_proposal},
        {all->log_policy, policies * sizeof *all->log_policy},
        {all->control, policies * sizeof *all->control},
        {all->end_surprise, sizeof *all->end_surprise},
        {all->entropy, sizeof *all->entropy},
        {all->tries, sizeof *all->tries},
        {all->token, (size_t)all->max_tokens * sizeof *all->token},
    };
    _Static_assert(sizeof parts / sizeof *parts == MPO_ROLLOUT_PARTS, "all of them");
    size_t count = 0;
    for (size_t i = 0; i < MPO_ROLLOUT_PARTS; i++)
        if (parts[i].array != NULL)
            part[count++] = parts[i];
    return count;
}

enum mpo_status mpo_rollout_run(struct mpo_rollout *rollout,
                                const struct mpo_rollout_step *step,
                                struct mpo_responses *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_responses *all = &rollout->responses;
    struct mpo_rollout_part parts[MPO_ROLLOUT_PARTS];
    size_t part_count = mpo_rollout_parts(all, parts);
    MPO_CHECK(rollout->spec.purpose == MPO_ROLLOUT_DRAWS ||
                  rollout->spec.purpose == MPO_ROLLOUT_EXACT,
              MPO_ERR_INTERNAL, "a rollout of another purpose was asked to draw responses");
    MPO_TRY(run_parts(rollout, step, parts, part_count,
                      part_count - 1)); /* tokens are counted */
    all->prompt_count = step->prompt_count;
    *out = *all;
cleanup:
    return status;
}

enum mpo_status mpo_rollout_score(struct mpo_rollout *rollout,
                                  const struct mpo_rollout_step *step,
                                  struct mpo_scores *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_scores *all = &rollout->scores;
    size_t policies = (size_t)rollout->spec.policy_count;
    const struct mpo_rollout_part parts[] = {
        {all->token_count, sizeof *all->token_count},
        {all->log_mixture, sizeof *all->log_mixture},
        {all->log_z, sizeof *all->log_z},
        {all->log_policy, policies * sizeof *all->log_policy},
    };
    size_t part_count = sizeof parts / sizeof *parts;
    MPO_CHECK(rollout->spec.purpose == MPO_ROLLOUT_SCORES &&
                  rollout->spec.unit_prompts == 1,
              MPO_ERR_INTERNAL,
              "a rollout of another purpose was asked to score given responses");
    MPO_TRY(run_parts(rollout, step, parts, part_count, part_count));
    all->prompt_count = step->prompt_count;
    *out = *all;
cleanup:
    return status;
}

enum mpo_status mpo_rollout_integrate(struct mpo_rollout *rollout,
                                      const struct mpo_rollout_step *step,
                                      struct mpo_integrals *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_integrals *all = &rollout->integrals;
    size_t policies = (size_t)rollout->spec.policy_count;
    const struct mpo_rollout_part parts[] = {
        {all->log_total, sizeof *all->log_total},
        {all->whole, policies * sizeof *all->whole},
        {all->served, policies * sizeof *all->served},
        {all->divergence, policies * sizeof *all->divergence},
        {all->length, sizeof *all->length},
        {all->truncated, sizeof *all->truncated},
    };
    size_t part_count = sizeof parts / sizeof *parts;
    MPO_CHECK(rollout->spec.purpose == MPO_ROLLOUT_INTEGRATES, MPO_ERR_INTERNAL,
              "a rollout of another purpose was asked to integrate the ends out");
    MPO_TRY(run_parts(rollout, step, parts, part_count, part_count));
    all->prompt_count = step->prompt_count;
    *out = *all;
cleanup:
    return status;
}

enum mpo_status mpo_rollout_end_masses(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step,
                                       struct mpo_end_masses *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_end_masses *all = &rollout->masses;
    const struct mpo_rollout_part parts[] = {
        {all->log_stay, (size_t)all->max_tokens * sizeof *all->log_stay},
        {all->log_odds, (size_t)all->max_tokens * sizeof *all->log_odds},
    };
    size_t part_count = sizeof parts / sizeof *parts;
    MPO_CHECK(rollout->spec.purpose == MPO_ROLLOUT_END_MASSES, MPO_ERR_INTERNAL,
              "a rollout of another purpose was asked for the mass of the ends");
    MPO_TRY(run_parts(rollout, step, parts, part_count, 0)); /* each position is written */
    all->prompt_count = step->prompt_count;
    *out = *all;
cleanup:
    return status;
}
