/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewards of a fit: the program's batches, the calibration of the scale, and what the
 * estimator and the record get of them.
 *
 * The calibration draws the same
 * prompts with the same uniforms from each policy, at steps that no fit reaches, and asks for
 * no figures of policies that do not take part. Zero is not measured at uniform weights: they
 * would be balanced by construction, whatever the policies are.
 */
#include "fit_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/report.h"

/* Above descent.steps, so that no draw of the fit is one of the calibration. */
#define CALIBRATION_STEP ((int64_t)1 << 40)

static bool is_rank_zero(const struct mpo_fit *fit)
{
    return mpo_comm_rank(fit->session->comm) == 0;
}

static bool has_reference(const struct mpo_fit *fit)
{
    return fit->policy_count > fit->objective_count;
}

static size_t step_responses(const struct mpo_fit *fit)
{
    const struct mpo_config_rollout *rollout = &fit->config->rollout;
    return (size_t)(rollout->prompts_per_step * rollout->responses);
}

/* ---- life ---- */

/* Arrays of rank zero. */
static enum mpo_status allocate_rewards(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_fit_rewards *rewards = &fit->rewards;
    const struct mpo_config *config = fit->config;
    int32_t count = fit->objective_count;
    MPO_NEW(count, &rewards->policy);
    MPO_NEW(7 * count, &rewards->numbers);
    MPO_NEW(step_responses(fit) * (size_t)count, &rewards->score);
    rewards->mean = rewards->numbers;
    rewards->sum = rewards->numbers + count;
    rewards->average = rewards->numbers + 2 * count;
    rewards->record.is_objective = config->estimator.objective == MPO_BALANCE_REWARD;
    rewards->record.zero_of = "";
    rewards->record.scale =
        (struct mpo_rewards_scale){.zero = rewards->numbers + 3 * count,
                                   .one = rewards->numbers + 4 * count,
                                   .zero_error = rewards->numbers + 5 * count,
                                   .one_error = rewards->numbers + 6 * count};
    for (int32_t k = 0; k < count; k++) {
        const struct mpo_config_policies *policy = &config->policies[k];
        rewards->policy[k] = policy->name;
        rewards->record.scale.zero[k] = policy->reward_zero;
        rewards->record.scale.one[k] = policy->reward_one;
        rewards->record.scale.zero_error[k] = NAN;
        rewards->record.scale.one_error[k] = NAN;
    }
cleanup:
    return status;
}

enum mpo_status mpo_fit_rewards_allocate(struct mpo_fit *fit)
{
    fit->rewards.is_used = mpo_session_has_rewards(fit->session);
    return fit->rewards.is_used && is_rank_zero(fit) ? allocate_rewards(fit) : MPO_OK;
}

void mpo_fit_rewards_close(struct mpo_fit *fit)
{
    struct mpo_fit_rewards *rewards = &fit->rewards;
    mpo_session_rewards_close(&rewards->measured);
    free(rewards->score);
    free(rewards->numbers);
    free(rewards->policy);
    *rewards = (struct mpo_fit_rewards){0};
}

/* ---- a batch ---- */

/* Into fit->rewards.measured. Rank zero only. */
static enum mpo_status measure_responses(struct mpo_fit *fit,
                                         const struct mpo_responses *responses,
                                         int64_t first_id)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_session_collect_texts(responses, &fit->texts));
    MPO_TRY(mpo_session_measure(fit->session, responses, &fit->texts, first_id,
                                &fit->rewards.measured));
cleanup:
    return status;
}

/* Means of the step as given, and scores on the scale. */
static enum mpo_status summarise_step(struct mpo_fit *fit, int32_t count)
{
    struct mpo_fit_rewards *rewards = &fit->rewards;
    const struct mpo_rewards_scale *scale = &rewards->record.scale;
    int32_t objectives = fit->objective_count;
    for (int32_t k = 0; k < objectives; k++) {
        double sum = 0.0;
        for (int32_t i = 0; i < count; i++) {
            double reward = rewards->measured.reward[(int64_t)i * objectives + k];
            sum += reward;
            rewards->score[(int64_t)i * objectives + k] =
                (reward - scale->zero[k]) / (scale->one[k] - scale->zero[k]);
        }
        rewards->mean[k] = sum / count;
    }
    return rewards->record.is_objective
               ? mpo_rewards_check_size(rewards->score, count, rewards->policy, objectives)
               : MPO_OK;
}

static int64_t responses_of(const struct mpo_fit *fit, int64_t prompts)
{
    return prompts * fit->config->rollout.responses;
}

/* The message of a stopped run says what to do with its steps. */
static enum mpo_status explain_failure(const struct mpo_fit *fit, enum mpo_status status)
{
    if (fit->summary.steps == 0)
        return status;
    return mpo_error_raise(
        status, __FILE__, __LINE__, "%s; %lld step%s in %s: continue with --resume",
        mpo_error_text(), (long long)fit->summary.steps,
        fit->summary.steps == 1 ? " is" : "s are", fit->config->record.file);
}

enum mpo_status mpo_fit_rewards_measure(struct mpo_fit *fit, int64_t step,
                                        struct mpo_responses *responses)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = fit->config;
    int64_t calibrated =
        responses_of(fit, (1 + fit->objective_count) * config->rewards.calibration);
    mpo_session_expect_rewards(fit->session, fit->session->command, step,
                               config->run.step_deadline);
    if (!is_rank_zero(fit))
        return MPO_OK;
    status = measure_responses(
        fit, responses,
        calibrated + step * responses_of(fit, config->rollout.prompts_per_step));
    if (status == MPO_OK)
        status = summarise_step(fit, responses->prompt_count * responses->responses);
    if (status != MPO_OK)
        return explain_failure(fit, status);
    if (fit->rewards.record.is_objective) {
        responses->score = fit->rewards.score;
        responses->score_count = fit->objective_count;
    }
    return MPO_OK;
}

/* ---- the calibration ---- */

/* A part of the scale: what is drawn from, and where its rewards go. */
struct side {
    int32_t policy; /* k: policy k alone; -1: the reference */
    double *zero;   /* [units, K] means of each prompt; rank zero only */
    double *one;    /* [units, K] */
};

static void add_units(const struct mpo_fit *fit, const struct side *side, int64_t first,
                      const struct mpo_responses *responses)
{
    int32_t m = responses->responses;
    int32_t objectives = fit->objective_count;
    for (int32_t slot = 0; slot < responses->prompt_count; slot++)
        for (int32_t k = 0; k < objectives; k++) {
            double sum = 0.0;
            for (int32_t j = 0; j < m; j++)
                sum +=
                    fit->rewards.measured.reward[((int64_t)slot * m + j) * objectives + k];
            int64_t at = (first + slot) * objectives + k;
            if (side->policy < 0)
                side->zero[at] = sum / m;
            else if (side->policy == k)
                side->one[at] = sum / m;
            else if (!has_reference(fit)) /* the mean over the others */
                side->zero[at] += sum / m / (objectives - 1);
        }
}

static void choose_exponents(const struct mpo_fit *fit, const struct side *side, double *mu)
{
    memset(mu, 0, (size_t)fit->policy_count * sizeof *mu);
    mu[side->policy >= 0 ? side->policy : fit->objective_count] = 1.0;
}

static enum mpo_status calibrate_batch(struct mpo_fit *fit, const struct side *side,
                                       int64_t batch)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = fit->config;
    struct mpo_responses responses = {0};
    int64_t first = batch * config->rollout.prompts_per_step;
    int64_t left = config->rewards.calibration - first;
    struct mpo_rollout_step draw = {
        .step = CALIBRATION_STEP + batch,
        .prompt = fit->prompt,
        .prompt_count = (int32_t)config->rollout.prompts_per_step,
        .mu = fit->proposal,
        .weighted_only = true,
    };
    mpo_prompts_of_step(fit->session->prompts, (uint64_t)config->run.seed, batch,
                        draw.prompt_count, fit->prompt);
    if (draw.prompt_count > left)
        draw.prompt_count = (int32_t)left;
    mpo_session_expect_rewards(fit->session, "calibration of rewards", -1,
                               config->run.setup_deadline);
    choose_exponents(fit, side, fit->proposal);
    MPO_TRY(mpo_rollout_run(fit->session->rollout, &draw, &responses));
    if (is_rank_zero(fit))
        status = measure_responses(
            fit, &responses,
            responses_of(fit, (1 + side->policy) * config->rewards.calibration + first));
    MPO_TRY(mpo_comm_agree(status));
    if (is_rank_zero(fit))
        add_units(fit, side, first, &responses);
cleanup:
    return status;
}

static enum mpo_status calibrate_side(struct mpo_fit *fit, const struct side *side)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = fit->config;
    int64_t step_prompts = config->rollout.prompts_per_step;
    int64_t batches = (config->rewards.calibration + step_prompts - 1) / step_prompts;
    for (int64_t batch = 0; batch < batches; batch++) {
        MPO_TRY(mpo_comm_agree(mpo_session_begin_step(
            fit->session, &(struct mpo_session_progress){-1, batch, batches,
                                                         "steps of the calibration"})));
        MPO_TRY(calibrate_batch(fit, side, batch));
    }
cleanup:
    return status;
}

static void format_mean(double mean, double error, char text[64])
{
    if (isnan(error))
        snprintf(text, 64, "%.4g (given)", mean);
    else
        snprintf(text, 64, "%.4g +- %.2g", mean, error);
}

static void note_scale(const struct mpo_fit *fit)
{
    const struct mpo_rewards_scale *scale = &fit->rewards.record.scale;
    for (int32_t k = 0; k < fit->objective_count; k++) {
        char zero[64] = "";
        char one[64] = "";
        format_mean(scale->zero[k], scale->zero_error[k], zero);
        format_mean(scale->one[k], scale->one_error[k], one);
        mpo_report(MPO_REPORT_NOTE, "reward of %s: zero %s, one %s",
                   fit->config->policies[k].name, zero, one);
    }
}

/* Whether something is to be measured of a policy, or of the reference (-1); all ranks find the
 * same. Without a reference zero of a reward is measured of the other policies. */
static bool needs_side(const struct mpo_fit *fit, int32_t policy)
{
    const struct mpo_config_policies *policies = fit->config->policies;
    bool needs = policy >= 0 && isnan(policies[policy].reward_one);
    for (int32_t k = 0; k < fit->objective_count; k++)
        if (isnan(policies[k].reward_zero))
            needs = needs || (has_reference(fit) ? policy < 0 : policy >= 0 && policy != k);
    return needs;
}

/* What zero is measured of, for the record; "": all are given. */
static const char *source_of_zero(const struct mpo_fit *fit)
{
    for (int32_t k = 0; k < fit->objective_count; k++)
        if (isnan(fit->config->policies[k].reward_zero))
            return has_reference(fit) ? "reference" : "others";
    return "";
}

static enum mpo_status calibrate_scale(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    int32_t objectives = fit->objective_count;
    int64_t units = fit->config->rewards.calibration;
    bool needs = false;
    double *unit = NULL; /* [2, units, K] */
    MPO_TRY(mpo_comm_agree(mpo_memory_take((size_t)(2 * units * objectives), sizeof *unit,
                                           "rewards of the calibration", (void **)&unit)));
    double *one = unit + units * objectives;
    for (int32_t policy = -1; policy < objectives; policy++)
        needs = needs || needs_side(fit, policy);
    if (is_rank_zero(fit) && needs)
        mpo_report(MPO_REPORT_NOTE, "measuring the scale of the rewards on %lld prompts",
                   (long long)units);
    for (int32_t policy = -1; policy < objectives; policy++) {
        const struct side side = {policy, unit, one};
        if (needs_side(fit, policy))
            MPO_TRY(calibrate_side(fit, &side));
    }
    if (is_rank_zero(fit)) {
        const struct mpo_rewards_measured measured = {(int32_t)units, unit, one};
        fit->rewards.record.zero_of = source_of_zero(fit);
        status = mpo_rewards_settle_scale(&measured, fit->rewards.policy, objectives,
                                          &fit->rewards.record.scale);
    }
    MPO_TRY(mpo_comm_agree(status));
    if (is_rank_zero(fit) && needs)
        note_scale(fit);
    fit->session->timing = (struct mpo_timing){0};
cleanup:
    free(unit);
    return status;
}

enum mpo_status mpo_fit_rewards_begin(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    bool is_objective = fit->config->estimator.objective == MPO_BALANCE_REWARD;
    if (!fit->rewards.is_used)
        return MPO_OK;
    if (is_rank_zero(fit))
        status = mpo_session_rewards_open(fit->session, step_responses(fit),
                                          &fit->rewards.measured);
    MPO_TRY(mpo_comm_agree(status));
    if (is_objective && !fit->resumes)
        MPO_TRY(calibrate_scale(fit));
cleanup:
    return status;
}

/* ---- what others ask ---- */

void mpo_fit_rewards_add(struct mpo_fit *fit, double omega, double omega_sum)
{
    struct mpo_fit_rewards *rewards = &fit->rewards;
    for (int32_t k = 0; rewards->is_used && k < fit->objective_count; k++) {
        rewards->sum[k] += omega * rewards->mean[k];
        rewards->average[k] = rewards->sum[k] / omega_sum;
    }
}

bool mpo_fit_read_rewards(const struct mpo_fit *fit, struct mpo_fit_reward_figures *out)
{
    const struct mpo_fit_rewards *rewards = &fit->rewards;
    if (!rewards->is_used)
        return false;
    *out = (struct mpo_fit_reward_figures){
        .is_objective = rewards->record.is_objective,
        .zero = rewards->record.scale.zero,
        .one = rewards->record.scale.one,
        .last = rewards->mean,
        .average = rewards->average,
    };
    return true;
}
