/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mpo COMMAND ...: start MPI, run the command, stop MPI.
 */
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/stop.h"
#include "commands/commands.h"
#include "base/spelling.h"
#include "mpo/comm.h"
#include "mpo/policy.h"
#include "commands/report/log.h"
#include "commands/report/output.h"

/* mpo COMMAND ... --help is mpo help COMMAND. */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

/* The command that argv names; --help and --version are help and version. */
static const struct mpo_command *choose_command(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return mpo_command_find("help");
    if (strcmp(argv[1], "--version") == 0)
        return mpo_command_find("version");
    return mpo_command_find(argc > 2 && asks_for_help(argc, argv) ? "help" : argv[1]);
}

/* What a chat template may nest (src/policy/llama/jinja.cpp) takes 3 MB, all else 0.1 MB, and
 * the engine's threads have as much as this one. Beyond it the process ends by SIGSEGV. */
#define STACK_MIN ((rlim_t)4 << 20)

/* The log takes more than what may be left. */
static bool has_stack(void)
{
    struct rlimit stack = {0};
    if (getrlimit(RLIMIT_STACK, &stack) != 0 || stack.rlim_cur >= STACK_MIN)
        return true;
    dprintf(STDERR_FILENO,
            "mpo: expected a stack of %llu kB or more, found a limit of %llu kB; raise it "
            "(ulimit -s 8192)\n",
            (unsigned long long)STACK_MIN >> 10, (unsigned long long)stack.rlim_cur >> 10);
    return false;
}

/* Of a limit of address space malloc reserves 64 MB for each thread that finds as much left when
 * it first asks, which threads of MPI do by luck: a job fitted or not from run to run. */
static void share_arena(void)
{
    struct rlimit space = {0};
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
        mallopt(M_ARENA_MAX, 1);
}

static enum mpo_status run_with_ranks(const struct mpo_command *command, int argc,
                                      char **argv)
{
    if (!has_stack())
        return MPO_ERR_MEMORY;
    share_arena();
    mpo_policies_guard_begin(); /* not safe once MPI is up */
    enum mpo_status status = mpo_comm_start(&argc, &argv);
    if (status != MPO_OK)
        goto cleanup;
    if (mpo_comm_job_rank() != 0)
        mpo_log_silence();
    status = command->run(argc - 2, argv + 2);
    mpo_comm_stop();
cleanup:
    mpo_policies_guard_end();
    return status;
}

/* A command of one process under a launcher of several: all would print, and write one file. */
static enum mpo_status run_once(const struct mpo_command *command, int argc, char **argv)
{
    /* Of mpo COMMAND ... --help only the command is left. */
    bool asks = asks_for_help(argc, argv);
    int first = argc < 2 ? argc : asks ? 1 : 2;
    int32_t ranks = 1;
    if (mpo_comm_launched_rank(&ranks) > 0)
        return MPO_OK;
    if (ranks > 1)
        mpo_log_warning("%s runs in one process: rank 0 does, and the other %d end at once",
                        command->name, ranks - 1);
    enum mpo_status status = command->run(asks ? 1 : argc - first, argv + first);
    if (status != MPO_OK)
        mpo_report_failure(MPO_REPORT_ERROR, status, mpo_error_text(), mpo_error_trace());
    return status;
}

/* With the command that may have been meant: one that begins so, or the nearest. */
static void refuse_command(const char *typed)
{
    const char *meant = NULL;
    size_t least = SIZE_MAX;
    for (const struct mpo_command *command = mpo_commands; command->name != NULL;
         command++) {
        bool begins = strncmp(command->name, typed, strlen(typed)) == 0;
        size_t distance = begins ? 0 : mpo_spelling_distance(typed, command->name);
        if (distance < least && mpo_spelling_is_near(command->name, distance)) {
            least = distance;
            meant = command->name;
        }
    }
    mpo_log_error("no command '%s'%s%s%s; `mpo help` lists the commands", typed,
                  meant != NULL ? "; did you mean " : "", meant != NULL ? meant : "",
                  meant != NULL ? "?" : "");
}

int main(int argc, char **argv)
{
    const struct mpo_command *command = choose_command(argc, argv);
    if (command == NULL) {
        refuse_command(argv[1]);
        return mpo_status_exit_code(MPO_ERR_USAGE);
    }
    enum mpo_status status = MPO_OK;
    if (command->stop != NULL)
        mpo_stop_catch(); /* set-up takes time, and the code of a stop is a promise */
    output_begin();
    mpo_log_listen();
    if (command->needs_ranks)
        status = run_with_ranks(command, argc, argv);
    else
        status = run_once(command, argc, argv);
    enum mpo_status printed = output_flush();
    if (printed != MPO_OK && status == MPO_OK) {
        mpo_log_error("%s", mpo_error_text());
        status = printed;
    }
    return mpo_status_exit_code(status);
}
