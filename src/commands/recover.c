/*
 * recover: the record of a run that was killed, made whole on a copy.
 *
 * What was kept is the answer, on standard output. A record that needs no repair is no
 * failure: it is said, and no copy is made.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "mpo/memory.h"
#include "mpo/record.h"

#define ARGUMENTS_MAX 8
#define SUFFIX        ".h5"
#define NEW_SUFFIX    ".recovered.h5"

static const struct option options[] = {{"output", required_argument, NULL, 'o'},
                                        {NULL, 0, NULL, 0}};

static enum mpo_status parse(int argc, char *const *argv, const char **path,
                             const char **output)
{
    enum mpo_status status = MPO_OK;
    char *arguments[ARGUMENTS_MAX + 2] = {"recover"};
    int letter = 0;
    MPO_CHECK(argc <= ARGUMENTS_MAX, MPO_ERR_USAGE, "recover takes one record at a time");
    for (int i = 0; i < argc; i++)
        arguments[i + 1] = argv[i];
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    while ((letter = getopt_long(argc + 1, arguments, ":", options, NULL)) != -1) {
        MPO_CHECK(letter != ':', MPO_ERR_USAGE, "%s needs a value; see mpo help recover",
                  arguments[optind - 1]);
        MPO_CHECK(letter == 'o', MPO_ERR_USAGE,
                  "recover does not understand %s; see mpo help recover",
                  arguments[optind - 1]);
        *output = optarg;
    }
    MPO_CHECK(argc + 1 - optind == 1, MPO_ERR_USAGE,
              "expected one record, found %d; see mpo help recover", argc + 1 - optind);
    *path = arguments[optind];
cleanup:
    return status;
}

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

static void print_surplus(int64_t rows, const char *what)
{
    if (rows > 0)
        printf("; %lld row%s of %s not acknowledged left out", (long long)rows,
               rows == 1 ? "" : "s", what);
}

static void print_recovery(const char *path, const char *output,
                           const struct mpo_record_recovery *recovery)
{
    printf("record         %s, left by a crash; it is as it was\n", path);
    printf("recovered      %s, finished\n", output);
    printf("steps          %lld kept, all that were acknowledged",
           (long long)recovery->step_count);
    print_surplus(recovery->surplus_steps, "a step");
    printf("\nresponses      %lld kept", (long long)recovery->response_count);
    print_surplus(recovery->surplus_responses, "a step");
    printf("\n");
}

enum mpo_status mpo_command_recover(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_recovery recovery = {0};
    const char *path = NULL;
    const char *output = NULL;
    char *made = NULL;
    MPO_TRY(parse(argc, argv, &path, &output));
    if (output == NULL) {
        MPO_TRY(default_output(path, &made));
        output = made;
    }
    MPO_TRY(mpo_record_recover(path, output, &recovery));
    if (recovery.repaired)
        print_recovery(path, output, &recovery);
    else
        printf("%s is finished, %lld steps: it needs no repair, and no copy was made\n",
               path, (long long)recovery.step_count);
    MPO_CHECK(fflush(stdout) == 0, MPO_ERR_IO, "standard output: %s", strerror(errno));
cleanup:
    free(made);
    return status;
}
