/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor --serve in a build that cannot serve, which is a finding.
 */
#include "doctor_impl.h"

struct mpo_session_size doctor_size_of_serve(const struct mpo_config *config)
{
    return mpo_plan_fit(config);
}

void doctor_examine_server(struct doctor *doctor)
{
    doctor_note(doctor, DOCTOR_server, DOCTOR_PROBLEM, MPO_ERR_USAGE,
                "this build cannot serve; build it with -DMPO_HTTP=ON (launch/setup.sh "
                "fetches what that needs)");
}

enum mpo_status doctor_examine_models(struct doctor *doctor)
{
    (void)doctor;
    return MPO_OK;
}

void doctor_praise_context(struct doctor *doctor)
{
    (void)doctor;
}
