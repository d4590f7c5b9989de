/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The sub-commands: each has a file or folder and one row of the table in commands.c.
 */
#pragma once

#include <stdbool.h>

#include "mpo/config.h"
#include "mpo/session.h"
#include "mpo/status.h"

struct mpo_command {
    const char *name;
    const char *sentence;
    /** What may follow the name; one form per line. */
    const char *usage;
    /** What follows the command's name. */
    enum mpo_status (*run)(int argc, char *const *argv);
    /** True: MPI is up, and the command passes every failure to mpo_comm_agree. */
    bool needs_ranks;
    /** A line that answers the first signal, after which the command ends by itself; NULL: it
     *  writes nothing, and ends at once. */
    const char *stop;
};

/** The table, ended by a row without a name. */
extern const struct mpo_command mpo_commands[];

/** NULL when there is no such command. */
const struct mpo_command *mpo_command_find(const char *name);

/** The configuration of a command with ranks: the same on all of them, --quiet obeyed, and
 *  requests to stop answered from now on (main heeds them from the first). Collective over all ranks; failures are agreed on. */
enum mpo_status mpo_command_configure(const char *command, int argc, char *const *argv,
                                      struct mpo_config **config);

/** Warn of shared options that were given and change nothing in the command; the two functions
 *  beside this one do so. Local.
 *
 *  @param asking  the command whose options are none of `command` but have an effect, such as
 *                 launch of `launch --serve`; "": none */
void mpo_command_tell_idle(const struct mpo_config *config, const char *command,
                           const char *asking);

/** Read the flags of a command without a configuration and apply --quiet; *config is owned
 * by the caller. */
enum mpo_status mpo_command_read_flags(const char *command, int argc, char *const *argv,
                                       struct mpo_config_arguments *arguments,
                                       struct mpo_config **config);

/** The same for a command that takes one record; *path is borrowed from argv. */
enum mpo_status mpo_command_read_record(const char *command, int argc, char *const *argv,
                                        const char **path, struct mpo_config **config);

/** How large a session serve opens. Local. @return MPO_ERR_USAGE in a build that cannot serve */
enum mpo_status mpo_command_size_serve(const struct mpo_config *config,
                                       struct mpo_session_size *size);

/** Whether serve would find all its models; those of records are not compared with the
 *  policies where none are open. Collective; failures are agreed on. */
enum mpo_status mpo_command_check_models(const struct mpo_session *session);

enum mpo_status mpo_command_fit(int argc, char *const *argv);
enum mpo_status mpo_command_generate(int argc, char *const *argv);
enum mpo_status mpo_command_score(int argc, char *const *argv);
enum mpo_status mpo_command_evaluate(int argc, char *const *argv);
enum mpo_status mpo_command_serve(int argc, char *const *argv);
enum mpo_status mpo_command_doctor(int argc, char *const *argv);
enum mpo_status mpo_command_launch(int argc, char *const *argv);
enum mpo_status mpo_command_prompt(int argc, char *const *argv);
enum mpo_status mpo_command_config(int argc, char *const *argv);
enum mpo_status mpo_command_inspect(int argc, char *const *argv);
enum mpo_status mpo_command_recover(int argc, char *const *argv);
enum mpo_status mpo_command_refit(int argc, char *const *argv);
enum mpo_status mpo_command_export(int argc, char *const *argv);
enum mpo_status mpo_command_help(int argc, char *const *argv);
enum mpo_status mpo_command_version(int argc, char *const *argv);
