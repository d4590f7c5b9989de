/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fit: find the weights. The loop is the library's (mpo/fit.h); this prints what it does.
 */
#include "fit_impl.h"

#include <stdio.h>

#include "commands/commands.h"
#include "session/plan.h"

#define TEXT_BYTES         2048
#define COMMAND_LINE_BYTES 4096

static void format_command_line(int argc, char *const *argv, char line[COMMAND_LINE_BYTES])
{
    size_t length = (size_t)snprintf(line, COMMAND_LINE_BYTES, "mpo fit");
    for (int i = 0; i < argc && length < COMMAND_LINE_BYTES; i++)
        length +=
            (size_t)snprintf(line + length, COMMAND_LINE_BYTES - length, " %s", argv[i]);
}

/* The live line follows the responses of a step while they are drawn. */
static void follow_rollout(void *argument, struct mpo_rollout_step *draw)
{
    struct fit *fit = argument;
    const struct mpo_config_rollout *options = &fit->config->rollout;
    progress_follow(&fit->progress, draw, 1,
                    options->prompts_per_step * options->responses);
}

static enum mpo_status open_fit(struct fit *fit, int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    char line[COMMAND_LINE_BYTES] = "";
    const struct mpo_session_spec session = {.command = "fit", .settings = fit->config};
    struct mpo_fit_spec spec = {
        .command_line = line,
        .monitor = fit_report_step,
        .prepare = follow_rollout,
        .argument = fit,
    };
    format_command_line(argc, argv, line);
    MPO_TRY(mpo_session_open(&session, &fit->session));
    MPO_TRY(mpo_fit_adopt(fit->session, fit->config));
    spec.session = fit->session;
    MPO_TRY(mpo_fit_open(&spec, &fit->run));
cleanup:
    return status;
}

/* The loop, up to its end or a request to stop that all ranks agree on. */
static enum mpo_status run_fit(struct fit *fit)
{
    enum mpo_status status = MPO_OK;
    enum mpo_status ended = MPO_OK;
    char stop[TEXT_BYTES] = "";
    bool is_rank_zero = mpo_comm_job_rank() == 0;
    bool more = true;
    if (is_rank_zero)
        fit_report_start(fit);
    while (more && ended == MPO_OK)
        ended = mpo_fit_step(fit->run, &more);
    progress_end(&fit->progress);
    if (ended != MPO_OK && ended != MPO_REQUEUE)
        return ended;
    snprintf(stop, sizeof stop, "%s", mpo_error_text());
    MPO_TRY(mpo_fit_finish(fit->run));
    MPO_TRY(fit_report_stages(fit));
    if (is_rank_zero)
        MPO_TRY(fit_report_end(fit));
    MPO_CHECK(ended == MPO_OK, MPO_REQUEUE,
              "%s; %s is complete up to there; continue with --resume", stop,
              fit->config->record.file);
cleanup:
    return ended == MPO_REQUEUE ? mpo_comm_agree(status) : status;
}

enum mpo_status mpo_command_fit(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct fit fit = {0};
    MPO_TRY(mpo_command_configure("fit", argc, argv, &fit.config));
    if (!fit.config->fit.resume) /* else the record has a say in it (mpo_fit_adopt) */
        MPO_TRY(mpo_comm_agree(mpo_plan_check_fit(fit.config)));
    MPO_TRY(open_fit(&fit, argc, argv));
    MPO_TRY(run_fit(&fit));
cleanup:
    mpo_fit_close(&fit.run);
    mpo_session_close(&fit.session);
    mpo_config_close(&fit.config);
    return status;
}
