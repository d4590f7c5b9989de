/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve: an OpenAI-compatible HTTP server of the mixture. Its options are read; the server
 * is not built yet.
 */
#include "commands/commands.h"
#include "mpo/comm.h"

enum mpo_status mpo_command_serve(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config *config = NULL;
    MPO_TRY(mpo_command_configure("serve", argc, argv, &config));
    status = mpo_error_raise(MPO_ERR_USAGE, __FILE__, __LINE__,
                             "serve is not built yet; generate draws from the mixture");
    MPO_TRY(mpo_comm_agree(status));
cleanup:
    mpo_config_close(&config);
    return status;
}
