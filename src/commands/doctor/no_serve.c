/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A build that cannot serve refuses doctor --serve before any of these is called.
 */
#include "doctor_impl.h"

void doctor_examine_server(struct doctor *doctor)
{
    (void)doctor;
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
