/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config: what a command would take of a configuration file and flags, defaults included.
 *
 * The output reads back to the same configuration. Paths are those that mpo opens, seen from
 * the working directory, so that is where a copy belongs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"

enum mpo_status mpo_command_config(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config *config = NULL;
    char *text = NULL;
    MPO_TRY(mpo_config_open("config", argc, argv, &config));
    for (int i = 0; i < argc; i++)
        MPO_CHECK(*config->config.get != '\0' || strncmp(argv[i], "--get", 5) != 0,
                  MPO_ERR_USAGE,
                  "--get: expected a key such as run.seed, or policies, found none");
    if (*config->config.get != '\0')
        MPO_TRY(mpo_config_get(config, config->config.get, &text));
    else
        MPO_TRY(mpo_config_print(config, &text));
    fputs(text, stdout); /* main sees whether it went out */
cleanup:
    free(text);
    mpo_config_close(&config);
    return status;
}
