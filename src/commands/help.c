/*
 * help and version. Everything about options comes from the options list.
 */
#include <stdio.h>
#include <string.h>

#include "build_info.h"
#include "commands.h"
#include "mpo/config.h"
#include "mpo/device.h"
#include "mpo/policy.h"
#include "mpo/record.h"

static void print_overview(void)
{
    printf(
        "mpo mixes language models that were each aligned to one objective into one\n"
        "balanced policy, by mirror descent on the weights of their log-linear mixture.\n\n"
        "usage: mpo COMMAND [ARGUMENTS]\n\ncommands:\n");
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        printf("  %-10s %s\n", command->name, command->sentence);
    printf("\n`mpo help COMMAND` prints a command's arguments and options;\n"
           "`mpo help --reference` prints a configuration with every option.\n\n"
           "exit codes:\n");
    for (int status = 0; status < MPO_STATUS_COUNT; status++)
        printf("  %3d  %s\n", mpo_status_exit_code((enum mpo_status)status),
               mpo_status_sentence((enum mpo_status)status));
}

enum mpo_status mpo_command_help(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    if (argc == 0) {
        print_overview();
        return MPO_OK;
    }
    if (strcmp(argv[0], "--reference") == 0)
        return mpo_config_print_reference(stdout);
    const struct mpo_command *command = mpo_command_find(argv[0]);
    MPO_CHECK(command != NULL, MPO_ERR_USAGE,
              "no command '%s'; `mpo help` lists the commands", argv[0]);
    printf("mpo %s: %s\n\nusage: mpo %s %s\n", command->name, command->sentence,
           command->name, command->usage);
    if (command->needs_ranks) {
        printf("\n");
        mpo_config_print_options(stdout, command->name);
    }
cleanup:
    return status;
}

enum mpo_status mpo_command_version(int argc, char *const *argv)
{
    char mpi[256] = "";
    (void)argc;
    (void)argv;
    mpo_comm_library_version(mpi, sizeof mpi);
    printf("mpo %s (%s)\n", MPO_VERSION, MPO_GIT_COMMIT);
    printf("devices   %s\n", mpo_device_built());
    printf("policies  %s\n", mpo_policy_kinds_built());
    printf("libllama  %s\n", mpo_policy_engine_version());
    printf("MPI       %s\n", mpi);
    printf("HDF5      %s\n", mpo_record_library_version());
    printf("compiler  %s\n", MPO_COMPILER);
    return MPO_OK;
}
