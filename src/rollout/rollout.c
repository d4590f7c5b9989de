/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rollout of a step: units are dealt to the groups in turn, each group decodes its own
 * (its root leads, the other ranks follow), and the results are gathered on rank zero in
 * prompt order.
 */
#include "rollout_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/stop.h"

/* ---- the arrays of a step ---- */

/* `per_response` elements for each response. */
#define PART(array, per_response, is_sum)                                                  \
    {                                                                                      \
        (void **)&(array), (per_response) * sizeof *(array), is_sum                        \
    }
#define COUNT(parts) (sizeof(parts) / sizeof *(parts))

size_t mpo_rollout_parts(struct mpo_responses *all, struct mpo_rollout_part *part)
{
    const size_t policies = (size_t)all->policy_count;
    const struct mpo_rollout_part parts[] = {
        PART(all->token_count, 1, true),
        PART(all->ended, 1, true),
        PART(all->log_proposal, 1, true),
        PART(all->log_policy, policies, true),
        PART(all->control, policies, true),
        PART(all->end_surprise, 1, true),
        PART(all->entropy, 1, true),
        PART(all->token, (size_t)all->max_tokens, false), /* they are counted */
        PART(all->tries, 1, true),
    };
    const size_t count = COUNT(parts) - (all->tries == NULL ? 1 : 0);
    _Static_assert(COUNT(parts) == MPO_ROLLOUT_PARTS, "all of them");
    memcpy(part, parts, count * sizeof *part);
    return count;
}

static size_t list_scores(struct mpo_scores *all, struct mpo_rollout_part *part)
{
    const struct mpo_rollout_part parts[] = {
        PART(all->token_count, 1, true),
        PART(all->log_mixture, 1, true),
        PART(all->log_z, 1, true),
        PART(all->log_policy, (size_t)all->policy_count, true),
    };
    memcpy(part, parts, sizeof parts);
    return COUNT(parts);
}

static size_t list_integrals(struct mpo_integrals *all, struct mpo_rollout_part *part)
{
    const size_t policies = (size_t)all->policy_count;
    const struct mpo_rollout_part parts[] = {
        PART(all->log_total, 1, true),     PART(all->whole, policies, true),
        PART(all->served, policies, true), PART(all->divergence, policies, true),
        PART(all->length, 1, true),        PART(all->truncated, 1, true),
    };
    memcpy(part, parts, sizeof parts);
    return COUNT(parts);
}

static size_t list_masses(struct mpo_end_masses *all, struct mpo_rollout_part *part)
{
    const size_t tokens = (size_t)all->max_tokens;
    const struct mpo_rollout_part parts[] = {
        PART(all->log_stay, tokens, false), /* each position is written */
        PART(all->log_odds, tokens, false),
    };
    memcpy(part, parts, sizeof parts);
    return COUNT(parts);
}

/* Of what this rollout makes. */
static size_t list_results(struct mpo_rollout *rollout, struct mpo_rollout_part *part)
{
    switch (rollout->spec.purpose) {
    case MPO_ROLLOUT_SCORES:
        return list_scores(&rollout->scores, part);
    case MPO_ROLLOUT_INTEGRATES:
        return list_integrals(&rollout->integrals, part);
    case MPO_ROLLOUT_END_MASSES:
        return list_masses(&rollout->masses, part);
    case MPO_ROLLOUT_DRAWS:
    case MPO_ROLLOUT_EXACT:
    default:
        return mpo_rollout_parts(&rollout->responses, part);
    }
}

static void free_parts(const struct mpo_rollout_part *parts, size_t part_count)
{
    for (size_t i = 0; i < part_count; i++)
        free(*parts[i].array);
}

/* ---- open and close ---- */

static enum mpo_status allocate_parts(const struct mpo_rollout_part *parts,
                                      size_t part_count, size_t responses)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < part_count; i++)
        if (*parts[i].array == NULL)
            MPO_TRY(mpo_memory_take(responses, parts[i].response_bytes,
                                    "the responses of a step", parts[i].array));
cleanup:
    return status;
}

/* How many are made, and how large each is. */
static void set_sizes(struct mpo_rollout *rollout)
{
    const struct mpo_rollout_spec *spec = &rollout->spec;
    rollout->responses = (struct mpo_responses){.prompt = rollout->prompt,
                                                .responses = spec->responses,
                                                .policy_count = spec->policy_count,
                                                .max_tokens = spec->max_tokens};
    rollout->tries = rollout->responses;
    rollout->scores = (struct mpo_scores){.responses = spec->responses,
                                          .policy_count = spec->policy_count};
    rollout->integrals = (struct mpo_integrals){.responses = spec->responses,
                                                .policy_count = rollout->row_policies};
    rollout->masses = (struct mpo_end_masses){.responses = spec->responses,
                                              .max_tokens = spec->max_tokens};
}

static enum mpo_status allocate_search(struct mpo_rollout *rollout, size_t responses)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_spec *spec = &rollout->spec;
    struct mpo_rollout_part part[MPO_ROLLOUT_PARTS];
    MPO_NEW(responses, &rollout->responses.tries);
    MPO_NEW(spec->row_capacity, &rollout->tries.tries);
    size_t part_count = mpo_rollout_parts(&rollout->tries, part);
    MPO_TRY(allocate_parts(part, part_count, (size_t)spec->row_capacity));
    MPO_NEW(spec->unit_prompts, &rollout->search);
cleanup:
    return status;
}

static enum mpo_status allocate_results(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_spec *spec = &rollout->spec;
    size_t responses = (size_t)spec->prompts_max * (size_t)spec->responses;
    struct mpo_rollout_part part[MPO_ROLLOUT_PARTS];
    set_sizes(rollout);
    if (spec->purpose == MPO_ROLLOUT_EXACT)
        MPO_TRY(allocate_search(rollout, responses));
    if (spec->purpose == MPO_ROLLOUT_INTEGRATES) {
        MPO_NEW(spec->row_capacity, &rollout->ends);
        MPO_NEW((size_t)spec->row_capacity * (size_t)rollout->row_policies,
                &rollout->drawn);
    }
    size_t part_count = list_results(rollout, part);
    MPO_TRY(allocate_parts(part, part_count, responses));
cleanup:
    return status;
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
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    MPO_ARGUMENTS(spec->comm, spec->policies, spec->decode);
    struct mpo_rollout *rollout = NULL;
    MPO_TRY(mpo_rollout_check_spec(spec));
    MPO_NEW(1, &rollout);
    rollout->spec = *spec;
    MPO_NEW(spec->row_capacity, &rollout->response);
    MPO_NEW(spec->prompts_max, &rollout->prompt);
    MPO_TRY(mpo_rollout_blend_open(rollout));
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
    struct mpo_rollout *rollout = out != NULL ? *out : NULL;
    struct mpo_rollout_part part[MPO_ROLLOUT_PARTS];
    if (rollout == NULL)
        return;
    free(rollout->drawn);
    free(rollout->ends);
    free(rollout->search);
    free_parts(part, mpo_rollout_parts(&rollout->tries, part));
    free_parts(part, list_results(rollout, part));
    for (int32_t row = 0; rollout->tail != NULL && row < rollout->spec.row_capacity; row++)
        mpo_decode_text_close(&rollout->tail[row]);
    free(rollout->tail);
    free(rollout->scale);
    free(rollout->mu);
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

/* What a request to stop cut short is no result. */
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
    MPO_TRY(mpo_rollout_blend_begin(rollout, step));
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

/* Sums begin empty: tokens add to them. */
static void clear_parts(const struct mpo_rollout *rollout,
                        const struct mpo_rollout_step *step,
                        const struct mpo_rollout_part *parts, size_t part_count)
{
    size_t count = (size_t)step->prompt_count * (size_t)rollout->spec.responses;
    for (size_t i = 0; i < part_count; i++)
        if (parts[i].is_sum)
            memset(*parts[i].array, 0, count * parts[i].response_bytes);
}

/* A step: decode this group's units, bring all together on rank zero. What is asked, of a
 * rollout that may be for something else, is for the message. */
static enum mpo_status run_step(struct mpo_rollout *rollout,
                                const struct mpo_rollout_step *step, bool is_for_this,
                                const char *asked)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rollout_part part[MPO_ROLLOUT_PARTS];
    size_t part_count = list_results(rollout, part);
    MPO_TRY(mpo_rollout_check_purpose(rollout, is_for_this, asked));
    MPO_TRY(mpo_rollout_check_step(rollout, step));
    clear_parts(rollout, step, part, part_count);
    MPO_TRY(decode_units(rollout, step));
    MPO_TRY(gather_units(rollout, step, part, part_count));
cleanup:
    return status;
}

enum mpo_status mpo_rollout_run(struct mpo_rollout *rollout,
                                const struct mpo_rollout_step *step,
                                struct mpo_responses *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(rollout, step, out);
    MPO_TRY(run_step(rollout, step,
                     rollout->spec.purpose == MPO_ROLLOUT_DRAWS ||
                         rollout->spec.purpose == MPO_ROLLOUT_EXACT,
                     "draw responses"));
    *out = rollout->responses;
    out->prompt_count = step->prompt_count;
cleanup:
    return status;
}

enum mpo_status mpo_rollout_score(struct mpo_rollout *rollout,
                                  const struct mpo_rollout_step *step,
                                  struct mpo_scores *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(rollout, step, out);
    MPO_TRY(run_step(rollout, step, rollout->spec.purpose == MPO_ROLLOUT_SCORES,
                     "score given responses"));
    *out = rollout->scores;
    out->prompt_count = step->prompt_count;
cleanup:
    return status;
}

enum mpo_status mpo_rollout_integrate(struct mpo_rollout *rollout,
                                      const struct mpo_rollout_step *step,
                                      struct mpo_integrals *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(rollout, step, out);
    MPO_TRY(run_step(rollout, step, rollout->spec.purpose == MPO_ROLLOUT_INTEGRATES,
                     "integrate the ends out"));
    *out = rollout->integrals;
    out->prompt_count = step->prompt_count;
cleanup:
    return status;
}

enum mpo_status mpo_rollout_end_masses(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step,
                                       struct mpo_end_masses *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(rollout, step, out);
    MPO_TRY(run_step(rollout, step, rollout->spec.purpose == MPO_ROLLOUT_END_MASSES,
                     "find the mass of the ends"));
    *out = rollout->masses;
    out->prompt_count = step->prompt_count;
cleanup:
    return status;
}
