/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve in a build without what serves over HTTP.
 */
#include "commands/commands.h"

#include "mpo/comm.h"

static enum mpo_status refuse_to_serve(void)
{
    return mpo_error_raise(MPO_ERR_USAGE, __FILE__, __LINE__,
                           "this build cannot serve; build it with -DMPO_HTTP=ON "
                           "(launch/setup.sh installs what it needs)");
}

enum mpo_status mpo_command_serve(int argc, char *const *argv)
{
    (void)argc;
    (void)argv;
    return mpo_comm_agree(refuse_to_serve());
}

enum mpo_status mpo_command_size_serve(const struct mpo_config *config,
                                       struct mpo_session_size *size)
{
    (void)config;
    (void)size;
    return refuse_to_serve();
}

enum mpo_status mpo_command_check_models(const struct mpo_session *session)
{
    (void)session;
    return refuse_to_serve();
}
