/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The script: launch/resume.sbatch, or launch/serve.sbatch, with the figures of one job, each
 * with its origin.
 * The user's texts appear only in the command, quoted: in a comment a line end would
 * start a command.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "build_info.h"
#include "launch_impl.h"
#include "base/text.h"

#define OPTION_COLUMNS 25
#define OPTION_BYTES   256
#define REASON_BYTES   128

static void print_option(const char *reason, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void print_option(const char *reason, const char *format, ...)
{
    char option[OPTION_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(option, sizeof option, format, arguments);
    va_end(arguments);
    if (reason[0] == '\0')
        printf("#SBATCH --%s\n", option);
    else
        printf("#SBATCH --%-*s # %s\n", OPTION_COLUMNS, option, reason);
}

/* ---- the head ---- */

static int32_t group_count(const struct launch *launch)
{
    return launch->plan.rank_count / launch->plan.placement.group_size;
}

static void print_head_of_serve(const struct launch *launch)
{
    printf("#!/usr/bin/env bash\n"
           "# Serve %d policies with %d rank%s, in %d group%s of %d; printed by mpo launch "
           "--serve %s.\n"
           "#\n"
           "#     mpo launch my.yaml --serve >job.sbatch && sbatch job.sbatch\n"
           "#     cat mpo-serve-JOB.url           # when it is ready: the URL, the models\n"
           "#     cat mpo-serve-JOB.key           # name:key; the key is the bearer token\n"
           "#     grep 'ssh -N' mpo-serve-JOB.log # the tunnel from your machine\n"
           "#\n"
           "# Before the time limit and when preempted, requests that run may finish, and "
           "the\n"
           "# job is requeued.  Submit from the source tree, or set MPO_HOME to it.  "
           "Options of\n"
           "# sbatch win over the lines below; arguments go to `mpo serve`.\n",
           launch->config->policy_count, launch->plan.rank_count,
           mpo_text_plural(launch->plan.rank_count), group_count(launch),
           mpo_text_plural(group_count(launch)), launch->plan.placement.group_size,
           MPO_VERSION);
}

static void print_head(const struct launch *launch)
{
    int32_t groups = group_count(launch);
    printf(
        "#!/usr/bin/env bash\n"
        "# Fit %d policies with %d rank%s, in %d group%s of %d; printed by mpo launch %s.\n"
        "#\n"
        "#     mpo launch my.yaml >job.sbatch && sbatch job.sbatch\n"
        "#\n"
        "# Stops before the time limit or when preempted, is requeued and continues, like\n"
        "# launch/resume.sbatch.  Submit from the source tree, or set MPO_HOME\n"
        "# to it.  Options of sbatch win over the lines below; arguments go to `mpo "
        "fit`.\n",
        launch->config->policy_count, launch->plan.rank_count,
        mpo_text_plural(launch->plan.rank_count), groups, mpo_text_plural(groups),
        launch->plan.placement.group_size, MPO_VERSION);
}

/* ---- the lines for sbatch ---- */

static const char *reason_for_gpus(const struct launch *launch)
{
    if (launch->gpus_per_node > launch->plan.ranks_per_node)
        return "a rank takes as many as its largest policy (devices)";
    if (launch->gpus_per_node > 0)
        return "one per rank";
    return strcmp(launch->config->run.device, MPO_DEVICE_CPU) == 0
               ? "run.device is cpu"
               : "this build has no cuda";
}

static const char *reason_for_cores(const struct launch *launch)
{
    if (launch->config->launch.cpus_per_task != MPO_AUTO_INTEGER)
        return "threads of a rank: launch.cpus_per_task";
    if (launch->config->run.threads != MPO_AUTO_INTEGER)
        return "threads of a rank: run.threads";
    return launch->gpus_per_node > 0 ? "threads of a rank, enough with a GPU"
                                     : "threads of a rank, as in launch/*.sbatch";
}

static void print_size(const struct launch *launch)
{
    char reason[REASON_BYTES] = "";
    bool given = launch->config->launch.ranks_per_node != MPO_AUTO_INTEGER;
    snprintf(reason, sizeof reason, "for %d ranks", launch->plan.rank_count);
    print_option(reason, "nodes=%d", launch->node_count);
    print_option(given ? "launch.ranks_per_node" : "the ranks of one group",
                 "ntasks-per-node=%d", launch->plan.ranks_per_node);
    print_option(reason_for_gpus(launch), "gpus-per-node=%d", launch->gpus_per_node);
    print_option(reason_for_cores(launch), "cpus-per-task=%d", launch->cpus_per_task);
}

static void print_memory(const struct launch *launch)
{
    char reason[REASON_BYTES] = "";
    const struct mpo_needs *node = &launch->node;
    unsigned long long needed = mpo_text_megabytes_up(mpo_needs_total(node));
    unsigned long long ranks_mb = LAUNCH_RANK_MB * (unsigned)launch->plan.ranks_per_node;
    snprintf(reason, sizeof reason, "per node: %llu MB + %d %% + %d MB per rank", needed,
             LAUNCH_MARGIN_PERCENT, LAUNCH_RANK_MB);
    print_option(reason, "mem=%lluM",
                 needed * (100 + LAUNCH_MARGIN_PERCENT) / 100 + ranks_mb);
    printf("# MB of the node that needs most: program %llu, weights %llu, cache %llu, work "
           "%llu,\n"
           "# exchange %llu, as in mpo doctor; the rest is for MPI and %s.\n",
           mpo_text_megabytes_up(node->program_bytes),
           mpo_text_megabytes_up(node->weights_bytes),
           mpo_text_megabytes_up(node->cache_bytes),
           mpo_text_megabytes_up(node->work_bytes),
           mpo_text_megabytes_up(node->exchange_bytes),
           launch->serves ? "requests" : "the record");
}

/* Days, hours and minutes, rounded up. */
static void print_derived_limit(const struct launch *launch)
{
    char reason[REASON_BYTES] = "";
    const struct mpo_config *config = launch->config;
    long long minutes = (long long)(launch->limit_seconds + 59) / 60;
    snprintf(reason, sizeof reason,
             "%lld steps x %g s + %d %%, %d s to load, %d s of signal",
             (long long)config->descent.steps, config->launch.seconds_per_step,
             LAUNCH_MARGIN_PERCENT, LAUNCH_SETUP_SECONDS, launch->signal_seconds);
    print_option(reason, "time=%lld-%02lld:%02lld:00", minutes / 1440, minutes / 60 % 24,
                 minutes % 60);
}

static const char *reason_for_signal(const struct launch *launch)
{
    if (launch->serves)
        return "seconds before the end: 2 x serve.drain, at least 120";
    return launch->signal_seconds > LAUNCH_SIGNAL_SECONDS
               ? "seconds before the end: 2 x launch.seconds_per_step"
               : "seconds before the end: more than the longest step takes";
}

static void print_time(const struct launch *launch)
{
    const struct mpo_config_launch *options = &launch->config->launch;
    if (launch->limit_seconds > 0)
        print_derived_limit(launch);
    else if (!mpo_is_auto(options->time))
        print_option("of each piece: launch.time", "time=%s", options->time);
    else if (launch->serves)
        print_option("of each piece, as in launch/serve.sbatch", "time=08:00:00");
    else
        print_option("of each piece, as in launch/resume.sbatch", "time=04:00:00");
    print_option(reason_for_signal(launch), "signal=B:USR1@%d", launch->signal_seconds);
}

static void print_options(const struct launch *launch)
{
    const struct mpo_config_launch *options = &launch->config->launch;
    print_option("", "job-name=mpo%s", launch->serves ? "-serve" : "");
    if (options->partition[0] != '\0')
        print_option("launch.partition", "partition=%s", options->partition);
    if (options->account[0] != '\0')
        print_option("launch.account", "account=%s", options->account);
    print_size(launch);
    print_memory(launch);
    print_time(launch);
    print_option("also after preemption or when a node is lost", "requeue");
    print_option("all pieces in one file", "open-mode=append");
    print_option("job name and number", "output=%%x-%%j.%s",
                 launch->serves ? "log" : "out");
}

/* ---- the command ---- */

/* As the shell reads it back. */
static void print_quoted(const char *text)
{
    if (text[0] != '\0' && strspn(text, LAUNCH_WORD_LETTERS) == strlen(text)) {
        fputs(text, stdout);
        return;
    }
    putchar('\'');
    for (; *text != '\0'; text++)
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*text);
    putchar('\'');
}

/* The batch script of servers draws a key, and names the files. */
static void print_command_of_serve(void)
{
    printf("set -euo pipefail\n\n"
           "# exec: Slurm sends the signal to this process.\n"
           "exec bash \"${MPO_HOME:-$SLURM_SUBMIT_DIR}/launch/serve.sbatch\" \\\n"
           "    --run.threads=\"$SLURM_CPUS_PER_TASK\" \\\n    ");
}

static void print_command_of_fit(const struct launch *launch)
{
    printf("set -euo pipefail\n\n"
           "# shellcheck source=launch/env.sh\n"
           ". \"${MPO_HOME:-$SLURM_SUBMIT_DIR}/launch/env.sh\"\n"
           "# exec: Slurm sends the signal to this process.\n"
           "exec \"$MPO_HOME/launch/requeue.sh\" srun \"${srun_options[@]}\"%s \\\n"
           "    \"${mpo[@]}\" fit --resume --run.threads=\"$SLURM_CPUS_PER_TASK\" \\\n    ",
           launch->node_count > 1 ? " --distribution=block" : "");
}

static void print_command(const struct launch *launch)
{
    if (launch->serves)
        print_command_of_serve();
    else
        print_command_of_fit(launch);
    print_quoted(launch->config_path);
    for (int32_t i = 0; i < launch->flags.count; i++) {
        putchar(' ');
        print_quoted(launch->flags.text[i]);
    }
    printf(" \"$@\"\n");
}

void launch_print(const struct launch *launch)
{
    if (launch->serves)
        print_head_of_serve(launch);
    else
        print_head(launch);
    print_options(launch);
    print_command(launch);
}
