/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the record stores of a step: its row, the optimiser's state after it, and the
 * responses with their texts.
 */
#include "fit_impl.h"

#include <time.h>

static void fill_state(const struct mpo_fit *fit, struct mpo_record_row *row)
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

static struct mpo_record_row make_row(const struct mpo_fit *fit,
                                      const struct mpo_fit_entry *entry)
{
    const struct mpo_estimate *estimate = entry->estimate;
    const struct mpo_timing *slowest = entry->slowest;
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    struct mpo_record_row row = {
        .step = entry->step,
        .weights = fit->weights,
        .average = mpo_descent_average(fit->descent),
        .gradient = estimate->gradient,
        .control = estimate->control,
        .log_policy = estimate->log_policy,
        .divergence = estimate->divergence,
        .rewards = fit->rewards.mean,
        .value = estimate->value,
        .value_jackknife = estimate->value_jackknife,
        .value_error = estimate->value_error,
        .averaged_gap = mpo_fit_averaged_gap(fit),
        .average_gradient = fit->average_gradient,
        .imbalance = fit->summary.imbalance,
        .imbalance_error = fit->summary.imbalance_error,
        .step_size = mpo_descent_step_size(fit->descent),
        .ess = estimate->ess,
        .end_bias = estimate->end_bias,
        .truncated = estimate->truncated,
        .entropy = estimate->entropy,
        .tokens = estimate->tokens,
        .elapsed = fit->summary.elapsed_before + mpo_fit_elapsed(fit),
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

enum mpo_status mpo_fit_record(struct mpo_fit *fit, const struct mpo_fit_entry *entry)
{
    enum mpo_status status = MPO_OK;
    bool stores = fit->config->record.responses;
    struct mpo_record_row row = make_row(fit, entry);
    struct mpo_record_responses stored = {.responses = entry->responses};
    if (stores) {
        if (!fit->rewards.is_used) /* which were measured on them */
            MPO_TRY(mpo_session_collect_texts(entry->responses, &fit->texts));
        stored.text = fit->texts.text != NULL ? fit->texts.text : "";
        stored.text_bytes = fit->texts.bytes;
        stored.reward = fit->rewards.measured.reward;
    }
    MPO_TRY(mpo_record_append(fit->record, &row, stores ? &stored : NULL));
cleanup:
    return status;
}
