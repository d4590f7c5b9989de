/*
 * fit: find the weights. take_step shows the flow; its lines are the folder names.
 *
 * Every rank decodes; rank zero estimates, descends and records, and tells the others at
 * the start of each step from which proposal to draw, or that the fit is over. A failure
 * inside the loop finishes the record and ends the whole job: the ranks are not in step any
 * more, so there is nothing left to agree on.
 */
#include "fit_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "commands/commands.h"
#include "session/plan.h"
#include "session/weights.h"

#define TEXT_BYTES 2048

static bool is_rank_zero(const struct fit *fit)
{
    return mpo_comm_rank(fit->session->comm) == 0;
}

/* Send mu and b of this step to all ranks, and whether there is a step. */
static enum mpo_status share_proposal(struct fit *fit, bool *go_on)
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
            memcpy(proposal, weights, (size_t)fit->objective_count * sizeof *proposal);
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

/* Texts of all responses, one after another, as the record stores them. */
static enum mpo_status collect_text(struct fit *fit, const struct mpo_responses *responses)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode_text *one = &fit->response_text;
    size_t used = 0;
    for (int32_t i = 0; i < responses->prompt_count * responses->responses; i++) {
        const int32_t *token = responses->token + (ptrdiff_t)i * responses->max_tokens;
        MPO_TRY(mpo_decode_text_set(one, token, responses->token_count[i]));
        MPO_TRY(mpo_memory_grow((void **)&fit->text, &fit->text_capacity,
                                used + one->count + 1, 1, "texts of a step"));
        memcpy(fit->text + used, one->bytes, one->count);
        used += one->count;
        fit->text_bytes[i] = (int32_t)one->count;
    }
cleanup:
    return status;
}

static void fill_state(const struct fit *fit, struct mpo_record_row *row)
{
    struct mpo_descent_state descent = {0};
    struct mpo_estimator_state estimator = {0};
    mpo_descent_save(fit->descent, &descent);
    mpo_estimator_save(fit->estimator, &estimator);
    row->dual = descent.dual;
    row->state_range_squares = descent.range_squares;
    row->state_inner_sum = descent.inner_sum;
    row->state_weights_sum = descent.weights_sum;
    row->state_gradient_sum = descent.gradient_sum;
    row->state_end_bias = estimator.end_bias;
    row->state_tilt_squares = estimator.tilt_squares;
    row->state_regression_steps = estimator.regression_steps;
    row->state_regression_cross = estimator.regression_cross;
    row->state_regression_square = estimator.regression_square;
}

static struct mpo_record_row make_row(const struct fit *fit, int64_t step,
                                      const struct mpo_estimate *estimate,
                                      const struct mpo_timing *slowest)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    struct mpo_record_row row = {
        .step = step,
        .weights = fit->weights,
        .average = mpo_descent_average(fit->descent),
        .gradient = estimate->gradient,
        .control = estimate->control,
        .log_policy = estimate->log_policy,
        .value = estimate->value,
        .value_jackknife = estimate->value_jackknife,
        .value_error = estimate->value_error,
        .averaged_gap = mpo_descent_averaged_gap(fit->descent),
        .step_size = mpo_descent_step_size(fit->descent),
        .ess = estimate->ess,
        .end_bias = estimate->end_bias,
        .truncated = estimate->truncated,
        .entropy = estimate->entropy,
        .tokens = estimate->tokens,
        .elapsed = fit->summary.elapsed_before + mpo_timing_now() - fit->started,
        .time = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec,
        .state_coefficient = estimate->coefficient,
        .timing_decode = slowest->seconds[MPO_TIMED_decode],
        .timing_exchange = slowest->seconds[MPO_TIMED_exchange],
        .timing_mixture = slowest->seconds[MPO_TIMED_mixture],
        .timing_estimate = slowest->seconds[MPO_TIMED_estimate],
        .timing_record = slowest->seconds[MPO_TIMED_record],
    };
    fill_state(fit, &row);
    return row;
}

static enum mpo_status record_step(struct fit *fit, int64_t step,
                                   const struct mpo_responses *responses,
                                   const struct mpo_estimate *estimate,
                                   const struct mpo_timing *slowest)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_row row = make_row(fit, step, estimate, slowest);
    struct mpo_record_responses stored = {.responses = responses};
    if (fit->config->record.responses) {
        MPO_TRY(collect_text(fit, responses));
        stored.text = fit->text != NULL ? fit->text : "";
        stored.text_bytes = fit->text_bytes;
    }
    MPO_TRY(mpo_record_append(fit->record, &row,
                              fit->config->record.responses ? &stored : NULL));
cleanup:
    return status;
}

/* Maximum over ranks of the seconds of each stage since the last step; this rank's seconds
 * are added to its total. */
static enum mpo_status settle_timing(struct fit *fit, struct mpo_timing *slowest)
{
    *slowest = fit->session->timing;
    for (int stage = 0; stage < MPO_TIMED_STAGE_COUNT; stage++)
        fit->total.seconds[stage] += fit->session->timing.seconds[stage];
    fit->session->timing = (struct mpo_timing){0};
    return mpo_comm_max(fit->session->comm, slowest->seconds, MPO_TIMED_STAGE_COUNT);
}

/* One step: the flow. */
static enum mpo_status take_step(struct fit *fit, int64_t step)
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
    progress_follow(&fit->progress, &draw, 1,
                    options->prompts_per_step * options->responses);
    MPO_TRY(mpo_rollout_run(fit->session->rollout, &draw, &responses));
    double clock = mpo_timing_now();
    if (is_rank_zero(fit)) {
        MPO_TRY(mpo_estimator_step(fit->estimator, fit->weights, &responses, &estimate));
        MPO_TRY(mpo_descent_step(fit->descent, estimate.gradient));
    }
    mpo_timing_add(&fit->session->timing, MPO_TIMED_estimate, clock);
    MPO_TRY(settle_timing(fit, &slowest));
    clock = mpo_timing_now();
    if (is_rank_zero(fit)) {
        MPO_TRY(record_step(fit, step, &responses, &estimate, &slowest));
        fit_report_step(fit, &estimate);
    }
    mpo_timing_add(&fit->session->timing, MPO_TIMED_record, clock);
cleanup:
    return status;
}

static enum mpo_status take_steps(struct fit *fit)
{
    enum mpo_status status = MPO_OK;
    bool go_on = true;
    for (int64_t step = fit->first_step; step < fit->config->descent.steps; step++) {
        MPO_TRY(mpo_session_begin_step(
            fit->session, &(struct mpo_session_progress){
                              step, step, fit->config->descent.steps, "steps"}));
        MPO_TRY(share_proposal(fit, &go_on));
        if (!go_on)
            break;
        MPO_TRY(take_step(fit, step));
    }
cleanup:
    progress_end(&fit->progress);
    return status;
}

static enum mpo_status open_optimiser(struct fit *fit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = fit->config;
    double *bounds = NULL;
    bool from_reference = config->rollout.proposal == MPO_PROPOSAL_REFERENCE;
    struct mpo_estimator_spec estimator = {
        .objective_count = fit->objective_count,
        .prompts_max = (int32_t)config->rollout.prompts_per_step,
        .responses_max = (int32_t)config->rollout.responses,
        .end_bias = config->rollout.end_bias,
        .control = config->rollout.control,
    };
    struct mpo_descent_spec descent = {
        .map = config->descent.map,
        .step_rule = config->descent.step_rule,
        .step_constant = config->descent.step_constant,
        .steps = config->descent.steps,
        .objective_count = fit->objective_count,
        .initial = config->descent.initial.count > 0 ? config->descent.initial.value : NULL,
    };
    /* The published algorithm draws from the reference as it is. */
    if (from_reference && isnan(estimator.end_bias))
        estimator.end_bias = 0.0;
    MPO_TRY(mpo_estimator_open(&estimator, &fit->estimator));
    MPO_TRY(mpo_weights_bounds(config, &bounds));
    descent.bounds = bounds;
    MPO_TRY(mpo_descent_open(&descent, &fit->descent));
cleanup:
    free(bounds);
    return status;
}

static enum mpo_status open_fit(struct fit *fit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = fit->config;
    size_t prompts = (size_t)config->rollout.prompts_per_step;
    MPO_NEW(prompts, &fit->prompt);
    MPO_NEW(fit->policy_count + 2, &fit->proposal);
    if (is_rank_zero(fit)) {
        MPO_NEW(fit->objective_count, &fit->weights);
        MPO_NEW(prompts * (size_t)config->rollout.responses, &fit->text_bytes);
        mpo_decode_text_open(&fit->response_text, fit->session->policies,
                             &(struct mpo_decode_stops){0});
        MPO_TRY(open_optimiser(fit));
    }
cleanup:
    return status;
}

static void close_fit(struct fit *fit)
{
    mpo_descent_close(&fit->descent);
    mpo_estimator_close(&fit->estimator);
    free(fit->text_bytes);
    free(fit->text);
    mpo_decode_text_close(&fit->response_text);
    free(fit->weights);
    free(fit->proposal);
    free(fit->prompt);
    mpo_session_close(&fit->session);
    mpo_config_close(&fit->config);
}

/* A failure inside the loop closes the record and ends the job. */
static enum mpo_status fail_fit(struct fit *fit, enum mpo_status status)
{
    struct mpo_error error;
    mpo_error_keep(&error);
    mpo_record_finish(&fit->record);
    mpo_error_restore(&error);
    return mpo_comm_fail(status);
}

/* The loop, up to its end or a request to stop that all ranks agree on. */
static enum mpo_status run_fit(struct fit *fit)
{
    enum mpo_status status = MPO_OK;
    char stop[TEXT_BYTES] = "";
    if (is_rank_zero(fit))
        fit_report_start(fit);
    fit->started = mpo_timing_now();
    enum mpo_status ended = take_steps(fit);
    if (ended != MPO_OK && ended != MPO_REQUEUE)
        return fail_fit(fit, ended);
    snprintf(stop, sizeof stop, "%s", mpo_error_text());
    mpo_comm_expect("the end of fit", -1, fit->config->run.setup_deadline);
    MPO_TRY(mpo_comm_agree(mpo_record_finish(&fit->record)));
    MPO_TRY(fit_report_stages(fit));
    if (is_rank_zero(fit))
        MPO_TRY(fit_report_end(fit));
    MPO_CHECK(ended == MPO_OK, MPO_REQUEUE,
              "%s; %s is complete up to there; continue with --resume", stop,
              fit->config->record.file);
cleanup:
    return ended == MPO_REQUEUE ? mpo_comm_agree(status) : status;
}

/* Open rank zero's optimiser and record, new or resumed; all ranks learn the first step. */
static enum mpo_status open_or_resume(struct fit *fit, int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    if (fit->config->fit.resume) {
        if (is_rank_zero(fit))
            status = fit_resume_load(fit);
        MPO_TRY(mpo_comm_agree(status));
        MPO_TRY(mpo_comm_broadcast(fit->session->comm, &fit->first_step,
                                   sizeof fit->first_step, 0));
        MPO_TRY(
            mpo_comm_broadcast(fit->session->comm, &fit->resumes, sizeof fit->resumes, 0));
    }
    if (fit->resumes)
        MPO_TRY(mpo_weights_check_models(fit->session, fit->config->record.file));
    MPO_TRY(fit_create_record(fit, argc, argv));
cleanup:
    return status;
}

enum mpo_status mpo_command_fit(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct fit fit = {0};
    MPO_TRY(mpo_command_configure("fit", argc, argv, &fit.config));
    MPO_TRY(mpo_comm_agree(mpo_plan_check_fit(fit.config)));
    fit.objective_count = fit.config->objective_count;
    fit.policy_count = fit.config->policy_count;
    MPO_TRY(mpo_session_open(
        &(struct mpo_session_spec){.command = "fit", .settings = fit.config},
        &fit.session));
    MPO_TRY(mpo_comm_agree(open_fit(&fit)));
    MPO_TRY(open_or_resume(&fit, argc, argv));
    MPO_TRY(run_fit(&fit));
cleanup:
    close_fit(&fit);
    return status;
}
