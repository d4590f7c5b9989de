/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What fit prints about a fit.
 */
#pragma once

#include <jansson.h>

#include "mpo/fit.h"

#include "commands/report/progress.h"
#include "session/parts.h"

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

/** [K] numbers by the names of their objectives. */
json_t *fit_numbers_json(const struct fit *fit, const double *numbers);

/* ---- of rewards (rewards.c), nothing without a reward program. Rank zero only ---- */

#define REWARDS_SHOWN_MAX  8
#define REWARDS_TEXT_BYTES 256

/** "  reward 0.31 -12" of the last step, for its line; "" without a program. */
void fit_format_rewards(const struct mpo_fit *run, int32_t count, char *text, size_t bytes);

/** A table, and warnings, at the end. */
void fit_print_rewards(const struct fit *fit);
void fit_warn_of_rewards(const struct fit *fit);

/** The same numbers; NULL without a program. */
json_t *fit_rewards_json(const struct fit *fit);
