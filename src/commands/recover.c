/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recover: repair the record of a killed run, in a copy.
 *
 * Standard output says what was kept. A record that needs no repair is not a failure: a
 * message says so, and no copy is made.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "base/memory.h"
#include "base/text.h"
#include "mpo/fit.h"
#include "mpo/record.h"
#include "commands/report/output.h"

#define SUFFIX     ".h5"
#define NEW_SUFFIX ".recovered.h5"

/* run.h5 becomes run.recovered.h5; *out is owned. */
static enum mpo_status default_output(const char *path, char **out)
{
    enum mpo_status status = MPO_OK;
    size_t stem = strlen(path);
    const size_t bytes = stem + sizeof NEW_SUFFIX;
    if (stem > strlen(SUFFIX) && strcmp(path + stem - strlen(SUFFIX), SUFFIX) == 0)
        stem -= strlen(SUFFIX);
    MPO_NEW(bytes, out);
    snprintf(*out, bytes, "%.*s%s", (int)stem, path, NEW_SUFFIX);
cleanup:
    return status;
}

static void print_surplus(int64_t rows)
{
    if (rows > 0)
        printf("; left out %lld row%s of an unacknowledged step", (long long)rows,
               mpo_text_plural(rows));
}

/* How far the run of a closed record has come. */
struct progress_of_run {
    const char *state;
    int64_t planned_steps; /* 0: not known */
};

static enum mpo_status read_progress(const char *path, struct progress_of_run *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    struct mpo_fit_plan plan = {0};
    MPO_TRY(mpo_record_open(path, &record));
    MPO_TRY(mpo_fit_read_plan(record, path, &plan));
    *out = (struct progress_of_run){mpo_fit_state(record, &plan), plan.steps};
cleanup:
    mpo_record_close(&record);
    return status;
}

/* " (`mpo fit --resume` ...)" where steps are left. */
static void print_remedy(const struct progress_of_run *run)
{
    if (strcmp(run->state, "stopped") == 0)
        printf(" (`mpo fit --resume` continues it)");
}

static void print_recovery(const char *path, const char *output,
                           const struct mpo_record_recovery *recovery,
                           const struct progress_of_run *run)
{
    printf("record         %s, of a killed run; unchanged\n", path);
    printf("recovered      %s, %s", output, run->state);
    print_remedy(run);
    printf("\nsteps          %lld kept, all acknowledged ones",
           (long long)recovery->step_count);
    if (run->planned_steps > recovery->step_count)
        printf(" of %lld planned", (long long)run->planned_steps);
    print_surplus(recovery->surplus_steps);
    printf("\nresponses      %lld kept", (long long)recovery->response_count);
    print_surplus(recovery->surplus_responses);
    printf("\n");
}

static void print_whole(const char *path, const struct mpo_record_recovery *recovery,
                        const struct progress_of_run *run)
{
    printf("%s is %s (%lld", path, run->state, (long long)recovery->step_count);
    if (run->planned_steps > recovery->step_count)
        printf(" of %lld", (long long)run->planned_steps);
    printf(" steps): it needs no repair, and no copy was made");
    print_remedy(run);
    printf("\n");
}

static enum mpo_status print_json(const char *path, const char *output,
                                  const struct mpo_record_recovery *recovery,
                                  const struct progress_of_run *run)
{
    enum mpo_status status = MPO_OK;
    json_t *root = json_pack(
        "{s:s, s:s?, s:b, s:s, s:I, s:I, s:I, s:I, s:I}", "record", path, "recovered",
        recovery->repaired ? output : NULL, "repaired", recovery->repaired, "state",
        run->state, "planned_steps", (json_int_t)run->planned_steps, "steps",
        (json_int_t)recovery->step_count, "responses", (json_int_t)recovery->response_count,
        "surplus_steps", (json_int_t)recovery->surplus_steps, "surplus_responses",
        (json_int_t)recovery->surplus_responses);
    MPO_TRY(output_json(root));
cleanup:
    return status;
}

enum mpo_status mpo_command_recover(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_recovery recovery = {0};
    struct progress_of_run run = {0};
    struct mpo_config *config = NULL;
    const char *path = NULL;
    char *made = NULL;
    MPO_TRY(mpo_command_read_record("recover", argc, argv, &path, &config));
    const char *output = config->recover.output;
    if (*output == '\0') {
        MPO_TRY(default_output(path, &made));
        output = made;
    }
    MPO_TRY(mpo_record_recover(path, output, &recovery));
    MPO_TRY(read_progress(recovery.repaired ? output : path, &run));
    if (config->recover.format == MPO_REPORT_JSON)
        MPO_TRY(print_json(path, output, &recovery, &run));
    else if (recovery.repaired)
        print_recovery(path, output, &recovery, &run);
    else
        print_whole(path, &recovery, &run);
    MPO_TRY(output_flush());
cleanup:
    free(made);
    mpo_config_close(&config);
    return status;
}
