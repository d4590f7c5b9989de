/* SPDX-License-Identifier: Apache-2.0 */
// The headers in C++.
#include <cstdio>

#include <mpo/mpo.h>

int main()
{
    std::printf("%s %s\n", mpo_version(), mpo_status_sentence(MPO_OK));
    return mpo_status_exit_code(MPO_ERR_CONFIG) == 78 ? 0 : 1;
}
