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

#include <string.h>

#define ALL (-1) /* options of the section */

/* A section, or an option of it, that changes nothing in a command if `is_idle`. */
struct idle {
    const char *command;
    enum mpo_config_section_index section;
    int option; /* ALL of the section, or one */
    bool is_idle;
    const char *why;
};

#define SECTION(command, section, is_idle, why)                                            \
    {                                                                                      \
        command, MPO_SECTION_##section, ALL, is_idle, why                                  \
    }
#define OPTION(command, section, name, is_idle, why)                                       \
    {                                                                                      \
        command, MPO_SECTION_##section, MPO_OPTION_##section##_##name, is_idle, why        \
    }

#define OF_FIT_ALONE "only fit uses it"
#define NO_PROGRAM   "rewards.command is empty"

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

/* Called for each row that holds for the command and its options. */
typedef void row_reader(void *context, const struct idle *row);

static void read_rows(const struct mpo_config *config, const char *command,
                      row_reader *reader, void *context)
{
    bool has_prompt = config->generate.prompt != NULL && *config->generate.prompt != '\0';
    bool has_program = config->rewards.command != NULL && *config->rewards.command != '\0';
    bool by_rewards = config->refit.rewards != NULL && *config->refit.rewards != '\0';
    bool has_frontier = config->refit.frontier > 0;
    bool by_reward = config->estimator.objective == MPO_BALANCE_REWARD;
    bool is_adaptive = config->descent.step_rule == MPO_STEP_RULE_ADAPTIVE;
    const struct mpo_config_generate *draw = &config->generate;
    const struct idle rows[] = {
        OF_A_FIT("generate"),
        WITHOUT_REWARDS("generate", true, "generate measures no rewards"),
        OPTION("generate", rollout, responses, true, "generate draws --n responses"),
        OPTION("generate", rollout, end_bias, true, "generate has --end-bias"),
        OPTION("generate", policies, min, true, OF_FIT_ALONE),
        OPTION("generate", policies, max, true, OF_FIT_ALONE),
        OPTION("generate", prompts, file, has_prompt, "--prompt replaces it"),
        OPTION("generate", prompts, format, has_prompt, "--prompt gives a single prompt"),
        OPTION("generate", generate, exact_limit, !draw->exact, "it needs --exact"),
        OPTION("generate", generate, temperature, draw->greedy && draw->temperature > 0.0,
               "--greedy is temperature 0"),
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
        OF_A_FIT("evaluate"),
        WITHOUT_REWARDS("evaluate", !config->evaluate.rewards,
                        "without --rewards none are measured"),
        OPTION("evaluate", rewards, calibration, config->evaluate.rewards, OF_FIT_ALONE),
        OPTION("evaluate", rollout, responses, true, "evaluate draws --responses"),
        OPTION("evaluate", rollout, end_bias, true, "evaluate has --end-bias"),
        SECTION("prompt", estimator, true, "prompt draws nothing"),
        SECTION("prompt", rewards, true, "prompt draws nothing"),
        SECTION("prompt", descent, true, "prompt draws nothing"),
        OPTION("refit", refit, goal, !by_rewards, "it needs --rewards"),
        OPTION("refit", refit, output, has_frontier,
               "a frontier is printed alone; redirect standard output"),
        SECTION("refit", descent, by_rewards, "--rewards uses its own search"),
        SECTION("refit", descent, has_frontier, "a frontier is a grid, without a descent"),
        OPTION("fit", fit, moved_rewards, !config->fit.resume, "it needs --resume"),
        OPTION("fit", rewards, deadline, !has_program, NO_PROGRAM),
        OPTION("fit", rewards, calibration, !has_program, NO_PROGRAM),
        OPTION("fit", rewards, calibration, has_program && !by_reward,
               "only estimator.objective: reward needs a scale"),
        OPTION("fit", policies, reward, !has_program, NO_PROGRAM),
        OPTION("fit", policies, reward_zero, !has_program, NO_PROGRAM),
        OPTION("fit", policies, reward_one, !has_program, NO_PROGRAM),
        OPTION("fit", descent, step_constant, is_adaptive,
               "descent.step_rule: adaptive has no constant"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].is_idle && strcmp(rows[i].command, command) == 0)
            reader(context, &rows[i]);
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
    for (int i = 0; refusal->option == ALL && i < MPO_OPTION_COUNT; i++)
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
    read_rows(build->config, build->command, find_own, &refusal);
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
            !mpo_config_is_own(&mpo_config_options[i], telling->command))
            telling->visit(telling->context, mpo_config_options[i].full_name, row->why);
}

void mpo_config_visit_idle(const struct mpo_config *config, const char *command,
                           void (*visit)(void *context, const char *key, const char *why),
                           void *context)
{
    struct telling telling = {config, command, visit, context};
    read_rows(config, command_of(command), visit_shared, &telling);
}
