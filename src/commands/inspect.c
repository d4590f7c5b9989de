/*
 * inspect: a record for a person (summary), for scripts (tsv, json), or as a plot.
 *
 * Everything is read first and printed then, so that a record that cannot be read prints
 * nothing on standard output. Numbers for scripts have 17 digits: they read back exactly.
 */
#include "inspect_impl.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "mpo/log.h"
#include "mpo/memory.h"
#include "mpo/timing.h"

#define ARGUMENTS_MAX 64
#define LABEL_WIDTH   15

struct request {
    const char *path;
    const char *format; /* NULL: summary, unless something else was asked for */
    const char *plot;
    bool schema;
    bool wanted[INSPECT_FIELD_COUNT]; /* series for tsv and json */
};

static const char *const provenance[] = {
    "version", "git_commit", "cmdline", "config_sha256", "seed",  "slurm_job_id",
    "mpi",     "nccl",       "cuda",    "hdf5",          "llama", "compiler"};

#define PROVENANCE_COUNT (sizeof provenance / sizeof provenance[0])

/* ---- command line ---- */

static const struct option options[] = {{"format", required_argument, NULL, 'f'},
                                        {"plot", required_argument, NULL, 'p'},
                                        {"schema", no_argument, NULL, 's'},
                                        {"series", required_argument, NULL, 'n'},
                                        {NULL, 0, NULL, 0}};

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

static enum mpo_status want_series(const char *list, struct request *request)
{
    enum mpo_status status = MPO_OK;
    const char *name = list;
    memset(request->wanted, 0, sizeof request->wanted);
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

static enum mpo_status take_option(int letter, const char *argument,
                                   struct request *request)
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
    case ':':
        MPO_FAIL(MPO_ERR_USAGE, "%s needs a value; see mpo help inspect", argument);
    default:
        MPO_FAIL(MPO_ERR_USAGE, "inspect does not understand %s; see mpo help inspect",
                 argument);
    }
cleanup:
    return status;
}

static enum mpo_status parse(int argc, char *const *argv, struct request *request)
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
    MPO_CHECK(rest == 1 || (rest == 0 && request->schema), MPO_ERR_USAGE,
              "expected one record, found %d; see mpo help inspect", rest);
    request->path = rest == 1 ? arguments[optind] : NULL;
cleanup:
    return status;
}

/* ---- reading ---- */

static void close_inspect(struct inspect *inspect)
{
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++)
        free(inspect->series[i]);
    free(inspect->step);
    mpo_record_close(&inspect->record);
}

static enum mpo_status open_inspect(const char *path, struct inspect *inspect)
{
    enum mpo_status status = MPO_OK;
    inspect->path = path;
    MPO_TRY(mpo_record_open(path, &inspect->record));
    inspect->step_count = mpo_record_step_count(inspect->record);
    inspect->objective_count = mpo_record_objective_count(inspect->record);
    MPO_NEW(inspect->step_count, &inspect->step);
    MPO_TRY(
        mpo_record_read(inspect->record, "step", 0, inspect->step_count, inspect->step));
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        const bool is_vector = strcmp(field->shape, "OBJECTIVE") == 0;
        inspect->columns[i] = is_vector ? inspect->objective_count : 1;
        MPO_NEW(inspect->step_count * inspect->columns[i], &inspect->series[i]);
        MPO_TRY(mpo_record_read(inspect->record, field->path, 0, inspect->step_count,
                                inspect->series[i]));
    }
cleanup:
    return status;
}

const char *inspect_state(const struct inspect *inspect)
{
    if (mpo_record_is_complete(inspect->record))
        return "finished";
    return mpo_record_is_live(inspect->record) ? "being written" : "left by a crash";
}

static double last(const struct inspect *inspect, enum inspect_field field)
{
    return inspect->series[field][inspect->step_count - 1];
}

static double sum(const struct inspect *inspect, enum inspect_field field)
{
    double total = 0.0;
    for (int64_t n = 0; n < inspect->step_count; n++)
        total += inspect->series[field][n];
    return total;
}

/* ---- summary ---- */

/* Columns that a text takes: its bytes without UTF-8's continuation bytes. */
static int text_width(const char *text)
{
    int width = 0;
    for (const char *byte = text; *byte != '\0'; byte++)
        width += ((unsigned char)*byte & 0xC0) != 0x80;
    return width;
}

static void print_padded(const char *text, int width)
{
    printf("%s%*s", text, width > text_width(text) ? width - text_width(text) : 0, "");
}

static void print_label(const char *label)
{
    print_padded(label, LABEL_WIDTH);
}

static void print_attribute(const struct inspect *inspect, const char *label,
                            const char *name)
{
    const char *value = mpo_record_attribute(inspect->record, name);
    if (value[0] == '\0')
        return;
    print_label(label);
    printf("%s\n", value);
}

static void print_head(const struct inspect *inspect)
{
    const char *state = inspect_state(inspect);
    print_label("record");
    printf("%s, %s", inspect->path, state);
    if (strcmp(state, "left by a crash") == 0)
        printf(" (its steps are whole; `mpo recover %s` makes a closed copy)",
               inspect->path);
    printf("\n");
    print_attribute(inspect, "run", "run_id");
    print_attribute(inspect, "created", "created_utc");
    print_label("steps");
    printf("%lld\n", (long long)inspect->step_count);
}

static void print_weights(const struct inspect *inspect)
{
    const int64_t row = (inspect->step_count - 1) * inspect->objective_count;
    int width = LABEL_WIDTH - 2;
    for (int32_t k = 0; k < inspect->objective_count; k++) {
        const int name = text_width(mpo_record_objective(inspect->record, k));
        width = name > width ? name : width;
    }
    printf("\n");
    print_padded("objective", width);
    printf("  %9s  %9s\n", "average", "last");
    for (int32_t k = 0; k < inspect->objective_count; k++) {
        print_padded(mpo_record_objective(inspect->record, k), width);
        printf("  %9.4f  %9.4f\n", inspect->series[INSPECT_average][row + k],
               inspect->series[INSPECT_weights][row + k]);
    }
}

static void print_values(const struct inspect *inspect)
{
    const double steps = (double)inspect->step_count;
    printf("\n");
    print_label("F");
    printf("%.4f +- %.4f nat at the last weights; jackknife %.4f\n",
           last(inspect, INSPECT_value), last(inspect, INSPECT_value_error),
           last(inspect, INSPECT_value_jackknife));
    print_label("averaged gap");
    printf("%.4f nat; F(average) is that far from its minimum at most, in expectation\n",
           last(inspect, INSPECT_averaged_gap));
    print_label("sample size");
    printf("%.3f of the responses are effective, %.3f over all steps\n",
           last(inspect, INSPECT_ess), sum(inspect, INSPECT_ess) / steps);
    print_label("end bias");
    printf("%.3f nat\n", last(inspect, INSPECT_end_bias));
    print_label("truncated");
    printf("%.1f %% of the responses over all steps\n",
           100.0 * sum(inspect, INSPECT_truncated) / steps);
    print_label("tokens");
    printf("%.0f\n", sum(inspect, INSPECT_tokens));
}

/* The time of record.def's timing fields, which are named after the timed stages. */
static void print_times(const struct inspect *inspect)
{
    const double elapsed = last(inspect, INSPECT_elapsed);
    static const enum inspect_field fields[MPO_TIMED_STAGE_COUNT] = {
#define STAGE_FIELD(name, sentence) [MPO_TIMED_##name] = INSPECT_timing_##name,
        MPO_TIMED_STAGE_LIST(STAGE_FIELD)
#undef STAGE_FIELD
    };
    printf("\n");
    print_label("stage");
    printf("%9s  %7s\n", "seconds", "share");
    for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++) {
        const double seconds = sum(inspect, fields[i]);
        print_label(mpo_timing_name((enum mpo_timed_stage)i));
        printf("%9.2f  ", seconds);
        if (elapsed > 0.0)
            printf("%5.1f %%\n", 100.0 * seconds / elapsed);
        else
            printf("%7s\n", "-");
    }
    print_label("run");
    printf("%9.2f\n", elapsed);
}

static void print_summary(const struct inspect *inspect)
{
    print_head(inspect);
    if (inspect->step_count > 0) {
        print_weights(inspect);
        print_values(inspect);
        print_times(inspect);
    }
    printf("\n");
    print_attribute(inspect, "command", "cmdline");
    print_attribute(inspect, "version", "version");
    print_attribute(inspect, "git commit", "git_commit");
    print_attribute(inspect, "configuration", "config_sha256");
    print_attribute(inspect, "seed", "seed");
    print_attribute(inspect, "Slurm job", "slurm_job_id");
}

/* ---- schema ---- */

static void print_schema(void)
{
    printf("%-28s %-4s %-7s %-5s %s\n", "data set", "type", "shape", "units", "meaning");
    printf("%-28s %-4s %-7s %-5s %s\n", "step", "i64", "[N]", "1", "written last");
    for (int32_t i = 0; i < mpo_record_field_count(); i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        printf("%-28s %-4s %-7s %-5s %s\n", field->path,
               strcmp(field->type, "F64") == 0 ? "f64" : "i64",
               strcmp(field->shape, "OBJECTIVE") == 0 ? "[N, K]" : "[N]", field->units,
               field->long_name);
    }
}

/* ---- tsv ---- */

static void print_tsv_head(const struct inspect *inspect, const struct request *request)
{
    printf("step");
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        if (!request->wanted[i])
            continue;
        if (strcmp(field->shape, "OBJECTIVE") != 0) {
            printf("\t%s", field->path);
            continue;
        }
        for (int32_t k = 0; k < inspect->objective_count; k++)
            printf("\t%s.%s", field->path, mpo_record_objective(inspect->record, k));
    }
    printf("\n");
}

static void print_tsv(const struct inspect *inspect, const struct request *request)
{
    print_tsv_head(inspect, request);
    for (int64_t n = 0; n < inspect->step_count; n++) {
        printf("%.0f", inspect->step[n]);
        for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++) {
            const int32_t columns = request->wanted[i] ? inspect->columns[i] : 0;
            for (int32_t k = 0; k < columns; k++)
                printf("\t%.17g", inspect->series[i][n * columns + k]);
        }
        printf("\n");
    }
}

/* ---- json ---- */

/* JSON knows no NaN; null says that there is no number. */
static json_t *make_number(double value, bool whole)
{
    if (!isfinite(value))
        return json_null();
    return whole ? json_integer((json_int_t)value) : json_real(value);
}

static json_t *make_text(const char *text)
{
    json_t *value = json_string(text);
    return value != NULL ? value : json_null(); /* not UTF-8 */
}

static json_t *make_series(const struct inspect *inspect, int32_t field)
{
    const bool whole = strcmp(mpo_record_field(field)->type, "I64") == 0;
    const bool is_vector = strcmp(mpo_record_field(field)->shape, "OBJECTIVE") == 0;
    const int32_t columns = inspect->columns[field];
    json_t *rows = json_array();
    for (int64_t n = 0; n < inspect->step_count; n++) {
        const double *value = inspect->series[field] + n * columns;
        json_t *row = is_vector ? json_array() : make_number(value[0], whole);
        for (int32_t k = 0; is_vector && k < columns; k++)
            json_array_append_new(row, make_number(value[k], whole));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *make_names(const struct inspect *inspect, int32_t count,
                          const char *(*name)(const struct mpo_record *, int32_t))
{
    json_t *names = json_array();
    for (int32_t i = 0; i < count; i++)
        json_array_append_new(names, make_text(name(inspect->record, i)));
    return names;
}

static json_t *make_attributes(const struct inspect *inspect)
{
    json_t *object = json_object();
    for (size_t i = 0; i < PROVENANCE_COUNT; i++)
        json_object_set_new(
            object, provenance[i],
            make_text(mpo_record_attribute(inspect->record, provenance[i])));
    return object;
}

static enum mpo_status print_json(const struct inspect *inspect,
                                  const struct request *request)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record *record = inspect->record;
    json_t *root = json_object();
    json_t *steps = json_array();
    json_t *series = json_object();
    for (int64_t n = 0; n < inspect->step_count; n++)
        json_array_append_new(steps, make_number(inspect->step[n], true));
    for (int32_t i = 0; i < INSPECT_FIELD_COUNT; i++)
        if (request->wanted[i])
            json_object_set_new(series, mpo_record_field(i)->path, make_series(inspect, i));
    json_object_set_new(root, "path", make_text(inspect->path));
    json_object_set_new(root, "state", make_text(inspect_state(inspect)));
    json_object_set_new(root, "log_schema",
                        make_text(mpo_record_attribute(record, "log_schema")));
    json_object_set_new(root, "run_id", make_text(mpo_record_attribute(record, "run_id")));
    json_object_set_new(root, "created_utc",
                        make_text(mpo_record_attribute(record, "created_utc")));
    json_object_set_new(
        root, "objective",
        make_names(inspect, mpo_record_objective_count(record), mpo_record_objective));
    json_object_set_new(
        root, "policy",
        make_names(inspect, mpo_record_policy_count(record), mpo_record_policy));
    json_object_set_new(root, "provenance", make_attributes(inspect));
    json_object_set_new(root, "step", steps);
    json_object_set_new(root, "series", series);
    MPO_CHECK(json_dumpf(root, stdout, JSON_REAL_PRECISION(17)) == 0, MPO_ERR_IO,
              "standard output: %s", strerror(errno));
    printf("\n");
cleanup:
    json_decref(root);
    return status;
}

/* ---- the command ---- */

static enum mpo_status show(const struct inspect *inspect, const struct request *request)
{
    enum mpo_status status = MPO_OK;
    const char *format = request->format != NULL ? request->format : "summary";
    if (request->plot != NULL) {
        MPO_TRY(inspect_plot(inspect, request->plot));
        mpo_log_note("drew %s", request->plot);
        if (request->format == NULL)
            goto cleanup;
    }
    if (strcmp(format, "tsv") == 0)
        print_tsv(inspect, request);
    else if (strcmp(format, "json") == 0)
        MPO_TRY(print_json(inspect, request));
    else
        print_summary(inspect);
cleanup:
    return status;
}

enum mpo_status mpo_command_inspect(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct request request = {0};
    struct inspect inspect = {0};
    MPO_TRY(parse(argc, argv, &request));
    if (request.schema)
        print_schema();
    if (request.path != NULL) {
        MPO_TRY(open_inspect(request.path, &inspect));
        MPO_TRY(show(&inspect, &request));
    }
    MPO_CHECK(fflush(stdout) == 0 && !ferror(stdout), MPO_ERR_IO, "standard output: %s",
              strerror(errno));
cleanup:
    close_inspect(&inspect);
    return status;
}
