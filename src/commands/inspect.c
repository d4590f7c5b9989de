/*
 * inspect: a record for a person (summary, samples, two of them compared), for scripts
 * (tsv, json), as it grows, or as a plot.
 *
 * Everything is read first and printed then, so that a record that cannot be read prints
 * nothing on standard output.
 */
#include "inspect_impl.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "mpo/log.h"

#define ARGUMENTS_MAX 64
#define RESPONSES_MAX 1000000

/* ---- command line ---- */

static const struct option options[] = {
    {"format", required_argument, NULL, 'f'}, {"plot", required_argument, NULL, 'p'},
    {"schema", no_argument, NULL, 's'},       {"series", required_argument, NULL, 'n'},
    {"follow", no_argument, NULL, 'w'},       {"responses", required_argument, NULL, 'r'},
    {"compare", no_argument, NULL, 'c'},      {NULL, 0, NULL, 0}};

/* getopt_long takes any unique beginning of a name; a script that relies on one breaks when
 * an option is added. */
static enum mpo_status check_name(const char *argument)
{
    enum mpo_status status = MPO_OK;
    const char *name = argument + strlen("--");
    const size_t length = strcspn(name, "=");
    for (const struct option *option = options; option->name != NULL; option++)
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0)
            return MPO_OK;
    MPO_FAIL(MPO_ERR_USAGE, "inspect has no option --%.*s; see mpo help inspect",
             (int)length, name);
cleanup:
    return status;
}

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
        MPO_CHECK(i < INSPECT_FIELD_COUNT, MPO_ERR_USAGE,
                  "a record has no series \"%.*s\"; mpo inspect --schema lists them",
                  (int)length, name);
        request->wanted[i] = true;
        if (name[length] == '\0')
            break;
        name += length + 1;
    }
cleanup:
    return status;
}

static enum mpo_status want_responses(const char *text, struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    char *end = NULL;
    const long count = strtol(text, &end, 10);
    MPO_CHECK(end != text && *end == '\0' && count >= 1 && count <= RESPONSES_MAX,
              MPO_ERR_USAGE, "--responses=%s: expected a number from 1 to %d", text,
              RESPONSES_MAX);
    request->responses = count;
cleanup:
    return status;
}

static enum mpo_status take_option(int letter, const char *argument,
                                   struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    switch (letter) {
    case 'f':
        MPO_CHECK(strcmp(optarg, "summary") == 0 || strcmp(optarg, "tsv") == 0 ||
                      strcmp(optarg, "json") == 0,
                  MPO_ERR_USAGE, "--format=%s: expected summary, tsv or json", optarg);
        request->format = optarg;
        break;
    case 'p':
        request->plot = optarg;
        break;
    case 's':
        request->schema = true;
        break;
    case 'n':
        MPO_TRY(want_series(optarg, request));
        break;
    case 'w':
        request->follow = true;
        break;
    case 'r':
        MPO_TRY(want_responses(optarg, request));
        break;
    case 'c':
        request->compare = true;
        break;
    case ':':
        MPO_FAIL(MPO_ERR_USAGE, "%s needs a value; see mpo help inspect", argument);
    default:
        MPO_FAIL(MPO_ERR_USAGE, "inspect does not understand %s; see mpo help inspect",
                 argument);
    }
cleanup:
    return status;
}

/* What would be ignored silently is refused. */
static enum mpo_status check_combination(const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    const char *format = request->format;
    const int views = request->follow + request->compare + (request->responses > 0);
    MPO_CHECK(views <= 1 && !(views > 0 && request->plot != NULL), MPO_ERR_USAGE,
              "choose one of --follow, --compare, --responses and --plot");
    MPO_CHECK(!request->follow || format == NULL || strcmp(format, "tsv") == 0,
              MPO_ERR_USAGE, "--follow prints tsv, not %s", format);
    MPO_CHECK(!request->compare || format == NULL || strcmp(format, "summary") == 0,
              MPO_ERR_USAGE, "--compare prints a summary, not %s", format);
    MPO_CHECK(request->responses == 0 || format == NULL || strcmp(format, "tsv") != 0,
              MPO_ERR_USAGE, "--responses prints a summary or json, not tsv");
    MPO_CHECK(!request->chosen || request->follow ||
                  (format != NULL && strcmp(format, "summary") != 0),
              MPO_ERR_USAGE, "--series needs --format=tsv, --format=json or --follow");
cleanup:
    return status;
}

static enum mpo_status parse(int argc, char *const *argv, struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    char *arguments[ARGUMENTS_MAX + 2] = {"inspect"};
    int letter = 0;
    MPO_CHECK(argc <= ARGUMENTS_MAX, MPO_ERR_USAGE, "inspect takes one record at a time");
    for (int i = 0; i < argc; i++) {
        arguments[i + 1] = argv[i];
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '\0')
            MPO_TRY(check_name(argv[i]));
    }
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++)
        request->wanted[i] = true;
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    while ((letter = getopt_long(argc + 1, arguments, ":", options, NULL)) != -1)
        MPO_TRY(take_option(letter, arguments[optind - 1], request));
    const int rest = argc + 1 - optind;
    MPO_CHECK(!request->compare || rest == 2, MPO_ERR_USAGE,
              "--compare expects two records, found %d; see mpo help inspect", rest);
    MPO_CHECK(request->compare || rest == 1 || (rest == 0 && request->schema),
              MPO_ERR_USAGE, "expected one record, found %d; see mpo help inspect", rest);
    request->path = rest > 0 ? arguments[optind] : NULL;
    request->other = rest > 1 ? arguments[optind + 1] : NULL;
    MPO_TRY(check_combination(request));
cleanup:
    return status;
}

/* ---- the command ---- */

static enum mpo_status show(const struct inspect *inspect,
                            const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    const char *format = request->format != NULL ? request->format : "summary";
    MPO_TRY(inspect_check_series(inspect, request));
    if (request->responses > 0) {
        MPO_TRY(inspect_print_responses(inspect, request));
        goto cleanup;
    }
    if (request->plot != NULL) {
        MPO_TRY(inspect_plot(inspect, request->plot));
        mpo_log_note("drew %s", request->plot);
        if (request->format == NULL)
            goto cleanup;
    }
    if (strcmp(format, "tsv") == 0) {
        inspect_print_tsv_head(inspect, request);
        inspect_print_tsv_rows(inspect, request);
    } else if (strcmp(format, "json") == 0) {
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
    MPO_TRY(show(&inspect, request));
cleanup:
    inspect_close(&inspect);
    return status;
}

enum mpo_status mpo_command_inspect(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct inspect_request request = {0};
    MPO_TRY(parse(argc, argv, &request));
    if (request.schema)
        inspect_print_schema();
    if (request.compare)
        MPO_TRY(inspect_compare(&request));
    else if (request.follow)
        MPO_TRY(inspect_follow(&request));
    else if (request.path != NULL)
        MPO_TRY(show_whole(&request));
    MPO_CHECK(fflush(stdout) == 0 && !ferror(stdout), MPO_ERR_IO, "standard output: %s",
              strerror(errno));
cleanup:
    return status;
}
