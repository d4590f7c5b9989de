/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect --follow: a running record as it grows.
 *
 * The record is polled five times per second. Each poll checks whether a run is
 * writing before it counts the steps, so no step is missed when the run ends. Only
 * new steps are read.
 */
#include "inspect_impl.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "commands/report/log.h"
#include "commands/report/output.h"

#define LOOK_NANOS 200000000L

static volatile sig_atomic_t interrupted;

static void note_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static enum mpo_status print_new(struct inspect *inspect, int64_t *printed,
                                 const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    const int64_t steps = mpo_record_step_count(inspect->record);
    if (steps > *printed) {
        MPO_TRY(inspect_load(inspect, *printed, steps - *printed));
        inspect_print_tsv_steps(inspect, request, stdout);
        *printed = steps;
    }
    MPO_TRY(output_flush());
cleanup:
    return status;
}

static void say_end(const struct inspect *inspect, int64_t steps)
{
    const char *state = inspect_state(inspect);
    if (strcmp(state, "stopped") == 0)
        mpo_log_note(
            "%s was stopped after %lld of %lld steps; `mpo fit --resume` continues it",
            inspect->path, (long long)steps, (long long)inspect->plan.steps);
    else if (strcmp(state, "finished") == 0)
        mpo_log_note("%s is finished: %lld steps", inspect->path, (long long)steps);
    else if (strcmp(state, "extended") == 0)
        mpo_log_note("%s was extended to %lld steps and is closed", inspect->path,
                     (long long)steps);
    else
        mpo_log_note("%s was left by a crash after %lld steps; `mpo recover %s` makes a "
                     "closed copy",
                     inspect->path, (long long)steps, inspect->path);
}

enum mpo_status inspect_follow(const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    struct inspect inspect = {0};
    struct sigaction before;
    const struct sigaction action = {.sa_handler = note_interrupt};
    const struct timespec pause = {.tv_nsec = LOOK_NANOS};
    int64_t printed = 0;
    interrupted = 0;
    sigaction(SIGINT, &action, &before);
    MPO_TRY(inspect_open(request->path, &inspect));
    MPO_TRY(inspect_check_series(&inspect, request));
    inspect_print_tsv_head(&inspect, request, stdout);
    MPO_TRY(print_new(&inspect, &printed, request));
    while (!interrupted && mpo_record_is_live(inspect.record)) {
        nanosleep(&pause, NULL);
        MPO_TRY(mpo_record_refresh(inspect.record));
        MPO_TRY(print_new(&inspect, &printed, request));
    }
    if (!interrupted)
        say_end(&inspect, printed);
cleanup:
    sigaction(SIGINT, &before, NULL);
    inspect_close(&inspect);
    return status;
}
