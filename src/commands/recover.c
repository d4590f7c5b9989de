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

static void print_recovery(const char *path, const char *output,
                           const struct mpo_record_recovery *recovery)
{
    printf("record         %s, of a killed run; unchanged\n", path);
    printf("recovered      %s, finished\n", output);
    printf("steps          %lld kept, all acknowledged ones",
           (long long)recovery->step_count);
    print_surplus(recovery->surplus_steps);
    printf("\nresponses      %lld kept", (long long)recovery->response_count);
    print_surplus(recovery->surplus_responses);
    printf("\n");
}

static enum mpo_status print_json(const char *path, const char *output,
                                  const struct mpo_record_recovery *recovery)
{
    enum mpo_status status = MPO_OK;
    json_t *root = json_pack("{s:s, s:s?, s:b, s:I, s:I, s:I, s:I}", "record", path,
                             "recovered", recovery->repaired ? output : NULL, "repaired",
                             recovery->repaired, "steps", (json_int_t)recovery->step_count,
                             "responses", (json_int_t)recovery->response_count,
                             "surplus_steps", (json_int_t)recovery->surplus_steps,
                             "surplus_responses", (json_int_t)recovery->surplus_responses);
    MPO_TRY(output_json(root));
cleanup:
    return status;
}

enum mpo_status mpo_command_recover(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_recovery recovery = {0};
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
    if (config->recover.format == MPO_REPORT_JSON)
        MPO_TRY(print_json(path, output, &recovery));
    else if (recovery.repaired)
        print_recovery(path, output, &recovery);
    else
        printf("%s is finished (%lld steps): it needs no repair, and no copy was made\n",
               path, (long long)recovery.step_count);
    MPO_TRY(output_flush());
cleanup:
    free(made);
    mpo_config_close(&config);
    return status;
}
