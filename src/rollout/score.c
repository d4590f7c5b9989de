/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Given responses of a prompt: its rows are admitted with their tokens, and the events are
 * added up. The prompt is fed once; then each response's own tokens, many positions at a
 * time (decode/control.c).
 *
 *     log q(y|x) = sum_t log q(y_t|s_t),   log Z = sum_t ( log Z(s_t) - b [y_t ends] )
 *                                                              (src/README.md, Mixture)
 *
 * A unit is one prompt with its responses; sums run over positions in order. Responses of a
 * blend, drawn from one policy, are given to the others in the same way (blend.c).
 */
#include "rollout_impl.h"

static double end_bias_of(const struct mpo_rollout_step *step, int32_t slot)
{
    return step->end_biases != NULL ? step->end_biases[slot] : step->end_bias;
}

static bool were_drawn(const struct mpo_rollout *rollout)
{
    return rollout->spec.purpose == MPO_ROLLOUT_DRAWS;
}

/* The tokens of response j. @return how many */
static int32_t find_response(const struct mpo_rollout *rollout, int32_t slot, int32_t j,
                             const int32_t **token)
{
    const struct mpo_responses *drawn = &rollout->responses;
    size_t at = (size_t)slot * (size_t)rollout->spec.responses + (size_t)j;
    if (!were_drawn(rollout))
        return mpo_policies_response(rollout->spec.policies, rollout->prompt[slot], j,
                                     token);
    *token = drawn->token + at * (size_t)drawn->max_tokens;
    return drawn->token_count[at];
}

static enum mpo_status admit_responses(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step, int32_t slot)
{
    enum mpo_status status = MPO_OK;
    int32_t leader = -1;
    int64_t prompt = rollout->prompt[slot];
    for (int32_t j = 0; j < rollout->spec.responses; j++) {
        int32_t index = 0;
        struct mpo_decode_row row = {.slot = (int32_t)prompt,
                                     .share = leader,
                                     .mu = mpo_rollout_exponents(rollout, step),
                                     .end_bias = end_bias_of(step, slot),
                                     .moments = were_drawn(rollout),
                                     .parks = true};
        row.given_count = find_response(rollout, slot, j, &row.given);
        MPO_TRY(mpo_decode_admit(rollout->spec.decode, &row, &index));
        if (j == 0)
            leader = index;
        rollout->response[index] = slot * rollout->spec.responses + j;
    }
cleanup:
    return status;
}

static bool is_end(const struct mpo_policies *policies, int32_t token)
{
    const int32_t *end_token = NULL;
    int32_t count = mpo_policies_end_tokens(policies, &end_token);
    for (int32_t i = 0; i < count; i++)
        if (end_token[i] == token)
            return true;
    return false;
}

static void account_token(struct mpo_rollout *rollout, double end_bias,
                          const struct mpo_decode_event *event)
{
    struct mpo_scores *scores = &rollout->scores;
    size_t policies = (size_t)scores->policy_count;
    size_t at = (size_t)rollout->response[event->row];
    if (were_drawn(rollout)) {
        mpo_rollout_account_figures(&rollout->responses, rollout->response[event->row],
                                    event);
        return;
    }
    scores->token_count[at]++;
    scores->log_mixture[at] += event->log_q;
    scores->log_z[at] += event->moments->log_z;
    if (end_bias != 0.0 && is_end(rollout->spec.policies, event->token))
        scores->log_z[at] -= end_bias;
    for (size_t h = 0; h < policies; h++)
        scores->log_policy[at * policies + h] += event->log_policy[h];
}

/* Other groups score prompts beside this one: they are taken to be as far. */
static void report_response(const struct mpo_rollout *rollout,
                            const struct mpo_rollout_step *step, int32_t scored,
                            int32_t response)
{
    int32_t group_count = mpo_comm_group_count(rollout->spec.comm);
    if (step->report != NULL && !were_drawn(rollout))
        step->report(step->reporter, scored,
                     group_count * rollout->scores.token_count[response]);
}

enum mpo_status mpo_rollout_score_unit(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step, int32_t slot)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode *decode = rollout->spec.decode;
    int32_t scored = slot * rollout->spec.responses;
    mpo_decode_clear(decode);
    MPO_TRY(admit_responses(rollout, step, slot));
    for (int32_t count = 1; count > 0 && !mpo_rollout_gives_up(rollout, step);) {
        const struct mpo_decode_event *event = NULL;
        MPO_TRY(mpo_decode_step(decode, &event, &count));
        for (int32_t i = 0; i < count; i++) {
            if ((event[i].flags & MPO_DECODE_FAILED) != 0)
                MPO_TRY(mpo_rollout_raise(rollout, &event[i]));
            account_token(rollout, end_bias_of(step, slot), &event[i]);
            if ((event[i].flags & (MPO_DECODE_ENDED | MPO_DECODE_CUT)) != 0)
                report_response(rollout, step, ++scored, rollout->response[event[i].row]);
        }
    }
cleanup:
    return status;
}
