/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch: the batch script of a fit, or with --serve of a server, with what its ranks need.
 *
 * One process without MPI surveys all policies as doctor does and adds up the needs of the
 * ranks of each node. What fit would refuse in the configuration, the models and the
 * prompts is refused here, in the same order and with the same exit code, except what
 * depends on running ranks, such as whether a transport works. The cores, GPUs and memory
 * of the machine that prints the script do not matter.
 */
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"
#include "commands/report/log.h"
#include "launch_impl.h"

#define SIGNAL_EARLY_SECONDS 60 /* as sbatch says of --signal */
#define CPUS_ALONE           8  /* as in the scripts of launch/ */
#define CPUS_BESIDE_GPU      2
#define CPUS_OVER_NODES      4 /* NCCL has a thread for the network, and libllama its own */
#define LIMIT_SECONDS_MAX    (365 * INT64_C(86400))

/* ---- options ---- */

/* A word of an #SBATCH line, in which a blank or # would begin something else. */
static enum mpo_status check_word(const char *name, const char *text)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(strspn(text, LAUNCH_WORD_LETTERS) == strlen(text), MPO_ERR_CONFIG,
              "launch.%s: expected one word, as for sbatch --%s, found '%.*s'", name, name,
              (int)strcspn(text, "\n\r"), text);
cleanup:
    return status;
}

/* Minutes, minutes:seconds, hours:minutes:seconds, and days-hours with either behind it, as
 * in sbatch's manual. */
static bool is_time(const char *text)
{
    regex_t pattern;
    if (regcomp(&pattern,
                "^([0-9]{1,4}-[0-9]{1,4}(:[0-9]{1,2}){0,2}|[0-9]{1,7}(:[0-9]{1,4}){0,2})$",
                REG_EXTENDED | REG_NOSUB) != 0)
        return false;
    bool matches = regexec(&pattern, text, 0, NULL, 0) == 0;
    regfree(&pattern);
    return matches;
}

static double time_seconds(const char *text)
{
    double part[4] = {0.0};
    if (sscanf(text, "%lf-%lf:%lf:%lf", &part[0], &part[1], &part[2], &part[3]) > 1)
        return 86400.0 * part[0] + 3600.0 * part[1] + 60.0 * part[2] + part[3];
    if (sscanf(text, "%lf:%lf:%lf", &part[0], &part[1], &part[2]) == 3)
        return 3600.0 * part[0] + 60.0 * part[1] + part[2];
    return 60.0 * part[0] + part[1];
}

static enum mpo_status check_options(const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_launch *options = &config->launch;
    MPO_TRY(check_word("partition", options->partition));
    MPO_TRY(check_word("account", options->account));
    MPO_CHECK(mpo_is_auto(options->time) || is_time(options->time), MPO_ERR_CONFIG,
              "launch.time: expected auto or a time like 90 (minutes), 04:00:00 or "
              "2-12:00:00, found '%.*s'",
              (int)strcspn(options->time, "\n\r"), options->time);
cleanup:
    return status;
}

static enum mpo_status check_fit(const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_plan_check_fit(config));
    MPO_CHECK(strcmp(config->prompts.file, "-") != 0, MPO_ERR_USAGE,
              "prompts.file: expected a file, found -: a batch job has no standard input");
cleanup:
    return status;
}

static enum mpo_status check_serve(const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(config->launch.seconds_per_step == 0.0, MPO_ERR_CONFIG,
              "launch.seconds_per_step: a server has no number of steps, found %g; set "
              "launch.time",
              config->launch.seconds_per_step);
cleanup:
    return status;
}

/* A group works on whole units of prompts. */
static void warn_of_idle_groups(const struct mpo_config *config)
{
    int64_t prompts = config->rollout.prompts_per_step;
    int64_t unit = config->rollout.unit_prompts;
    int64_t units = (prompts + unit - 1) / unit;
    if (config->launch.groups > units)
        mpo_log_warning("%lld groups share the prompts of a step, but there are work units "
                        "for only %lld; raise rollout.prompts_per_step",
                        (long long)config->launch.groups, (long long)units);
}

/* The job is described, but for what the models say. */
static enum mpo_status plan_job(struct launch *launch)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config *config = launch->config;
    launch->plan.config = config;
    launch->plan.survey = &launch->survey;
    if (launch->serves) {
        MPO_TRY(check_serve(config));
        MPO_TRY(mpo_command_size_serve(config, &launch->plan.size));
    } else {
        config->fit.resume = true; /* as the script does */
        MPO_TRY(check_fit(config));
        launch->plan.size = mpo_plan_fit(config);
        warn_of_idle_groups(config);
    }
    MPO_TRY(check_options(config));
    MPO_TRY(mpo_session_make("launch", config, &launch->plan.size, &launch->session));
cleanup:
    return status;
}

static enum mpo_status read_configuration(struct launch *launch, int argc,
                                          char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_arguments arguments = {0};
    struct mpo_config_words *words = &launch->words;
    MPO_TRY(mpo_config_as_serve("launch", argc, argv, words));
    launch->serves = strcmp(words->command, "launch") != 0;
    MPO_TRY(mpo_config_open(words->command, words->count, words->text, &launch->config));
    mpo_command_tell_idle(launch->config, words->command, launch->serves ? "launch" : "");
    MPO_CHECK(!launch->config->launch.serve, MPO_ERR_USAGE,
              "launch.serve: expected it as the flag --serve, found it in the "
              "configuration");
    MPO_TRY(mpo_config_pass_on(words->command, words->count, words->text, &arguments,
                               &launch->flags));
    launch->config_path = arguments.text[0];
    MPO_TRY(plan_job(launch));
cleanup:
    return status;
}

/* ---- layout ---- */

/* The GPUs of this machine do not matter, only whether the program could use one. */
static bool program_has_cuda(void)
{
    return strstr(mpo_device_built(), "cuda") != NULL;
}

/* A survey needs no device; an unknown one is refused as by fit. */
static enum mpo_status open_device(struct launch *launch)
{
    struct mpo_device_wish wish = {
        .choice = program_has_cuda() ? MPO_DEVICE_CPU : launch->config->run.device};
    return mpo_device_open(&wish, launch->session->comm, &launch->session->device);
}

/* The divisor of `ranks` that is next to `each`, in steps of -1 or 1. */
static int32_t next_divisor(int32_t ranks, int32_t each, int32_t step)
{
    while (ranks % each != 0)
        each += step;
    return each;
}

/* All nodes have the same number of ranks, so it must divide the total. */
static enum mpo_status fill_nodes(struct launch *launch, int64_t wanted)
{
    enum mpo_status status = MPO_OK;
    int32_t ranks = launch->plan.rank_count;
    int32_t each =
        wanted == MPO_AUTO_INTEGER ? launch->plan.placement.group_size : (int32_t)wanted;
    MPO_CHECK(each <= ranks, MPO_ERR_USAGE,
              "launch.ranks_per_node is %d, expected at most %d, the number of ranks "
              "(launch.groups x %d)",
              each, ranks, launch->plan.placement.group_size);
    MPO_CHECK(ranks % each == 0, MPO_ERR_USAGE,
              "launch.ranks_per_node is %d, but %d ranks (launch.groups x %d) do not fill "
              "nodes of %d; the next valid values are %d and %d",
              each, ranks, launch->plan.placement.group_size, each,
              next_divisor(ranks, each, -1), next_divisor(ranks, each, 1));
    launch->plan.ranks_per_node = each;
    launch->node_count = ranks / each;
cleanup:
    return status;
}

static enum mpo_status lay_out_ranks(struct launch *launch)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = launch->config;
    int32_t policies = mpo_plan_policy_count(config, &launch->plan.size);
    int32_t wanted = mpo_plan_ranks_per_group(config);
    int32_t group = wanted == 0 ? policies : wanted;
    launch->plan.rank_count = (int32_t)(group * config->launch.groups);
    MPO_TRY(mpo_placement_group_size(launch->plan.rank_count, policies, group,
                                     &launch->plan.placement.group_size));
    launch->plan.placement.policy_count = policies;
    MPO_TRY(fill_nodes(launch, config->launch.ranks_per_node));
    if (program_has_cuda() && strcmp(config->run.device, MPO_DEVICE_CPU) != 0)
        launch->gpus_per_node = mpo_plan_node_devices(&launch->plan);
cleanup:
    return status;
}

/* Whether the ranks of some group are on several nodes. */
static bool groups_span_nodes(const struct mpo_plan *plan)
{
    return plan->ranks_per_node % plan->placement.group_size != 0;
}

static void choose_cores(struct launch *launch)
{
    int64_t beside_gpu =
        groups_span_nodes(&launch->plan) ? CPUS_OVER_NODES : CPUS_BESIDE_GPU;
    int64_t cores = launch->config->launch.cpus_per_task;
    if (cores == MPO_AUTO_INTEGER)
        cores = launch->config->run.threads;
    if (cores == MPO_AUTO_INTEGER)
        cores = launch->gpus_per_node > 0 ? beside_gpu : CPUS_ALONE;
    launch->cpus_per_task = (int32_t)cores;
    launch->session->thread_count = launch->cpus_per_task;
}

static enum mpo_status choose_time(struct launch *launch)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = launch->config;
    double step = config->launch.seconds_per_step;
    double signal = launch->serves
                        ? fmax(LAUNCH_DRAIN_SECONDS, ceil(2.0 * config->serve.drain))
                        : fmax(LAUNCH_SIGNAL_SECONDS, ceil(2.0 * step));
    double limit =
        (double)config->descent.steps * step * (100 + LAUNCH_MARGIN_PERCENT) / 100 +
        LAUNCH_SETUP_SECONDS + signal;
    launch->signal_seconds = (int32_t)signal;
    MPO_CHECK(mpo_is_auto(config->launch.time) ||
                  time_seconds(config->launch.time) > signal + SIGNAL_EARLY_SECONDS,
              MPO_ERR_CONFIG,
              "launch.time: expected more than %g s, because %s is told to stop %g s "
              "before the limit or up to a minute earlier; found '%s', which is %g s",
              signal + SIGNAL_EARLY_SECONDS, launch->serves ? "serve" : "fit", signal,
              config->launch.time, time_seconds(config->launch.time));
    if (step == 0.0 || !mpo_is_auto(config->launch.time))
        return MPO_OK;
    MPO_CHECK(limit <= (double)LIMIT_SECONDS_MAX, MPO_ERR_CONFIG,
              "%lld steps of %g s take %.0f days; set launch.time, and the job is requeued "
              "and continues",
              (long long)config->descent.steps, step, limit / 86400.0);
    launch->limit_seconds = (int64_t)limit;
cleanup:
    return status;
}

/* ---- survey ---- */

/* In the order of fit: files, then the vocabulary, then prompts. */
static enum mpo_status judge_survey(const struct mpo_policies_survey *survey)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < survey->local_count; i++)
        MPO_TRY(mpo_failure_raise(&survey->local[i].load));
    MPO_TRY(mpo_failure_raise(&survey->vocabulary));
    for (int32_t i = 0; i < survey->local_count; i++)
        MPO_TRY(mpo_failure_raise(&survey->local[i].prompts));
cleanup:
    return status;
}

static enum mpo_status survey_policies(struct launch *launch)
{
    enum mpo_status status = MPO_OK;
    struct mpo_session *session = launch->session;
    MPO_TRY(mpo_session_describe_policies(session));
    struct mpo_policies_survey_spec spec = mpo_plan_survey(session);
    mpo_policies_guard_begin();
    MPO_TRY(mpo_policies_survey(&spec, session->comm, &launch->survey));
    MPO_TRY(judge_survey(&launch->survey));
cleanup:
    mpo_policies_guard_end();
    return status;
}

/* ---- the command ---- */

static enum mpo_status plan_launch(struct launch *launch)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exchange_spec exchange;
    if (!launch->serves)
        MPO_TRY(mpo_session_read_prompts(launch->session));
    MPO_TRY(lay_out_ranks(launch));
    MPO_TRY(mpo_session_open_groups(launch->session, 1));
    MPO_TRY(open_device(launch));
    exchange =
        mpo_plan_exchange(launch->config, &launch->plan.placement, &launch->plan.size, 0);
    MPO_TRY(mpo_exchange_check(&exchange));
    choose_cores(launch);
    MPO_TRY(choose_time(launch));
    MPO_TRY(survey_policies(launch));
    launch->node = mpo_plan_node_needs(&launch->plan);
    if (launch->serves)
        MPO_TRY(mpo_command_check_models(launch->session));
    else
        MPO_TRY(mpo_record_check(launch->config->record.file, true));
cleanup:
    return status;
}

static void close_launch(struct launch *launch)
{
    for (int32_t i = 0; i < launch->flags.count; i++)
        free(launch->flags.text[i]);
    free(launch->flags.text);
    mpo_policies_survey_release(&launch->survey);
    mpo_session_close(&launch->session);
    mpo_config_close(&launch->config);
    mpo_config_words_release(&launch->words);
}

enum mpo_status mpo_command_launch(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct launch launch = {0};
    MPO_TRY(read_configuration(&launch, argc, argv));
    /* mpo_comm_agree reports a failure, and the program prints it again when this returns;
     * so the report goes nowhere. */
    struct mpo_reporter log = mpo_report_to((struct mpo_reporter){0});
    status = plan_launch(&launch);
    mpo_report_to(log);
    if (status == MPO_OK)
        launch_print(&launch);
cleanup:
    close_launch(&launch);
    return status;
}
