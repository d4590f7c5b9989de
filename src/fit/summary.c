/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the steps of a fit amount to: means for the report, and the figure to stop on.
 *
 * For target whole that is the averaged gap, where F is known. The averaged imbalance of a served fit is a
 * regret, which says how the descent went and not what its output is worth. That is
 *
 *     I(l) = l . g(l) - min_u u . g(l)                       at the average of the weights
 *
 * and g there is taken from the responses of the last steps, which were drawn at other
 * weights: A C_j,h is the derivative of log q(y_j) in l_h, so to first order
 *
 *     g(average) = g(l_t) + (dg/dl) (average - l_t)                (src/README.md, Imbalance)
 *
 * Without this step the mean of g_t would be far too even, because the descent makes it so.
 * The mean is over the last quarter of the steps, while the average hardly moves; its
 * standard error is the jackknife's over steps.
 */
#include "fit_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "estimator/sample.h"

_Static_assert(MPO_FIT_REASON_BYTES >= MPO_SAMPLE_REASON_BYTES, "a reason fits");

/* Steps of the window at most. */
#define WINDOW_MAX 4096

static bool is_served(const struct mpo_fit *fit)
{
    return fit->config->estimator.target == MPO_TARGET_SERVED;
}

/* F has the gradient A g; an imbalance is of the scores themselves. */
double mpo_fit_averaged_gap(const struct mpo_fit *fit)
{
    double strength = is_served(fit) ? 1.0 : fit->exponents.strength;
    return strength * mpo_descent_averaged_gap(fit->descent);
}

/* ---- the gradient at the average ---- */

enum mpo_status mpo_fit_window_open(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    int64_t quarter = fit->config->descent.steps / 4;
    fit->window_capacity = quarter < 1 ? 1 : quarter > WINDOW_MAX ? WINDOW_MAX : quarter;
    MPO_NEW(fit->objective_count, &fit->average_gradient);
    MPO_NEW(2 * fit->objective_count, &fit->work);
    MPO_NEW(fit->window_capacity * fit->objective_count, &fit->window);
    MPO_NEW(fit->window_capacity, &fit->without);
cleanup:
    return status;
}

void mpo_fit_move_gradient(struct mpo_fit *fit, const struct mpo_estimate *estimate)
{
    int32_t count = fit->objective_count;
    const double *average = mpo_descent_average(fit->descent);
    for (int32_t k = 0; k < count; k++) {
        double moved = estimate->slope != NULL ? estimate->gradient[k] : NAN;
        for (int32_t h = 0; estimate->slope != NULL && h < count; h++)
            moved += estimate->slope[k * count + h] * (average[h] - fit->weights[h]);
        fit->average_gradient[k] = moved;
    }
}

/* ---- the imbalance at the average ---- */

static const double *window_row(const struct mpo_fit *fit, int64_t step)
{
    return fit->window + step % fit->window_capacity * fit->objective_count;
}

static double imbalance_of(const struct mpo_fit *fit, const double *gradient)
{
    return mpo_descent_gap(mpo_descent_average(fit->descent), gradient, fit->bounds,
                           fit->objective_count);
}

/* The mean of the last `length` steps, without one of them (-1: with all). */
static double imbalance_without(const struct mpo_fit *fit, int64_t length, int64_t step)
{
    double *mean = fit->work;
    const double *sum = fit->work + fit->objective_count;
    for (int32_t k = 0; k < fit->objective_count; k++)
        mean[k] = step < 0 ? sum[k] / (double)length
                           : (sum[k] - window_row(fit, step)[k]) / (double)(length - 1);
    return imbalance_of(fit, mean);
}

static void find_imbalance(struct mpo_fit *fit)
{
    struct mpo_fit_summary *summary = &fit->summary;
    int64_t quarter = summary->steps / 4;
    int64_t length = quarter < 1 ? 1 : quarter;
    double *sum = fit->work + fit->objective_count;
    double mean = 0.0;
    double squares = 0.0;
    if (length > fit->window_capacity)
        length = fit->window_capacity;
    memset(sum, 0, (size_t)fit->objective_count * sizeof *sum);
    for (int64_t t = summary->steps - length; t < summary->steps; t++)
        for (int32_t k = 0; k < fit->objective_count; k++)
            sum[k] += window_row(fit, t)[k];
    summary->imbalance = imbalance_without(fit, length, -1);
    summary->imbalance_error = NAN;
    if (length < 2 || isnan(summary->imbalance)) /* as for target whole */
        return;
    for (int64_t i = 0; i < length; i++) {
        fit->without[i] = imbalance_without(fit, length, summary->steps - length + i);
        mean += fit->without[i] / (double)length;
    }
    for (int64_t i = 0; i < length; i++)
        squares += pow(fit->without[i] - mean, 2.0);
    summary->imbalance_error = sqrt(squares * ((double)length - 1.0) / (double)length);
}

/* ---- all together ---- */

/* Mean and sum of squared deviations, one more value at a time (Welford). */
static void add_to_mean(double value, double count, double *mean, double *square_sum)
{
    double off = value - *mean;
    *mean += off / count;
    *square_sum += off * (value - *mean);
}

void mpo_fit_summary_add(struct mpo_fit *fit, const struct mpo_estimate *estimate)
{
    struct mpo_fit_summary *summary = &fit->summary;
    int64_t step = summary->steps++;
    enum mpo_averaging averaging = fit->config->descent.average;
    summary->tokens += estimate->tokens;
    summary->ess_sum += estimate->ess;
    summary->truncated_sum += estimate->truncated;
    add_to_mean(estimate->value, (double)summary->steps, &summary->value_mean,
                &summary->value_square_sum);
    if (isfinite(estimate->value_half))
        add_to_mean(estimate->value - estimate->value_half, (double)++summary->halved_steps,
                    &summary->halving_mean, &summary->halving_square_sum);
    double omega = mpo_descent_omega(averaging, summary->steps);
    double omega_sum = mpo_descent_omega_sum(averaging, summary->steps);
    for (int32_t k = 0; k < fit->objective_count; k++) {
        fit->divergence_sum[k] += omega * estimate->divergence[k];
        fit->divergence[k] = fit->divergence_sum[k] / omega_sum;
    }
    mpo_fit_rewards_add(fit, omega, omega_sum);
    memcpy(fit->window + step % fit->window_capacity * fit->objective_count,
           fit->average_gradient, (size_t)fit->objective_count * sizeof *fit->window);
}

static void find_value_reason(struct mpo_fit *fit)
{
    struct mpo_fit_summary *summary = &fit->summary;
    double responses = (double)fit->config->rollout.responses;
    double ess = summary->ess_sum / (double)summary->steps;
    mpo_sample_why_unknown(fit->config->estimator.target, ess * responses, responses,
                           summary->value_unknown);
}

void mpo_fit_summary_settle(struct mpo_fit *fit)
{
    struct mpo_fit_summary *summary = &fit->summary;
    double stop_gap = fit->config->descent.stop_gap;
    summary->last_gap = mpo_fit_averaged_gap(fit);
    find_value_reason(fit);
    find_imbalance(fit);
    bool is_enough = is_served(fit)
                         ? summary->steps >= MPO_FIT_STOP_STEPS &&
                               summary->imbalance + summary->imbalance_error <= stop_gap
                         : summary->last_gap <= stop_gap && *summary->value_unknown == '\0';
    summary->stopped_on_gap = stop_gap > 0.0 && is_enough;
}

double mpo_fit_value_error(const struct mpo_fit_summary *summary)
{
    double steps = (double)summary->steps;
    return steps > 1.0 ? sqrt(summary->value_square_sum / (steps - 1.0) / steps) : NAN;
}

double mpo_fit_halving_error(const struct mpo_fit_summary *summary)
{
    double steps = (double)summary->halved_steps;
    return steps > 1.0 ? sqrt(summary->halving_square_sum / (steps - 1.0) / steps) : NAN;
}
