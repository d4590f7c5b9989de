/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evaluate --rewards: what the responses of the token mixture are worth, in place of the
 * certificate, of which nothing holds for rewards.
 *
 * Every prompt gets fresh responses, which the reward program of the configuration measures.
 * Columns of a prompt are the means of its responses: r_k; and with a scale s_k and -s_k, whose
 * bounds at once (max-t) give one of the smallest: all s_k are above their bounds with a
 * probability of 95 %, so the least of these bounds is one for the least of them.
 */
#include <math.h>
#include <stdlib.h>

#include "commands/report/log.h"
#include "evaluate_impl.h"

static bool has_scale(const struct evaluate *evaluate)
{
    return evaluate->column_count > evaluate->objective_count;
}

/* ---- the scale ---- */

/* Of the first record among the weights that has one; what the configuration gives
 * comes first. */
static enum mpo_status read_recorded(const struct evaluate *evaluate,
                                     struct mpo_rewards_scale *scale)
{
    enum mpo_status status = MPO_OK;
    int32_t count = evaluate->objective_count;
    struct mpo_record *record = NULL;
    double *numbers = NULL; /* [4, K] */
    bool is_there = false;
    MPO_NEW(4 * count, &numbers);
    struct mpo_record_rewards recorded = {
        .scale = {numbers, numbers + count, numbers + 2 * count, numbers + 3 * count}};
    for (int32_t a = 0; a < evaluate->vector_count && !is_there; a++) {
        if (!mpo_weights_are_of_a_record(evaluate->config, evaluate->vector[a].weights))
            continue;
        MPO_TRY(mpo_record_open(evaluate->vector[a].weights, &record));
        MPO_TRY(mpo_record_read_rewards(record, &recorded, &is_there));
        mpo_record_close(&record);
    }
    for (int32_t k = 0; is_there && k < count; k++) {
        if (isnan(scale->zero[k]))
            scale->zero[k] = recorded.scale.zero[k];
        if (isnan(scale->one[k]))
            scale->one[k] = recorded.scale.one[k];
    }
cleanup:
    mpo_record_close(&record);
    free(numbers);
    return status;
}

/* All of them, or none: the smallest one is of all. */
static enum mpo_status find_scale(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rewards_scale *scale = &evaluate->rewards.scale;
    int32_t count = evaluate->objective_count;
    bool is_whole = true;
    MPO_NEW(count, &scale->zero);
    MPO_NEW(count, &scale->one);
    for (int32_t k = 0; k < count; k++) {
        scale->zero[k] = evaluate->config->policies[k].reward_zero;
        scale->one[k] = evaluate->config->policies[k].reward_one;
    }
    MPO_TRY(read_recorded(evaluate, scale));
    for (int32_t k = 0; k < count; k++)
        is_whole = is_whole && scale->one[k] > scale->zero[k];
    evaluate->column_count = is_whole ? 3 * count : count;
    if (!is_whole)
        mpo_log_note("the rewards have no scale, so they are not normalised: "
                     "evaluate the record of a fit with estimator.objective: reward, "
                     "or give policies.NAME.reward_zero and reward_one");
cleanup:
    return status;
}

/* ---- responses ---- */

enum mpo_status evaluate_check_rewards(const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(!config->evaluate.rewards || config->rewards.command[0] != '\0',
              MPO_ERR_CONFIG,
              "--rewards: expected a program that measures rewards, found none; set "
              "rewards.command");
cleanup:
    return status;
}

enum mpo_status evaluate_open_rewards(struct evaluate *evaluate, int32_t prompts_max)
{
    enum mpo_status status = MPO_OK;
    size_t count = (size_t)prompts_max * (size_t)evaluate->config->evaluate.responses;
    MPO_TRY(find_scale(evaluate));
    MPO_TRY(mpo_session_texts_open(evaluate->session, count, &evaluate->rewards.texts));
    MPO_TRY(
        mpo_session_rewards_open(evaluate->session, count, &evaluate->rewards.measured));
cleanup:
    return status;
}

void evaluate_close_rewards(struct evaluate *evaluate)
{
    struct evaluate_rewards *rewards = &evaluate->rewards;
    mpo_session_rewards_close(&rewards->measured);
    mpo_session_texts_close(&rewards->texts);
    free(rewards->scale.one);
    free(rewards->scale.zero);
}

/* The columns of one prompt. */
static void keep_prompt(const struct evaluate *evaluate,
                        const struct mpo_responses *responses, int32_t slot, double *value)
{
    const struct mpo_rewards_scale *scale = &evaluate->rewards.scale;
    int32_t count = evaluate->objective_count;
    int32_t m = responses->responses;
    for (int32_t k = 0; k < count; k++) {
        double sum = 0.0;
        for (int32_t j = 0; j < m; j++)
            sum += evaluate->rewards.measured.reward[((int64_t)slot * m + j) * count + k];
        value[k] = sum / m;
        if (!has_scale(evaluate))
            continue;
        value[count + k] = (value[k] - scale->zero[k]) / (scale->one[k] - scale->zero[k]);
        value[2 * count + k] = -value[count + k];
    }
}

enum mpo_status evaluate_measure(struct evaluate *evaluate, int64_t first,
                                 const struct mpo_responses *responses)
{
    enum mpo_status status = MPO_OK;
    struct evaluate_rewards *rewards = &evaluate->rewards;
    const struct evaluate_vector *vector = &evaluate->vector[evaluate->at_hand];
    int32_t count = responses->prompt_count * responses->responses;
    MPO_TRY(mpo_session_collect_texts(responses, &rewards->texts));
    MPO_TRY(mpo_session_measure(evaluate->session, responses, &rewards->texts,
                                rewards->next_id, &rewards->measured));
    rewards->next_id += count;
    evaluate->token_count += walk_count_tokens(responses->token_count, count);
    for (int32_t slot = 0; slot < responses->prompt_count; slot++)
        keep_prompt(evaluate, responses, slot,
                    vector->value + (first + slot) * evaluate->column_count);
cleanup:
    if (status != MPO_OK) /* the job ends, and not by closing things */
        mpo_rewards_close(&rewards->measured.program);
    return status;
}

/* ---- results ---- */

static void add_rewards(const struct evaluate *evaluate, struct evaluate_vector *vector,
                        const struct mpo_interval *interval, bool is_difference)
{
    int32_t count = evaluate->objective_count;
    for (int32_t c = 0; c < (has_scale(evaluate) ? 2 : 1) * count; c++)
        vector->result[vector->result_count++] =
            (struct evaluate_result){.part = EVALUATE_SERVED,
                                     .name = c < count ? "reward" : "normalised_reward",
                                     .is_difference = is_difference,
                                     .label = c < count ? "reward" : "normalised",
                                     .policy = evaluate->config->policies[c % count].name,
                                     .interval = interval[c]};
}

static void add_worst(const struct evaluate *evaluate, struct evaluate_vector *vector)
{
    int32_t count = evaluate->objective_count;
    struct mpo_interval worst = {INFINITY, INFINITY, INFINITY};
    for (int32_t k = 0; k < count; k++) {
        worst.estimate = fmin(worst.estimate, vector->interval[count + k].estimate);
        worst.low = isnan(vector->upper[2 * count + k])
                        ? NAN
                        : fmin(worst.low, -vector->upper[2 * count + k]);
    }
    vector->result[vector->result_count++] =
        (struct evaluate_result){.part = EVALUATE_SERVED,
                                 .name = "worst_normalised_reward",
                                 .label = "smallest normalised",
                                 .policy = "",
                                 .interval = worst};
}

static enum mpo_status compare_rewards(const struct evaluate *evaluate,
                                       const struct mpo_bootstrap_spec *spec,
                                       struct evaluate_vector *vector)
{
    enum mpo_status status = MPO_OK;
    struct mpo_interval *interval = NULL;
    MPO_TRY(evaluate_find_differences(evaluate, spec, vector, &interval));
    add_rewards(evaluate, vector, interval, true);
cleanup:
    free(interval);
    return status;
}

enum mpo_status evaluate_find_rewards(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    int32_t count = evaluate->objective_count;
    const struct mpo_bootstrap_family negated = {2 * count, count};
    struct mpo_bootstrap_spec spec = {
        .seed = (uint64_t)evaluate->config->run.seed,
        .replicates = (int32_t)evaluate->config->evaluate.replicates,
        .unit_count = evaluate->prompt_count,
        .column_count = evaluate->column_count,
        .family = &negated,
        .family_count = has_scale(evaluate) ? 1 : 0,
    };
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        struct evaluate_vector *vector = &evaluate->vector[a];
        spec.value = vector->value;
        MPO_TRY(mpo_bootstrap_run(&spec, vector->interval, vector->upper));
        add_rewards(evaluate, vector, vector->interval, false);
        if (has_scale(evaluate))
            add_worst(evaluate, vector);
        if (a > 0)
            MPO_TRY(compare_rewards(evaluate, &spec, vector));
    }
    evaluate_warn_of_prompts(evaluate);
cleanup:
    return status;
}
