/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What fit prints about a fit.
 */
#pragma once

#include "mpo/fit.h"

#include "commands/report/progress.h"
#include "session/session_impl.h"

struct fit {
    struct mpo_config *config;
    struct mpo_session *session;
    struct mpo_fit *run;
    struct progress progress; /* rank zero only */
};

/** Messages at the start, after a step (a monitor of mpo/fit.h) and at the end. Rank zero
 *  only, except the stage table, which is collective. */
void fit_report_start(struct fit *fit);
void fit_report_step(void *argument, const struct mpo_fit *run,
                     const struct mpo_estimate *estimate);
enum mpo_status fit_report_stages(const struct fit *fit);
enum mpo_status fit_report_end(const struct fit *fit);
