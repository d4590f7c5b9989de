/* SPDX-License-Identifier: Apache-2.0 */
// The headers in C++, those of the tables of variants too.
#include <cstdio>

#include <mpo/mpo.h>

#include <mpo/backend/descent_ops.h>
#include <mpo/backend/exchange_ops.h>
#include <mpo/backend/mixture_ops.h>
#include <mpo/backend/policy_ops.h>

int main()
{
    std::printf("%s %s\n", mpo_version(), mpo_status_sentence(MPO_OK));
    return mpo_status_exit_code(MPO_ERR_CONFIG) == 78 ? 0 : 1;
}
