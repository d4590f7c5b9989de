/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options that change nothing where they are given: the command does not look at them, or they
 * mean something beside another option alone.
 *
 * A flag of the command's own is refused, because a user who gives it expects an effect.
 * One of a shared section is a warning, because fit and generate are often given the same
 * flags. A file is for all commands; only fit, which uses all of it, says that a part of it
 * has no effect.
 */
#include "config_impl.h"

#include <math.h>
#include <string.h>

#define ALL (-1) /* options of the section */

/* A section, or an option of it, that changes nothing in a command if `is_idle`. */
struct idle {
    const char *command;
    const char *why;
    enum mpo_config_section_index section;
    int option; /* ALL of the section, or one */
    bool is_idle;
    bool is_told; /* of the command's own, which would be refused */
};

#define SECTION(command, section, is_idle, why)                                            \
    {                                                                                      \
        command, why, MPO_SECTION_##section, ALL, is_idle, false                           \
    }
#define OPTION(command, section, name, is_idle, why)                                       \
    {                                                                                      \
        command, why, MPO_SECTION_##section, MPO_OPTION_##section##_##name, is_idle, false \
    }
#define TOLD(command, name, is_idle, why)                                                  \
    {                                                                                      \
#command, why, MPO_SECTION_##command, MPO_OPTION_##command##_##name, is_idle, true \
    }

#define OF_FIT_ALONE "only fit uses it"
#define NO_PROGRAM   "rewards.command is empty"
#define OWN_STRENGTH "--strength replaces it"
#define NO_DRAW      "--greedy draws nothing"
#define OF_NO_DRAW   "prompt draws nothing"
#define OF_REQUESTS  "serve takes it from requests"
#define NO_CONSTANT  "descent.step_rule: adaptive has no constant"
#define OF_OTHERS    "another command uses it"

/* What generate, score and evaluate have in common: they fit nothing and write no record. */
#define OF_A_FIT(command)                                                                  \
    SECTION(command, estimator, true, OF_FIT_ALONE),                                       \
        SECTION(command, descent, true, OF_FIT_ALONE),                                     \
        OPTION(command, rollout, proposal, true, OF_FIT_ALONE),                            \
        OPTION(command, rollout, prompts_per_step, true, OF_FIT_ALONE),                    \
        OPTION(command, rollout, unit_prompts, true, OF_FIT_ALONE),                        \
        OPTION(command, rollout, control, true, OF_FIT_ALONE),                             \
        OPTION(command, record, file, true, "it names the record that fit writes"),        \
        OPTION(command, record, responses, true, OF_FIT_ALONE)

#define WITHOUT_REWARDS(command, is_idle, why)                                             \
    SECTION(command, rewards, is_idle, why),                                               \
        OPTION(command, policies, reward, is_idle, why),                                   \
        OPTION(command, policies, reward_zero, is_idle, why),                              \
        OPTION(command, policies, reward_one, is_idle, why)

/* NULL where a command has no such section. */
static bool is_text(const char *text)
{
    return text != NULL && *text != '\0';
}

/* A unit has no more prompts than a step. Of a flag: a file may be made for larger steps. */
static bool has_idle_unit(const struct mpo_config *config)
{
    return config->flagged[MPO_OPTION_rollout_unit_prompts] &&
           config->rollout.unit_prompts > config->rollout.prompts_per_step;
}

/* Called for each row that holds for the command and its options. */
struct reading {
    const struct mpo_config *config;
    const char *command;
    void (*reader)(void *context, const struct idle *row);
    void *context;
};

static void read_rows(const struct reading *reading, const struct idle *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].is_idle && strcmp(rows[i].command, reading->command) == 0)
            reading->reader(reading->context, &rows[i]);
}

#define READ(reading, rows) read_rows(reading, rows, sizeof(rows) / sizeof *(rows))

static void read_generate(const struct reading *reading)
{
    const struct mpo_config_generate *draw = &reading->config->generate;
    bool has_prompt = is_text(draw->prompt);
    bool is_greedy = draw->greedy || draw->temperature == 0.0;
    const struct idle rows[] = {
        OF_A_FIT("generate"),
        WITHOUT_REWARDS("generate", true, "generate measures no rewards"),
        OPTION("generate", rollout, responses, true, "generate draws --n responses"),
        OPTION("generate", rollout, end_bias, true, "generate has --end-bias"),
        OPTION("generate", policies, min, true, OF_FIT_ALONE),
        OPTION("generate", policies, max, true, OF_FIT_ALONE),
        OPTION("generate", prompts, file, has_prompt, "--prompt replaces it"),
        OPTION("generate", prompts, format, has_prompt, "--prompt gives a single prompt"),
        OPTION("generate", rollout, strength, !isnan(draw->strength), OWN_STRENGTH),
        OPTION("generate", run, seed, is_greedy, NO_DRAW),
        OPTION("generate", generate, limit, has_prompt, "--prompt gives a single prompt"),
        TOLD(generate, top_k, is_greedy, NO_DRAW),
        TOLD(generate, top_p, is_greedy, NO_DRAW),
        TOLD(generate, min_p, is_greedy, NO_DRAW),
        OPTION("generate", generate, exact_limit, !draw->exact, "it needs --exact"),
        OPTION("generate", generate, temperature, draw->greedy && draw->temperature > 0.0,
               "--greedy is temperature 0"),
    };
    READ(reading, rows);
}

static void read_score(const struct reading *reading)
{
    bool has_strength = !isnan(reading->config->score.strength);
    const struct idle rows[] = {
        OF_A_FIT("score"),
        WITHOUT_REWARDS("score", true, "score measures no rewards"),
        OPTION("score", rollout, responses, true, "the responses are those of --input"),
        OPTION("score", rollout, max_tokens, true, "the responses are those of --input"),
        OPTION("score", rollout, end_bias, true, "score has --end-bias"),
        OPTION("score", policies, min, true, OF_FIT_ALONE),
        OPTION("score", policies, max, true, OF_FIT_ALONE),
        OPTION("score", prompts, file, true, "the prompts are those of --input"),
        OPTION("score", prompts, format, true, "the prompts are those of --input"),
        OPTION("score", prompts, prefill, true, "the prompts are those of --input"),
        OPTION("score", rollout, strength, has_strength, OWN_STRENGTH),
        OPTION("score", run, seed, true, "score draws nothing"),
        OPTION("score", run, kv, true, "score has one cache"),
    };
    READ(reading, rows);
}

static void read_evaluate(const struct reading *reading)
{
    const struct mpo_config_evaluate *evaluate = &reading->config->evaluate;
    bool has_strength = !isnan(evaluate->strength);
    const struct idle rows[] = {
        OF_A_FIT("evaluate"),
        WITHOUT_REWARDS("evaluate", !evaluate->rewards,
                        "without --rewards none are measured"),
        OPTION("evaluate", rewards, calibration, evaluate->rewards, OF_FIT_ALONE),
        OPTION("evaluate", rollout, responses, true, "evaluate draws --responses"),
        OPTION("evaluate", rollout, end_bias, true, "evaluate has --end-bias"),
        OPTION("evaluate", rollout, strength, has_strength, OWN_STRENGTH),
        OPTION("evaluate", policies, min, evaluate->rewards, "--rewards has no gap"),
        OPTION("evaluate", policies, max, evaluate->rewards, "--rewards has no gap"),
    };
    READ(reading, rows);
}

static void read_serve(const struct reading *reading)
{
    bool has_key = is_text(reading->config->serve.key_file);
    const struct idle rows[] = {
        OF_A_FIT("serve"),
        WITHOUT_REWARDS("serve", true, "serve measures no rewards"),
        OPTION("serve", rollout, responses, true, OF_REQUESTS),
        OPTION("serve", run, kv, true, "serve has one cache"),
        OPTION("serve", rollout, max_tokens, true, OF_REQUESTS),
        OPTION("serve", rollout, end_bias, true, "models have the tilt of their records"),
        OPTION("serve", policies, min, true, OF_FIT_ALONE),
        OPTION("serve", policies, max, true, OF_FIT_ALONE),
        OPTION("serve", prompts, file, true, OF_REQUESTS),
        OPTION("serve", prompts, format, true, OF_REQUESTS),
        OPTION("serve", prompts, prefill, true, OF_REQUESTS),
        TOLD(serve, open_metrics, !has_key, "without --key-file nothing needs a key"),
        TOLD(serve, prefill_stretch, reading->config->serve.prefill != MPO_AUTO_INTEGER,
             "--prefill says how many prompt tokens a step feeds"),
        TOLD(serve, allow_open, has_key, "with --key-file it is not needed"),
    };
    READ(reading, rows);
}

static void read_prompt(const struct reading *reading)
{
    const struct idle rows[] = {
        SECTION("prompt", rollout, true, OF_NO_DRAW),
        SECTION("prompt", estimator, true, OF_NO_DRAW),
        SECTION("prompt", rewards, true, OF_NO_DRAW),
        SECTION("prompt", descent, true, OF_NO_DRAW),
        SECTION("prompt", exchange, true, OF_NO_DRAW),
        SECTION("prompt", record, true, OF_NO_DRAW),
        OPTION("prompt", run, seed, true, OF_NO_DRAW),
        OPTION("prompt", policies, temperature, true, OF_NO_DRAW),
        OPTION("prompt", policies, scale, true, OF_NO_DRAW),
        OPTION("prompt", policies, reward, true, OF_NO_DRAW),
        OPTION("prompt", policies, reward_zero, true, OF_NO_DRAW),
        OPTION("prompt", policies, reward_one, true, OF_NO_DRAW),
        OPTION("prompt", policies, min, true, OF_NO_DRAW),
        OPTION("prompt", policies, max, true, OF_NO_DRAW),
    };
    READ(reading, rows);
}

static void read_refit(const struct reading *reading)
{
    const struct mpo_config *config = reading->config;
    bool by_rewards = is_text(config->refit.rewards);
    bool has_frontier = config->refit.frontier > 0;
    bool is_adaptive = config->descent.step_rule == MPO_STEP_RULE_ADAPTIVE;
    const struct idle rows[] = {
        OPTION("refit", refit, goal, !by_rewards, "it needs --rewards"),
        OPTION("refit", refit, output, has_frontier,
               "a frontier is printed alone; redirect standard output"),
        SECTION("refit", descent, by_rewards, "--rewards uses its own search"),
        SECTION("refit", descent, has_frontier, "a frontier is a grid, without a descent"),
        OPTION("refit", descent, step_constant, is_adaptive && !by_rewards && !has_frontier,
               NO_CONSTANT),
    };
    READ(reading, rows);
}

static void read_fit(const struct reading *reading)
{
    const struct mpo_config *config = reading->config;
    bool has_program = is_text(config->rewards.command);
    bool by_reward = config->estimator.objective == MPO_BALANCE_REWARD;
    bool is_adaptive = config->descent.step_rule == MPO_STEP_RULE_ADAPTIVE;
    const struct idle rows[] = {
        OPTION("fit", fit, moved_rewards, !config->fit.resume && !config->doctor.resume,
               "it needs --resume"),
        OPTION("fit", rewards, deadline, !has_program, NO_PROGRAM),
        OPTION("fit", rewards, calibration, !has_program, NO_PROGRAM),
        OPTION("fit", rewards, calibration, has_program && !by_reward,
               "only estimator.objective: reward needs a scale"),
        OPTION("fit", policies, reward, !has_program, NO_PROGRAM),
        OPTION("fit", policies, reward_zero, !has_program, NO_PROGRAM),
        OPTION("fit", policies, reward_one, !has_program, NO_PROGRAM),
        OPTION("fit", descent, step_constant, is_adaptive, NO_CONSTANT),
        OPTION("fit", rollout, unit_prompts, has_idle_unit(config),
               "a step has fewer prompts (rollout.prompts_per_step)"),
    };
    READ(reading, rows);
}

static void read_all(const struct reading *reading)
{
    read_generate(reading);
    read_score(reading);
    read_evaluate(reading);
    read_serve(reading);
    read_prompt(reading);
    read_refit(reading);
    read_fit(reading);
}

/* doctor and launch look at a fit. */
static const char *command_of(const char *command)
{
    bool is_of_fit = strcmp(command, "doctor") == 0 || strcmp(command, "launch") == 0;
    return is_of_fit ? "fit" : command;
}

static bool is_of_row(const struct idle *row, int option)
{
    return mpo_config_options[option].section == row->section &&
           (row->option == ALL || row->option == option);
}

/* ---- the command's own ---- */

struct refusal {
    struct mpo_config_build *build;
    int option; /* the first one that is refused, or ALL for none */
    const char *why;
};

static void find_own(void *context, const struct idle *row)
{
    struct refusal *refusal = context;
    for (int i = 0; refusal->option == ALL && !row->is_told && i < MPO_OPTION_COUNT; i++)
        if (is_of_row(row, i) && refusal->build->config->flagged[i] &&
            mpo_config_is_own(&mpo_config_options[i], refusal->build->command)) {
            refusal->option = i;
            refusal->why = row->why;
        }
}

enum mpo_status mpo_config_refuse_idle(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    struct refusal refusal = {.build = build, .option = ALL};
    read_all(&(struct reading){build->config, build->command, find_own, &refusal});
    if (refusal.option == ALL)
        return MPO_OK;
    struct mpo_config_assignment about = {.option = &mpo_config_options[refusal.option],
                                          .place = build->place[refusal.option]};
    MPO_FAIL(MPO_ERR_USAGE, "%s has no effect here: %s; leave it out",
             mpo_config_where(build, &about), refusal.why);
cleanup:
    return status;
}

/* ---- shared ---- */

struct telling {
    const struct mpo_config *config;
    const char *command;
    void (*visit)(void *context, const char *key, const char *why);
    void *context;
};

static void visit_shared(void *context, const struct idle *row)
{
    const struct telling *telling = context;
    const struct mpo_config *config = telling->config;
    bool is_fit = strcmp(row->command, "fit") == 0;
    for (int i = 0; i < MPO_OPTION_COUNT; i++)
        if (is_of_row(row, i) && (config->flagged[i] || (is_fit && config->written[i])) &&
            (row->is_told || !mpo_config_is_own(&mpo_config_options[i], telling->command)))
            telling->visit(telling->context, mpo_config_options[i].full_name, row->why);
}

/* --generate.n=3 of fit. config shows all of them. */
static void visit_others(const struct telling *telling)
{
    for (int i = 0; i < MPO_OPTION_COUNT && !mpo_config_is_query(telling->command); i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        bool is_of_a_command =
            mpo_config_sections[option->section].scope == MPO_SCOPE_COMMAND;
        if (is_of_a_command && telling->config->flagged[i] &&
            !mpo_config_is_own(option, telling->command) &&
            !mpo_config_is_own(option, command_of(telling->command)))
            telling->visit(telling->context, option->full_name, OF_OTHERS);
    }
}

void mpo_config_visit_idle(const struct mpo_config *config, const char *command,
                           void (*visit)(void *context, const char *key, const char *why),
                           void *context)
{
    struct telling telling = {config, command, visit, context};
    read_all(&(struct reading){config, command_of(command), visit_shared, &telling});
    visit_others(&telling);
}
