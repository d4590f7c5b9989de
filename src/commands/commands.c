/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of sub-commands.
 */
#include "commands.h"

#include <stddef.h>
#include <string.h>

#include "base/stop.h"
#include "mpo/comm.h"
#include "commands/report/log.h"
#include "session/parts.h"

/* What the first signal is answered with. */
#define AFTER_STEP     "stopping after this step; again to leave now\n"
#define AFTER_REQUESTS "finishing the running requests; again to leave now\n"
#define AT_TOKEN       "stopping at the next token; again to leave now\n"

const struct mpo_command mpo_commands[] = {
    {"fit", "find the weights and write the record", "CONFIG [--section.key=value ...]",
     mpo_command_fit, true, AFTER_STEP},
    {"generate", "draw responses from the mixture",
     "CONFIG [--weights=WEIGHTS] [--prompt=TEXT] [--n=N] [...]", mpo_command_generate, true,
     AT_TOKEN},
    {"score", "log-probabilities of given responses under every policy and the mixture",
     "CONFIG --input=FILE.jsonl [--weights=WEIGHTS] [--pairs] [...]", mpo_command_score,
     true, AT_TOKEN},
    {"evaluate", "F, gap and divergences at given weights, with confidence intervals",
     "CONFIG [--weights=WEIGHTS] [--against=\"W;W\"] [...]", mpo_command_evaluate, true,
     AT_TOKEN},
    {"serve", "answer OpenAI-compatible HTTP requests with the mixture",
     "CONFIG [--weights=WEIGHTS] [--port=PORT] [...]", mpo_command_serve, true,
     AFTER_REQUESTS},
    {"doctor", "run the checks of fit or serve on every rank, without loading weights",
     "CONFIG [--section.key=value ...]\nCONFIG --serve [--port=PORT] [...]",
     mpo_command_doctor, true, NULL},
    {"launch", "print a Slurm batch script for fit or serve, with the resources it needs",
     "CONFIG [--groups=N] [--ranks-per-node=N] [--time=TIME] [...]\n"
     "CONFIG --serve [--rows=N] [...]",
     mpo_command_launch, false, NULL},
    {"prompt", "print a prompt as each policy gets it",
     "CONFIG [--index=N] [--format=FORMAT] [--section.key=value ...]", mpo_command_prompt,
     false, NULL},
    {"config", "print the resolved configuration, or one key of it",
     "CONFIG [--get=KEY] [--section.key=value ...]", mpo_command_config, false, NULL},
    {"inspect", "print or plot a record",
     "RECORD [--format=FORMAT] [--plot=FILE.svg] [--series=NAMES]\n"
     "RECORD --follow [--series=NAMES]\n"
     "RECORD --responses=N [--format=json]\n"
     "RECORD RECORD --compare\n"
     "--schema",
     mpo_command_inspect, false, NULL},
    {"recover", "repair the record of a killed run, in a copy", "RECORD [--output=FILE.h5]",
     mpo_command_recover, false, NULL},
    {"refit", "fit again from a record's responses, without a model",
     "RECORD [--objectives=A,B] [--min=A=0.1] [--max=A=0.6] [...]\n"
     "RECORD --frontier=N [--plot=FILE.svg] [...]\n"
     "RECORD --rewards=FILE [--goal=GOAL] [--floor=A=0.1] [...]",
     mpo_command_refit, false, NULL},
    {"export", "write a record of adapters as one LoRA adapter for other programs",
     "RECORD [--output=FILE.gguf] [--step=N] [...]", mpo_command_export, false, NULL},
    {"help", "print help, the manual, shell completion or a reference configuration",
     "[COMMAND]\n--reference\n--man\n--completion=bash\n--ranks", mpo_command_help, false,
     NULL},
    {"version", "print versions and built-in features", "[--format=FORMAT]",
     mpo_command_version, false, NULL},
    {NULL, NULL, NULL, NULL, false, NULL},
};

const struct mpo_command *mpo_command_find(const char *name)
{
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

/* The options of a command that asks for another one are its own all the same. */
static void tell_idle(void *context, const char *key, const char *why)
{
    const char *asking = context;
    size_t length = strcspn(key, ".");
    if (strlen(asking) != length || strncmp(key, asking, length) != 0)
        mpo_log_warning("%s has no effect here: %s", key, why);
}

void mpo_command_tell_idle(const struct mpo_config *config, const char *command,
                           const char *asking)
{
    mpo_config_visit_idle(config, command, tell_idle, (void *)(uintptr_t)asking);
}

enum mpo_status mpo_command_configure(const char *command, int argc, char *const *argv,
                                      struct mpo_config **config)
{
    enum mpo_status status = MPO_OK;
    if (mpo_comm_job_rank() == 0)
        mpo_stop_say(mpo_command_find(command)->stop);
    MPO_TRY(mpo_session_configure(command, argc, argv, config));
    if (mpo_config_is_quiet(*config, command))
        mpo_log_quiet();
    mpo_command_tell_idle(*config, command, "");
cleanup:
    return status;
}

enum mpo_status mpo_command_read_flags(const char *command, int argc, char *const *argv,
                                       struct mpo_config_arguments *arguments,
                                       struct mpo_config **config)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_config_open_flags(command, argc, argv, arguments, config));
    if (mpo_config_is_quiet(*config, command))
        mpo_log_quiet();
    mpo_command_tell_idle(*config, command, "");
cleanup:
    return status;
}

enum mpo_status mpo_command_read_record(const char *command, int argc, char *const *argv,
                                        const char **path, struct mpo_config **config)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_arguments arguments = {0};
    MPO_TRY(mpo_command_read_flags(command, argc, argv, &arguments, config));
    MPO_CHECK(arguments.count == 1, MPO_ERR_USAGE,
              "expected one record, found %d; see mpo help %s", arguments.count, command);
    *path = arguments.text[0];
cleanup:
    return status;
}
