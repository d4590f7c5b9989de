/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of fit. take_step shows the flow; its lines are the folder names.
 *
 * Every rank decodes; rank zero estimates, descends and records, and tells the others at
 * the start of each step from which proposal to draw, or that the fit is over. A failure
 * inside the loop finishes the record and ends the whole job: the ranks are not in step any
 * more, so there is nothing left to agree on.
 */
#include "fit_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/text.h"
#include "session/end_bias.h"
#include "session/plan.h"
#include "session/provenance.h"
#include "session/weights.h"

static bool is_rank_zero(const struct mpo_fit *fit)
{
    return mpo_comm_rank(fit->session->comm) == 0;
}

/* ---- a step ---- */

/* Send mu and b of this step to all ranks, and whether there is a step. */
static enum mpo_status share_proposal(struct mpo_fit *fit, bool *go_on)
{
    enum mpo_status status = MPO_OK;
    double *proposal = fit->proposal;
    if (is_rank_zero(fit)) {
        const double *weights = mpo_descent_weights(fit->descent);
        bool from_reference = fit->config->rollout.proposal == MPO_PROPOSAL_REFERENCE;
        memset(proposal, 0, ((size_t)fit->policy_count + 2) * sizeof *proposal);
        if (from_reference)
            proposal[fit->objective_count] = 1.0;
        else
            mpo_exponents_of(&fit->exponents, weights, proposal);
        memcpy(fit->weights, weights, (size_t)fit->objective_count * sizeof *weights);
        proposal[fit->policy_count] = mpo_estimator_end_bias(fit->estimator);
        proposal[fit->policy_count + 1] = fit->summary.stopped_on_gap ? 0.0 : 1.0;
    }
    MPO_TRY(mpo_comm_broadcast(fit->session->comm, proposal,
                               ((size_t)fit->policy_count + 2) * sizeof *proposal, 0));
    *go_on = proposal[fit->policy_count + 1] != 0.0;
cleanup:
    return status;
}

/* Where the tilt of a whole fit begins: at what its first exponents ask for, over the first
 * prompts. It is no step: a record has it as the tilt of its first one. */
static enum mpo_status warm_up(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_estimator_state state = {0};
    int64_t prompt[MPO_END_BIAS_PROMPTS] = {0};
    int64_t prompts = mpo_prompts_count(fit->session->prompts);
    double *end_bias = &fit->proposal[fit->policy_count];
    struct mpo_end_bias_query query = {
        .mu = fit->proposal,
        .prompt = prompt,
        .prompt_count =
            prompts < MPO_END_BIAS_PROMPTS ? (int32_t)prompts : MPO_END_BIAS_PROMPTS,
    };
    mpo_prompts_of_step(fit->session->prompts, (uint64_t)fit->config->run.seed, 0,
                        query.prompt_count, prompt);
    MPO_TRY(mpo_session_find_end_bias(fit->session, &query, end_bias));
    for (int stage = 0; stage < MPO_TIMED_STAGE_COUNT; stage++)
        fit->total.seconds[stage] += fit->session->timing.seconds[stage];
    fit->session->timing = (struct mpo_timing){0};
    fit->warms_up = false;
    if (!is_rank_zero(fit))
        goto cleanup;
    mpo_estimator_save(fit->estimator, &state);
    state.end_bias = *end_bias;
    mpo_estimator_load(fit->estimator, &state);
    mpo_report(
        MPO_REPORT_NOTE,
        "the end tilt begins at %+.3f nat: %d prompt%s x %d rows, ends integrated out",
        *end_bias, query.prompt_count, mpo_text_plural(query.prompt_count),
        MPO_END_BIAS_ROWS);
cleanup:
    return status;
}

/* Maximum over ranks of the seconds of each stage since the last step; this rank's seconds
 * are added to its total. */
static enum mpo_status finish_timing(struct mpo_fit *fit, struct mpo_timing *slowest)
{
    *slowest = fit->session->timing;
    for (int stage = 0; stage < MPO_TIMED_STAGE_COUNT; stage++)
        fit->total.seconds[stage] += fit->session->timing.seconds[stage];
    fit->session->timing = (struct mpo_timing){0};
    return mpo_comm_max(fit->session->comm, slowest->seconds, MPO_TIMED_STAGE_COUNT);
}

/* One step: the flow. */
static enum mpo_status take_step(struct mpo_fit *fit, int64_t step)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_rollout *options = &fit->config->rollout;
    struct mpo_responses responses = {0};
    struct mpo_estimate estimate = {0};
    struct mpo_timing slowest = {0};
    struct mpo_rollout_step draw = {
        .step = step,
        .prompt = fit->prompt,
        .prompt_count = (int32_t)options->prompts_per_step,
        .mu = fit->proposal,
        .end_bias = fit->proposal[fit->policy_count],
    };
    mpo_prompts_of_step(fit->session->prompts, (uint64_t)fit->config->run.seed, step,
                        draw.prompt_count, fit->prompt);
    if (fit->spec.prepare != NULL)
        fit->spec.prepare(fit->spec.argument, &draw);
    MPO_TRY(mpo_rollout_run(fit->session->rollout, &draw, &responses));
    double clock = mpo_timing_now();
    if (fit->rewards.is_used)
        MPO_TRY(mpo_fit_rewards_measure(fit, step, &responses));
    if (is_rank_zero(fit)) {
        MPO_TRY(mpo_estimator_step(fit->estimator, fit->weights, &responses, &estimate));
        MPO_TRY(mpo_descent_step(fit->descent, estimate.gradient));
        mpo_fit_move_gradient(fit, &estimate);
        mpo_fit_summary_add(fit, &estimate);
        mpo_fit_summary_settle(fit);
    }
    mpo_timing_add(&fit->session->timing, MPO_TIMED_estimate, clock);
    MPO_TRY(finish_timing(fit, &slowest));
    clock = mpo_timing_now();
    if (is_rank_zero(fit)) {
        MPO_TRY(mpo_fit_record(
            fit, &(struct mpo_fit_entry){step, &responses, &estimate, &slowest}));
        if (fit->spec.monitor != NULL)
            fit->spec.monitor(fit->spec.argument, fit, &estimate);
    }
    mpo_timing_add(&fit->session->timing, MPO_TIMED_record, clock);
cleanup:
    return status;
}

static enum mpo_status begin_and_take_step(struct mpo_fit *fit, bool *more)
{
    enum mpo_status status = MPO_OK;
    int64_t steps = fit->config->descent.steps;
    *more = false;
    if (fit->step >= steps)
        return MPO_OK;
    MPO_TRY(mpo_session_begin_step(
        fit->session,
        &(struct mpo_session_progress){fit->step, fit->step, steps, "steps"}));
    MPO_TRY(share_proposal(fit, more));
    if (!*more)
        goto cleanup;
    if (fit->warms_up)
        MPO_TRY(warm_up(fit));
    MPO_TRY(take_step(fit, fit->step));
    fit->step++;
    *more = fit->step < steps;
cleanup:
    return status;
}

/* A failure inside the loop closes the record, which is removed if it has no step, and ends
 * the job. */
static enum mpo_status fail_fit(struct mpo_fit *fit, enum mpo_status status)
{
    struct mpo_error error;
    mpo_error_keep(&error);
    mpo_rewards_close(&fit->rewards.measured.program);
    if (fit->step == 0)
        mpo_record_discard(&fit->record);
    else
        mpo_record_finish(&fit->record);
    mpo_error_restore(&error);
    fit->failure = mpo_comm_fail(status);
    return fit->failure;
}

/* The same on all ranks, as what follows. */
static enum mpo_status check_health(const struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(fit->failure == MPO_OK, fit->failure,
              "a step of this fit failed before, and the job with it; close the fit");
cleanup:
    return status;
}

static enum mpo_status check_running(const struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_health(fit));
    MPO_CHECK(!fit->is_finished, MPO_ERR_USAGE,
              "a step of a fit whose record is closed; open the fit anew, with fit.resume");
cleanup:
    return status;
}

enum mpo_status mpo_fit_step(struct mpo_fit *fit, bool *more)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(fit, more);
    *more = false;
    MPO_TRY(check_running(fit));
    status = begin_and_take_step(fit, more);
    if (status == MPO_OK || status == MPO_REQUEUE)
        return status;
    *more = false;
    return fail_fit(fit, status);
cleanup:
    return status;
}

/* ---- life ---- */

static enum mpo_status open_optimiser(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = fit->config;
    struct mpo_estimator_spec estimator = {
        .objective_count = fit->objective_count,
        .prompts_max = (int32_t)config->rollout.prompts_per_step,
        .responses_max = (int32_t)config->rollout.responses,
        .end_bias = config->rollout.end_bias,
        .control = config->rollout.control,
        .has_scores = config->estimator.objective == MPO_BALANCE_REWARD,
        .target = config->estimator.target,
        .proposal = config->rollout.proposal,
        /* without a strength or scale, scores are log pi_k as they are */
        .exponents = mpo_exponents_are_weights(&fit->exponents) ? NULL : &fit->exponents,
    };
    struct mpo_descent_spec descent = {
        .map = config->descent.map,
        .step_rule = config->descent.step_rule,
        .averaging = config->descent.average,
        .step_constant = config->descent.step_constant,
        .steps = config->descent.steps,
        .objective_count = fit->objective_count,
        .initial = config->descent.initial.count > 0 ? config->descent.initial.value : NULL,
    };
    /* The published algorithm draws from the reference as it is, and what is served has no
     * tilt unless it is set. */
    if (!fit->warms_up && isnan(estimator.end_bias))
        estimator.end_bias = 0.0;
    MPO_TRY(mpo_estimator_open(&estimator, &fit->estimator));
    MPO_TRY(mpo_config_bounds(config, &fit->bounds));
    descent.bounds = fit->bounds;
    MPO_TRY(mpo_descent_open(&descent, &fit->descent));
cleanup:
    return status;
}

/* The session must have room for the responses of a step. */
static enum mpo_status check_size(const struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_rollout *rollout = &session->config->rollout;
    MPO_TRY(mpo_plan_check_fit(session->config));
    MPO_CHECK(session->size.responses == rollout->responses &&
                  session->prompts_max >= rollout->prompts_per_step,
              MPO_ERR_USAGE,
              "a fit draws %lld responses to each of %lld prompts in a step, but the "
              "session was opened for %d responses to %d prompts; leave its size at zero",
              (long long)rollout->responses, (long long)rollout->prompts_per_step,
              session->size.responses, session->prompts_max);
cleanup:
    return status;
}

/* `out` is where the caller wants it. */
static enum mpo_status allocate_fit(const struct mpo_fit_spec *spec, struct mpo_fit **made,
                                    struct mpo_fit *const *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_OF("mpo_fit_open", spec, out);
    MPO_ARGUMENTS_OF("mpo_fit_open", spec->session);
    const struct mpo_config *config = spec->session->config;
    size_t prompts = (size_t)config->rollout.prompts_per_step;
    MPO_TRY(check_size(spec->session));
    MPO_NEW(1, made);
    struct mpo_fit *fit = *made;
    fit->spec = *spec;
    fit->session = spec->session;
    fit->config = config;
    fit->objective_count = config->objective_count;
    fit->policy_count = config->policy_count;
    MPO_NEW(fit->objective_count, &fit->scale);
    for (int32_t k = 0; k < fit->objective_count; k++)
        fit->scale[k] = config->policies[k].scale;
    fit->exponents = (struct mpo_exponents){fit->objective_count, fit->policy_count,
                                            config->rollout.strength, fit->scale};
    fit->warms_up = mpo_plan_warms_up(config);
    MPO_NEW(prompts, &fit->prompt);
    MPO_NEW(fit->policy_count + 2, &fit->proposal);
    MPO_TRY(mpo_fit_rewards_allocate(fit));
    if (!is_rank_zero(fit))
        goto cleanup;
    MPO_NEW(fit->objective_count, &fit->weights);
    MPO_NEW(fit->objective_count, &fit->divergence_sum);
    MPO_NEW(fit->objective_count, &fit->divergence);
    MPO_TRY(mpo_fit_window_open(fit));
    MPO_TRY(mpo_session_texts_open(
        fit->session, prompts * (size_t)config->rollout.responses, &fit->texts));
    MPO_TRY(open_optimiser(fit));
cleanup:
    return status;
}

/* Load the state from the record and tell all ranks the first step. */
static enum mpo_status resume_or_not(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = fit->session->comm;
    if (!fit->config->fit.resume)
        return MPO_OK;
    if (is_rank_zero(fit))
        status = mpo_fit_resume(fit);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_comm_broadcast(comm, &fit->first_step, sizeof fit->first_step, 0));
    MPO_TRY(mpo_comm_broadcast(comm, &fit->resumes, sizeof fit->resumes, 0));
    MPO_TRY(mpo_comm_broadcast(comm, &fit->warms_up, sizeof fit->warms_up, 0));
    fit->step = fit->first_step;
    if (fit->resumes)
        MPO_TRY(mpo_weights_check_models(fit->session, fit->config->record.file));
cleanup:
    return status;
}

/* Importance weights fail where an exponent is negative. */
static void warn_of_target(const struct mpo_fit *fit)
{
    double least = mpo_fit_least_exponent(fit);
    if (fit->config->estimator.target == MPO_TARGET_WHOLE && least < 0.0)
        mpo_report(MPO_REPORT_WARNING,
                   "estimator.target: whole with the strength %g: the reference's "
                   "exponent falls to %.3g at some weights, where drawn responses "
                   "say almost nothing about the mixture of whole responses; fit "
                   "target: served",
                   fit->exponents.strength, least);
}

enum mpo_status mpo_fit_open(const struct mpo_fit_spec *spec, struct mpo_fit **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_fit *fit = NULL;
    if (out != NULL)
        *out = NULL;
    MPO_TRY(mpo_comm_agree(allocate_fit(spec, &fit, out)));
    MPO_TRY(resume_or_not(fit));
    MPO_TRY(mpo_fit_rewards_begin(fit));
    if (fit->resumes)
        MPO_TRY(mpo_fit_continue(fit));
    else
        MPO_TRY(mpo_session_create_record(
            fit->session, spec->command_line,
            fit->rewards.is_used ? &fit->rewards.record : NULL, &fit->record));
    if (is_rank_zero(fit))
        warn_of_target(fit);
    fit->started = mpo_timing_now();
    *out = fit;
    fit = NULL;
cleanup:
    mpo_fit_close(&fit);
    return status;
}

enum mpo_status mpo_fit_finish(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(fit);
    /* The job has ended, and with it whatever could be agreed on. */
    MPO_TRY(check_health(fit));
    fit->is_finished = true;
    mpo_comm_expect("the end of fit", -1, fit->config->run.setup_deadline);
    MPO_TRY(mpo_comm_agree(mpo_record_finish(&fit->record)));
cleanup:
    return status;
}

void mpo_fit_close(struct mpo_fit **fit)
{
    struct mpo_fit *self = fit != NULL ? *fit : NULL;
    if (self == NULL)
        return;
    mpo_record_finish(&self->record);
    mpo_fit_rewards_close(self);
    mpo_descent_close(&self->descent);
    mpo_estimator_close(&self->estimator);
    mpo_session_texts_close(&self->texts);
    free(self->last_program);
    free(self->average_gradient);
    free(self->work);
    free(self->without);
    free(self->window);
    free(self->bounds);
    free(self->divergence);
    free(self->divergence_sum);
    free(self->weights);
    free(self->proposal);
    free(self->prompt);
    free(self->scale);
    free(self);
    *fit = NULL;
}

/* ---- what others see ---- */

int64_t mpo_fit_first_step(const struct mpo_fit *fit)
{
    return fit->first_step;
}

bool mpo_fit_resumes(const struct mpo_fit *fit)
{
    return fit->resumes;
}

double mpo_fit_elapsed(const struct mpo_fit *fit)
{
    return mpo_timing_now() - fit->started;
}

const struct mpo_timing *mpo_fit_timing(const struct mpo_fit *fit)
{
    return &fit->total;
}

const struct mpo_fit_summary *mpo_fit_summary(const struct mpo_fit *fit)
{
    return &fit->summary;
}

const double *mpo_fit_average(const struct mpo_fit *fit)
{
    return fit->descent != NULL ? mpo_descent_average(fit->descent) : NULL;
}

double mpo_fit_least_exponent(const struct mpo_fit *fit)
{
    const struct mpo_exponents *exponents = &fit->exponents;
    double least = 0.0;
    for (int32_t k = 0; k < fit->objective_count; k++)
        least = fmin(least, 1.0 - exponents->strength * exponents->scale[k]);
    return least;
}

const double *mpo_fit_divergence(const struct mpo_fit *fit)
{
    return fit->divergence;
}

const double *mpo_fit_weights(const struct mpo_fit *fit)
{
    return fit->weights;
}
