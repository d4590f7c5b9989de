/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fit --resume: continue a record so that all further steps are those of an uninterrupted
 * run, bit for bit.
 *
 * Everything that the next step depends on is in the record: the state of the descent and
 * of the estimator, and the step's number, which counts the draws and the prompts.
 * Configuration, prompts and models must be the same. Threads, transport, number of
 * ranks and the gap to stop at may change, and the number of steps may grow unless the step
 * rule depends on it. A reward program may have moved, if the user says that it is the same.
 */
#include "fit_impl.h"

#include <math.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/argument.h"
#include "base/memory.h"
#include "session/differences.h"
#include "session/provenance.h"

#include "mpo/report.h"

/* ---- the configuration ---- */

/* Shared settings that change no step, or its last digits alone. Files are compared by
 * their content. */
static const char *const harmless[] = {
    "run.threads",
    "run.setup_deadline",
    "run.step_deadline",
    "prompts.file",
    "exchange.transport",
    "exchange.pattern",
    "exchange.ranks_per_group",
    "record.file",
    "descent.steps",
    "descent.stop_gap",
    "rewards.deadline",
    "run.batch_invariant",
    "run.device_rows",
    "run.kv",
};
#define REWARDS_COMMAND "rewards.command"
#define HARMLESS_COUNT  (sizeof harmless / sizeof *harmless)

struct comparison {
    struct mpo_differences found;
    bool models_are_hashed;
    bool may_move_rewards; /* both have a program, and it was said that it moved */
    bool says_moved;       /* now, by --moved-rewards */
    char folder[PATH_MAX]; /* where the record's paths begin */
};

/* A model or an adapter that was hashed is compared by its hash, wherever it lies now. */
static bool is_same_model(const struct comparison *comparison, const char *key,
                          const char *recorded, const char *now)
{
    const char *dot = strrchr(key, '.');
    if (strncmp(key, "policies.", 9) != 0 || dot == NULL ||
        (strcmp(dot, ".model") != 0 && strcmp(dot, ".lora") != 0))
        return false;
    bool are_there = strcmp(recorded, "\"\"") != 0 && strcmp(now, "\"\"") != 0;
    return (comparison->models_are_hashed && are_there) ||
           mpo_differences_is_same_file(comparison->folder, recorded, now);
}

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < HARMLESS_COUNT; i++)
        if (strcmp(key, harmless[i]) == 0)
            return true;
    return false;
}

static void note_difference(void *context, const char *key, const char *recorded,
                            const char *now)
{
    struct comparison *comparison = context;
    bool is_moved = comparison->may_move_rewards && strcmp(key, REWARDS_COMMAND) == 0;
    if (is_moved && comparison->says_moved)
        mpo_report(MPO_REPORT_WARNING,
                   "--moved-rewards: " REWARDS_COMMAND
                   " was %.500s, is %.500s; from here on "
                   "rewards are those of the second, on the record's scale",
                   recorded, now);
    if (!is_moved && !mpo_config_is_of_a_command(key) && !is_harmless(key) &&
        !is_same_model(comparison, key, recorded, now))
        mpo_differences_add(&comparison->found, key, recorded, now);
}

/* The stored configuration is that of the first start. A record that was extended has more
 * steps than it says. */
static enum mpo_status check_steps(const struct mpo_config *config, int64_t steps,
                                   int64_t step_count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_descent *descent = &config->descent;
    MPO_CHECK(descent->steps == steps || descent->step_rule != MPO_STEP_RULE_FIXED,
              MPO_ERR_CONFIG,
              "--resume: descent.steps was %lld, is %lld; it cannot change with "
              "descent.step_rule: fixed, because the size of a step depends on it",
              (long long)steps, (long long)descent->steps);
    if (step_count > steps)
        steps = step_count;
    MPO_CHECK(descent->steps >= steps, MPO_ERR_CONFIG,
              "--resume: descent.steps was %lld, is %lld; it can only be raised",
              (long long)steps, (long long)descent->steps);
cleanup:
    return status;
}

/* The reward program of the record's last step, owned. */
static enum mpo_status find_last_program(const struct mpo_record *record,
                                         const struct mpo_config *recorded, char **out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_session_find_change(record, REWARDS_COMMAND, out));
    if (*out == NULL)
        MPO_TRY(mpo_memory_copy_text(recorded->rewards.command, out));
cleanup:
    return status;
}

/* @param last_program  the reward program of the record's last step, owned */
static enum mpo_status compare_configurations(const struct mpo_config *config,
                                              const struct mpo_record *record,
                                              char **last_program)
{
    enum mpo_status status = MPO_OK;
    const char *path = config->record.file;
    struct mpo_config *recorded = NULL;
    struct comparison comparison = {.models_are_hashed = config->record.hash_models};
    MPO_TRY(mpo_differences_read(record, path, &recorded));
    MPO_TRY(find_last_program(record, recorded, last_program));
    mpo_differences_find_folder(path, recorded, comparison.folder);
    const char *now = config->rewards.command;
    bool have_programs = recorded->rewards.command[0] != '\0' && now[0] != '\0';
    bool is_other = have_programs && strcmp(recorded->rewards.command, now) != 0;
    comparison.says_moved = config->fit.moved_rewards;
    comparison.may_move_rewards =
        have_programs && (comparison.says_moved || strcmp(*last_program, now) == 0);
    MPO_TRY(mpo_config_compare(recorded, config, note_difference, &comparison));
    MPO_CHECK(comparison.found.length == 0, MPO_ERR_CONFIG,
              "--resume: %s was made with a different configuration (%s); restore that "
              "one%s, or start a new record",
              path, comparison.found.text,
              is_other && !comparison.may_move_rewards
                  ? ", give --moved-rewards if the other " REWARDS_COMMAND
                    " measures the same"
                  : "");
    MPO_TRY(check_steps(config, recorded->descent.steps, mpo_record_step_count(record)));
cleanup:
    mpo_config_close(&recorded);
    return status;
}

/* A record of schema mpo-1.0, which names no target, continues as it began. */
static bool is_old(const struct mpo_record *record)
{
    return *mpo_record_attribute(record, "target") == '\0';
}

/* A fault of the record is reported when it is opened to be continued. */
static bool is_old_file(const char *path)
{
    struct mpo_record *record = NULL;
    bool is_one = access(path, F_OK) == 0 && mpo_record_open(path, &record) == MPO_OK &&
                  is_old(record);
    mpo_record_close(&record);
    return is_one;
}

enum mpo_status mpo_fit_adopt(const struct mpo_session *session, struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    bool adopts = false;
    MPO_ARGUMENTS(session, config);
    if (!config->fit.resume)
        return MPO_OK;
    if (mpo_comm_rank(session->comm) == 0)
        adopts = is_old_file(config->record.file);
    MPO_TRY(mpo_comm_broadcast(session->comm, &adopts, sizeof adopts, 0));
    if (adopts && !mpo_config_is_written(config, "estimator.target"))
        config->estimator.target = MPO_TARGET_WHOLE;
    if (adopts && !mpo_config_is_written(config, "descent.average"))
        config->descent.average = MPO_AVERAGING_UNIFORM;
cleanup:
    return status;
}

/* ---- prompts and objectives ---- */

static enum mpo_status compare_contents(const struct mpo_session *session,
                                        const struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = session->config;
    const char *path = config->record.file;
    const char *recorded = mpo_record_attribute(record, MPO_PROMPTS_HASH_ATTRIBUTE);
    char now[MPO_TEXT_HASH_BYTES] = "";
    mpo_session_prompts_hash(session, now);
    MPO_CHECK(recorded[0] == '\0' || strcmp(recorded, now) == 0, MPO_ERR_DATA,
              "--resume: the prompts of %s are not those of %s; restore those, or start a "
              "new record",
              mpo_prompts_path(session->prompts), path);
    MPO_CHECK(mpo_record_policy_count(record) == config->policy_count, MPO_ERR_DATA,
              "--resume: %s has %d policies, the configuration has %d", path,
              mpo_record_policy_count(record), config->policy_count);
    for (int32_t h = 0; h < config->policy_count; h++)
        MPO_CHECK(strcmp(mpo_record_policy(record, h), config->policies[h].name) == 0,
                  MPO_ERR_DATA,
                  "--resume: policy %d is '%s' in %s but '%s' in the configuration", h + 1,
                  mpo_record_policy(record, h), path, config->policies[h].name);
cleanup:
    return status;
}

enum mpo_status mpo_fit_check_record(const struct mpo_session *session, int64_t *steps)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    char *last_program = NULL;
    MPO_ARGUMENTS(session, steps);
    *steps = -1;
    if (access(session->config->record.file, F_OK) != 0)
        return MPO_OK;
    MPO_TRY(mpo_record_open(session->config->record.file, &record));
    MPO_TRY(mpo_record_verify(record));
    MPO_TRY(compare_configurations(session->config, record, &last_program));
    if (session->prompts != NULL)
        MPO_TRY(compare_contents(session, record));
    if (!mpo_record_is_complete(record) && !mpo_record_is_live(record))
        MPO_TRY(mpo_record_check_repair(session->config->record.file));
    *steps = mpo_record_step_count(record);
cleanup:
    free(last_program);
    mpo_record_close(&record);
    return status;
}

/* ---- the state ---- */

static enum mpo_status read_last(struct mpo_record *record, const char *path,
                                 double *values)
{
    return mpo_record_read(record, path, mpo_record_step_count(record) - 1, 1, values);
}

static enum mpo_status load_descent(struct mpo_fit *fit, struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    size_t count = (size_t)fit->objective_count;
    double *vectors = NULL; /* [3, K] */
    MPO_NEW(3 * count, &vectors);
    struct mpo_descent_state state = {
        .step = mpo_record_step_count(record),
        .dual = vectors,
        .weights_sum = vectors + count,
        .gradient_sum = vectors + 2 * count,
    };
    MPO_TRY(read_last(record, "dual", vectors));
    MPO_TRY(read_last(record, "state/weights_sum", vectors + count));
    MPO_TRY(read_last(record, "state/gradient_sum", vectors + 2 * count));
    MPO_TRY(read_last(record, "state/range_squares", &state.range_squares));
    MPO_TRY(read_last(record, "state/inner_sum", &state.inner_sum));
    MPO_TRY(mpo_descent_load(fit->descent, &state));
cleanup:
    free(vectors);
    return status;
}

static enum mpo_status load_estimator(struct mpo_fit *fit, struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    struct mpo_estimator_state state = {.tilt_is_old = is_old(record)};
    MPO_TRY(read_last(record, "state/end_bias", &state.end_bias));
    MPO_TRY(read_last(record, "state/tilt_squares", &state.tilt_squares));
    MPO_TRY(read_last(record, "state/regression_steps", &state.regression_steps));
    MPO_TRY(read_last(record, "state/regression_cross", &state.regression_cross));
    MPO_TRY(read_last(record, "state/regression_square", &state.regression_square));
    mpo_estimator_load(fit->estimator, &state);
    fit->warms_up = false;
cleanup:
    return status;
}

/* An old record without a step: its sums begin as they did. */
static void begin_old_tilt(struct mpo_fit *fit)
{
    struct mpo_estimator_state state = {0};
    mpo_estimator_save(fit->estimator, &state);
    state.tilt_is_old = true;
    state.tilt_squares = 0.0;
    mpo_estimator_load(fit->estimator, &state);
    fit->warms_up = false;
}

/* A vector of every step [steps, K], NAN where a record of schema mpo-1.0 does not have it. */
static enum mpo_status read_vectors(const struct mpo_fit *fit, struct mpo_record *record,
                                    const char *path, double **out)
{
    enum mpo_status status = MPO_OK;
    int64_t steps = mpo_record_step_count(record);
    int64_t count = steps * fit->objective_count;
    bool is_there = false;
    MPO_NEW(count, out);
    MPO_TRY(mpo_record_has(record, path, &is_there));
    if (is_there)
        MPO_TRY(mpo_record_read(record, path, 0, steps, *out));
    for (int64_t i = 0; !is_there && i < count; i++)
        (*out)[i] = NAN;
cleanup:
    return status;
}

/* Mean rewards of every step [steps, K] where there is a program; *out is NULL else. */
static enum mpo_status read_rewards(const struct mpo_fit *fit, struct mpo_record *record,
                                    double **out)
{
    enum mpo_status status = MPO_OK;
    int64_t steps = mpo_record_step_count(record);
    if (!fit->rewards.is_used)
        return MPO_OK;
    MPO_NEW(steps * fit->objective_count, out);
    MPO_TRY(mpo_record_read(record, "rewards", 0, steps, *out));
cleanup:
    return status;
}

/* The scale of a record that has one, which its steps were taken with. */
static enum mpo_status load_scale(struct mpo_fit *fit, struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    bool is_there = false;
    struct mpo_record_rewards *own = &fit->rewards.record;
    struct mpo_record_rewards read = {.scale = own->scale};
    if (!fit->rewards.is_used)
        return MPO_OK;
    MPO_TRY(mpo_record_read_rewards(record, &read, &is_there));
    MPO_CHECK(is_there, MPO_ERR_DATA, "--resume: %s has no rewards",
              fit->config->record.file);
    for (int32_t k = 0; own->is_objective && k < fit->objective_count; k++)
        MPO_CHECK(
            read.scale.one[k] > read.scale.zero[k], MPO_ERR_DATA,
            "--resume: %s: expected reward_one above reward_zero, found %g and %g for "
            "'%s'",
            fit->config->record.file, read.scale.one[k], read.scale.zero[k],
            fit->config->policies[k].name);
cleanup:
    return status;
}

/* The summary as if this process had taken the steps itself. */
static enum mpo_status load_summary(struct mpo_fit *fit, struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    int64_t steps = mpo_record_step_count(record);
    double *series = NULL; /* [4, steps] */
    int32_t count = fit->objective_count;
    double *divergence = NULL;
    double *gradient = NULL;
    double *rewards = NULL;
    size_t row_bytes = (size_t)count * sizeof *rewards;
    MPO_NEW(4 * steps, &series);
    MPO_TRY(read_rewards(fit, record, &rewards));
    MPO_TRY(read_vectors(fit, record, "divergence", &divergence));
    MPO_TRY(read_vectors(fit, record, "average_gradient", &gradient));
    MPO_TRY(mpo_record_read(record, "value", 0, steps, series));
    MPO_TRY(mpo_record_read(record, "ess", 0, steps, series + steps));
    MPO_TRY(mpo_record_read(record, "truncated", 0, steps, series + 2 * steps));
    MPO_TRY(mpo_record_read(record, "tokens", 0, steps, series + 3 * steps));
    for (int64_t n = 0; n < steps; n++) {
        if (rewards != NULL)
            memcpy(fit->rewards.mean, rewards + n * count, row_bytes);
        memcpy(fit->average_gradient, gradient + n * count, row_bytes);
        mpo_fit_summary_add(fit, &(struct mpo_estimate){
                                     .value = series[n],
                                     .value_half = NAN,
                                     .ess = series[steps + n],
                                     .truncated = series[2 * steps + n],
                                     .tokens = (int64_t)series[3 * steps + n],
                                     .divergence = divergence + n * count,
                                 });
    }
    MPO_TRY(read_last(record, "elapsed", &fit->summary.elapsed_before));
    MPO_TRY(read_last(record, "weights", fit->weights));
    mpo_fit_summary_settle(fit);
    fit->summary.tokens_before = fit->summary.tokens;
    fit->first_step = steps;
cleanup:
    free(rewards);
    free(gradient);
    free(divergence);
    free(series);
    return status;
}

enum mpo_status mpo_fit_resume(struct mpo_fit *fit)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    if (access(fit->config->record.file, F_OK) != 0)
        return MPO_OK;
    MPO_TRY(mpo_record_open(fit->config->record.file, &record));
    MPO_TRY(mpo_record_verify(record));
    fit->resumes = true;
    MPO_TRY(compare_configurations(fit->config, record, &fit->last_program));
    MPO_TRY(compare_contents(fit->session, record));
    MPO_TRY(load_scale(fit, record));
    if (mpo_record_step_count(record) == 0) {
        if (is_old(record))
            begin_old_tilt(fit);
        goto cleanup;
    }
    MPO_TRY(load_descent(fit, record));
    MPO_TRY(load_estimator(fit, record));
    MPO_TRY(load_summary(fit, record));
cleanup:
    mpo_record_close(&record);
    return status;
}

enum mpo_status mpo_fit_continue(struct mpo_fit *fit)
{
    const struct mpo_session_change change = {REWARDS_COMMAND, fit->last_program,
                                              fit->config->rewards.command};
    bool has_moved = fit->last_program != NULL && strcmp(fit->last_program, change.is) != 0;
    return mpo_session_resume_record(fit->session, fit->first_step,
                                     has_moved ? &change : NULL, &fit->record);
}
