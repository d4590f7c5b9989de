/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the figures of evaluate cannot be relied on for. Whole figures rest on few rows where
 * the effective sample size is small; Kish's cannot fall below one row, so a few that are
 * effective say nothing. Then no interval is left to be read as if it said something.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "commands/report/log.h"
#include "estimator/sample.h"
#include "evaluate_impl.h"

/* With fewer prompts the bootstrap's intervals are too narrow. */
#define PROMPTS_FEW 30

#define TRUNCATED_MANY 0.25
#define HALVING_FAR    0.1
#define VALUE_LOW      (-10.0)

void evaluate_warn_of_prompts(const struct evaluate *evaluate)
{
    if (evaluate->prompt_count == 1)
        mpo_log_warning("a single prompt gives no intervals, which come from "
                        "differences between prompts; use %d or more",
                        PROMPTS_FEW);
    else if (evaluate->prompt_count < PROMPTS_FEW)
        mpo_log_warning("%lld prompts are too few for a bootstrap over prompts: the "
                        "intervals are too narrow; use %d or more",
                        (long long)evaluate->prompt_count, PROMPTS_FEW);
}

__attribute__((format(printf, 2, 3))) static void say(struct evaluate_vector *vector,
                                                      const char *format, ...)
{
    char text[512] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mpo_log_warning("%s: %s", vector->name, text);
    json_array_append_new(vector->warnings, json_string(text));
}

static void clear_intervals(struct mpo_interval *of, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        of[i].low = of[i].high = NAN;
}

static void forget_whole(struct evaluate_vector *vector)
{
    static const enum mpo_certificate_block whole[] = {
        MPO_BLOCK_WHOLE_LOG_POLICY, MPO_BLOCK_WHOLE_DIVERGENCE, MPO_BLOCK_WHOLE_SCORE,
        MPO_BLOCK_WHOLE_EXCESS};
    clear_intervals(&vector->interval[MPO_COLUMN_VALUE], 1);
    clear_intervals(&vector->interval[MPO_COLUMN_PLAIN], 1);
    clear_intervals(&vector->interval[MPO_COLUMN_HALVING], 1);
    clear_intervals(&vector->interval[MPO_COLUMN_ESS], 1);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        clear_intervals(vector->interval +
                            mpo_certificate_block_first(&vector->certificate, whole[i]),
                        mpo_certificate_block_length(&vector->certificate, whole[i]));
    int32_t first =
        mpo_certificate_block_first(&vector->certificate, MPO_BLOCK_WHOLE_EXCESS);
    for (int32_t k = 0; k < vector->certificate.exponents.objective_count; k++)
        vector->upper[first + k] = NAN;
}

/* Whether anything is known of whole responses. */
static bool has_rows(const struct evaluate *evaluate, const struct evaluate_vector *vector)
{
    double rows = (double)evaluate->config->evaluate.responses;
    return mpo_sample_is_known(rows * vector->interval[MPO_COLUMN_ESS].estimate, rows);
}

static void warn_of_rows(const struct evaluate *evaluate, struct evaluate_vector *vector)
{
    double halving = vector->interval[MPO_COLUMN_HALVING].estimate;
    double rows = (double)evaluate->config->evaluate.responses;
    double effective = rows * vector->interval[MPO_COLUMN_ESS].estimate;
    if (!has_rows(evaluate, vector)) {
        say(vector,
            "%.1f of %.0f rows of a prompt are effective, so nothing is "
            "known about the mixture of whole responses; raise --responses",
            effective, rows);
        forget_whole(vector);
    } else if (fabs(halving) > HALVING_FAR) {
        say(vector,
            "F is %.2f nat %s than with half of the rows, so more rows may "
            "change it by as much again; raise --responses",
            fabs(halving), halving > 0.0 ? "higher" : "lower");
    }
}

static void warn_of_weights(const struct evaluate *evaluate, struct evaluate_vector *vector)
{
    const char *reason = evaluate_why_no_gap(evaluate, vector);
    bool has_imbalance = evaluate_why_no_imbalance(evaluate, vector) == NULL;
    if (reason != NULL && !(has_imbalance && vector->certificate.of_blend))
        say(vector, "no gap%s, because %s", has_imbalance ? "" : " and no imbalance",
            reason);
}

void evaluate_warn(const struct evaluate *evaluate, struct evaluate_vector *vector)
{
    double truncated = vector->interval[MPO_COLUMN_TRUNCATED].estimate;
    double value = vector->interval[MPO_COLUMN_VALUE].estimate;
    bool has_whole = !vector->certificate.of_blend;
    if (has_whole)
        warn_of_rows(evaluate, vector);
    if (has_whole && has_rows(evaluate, vector) && value < VALUE_LOW)
        say(vector,
            "F is %.1f nat, so the mixture of whole responses is far from "
            "anything that is served; responses that end at once may have "
            "most of its probability",
            value);
    if (truncated > TRUNCATED_MANY)
        say(vector,
            "%.0f %% of the responses are cut at %lld tokens; raise rollout.max_tokens",
            100.0 * truncated, (long long)evaluate->config->rollout.max_tokens);
    warn_of_weights(evaluate, vector);
}
