/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report of fit: a line per step and the stage table on standard error, the result on
 * standard output, and warnings that say what to change.
 */
#include "fit_impl.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands/report/output.h"
#include "estimator/sample.h"
#include "base/text.h"
#include "commands/report/log.h"

#define WEIGHTS_SHOWN_MAX 8

/* Above this figures mostly depend on where max_tokens cuts. */
#define TRUNCATED_HIGH 0.25

/* F this much higher than with half of the responses, nat, is far too low still. */
#define HALVING_FAR 0.1

/* Below this, in nat, the mixture of whole responses has little to do with what is drawn. */
#define VALUE_LOW (-10.0)

void fit_report_start(struct fit *fit)
{
    const struct mpo_session *session = fit->session;
    int64_t prompts = mpo_prompts_count(session->prompts);
    int32_t policies = fit->config->policy_count;
    mpo_log_note(
        "mpo fit: %d objective%s, %d %s on %d rank%s (%d group%s, exchange %s %s%s, "
        "%s, %d thread%s each), %lld prompt%s, seed %lld",
        fit->config->objective_count, mpo_text_plural(fit->config->objective_count),
        policies, policies == 1 ? "policy" : "policies", mpo_comm_size(session->comm),
        mpo_text_plural(mpo_comm_size(session->comm)), mpo_comm_group_count(session->comm),
        mpo_text_plural(mpo_comm_group_count(session->comm)),
        mpo_exchange_transport(session->exchange),
        mpo_pattern_name(mpo_exchange_pattern(session->exchange)),
        fit->config->exchange.rows == MPO_ROW_TYPE_BF16 ? " bf16" : "",
        session->device.kind, session->thread_count, mpo_text_plural(session->thread_count),
        (long long)prompts, mpo_text_plural(prompts), (long long)fit->config->run.seed);
    if (mpo_fit_resumes(fit->run))
        mpo_log_note("resuming %s after %lld step%s", fit->config->record.file,
                     (long long)mpo_fit_first_step(fit->run),
                     mpo_text_plural(mpo_fit_first_step(fit->run)));
    progress_begin(&fit->progress, "fit", fit->config->descent.steps);
    progress_resume(&fit->progress, mpo_fit_first_step(fit->run));
}

/* "0.60 0.40", cut after a few. */
static void format_numbers(const double *numbers, int32_t count, char *text, size_t bytes)
{
    size_t length = 0;
    int32_t shown = count < WEIGHTS_SHOWN_MAX ? count : WEIGHTS_SHOWN_MAX;
    for (int32_t k = 0; k < shown; k++)
        length += (size_t)snprintf(text + length, bytes - length, "%s%s", k > 0 ? " " : "",
                                   mpo_text_figure(numbers[k], 3).text);
    if (shown < count)
        snprintf(text + length, bytes - length, " ...");
}

static bool is_served(const struct fit *fit)
{
    return fit->config->estimator.target == MPO_TARGET_SERVED;
}

/* What the descent drives to zero. */
static const char *regret_name(const struct fit *fit)
{
    return is_served(fit) ? "imbalance" : "gap";
}

static const char *regret_unit(const struct fit *fit)
{
    return fit->config->estimator.objective == MPO_BALANCE_REWARD
               ? "of the normalised rewards"
               : "nat";
}

/* What the live line shows besides progress. */
static void show_progress(struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    struct progress *progress = &fit->progress;
    const double *average = mpo_fit_average(fit->run);
    int32_t count = fit->config->objective_count;
    progress->detail_count = 0;
    snprintf(progress->detail[progress->detail_count++], PROGRESS_DETAIL_BYTES, "%s %.4f",
             regret_name(fit), summary->last_gap);
    for (int32_t k = 0; k < count && progress->detail_count < PROGRESS_DETAILS_MAX; k++)
        snprintf(progress->detail[progress->detail_count++], PROGRESS_DETAIL_BYTES,
                 "%s %.3f", fit->config->policies[k].name, average[k]);
    progress_advance(progress, 1, summary->tokens - summary->tokens_before);
}

/* "  F -0.123 +- 0.045"; a single prompt has no scatter. */
static void format_value(const struct fit *fit, const struct mpo_estimate *estimate,
                         char *text, size_t bytes)
{
    size_t length =
        (size_t)snprintf(text, bytes, "  F %7s", mpo_text_figure(estimate->value, 3).text);
    if (fit->config->rollout.prompts_per_step > 1)
        snprintf(text + length, bytes - length, " +- %s",
                 mpo_text_figure(estimate->value_error, 3).text);
}

void fit_report_step(void *argument, const struct mpo_fit *run,
                     const struct mpo_estimate *estimate)
{
    struct fit *fit = argument;
    const struct mpo_fit_summary *summary = mpo_fit_summary(run);
    char weights[16 * WEIGHTS_SHOWN_MAX] = "";
    char divergence[32 * WEIGHTS_SHOWN_MAX] = "";
    char rewards[REWARDS_TEXT_BYTES] = "";
    char left[32] = "";
    char value[64] = "";
    char ess[32] = "";
    int64_t steps = fit->config->descent.steps;
    double elapsed = mpo_fit_elapsed(run);
    double steps_here = (double)(summary->steps - mpo_fit_first_step(fit->run));
    format_numbers(mpo_fit_average(fit->run), fit->config->objective_count, weights,
                   sizeof weights);
    fit_format_rewards(run, fit->config->objective_count, rewards, sizeof rewards);
    format_numbers(estimate->divergence, fit->config->objective_count, divergence,
                   sizeof divergence);
    progress_format_duration(elapsed / steps_here * (double)(steps - summary->steps), left,
                             sizeof left);
    if (fit->progress.is_live) {
        show_progress(fit);
        return;
    }
    if (mpo_sample_may_certify(fit->config->estimator.target)) {
        format_value(fit, estimate, value, sizeof value);
        snprintf(ess, sizeof ess, "  ESS %.2f", estimate->ess);
    }
    mpo_log_note("step %4lld/%lld  weights %s  KL %s%s%s  %s %7s%s  %5.0f token/s  left %s",
                 (long long)summary->steps, (long long)steps, weights, divergence, rewards,
                 value, regret_name(fit), mpo_text_figure(summary->last_gap, 4).text, ess,
                 (double)(summary->tokens - summary->tokens_before) / elapsed, left);
}

/* Collective: maximum and minimum of every stage over ranks. */
enum mpo_status fit_report_stages(const struct fit *fit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_timing most = *mpo_fit_timing(fit->run);
    struct mpo_timing least = most;
    int32_t share[MPO_TIMED_STAGE_COUNT] = {0};
    double sum = 0.0;
    MPO_TRY(mpo_comm_max(fit->session->comm, most.seconds, MPO_TIMED_STAGE_COUNT));
    MPO_TRY(mpo_comm_min(fit->session->comm, least.seconds, MPO_TIMED_STAGE_COUNT));
    for (int stage = 0; stage < MPO_TIMED_STAGE_COUNT; stage++)
        sum += most.seconds[stage];
    if (sum == 0.0) /* no step was taken */
        goto cleanup;
    mpo_text_shares(most.seconds, MPO_TIMED_STAGE_COUNT, share);
    mpo_log_note("\n%-10s %12s %8s %10s", "stage", "max s", "share", "max/min");
    for (int stage = 0; stage < MPO_TIMED_STAGE_COUNT; stage++) {
        double ratio =
            least.seconds[stage] > 0.0 ? most.seconds[stage] / least.seconds[stage] : NAN;
        char ratio_text[32] = "-";
        if (isfinite(ratio) && ratio < 1e4)
            snprintf(ratio_text, sizeof ratio_text, "%.2f", ratio);
        mpo_log_note("%-10s %12.3f %7.1f%% %10s", mpo_timing_name(stage),
                     most.seconds[stage], share[stage] / 10.0, ratio_text);
    }
cleanup:
    return status;
}

/* Effective responses to a prompt, which cannot be fewer than one. */
static double effective_of(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    return summary->ess_sum / (double)summary->steps *
           (double)fit->config->rollout.responses;
}

static bool is_known(const struct fit *fit)
{
    return *mpo_fit_summary(fit->run)->value_unknown == '\0';
}

/* Of the weights and of F, when they come from importance weights. */
static void warn_of_whole(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    double value = summary->value_mean;
    double error = mpo_fit_value_error(summary);
    bool from_reference = fit->config->rollout.proposal == MPO_PROPOSAL_REFERENCE;
    long long responses = (long long)fit->config->rollout.responses;
    if (responses == 1)
        mpo_log_warning(
            "with one response per prompt every importance weight is 1, so weights and gap "
            "are meaningless; set rollout.responses to 8 or more");
    else if (!is_known(fit))
        mpo_log_warning("%.1f of %lld responses to a prompt are effective, so nothing "
                        "is known about the mixture of whole responses, and the weights "
                        "are meaningless; raise rollout.responses%s, or fit target: "
                        "served",
                        effective_of(fit), responses,
                        from_reference ? ", use rollout.proposal: mixture" : "");
    double stop_gap = fit->config->descent.stop_gap;
    if (!is_known(fit) && stop_gap > 0.0 && summary->last_gap <= stop_gap)
        mpo_log_warning("descent.stop_gap did not end the fit: the averaged gap bounds "
                        "nothing while F is unknown");
    if (summary->halving_mean - 1.96 * mpo_fit_halving_error(summary) > HALVING_FAR)
        mpo_log_warning("F is %.2f nat higher than with half of the responses, so it is "
                        "still far too low; raise rollout.responses",
                        summary->halving_mean);
    if (is_known(fit) && value < VALUE_LOW)
        mpo_log_warning("F is %.1f nat: at the optimum the mixture of whole responses "
                        "then nearly always ends at once, far from anything that is "
                        "drawn; fit estimator.target: served, or lower "
                        "rollout.max_tokens",
                        value);
    if (from_reference && value > 3.0 * error && value > 0.0 &&
        mpo_fit_least_exponent(fit->run) >= 0.0)
        mpo_log_warning(
            "F is %.3f +- %.3f nat, but its true value is at most 0: the reference rarely "
            "draws what the policies prefer; use rollout.proposal: mixture",
            value, error);
}

static void warn_where_needed(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    double truncated = summary->truncated_sum / (double)summary->steps;
    if (!is_served(fit))
        warn_of_whole(fit);
    if (truncated > TRUNCATED_HIGH)
        mpo_log_warning("%.0f %% of the responses were cut at %lld tokens; raise "
                        "rollout.max_tokens",
                        100.0 * truncated, (long long)fit->config->rollout.max_tokens);
}

/* Where F is unknown, what the draws say of it is a diagnostic. */
static void print_value(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    double error = mpo_fit_value_error(summary);
    if (!is_known(fit))
        printf("F             %10s: %s\n", "unknown", summary->value_unknown);
    printf(
        "%-13s %10s nat, %smean over %lld step%s", is_known(fit) ? "F" : "  of the draws",
        mpo_text_figure(summary->value_mean, 4).text, is_known(fit) ? "" : "a diagnostic, ",
        (long long)summary->steps, mpo_text_plural(summary->steps));
    if (is_known(fit) && isfinite(error))
        printf(", +- %s", mpo_text_figure(error, 4).text);
    putchar('\n');
}

/* What the descent drives to zero, over its steps and at its output. */
static void print_regret(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    const struct mpo_text_figure last = mpo_text_figure(summary->last_gap, 4);
    if (!is_served(fit)) {
        printf("averaged gap  %10s nat%s\n", last.text,
               is_known(fit) ? "" : ", which bounds nothing, because F is unknown");
        return;
    }
    printf("imbalance     %10s %s over the steps", last.text, regret_unit(fit));
    if (isfinite(summary->imbalance_error))
        printf(", %s +- %s at the average", mpo_text_figure(summary->imbalance, 4).text,
               mpo_text_figure(summary->imbalance_error, 4).text);
    putchar('\n');
}

static void print_table(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    const double *average = mpo_fit_average(fit->run);
    const double *divergence = mpo_fit_divergence(fit->run);
    printf("%-24s %10s %10s   %s\n", "objective", "weight", "last",
           "KL, nat, mean of the steps");
    for (int32_t k = 0; k < fit->config->objective_count; k++) {
        mpo_text_pad(stdout, fit->config->policies[k].name, 24);
        printf(" %10.4f %10.4f %10s\n", average[k], mpo_fit_weights(fit->run)[k],
               mpo_text_figure(divergence[k], 4).text);
    }
    fit_print_rewards(fit);
    putchar('\n');
    print_value(fit);
    print_regret(fit);
    printf("ESS           %10.4f of the responses%s\n",
           summary->ess_sum / (double)summary->steps,
           mpo_sample_may_certify(fit->config->estimator.target) ? "" : ", a diagnostic");
    printf("tokens        %10lld\n", (long long)summary->tokens);
    printf("record        %s\n", fit->config->record.file);
}

json_t *fit_numbers_json(const struct fit *fit, const double *numbers)
{
    json_t *object = json_object();
    for (int32_t k = 0; k < fit->config->objective_count; k++)
        json_object_set_new(object, fit->config->policies[k].name,
                            output_number(numbers[k]));
    return object;
}

/* What the draws say of F and the gap where they are unknown; NULL where they are known. */
static json_t *make_diagnostic(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    if (is_known(fit))
        return NULL;
    return json_pack("{s:o, s:o, s:o}", "value", output_number(summary->value_mean),
                     "value_error", output_number(mpo_fit_value_error(summary)),
                     "averaged_gap",
                     output_number(is_served(fit) ? NAN : summary->last_gap));
}

/* Names as in the record; divergence, value, ess and truncated are means over the steps. */
static enum mpo_status print_json(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    double steps = (double)summary->steps;
    double unless_unknown = is_known(fit) ? 0.0 : NAN;
    double gap = summary->last_gap + (is_served(fit) ? 0.0 : unless_unknown);
    return output_json(json_pack(
        "{s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:b, "
        "s:o*, s:o*, s:o*}",
        "record", fit->config->record.file, "target",
        mpo_target_name(fit->config->estimator.target), "steps", (json_int_t)summary->steps,
        "average", fit_numbers_json(fit, mpo_fit_average(fit->run)), "weights",
        fit_numbers_json(fit, mpo_fit_weights(fit->run)), "divergence",
        fit_numbers_json(fit, mpo_fit_divergence(fit->run)), "value",
        output_number(summary->value_mean + unless_unknown), "value_error",
        output_number(mpo_fit_value_error(summary) + unless_unknown), "averaged_gap",
        output_number(gap), "imbalance", output_number(summary->imbalance),
        "imbalance_error", output_number(summary->imbalance_error), "ess",
        output_number(summary->ess_sum / steps), "truncated",
        output_number(summary->truncated_sum / steps), "tokens",
        (json_int_t)summary->tokens, "elapsed",
        output_number(summary->elapsed_before + mpo_fit_elapsed(fit->run)),
        "stopped_on_gap", summary->stopped_on_gap, "rewards", fit_rewards_json(fit),
        "value_unknown", is_known(fit) ? NULL : output_text(summary->value_unknown),
        "diagnostic", make_diagnostic(fit)));
}

static void note_stop(const struct fit *fit)
{
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    long long steps = (long long)summary->steps;
    const char *plural = mpo_text_plural(summary->steps);
    double stop_gap = fit->config->descent.stop_gap;
    if (is_served(fit))
        mpo_log_note(
            "stopped after %lld step%s: the imbalance at the average, %s +- %s, is "
            "at most descent.stop_gap %g",
            steps, plural, mpo_text_figure(summary->imbalance, 4).text,
            mpo_text_figure(summary->imbalance_error, 4).text, stop_gap);
    else
        mpo_log_note("stopped after %lld step%s: the averaged gap %s is at most "
                     "descent.stop_gap %g",
                     steps, plural, mpo_text_figure(summary->last_gap, 4).text, stop_gap);
}

enum mpo_status fit_report_end(const struct fit *fit)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit->run);
    if (summary->steps == 0)
        return MPO_OK;
    if (summary->stopped_on_gap && summary->steps < fit->config->descent.steps)
        note_stop(fit);
    warn_where_needed(fit);
    fit_warn_of_rewards(fit);
    if (fit->config->fit.format == MPO_REPORT_JSON)
        MPO_TRY(print_json(fit));
    else
        print_table(fit);
cleanup:
    return status;
}
