/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect for a person: the summary of a record, and the list of its series.
 *
 * Series that an older record lacks are NaN, and so is everything derived from them.
 */
#include "inspect_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "base/timing.h"

#define LABEL_WIDTH 15

double inspect_last(const struct inspect *inspect, enum inspect_field field)
{
    return inspect->series[field][inspect->step_count - 1];
}

double inspect_sum(const struct inspect *inspect, enum inspect_field field)
{
    double total = 0.0;
    for (int64_t n = 0; n < inspect->step_count; n++)
        total += inspect->series[field][n];
    return total;
}

/* ---- summary ---- */

static void print_label(const char *label)
{
    mpo_text_pad(stdout, label, LABEL_WIDTH);
}

static void print_attribute(const struct inspect *inspect, const char *label,
                            const char *name)
{
    const char *value = mpo_record_attribute(inspect->record, name);
    if (value[0] == '\0')
        return;
    print_label(label);
    printf("%s\n", value);
}

/* "rewards.command from step 12 on (2026-11-29T12:00:00Z)": what it is now, then what it
 * was. Lines that are no notes are left out. */
static void print_notes(const struct inspect *inspect)
{
    for (size_t i = 0; i < json_array_size(inspect->notes); i++) {
        const json_t *note = json_array_get(inspect->notes, i);
        print_label("changed");
        printf("%s from step %lld on (%s): %s; was %s\n",
               json_string_value(json_object_get(note, "key")),
               (long long)json_integer_value(json_object_get(note, "step")),
               json_string_value(json_object_get(note, "time")),
               json_string_value(json_object_get(note, "is")),
               json_string_value(json_object_get(note, "was")));
    }
}

/* What the exponents are made of, and what was balanced. */
static void print_recipe(const struct inspect *inspect)
{
    print_label("target");
    printf("%s%s\n", mpo_target_name(mpo_record_target(inspect->record)),
           inspect->balances_rewards ? ", balances rewards" : "");
    if (inspect->plan.mixture != NULL) {
        print_label("mixture of");
        printf("%s\n", inspect->plan.mixture);
    }
    print_label("strength");
    printf("%g\n", inspect->strength);
    print_label("scales");
    for (int32_t k = 0; k < inspect->objective_count; k++)
        printf("%s%s %g", k > 0 ? ", " : "", mpo_record_objective(inspect->record, k),
               inspect->scale[k]);
    printf("\n");
}

static void print_head(const struct inspect *inspect)
{
    const char *state = inspect_state(inspect);
    print_label("record");
    printf("%s, %s", inspect->path, state);
    if (strcmp(state, "left by a crash") == 0)
        printf(" (its steps are complete; `mpo recover %s` makes a closed copy)",
               inspect->path);
    if (strcmp(state, "stopped") == 0)
        printf(" (`mpo fit --resume` continues it)");
    printf("\n");
    print_attribute(inspect, "run", "run_id");
    print_attribute(inspect, "created", "created_utc");
    print_attribute(inspect, "exchange rows", "exchange_rows");
    print_recipe(inspect);
    print_label("steps");
    printf("%lld", (long long)inspect->step_count);
    if (inspect->step_count < inspect->plan.steps)
        printf(" of %lld", (long long)inspect->plan.steps);
    if (inspect->step_count > inspect->plan.steps && inspect->plan.steps > 0)
        printf(", more than the %lld of its configuration", (long long)inspect->plan.steps);
    printf("\n");
}

static void print_figure(double value)
{
    printf("  %9s", mpo_text_figure(value, 4).text);
}

static void print_weights(const struct inspect *inspect)
{
    const int64_t last = (inspect->step_count - 1) * inspect->objective_count;
    bool has_rewards = inspect->is_there[INSPECT_rewards];
    int width = LABEL_WIDTH - 2;
    for (int32_t k = 0; k < inspect->objective_count; k++) {
        const int name = mpo_text_columns(mpo_record_objective(inspect->record, k));
        width = name > width ? name : width;
    }
    printf("\n");
    mpo_text_pad(stdout, "objective", width);
    printf("  %9s  %9s  %9s%s\n", "average", "last", "last KL",
           has_rewards ? "  last reward, as measured" : "");
    for (int32_t k = 0; k < inspect->objective_count; k++) {
        mpo_text_pad(stdout, mpo_record_objective(inspect->record, k), width);
        print_figure(inspect->series[INSPECT_average][last + k]);
        print_figure(inspect->series[INSPECT_weights][last + k]);
        print_figure(inspect->series[INSPECT_divergence][last + k]);
        if (has_rewards)
            printf("  %11.4g", inspect->series[INSPECT_rewards][last + k]);
        printf("\n");
    }
}

/* F, where anything is known of it; the figures that were recorded are of the draws alone. */
static void print_value(const struct inspect *inspect, const char *unknown)
{
    const double value = inspect_last(inspect, INSPECT_value);
    print_label("F");
    if (*unknown != '\0') {
        printf("unknown: %s\n", unknown);
        print_label("  of the draws");
        printf("%s nat, a diagnostic, at the last weights\n",
               mpo_text_figure(value, 4).text);
        return;
    }
    printf("%s +- %s nat at the last weights; jackknife %s\n",
           mpo_text_figure(value, 4).text,
           mpo_text_figure(inspect_last(inspect, INSPECT_value_error), 4).text,
           mpo_text_figure(inspect_last(inspect, INSPECT_value_jackknife), 4).text);
}

/* What the descent drives to zero. */
static void print_regret(const struct inspect *inspect, const char *unknown)
{
    const bool is_served = mpo_record_target(inspect->record) == MPO_TARGET_SERVED;
    const char *unit = inspect->balances_rewards ? "of the normalised rewards" : "nat";
    const char *meaning =
        is_served ? "averaged over the steps, whose weights differ"
        : *unknown != '\0'
            ? "bounds nothing, because F is unknown"
            : "in expectation F(average) is at most this far above its minimum";
    print_label(is_served ? "imbalance" : "averaged gap");
    printf("%s %s; %s\n",
           mpo_text_figure(inspect_last(inspect, INSPECT_averaged_gap), 4).text, unit,
           meaning);
    if (is_served && inspect->is_there[INSPECT_imbalance] &&
        isfinite(inspect_last(inspect, INSPECT_imbalance_error))) {
        print_label("at the average");
        printf("%s +- %s %s, from the last quarter of the steps\n",
               mpo_text_figure(inspect_last(inspect, INSPECT_imbalance), 4).text,
               mpo_text_figure(inspect_last(inspect, INSPECT_imbalance_error), 4).text,
               unit);
    }
}

static void print_sample_size(const struct inspect *inspect)
{
    print_label("sample size");
    if (inspect->plan.responses == 1.0) {
        printf("unknown: needs several responses per prompt\n");
        return;
    }
    printf("%.3f of the responses are effective, %.3f over all steps%s\n",
           inspect_last(inspect, INSPECT_ess),
           inspect_sum(inspect, INSPECT_ess) / (double)inspect->step_count,
           mpo_sample_may_certify(mpo_record_target(inspect->record))
               ? ""
               : "; a diagnostic of the draws");
}

static void print_values(const struct inspect *inspect)
{
    const double steps = (double)inspect->step_count;
    char reason[MPO_SAMPLE_REASON_BYTES] = "";
    const char *unknown = inspect_why_unknown(inspect, reason);
    printf("\n");
    print_value(inspect, unknown);
    print_regret(inspect, unknown);
    print_sample_size(inspect);
    print_label("end bias");
    printf("%s nat\n", mpo_text_figure(inspect_last(inspect, INSPECT_end_bias), 3).text);
    print_label("truncated");
    printf("%.1f %% of the responses over all steps\n",
           100.0 * inspect_sum(inspect, INSPECT_truncated) / steps);
    print_label("tokens");
    printf("%.0f\n", inspect_sum(inspect, INSPECT_tokens));
}

static void print_time(const char *label, double seconds, int32_t share)
{
    print_label(label);
    printf("%9.2f  %5.1f %%\n", seconds, share / 10.0);
}

/* The time of record.def's timing fields, which are named after the timed stages. */
static void print_times(const struct inspect *inspect)
{
    const double elapsed = inspect_last(inspect, INSPECT_elapsed);
    static const enum inspect_field fields[MPO_TIMED_STAGE_COUNT] = {
#define STAGE_FIELD(name, sentence) [MPO_TIMED_##name] = INSPECT_timing_##name,
        MPO_TIMED_STAGE_LIST(STAGE_FIELD)
#undef STAGE_FIELD
    };
    printf("\n");
    print_label("stage");
    printf("%9s  %7s\n", "seconds", "share");
    double seconds[MPO_TIMED_STAGE_COUNT + 1];
    int32_t share[MPO_TIMED_STAGE_COUNT + 1];
    double sum = 0.0;
    for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++)
        sum += seconds[i] = inspect_sum(inspect, fields[i]);
    seconds[MPO_TIMED_STAGE_COUNT] = fmax(elapsed - sum, 0.0);
    mpo_text_shares(seconds, MPO_TIMED_STAGE_COUNT + 1, share);
    for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++)
        print_time(mpo_timing_name((enum mpo_timed_stage)i), seconds[i], share[i]);
    print_time("other", seconds[MPO_TIMED_STAGE_COUNT], share[MPO_TIMED_STAGE_COUNT]);
    print_label("run");
    printf("%9.2f\n", elapsed);
}

void inspect_print_summary(const struct inspect *inspect)
{
    print_head(inspect);
    print_notes(inspect);
    if (inspect->step_count > 0) {
        print_weights(inspect);
        print_values(inspect);
        print_times(inspect);
    }
    printf("\n");
    print_attribute(inspect, "command", "cmdline");
    print_attribute(inspect, "version", "version");
    print_attribute(inspect, "git commit", "git_commit");
    print_attribute(inspect, "configuration", "config_sha256");
    print_attribute(inspect, "seed", "seed");
    print_attribute(inspect, "Slurm job", "slurm_job_id");
}

/* ---- schema ---- */

void inspect_print_schema(void)
{
    printf("%-28s %-4s %-7s %-7s %s\n", "data set", "type", "shape", "units", "meaning");
    printf("%-28s %-4s %-7s %-7s %s\n", "step", "i64", "[N]", "1", "written last");
    for (int32_t i = 0; i < mpo_record_field_count(); i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        const int unit_bytes = (int)strcspn(field->units, " "); /* of "seconds since ..." */
        printf("%-28s %-4s %-7s %-7.*s %s\n", field->path,
               strcmp(field->type, "F64") == 0 ? "f64" : "i64",
               strcmp(field->shape, "OBJECTIVE") == 0 ? "[N, K]" : "[N]", unit_bytes,
               field->units, field->long_name);
    }
}
