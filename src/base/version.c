/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this build is, for programs that use the library.
 */
#include "mpo/version.h"

#include "build_info.h"

const char *mpo_version(void)
{
    return MPO_VERSION;
}

const char *mpo_version_commit(void)
{
    return MPO_GIT_COMMIT;
}
