/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect: a record for a person (summary, samples, two of them compared), for scripts
 * (tsv, json), as it grows, or as a plot.
 *
 * Everything is read before anything is printed, so an unreadable record prints nothing on
 * standard output.
 */
#include "inspect_impl.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"
#include "commands/report/log.h"
#include "commands/report/output.h"

/* ---- command line ---- */

static enum mpo_status want_series(const char *list, struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    const char *name = list;
    memset(request->wanted, 0, sizeof request->wanted);
    request->chosen = true;
    while (true) {
        const size_t length = strcspn(name, ",");
        int32_t i = 0;
        while (i < INSPECT_FIELD_COUNT &&
               (strlen(mpo_record_field(i)->path) != length ||
                strncmp(mpo_record_field(i)->path, name, length)))
            i++;
        MPO_CHECK(
            i < INSPECT_FIELD_COUNT, MPO_ERR_USAGE,
            "--series: expected the name of a series, found '%.*s'; mpo inspect --schema "
            "lists them",
            (int)length, name);
        request->wanted[i] = true;
        if (name[length] == '\0')
            break;
        name += length + 1;
    }
cleanup:
    return status;
}

/* Refuse options that would be silently ignored. */
static enum mpo_status check_combination(const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    const enum mpo_inspect_format format = request->format;
    const bool is_auto = format == MPO_INSPECT_AUTO;
    const int views = request->follow + request->compare + (request->responses > 0);
    MPO_CHECK(views <= 1 && !(views > 0 && request->plot != NULL), MPO_ERR_USAGE,
              "choose one of --follow, --compare, --responses and --plot");
    MPO_CHECK(!request->follow || is_auto || format == MPO_INSPECT_TSV, MPO_ERR_USAGE,
              "--follow: expected --format=tsv, found %s", mpo_inspect_format_name(format));
    MPO_CHECK(!(request->compare || request->schema) || is_auto ||
                  format == MPO_INSPECT_TEXT,
              MPO_ERR_USAGE, "--%s: expected --format=text, found %s",
              request->compare ? "compare" : "schema", mpo_inspect_format_name(format));
    MPO_CHECK(request->responses == 0 || format != MPO_INSPECT_TSV, MPO_ERR_USAGE,
              "--responses: expected --format=text or json, found tsv");
    MPO_CHECK(!request->chosen || request->follow ||
                  (!is_auto && format != MPO_INSPECT_TEXT),
              MPO_ERR_USAGE, "--series: needs --format=tsv, --format=json or --follow");
    MPO_CHECK(!request->chosen || request->responses == 0, MPO_ERR_USAGE,
              "--series: chooses series of the trajectory, which --responses does not "
              "print; leave one of them out");
cleanup:
    return status;
}

static enum mpo_status read_request(const struct mpo_config_inspect *options,
                                    const struct mpo_config_arguments *arguments,
                                    struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    const int count = arguments->count;
    *request = (struct inspect_request){
        .path = arguments->text[0],
        .other = arguments->text[1],
        .format = options->format,
        .plot = *options->plot == '\0' ? NULL : options->plot,
        .schema = options->schema,
        .follow = options->follow,
        .compare = options->compare,
        .responses = options->responses,
    };
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++)
        request->wanted[i] = true;
    if (*options->series != '\0')
        MPO_TRY(want_series(options->series, request));
    MPO_CHECK(!request->compare || count == 2, MPO_ERR_USAGE,
              "--compare: expected two records, found %d; see mpo help inspect", count);
    bool asks_for_record =
        request->follow || request->responses > 0 || request->plot != NULL;
    MPO_CHECK(request->compare || count == 1 ||
                  (count == 0 && request->schema && !asks_for_record),
              MPO_ERR_USAGE, "expected one record, found %d; see mpo help inspect", count);
    MPO_TRY(check_combination(request));
cleanup:
    return status;
}

/* ---- the command ---- */

static enum mpo_status show_record(const struct inspect *inspect,
                                   const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(inspect_check_series(inspect, request));
    if (request->responses > 0) {
        MPO_TRY(inspect_print_responses(inspect, request));
        goto cleanup;
    }
    if (request->plot != NULL) {
        MPO_TRY(inspect_plot(inspect, request->plot));
        if (request->format == MPO_INSPECT_AUTO)
            goto cleanup;
    }
    if (request->format == MPO_INSPECT_TSV) {
        inspect_print_tsv_head(inspect, request, stdout);
        inspect_print_tsv_steps(inspect, request, stdout);
    } else if (request->format == MPO_INSPECT_JSON) {
        MPO_TRY(inspect_print_json(inspect, request));
    } else {
        inspect_print_summary(inspect);
    }
cleanup:
    return status;
}

static enum mpo_status show_whole(const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    struct inspect inspect = {0};
    MPO_TRY(inspect_open_whole(request->path, &inspect));
    MPO_TRY(show_record(&inspect, request));
cleanup:
    inspect_close(&inspect);
    return status;
}

enum mpo_status mpo_command_inspect(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct inspect_request request = {0};
    struct mpo_config_arguments arguments = {0};
    struct mpo_config *config = NULL;
    MPO_TRY(mpo_command_read_flags("inspect", argc, argv, &arguments, &config));
    MPO_TRY(read_request(&config->inspect, &arguments, &request));
    if (request.schema)
        inspect_print_schema();
    if (request.compare)
        MPO_TRY(inspect_compare(&request));
    else if (request.follow)
        MPO_TRY(inspect_follow(&request));
    else if (request.path != NULL)
        MPO_TRY(show_whole(&request));
    MPO_TRY(output_flush());
cleanup:
    mpo_config_close(&config);
    return status;
}
