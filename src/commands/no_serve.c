/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve in a build without what serves over HTTP.
 */
#include "commands/commands.h"

#include "mpo/comm.h"

enum mpo_status mpo_command_serve(int argc, char *const *argv)
{
    (void)argc;
    (void)argv;
    return mpo_comm_agree(
        mpo_error_raise(MPO_ERR_USAGE, __FILE__, __LINE__,
                        "this build cannot serve; build it with -DMPO_HTTP=ON "
                        "(launch/setup.sh installs what it needs)"));
}
