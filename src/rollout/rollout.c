/*
 * The rollout of a step: units are dealt to the groups in turn, each group decodes its own,
 * and the results meet on rank zero in prompt order.
 */
#include "rollout_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static enum mpo_status take_position_room(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    size_t rows = (size_t)rollout->row_capacity;
    size_t policies = (size_t)rollout->spec.policy_count;
    size_t local = (size_t)rollout->local_count;
    MPO_NEW(rows, &rollout->rows);
    MPO_NEW(rows, &rollout->live);
    MPO_NEW(rows, &rollout->source);
    MPO_NEW(rows, &rollout->token);
    MPO_NEW(rows * local, &rollout->logits);
    MPO_NEW(rows * local, &rollout->log_norm);
    MPO_NEW(rows, &rollout->uniform);
    MPO_NEW(rows, &rollout->log_proposal);
    MPO_NEW(rows * policies, &rollout->log_policy);
    MPO_NEW(rows * policies, &rollout->expectation);
    MPO_NEW(rows, &rollout->moments);
    MPO_NEW(rows * policies, &rollout->mu);
    MPO_NEW(rows, &rollout->end_bias);
    MPO_NEW(rows, &rollout->kind);
    MPO_NEW(rows, &rollout->rule);
cleanup:
    return status;
}

static enum mpo_status take_scores_room(struct mpo_rollout *rollout)
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

static enum mpo_status take_step_room(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    struct mpo_responses *responses = &rollout->responses;
    size_t count = (size_t)rollout->spec.prompts_max * (size_t)rollout->spec.responses;
    size_t policies = (size_t)rollout->spec.policy_count;
    MPO_NEW(count, &responses->token_count);
    MPO_NEW(count, &responses->ended);
    MPO_NEW(count, &responses->log_proposal);
    MPO_NEW(count * policies, &responses->log_policy);
    MPO_NEW(count * policies, &responses->control);
    MPO_NEW(count, &responses->end_surprise);
    MPO_NEW(count, &responses->entropy);
    MPO_NEW(count * (size_t)rollout->spec.max_tokens, &responses->token);
    responses->prompt = rollout->prompt;
    responses->responses = rollout->spec.responses;
    responses->policy_count = rollout->spec.policy_count;
    responses->max_tokens = rollout->spec.max_tokens;
cleanup:
    return status;
}

int32_t mpo_rollout_positions(int32_t row_capacity, bool scores_answers)
{
    return scores_answers && row_capacity < MPO_ROLLOUT_SCORE_POSITIONS
               ? MPO_ROLLOUT_SCORE_POSITIONS
               : row_capacity;
}

enum mpo_status mpo_rollout_open(const struct mpo_rollout_spec *spec,
                                 struct mpo_rollout **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rollout *rollout = NULL;
    const int32_t *end_token = NULL;
    MPO_NEW(1, &rollout);
    rollout->spec = *spec;
    rollout->local_count = mpo_policies_local_count(spec->policies);
    rollout->row_capacity = mpo_rollout_positions(spec->row_capacity, spec->scores_answers);
    MPO_NEW(mpo_policies_vocab_size(spec->policies), &rollout->is_end);
    int32_t end_count = mpo_policies_end_tokens(spec->policies, &end_token);
    for (int32_t i = 0; i < end_count; i++)
        rollout->is_end[end_token[i]] = true;
    MPO_NEW(spec->prompts_max, &rollout->prompt);
    MPO_TRY(take_position_room(rollout));
    MPO_TRY(mpo_rollout_stop_open(rollout));
    MPO_TRY(spec->scores_answers ? take_scores_room(rollout) : take_step_room(rollout));
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
    free(rollout->scores.log_policy);
    free(rollout->scores.log_z);
    free(rollout->scores.log_mixture);
    free(rollout->scores.token_count);
    free(rollout->responses.token);
    free(rollout->responses.entropy);
    free(rollout->responses.end_surprise);
    free(rollout->responses.control);
    free(rollout->responses.log_policy);
    free(rollout->responses.log_proposal);
    free(rollout->responses.ended);
    free(rollout->responses.token_count);
    free(rollout->prompt);
    free(rollout->window);
    free(rollout->rule);
    free(rollout->kind);
    free(rollout->end_bias);
    free(rollout->mu);
    free(rollout->moments);
    free(rollout->expectation);
    free(rollout->log_policy);
    free(rollout->log_proposal);
    free(rollout->uniform);
    free(rollout->log_norm);
    free(rollout->logits);
    free(rollout->token);
    free(rollout->source);
    free(rollout->live);
    free(rollout->rows);
    free(rollout->is_end);
    free(rollout);
    *out = NULL;
}

/* The next step begins with no response made. */
static void clear_responses(struct mpo_rollout *rollout,
                            const struct mpo_rollout_step *step)
{
    struct mpo_responses *responses = &rollout->responses;
    size_t count = (size_t)step->prompt_count * (size_t)responses->responses;
    size_t policies = (size_t)responses->policy_count;
    responses->prompt_count = step->prompt_count;
    memcpy(rollout->prompt, step->prompt,
           (size_t)step->prompt_count * sizeof *rollout->prompt);
    memset(responses->token_count, 0, count * sizeof *responses->token_count);
    memset(responses->ended, 0, count * sizeof *responses->ended);
    memset(responses->log_proposal, 0, count * sizeof *responses->log_proposal);
    memset(responses->log_policy, 0, count * policies * sizeof *responses->log_policy);
    memset(responses->control, 0, count * policies * sizeof *responses->control);
    memset(responses->end_surprise, 0, count * sizeof *responses->end_surprise);
    memset(responses->entropy, 0, count * sizeof *responses->entropy);
}

void mpo_rollout_prepare(struct mpo_rollout *rollout, const struct mpo_rollout_step *step,
                         enum mpo_mixture_kind kind)
{
    size_t policies = (size_t)rollout->spec.policy_count;
    rollout->filtered =
        (struct mpo_mixture_rule){.filter = {.temperature = 1.0, .top_p = 1.0}};
    if (step->filter != NULL)
        rollout->filtered.filter = *step->filter;
    for (size_t row = 0; row < (size_t)rollout->row_capacity; row++) {
        memcpy(rollout->mu + row * policies, step->mu, policies * sizeof *step->mu);
        rollout->end_bias[row] = step->end_bias;
        rollout->kind[row] = kind;
        rollout->rule[row] = &rollout->filtered;
    }
    rollout->exponents =
        (struct mpo_mixture_exponents){.mu = rollout->mu, .end_bias = rollout->end_bias};
}

static int32_t unit_length(const struct mpo_rollout *rollout, int32_t first_slot)
{
    int32_t left = rollout->responses.prompt_count - first_slot;
    return left < rollout->spec.unit_prompts ? left : rollout->spec.unit_prompts;
}

enum mpo_status mpo_rollout_run(struct mpo_rollout *rollout,
                                const struct mpo_rollout_step *step,
                                struct mpo_responses *out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = rollout->spec.comm;
    int32_t group_count = mpo_comm_group_count(comm);
    int32_t unit = 0;
    MPO_CHECK(step->prompt_count <= rollout->spec.prompts_max, MPO_ERR_INTERNAL,
              "a step of %d prompts, room for %d", step->prompt_count,
              rollout->spec.prompts_max);
    clear_responses(rollout, step);
    mpo_rollout_prepare(rollout, step,
                        step->greedy ? MPO_MIXTURE_GREATEST : MPO_MIXTURE_DRAWN);
    for (int32_t slot = 0; slot < step->prompt_count; slot += rollout->spec.unit_prompts)
        if (unit++ % group_count == mpo_comm_group(comm))
            MPO_TRY(mpo_rollout_unit(rollout, step, slot, unit_length(rollout, slot)));
    double start = mpo_timing_now();
    unit = 0;
    for (int32_t slot = 0; slot < step->prompt_count; slot += rollout->spec.unit_prompts) {
        int32_t from = unit++ % group_count * mpo_comm_group_size(comm);
        MPO_TRY(mpo_rollout_gather(rollout, slot, unit_length(rollout, slot), from));
    }
    mpo_timing_add(rollout->spec.timing, MPO_TIMED_exchange, start);
    *out = rollout->responses;
cleanup:
    return status;
}
