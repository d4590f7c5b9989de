/*
 * refit's command line, and what it means for a record.
 */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refit_impl.h"

#define ARGUMENTS_MAX 64
#define DIVISIONS     10
#define DIVISIONS_MAX 1000
#define STEPS_MAX     1000000
#define STEPS         500
#define ESS_MIN       0.1

static const struct option known[] = {
    {"descent.step_rule", required_argument, NULL, 'r'},
    {"descent.step_constant", required_argument, NULL, 'c'},
    {"descent.steps", required_argument, NULL, 's'},
    {"descent.initial", required_argument, NULL, 'i'},
    {"objectives", required_argument, NULL, 'k'},
    {"min", required_argument, NULL, 'l'},
    {"max", required_argument, NULL, 'h'},
    {"min-ess", required_argument, NULL, 'e'},
    {"output", required_argument, NULL, 'o'},
    {"frontier", optional_argument, NULL, 'f'},
    {"plot", required_argument, NULL, 'p'},
    {NULL, 0, NULL, 0}};

static enum mpo_status read_number(const char *name, const char *text, double low,
                                   double high, double *value)
{
    enum mpo_status status = MPO_OK;
    char *end = NULL;
    *value = strtod(text, &end);
    MPO_CHECK(end != text && *end == '\0' && *value >= low && *value <= high, MPO_ERR_USAGE,
              "--%s: expected a number from %g to %g, found '%s'", name, low, high, text);
cleanup:
    return status;
}

static enum mpo_status take(int letter, const char *argument, struct refit_options *options)
{
    enum mpo_status status = MPO_OK;
    double number = DIVISIONS;
    switch (letter) {
    case 'r':
        options->step_rule = optarg;
        break;
    case 'c':
        MPO_TRY(read_number("descent.step_constant", optarg, 1e-9, 1e9,
                            &options->step_constant));
        break;
    case 's':
        MPO_TRY(read_number("descent.steps", optarg, 1, STEPS_MAX, &number));
        options->steps = (int64_t)number;
        break;
    case 'i':
        options->initial = optarg;
        break;
    case 'k':
        options->objectives = optarg;
        break;
    case 'l':
        options->min = optarg;
        break;
    case 'h':
        options->max = optarg;
        break;
    case 'e':
        MPO_TRY(read_number("min-ess", optarg, 0, 1, &options->min_ess));
        break;
    case 'o':
        options->output = optarg;
        break;
    case 'f':
        if (optarg != NULL)
            MPO_TRY(read_number("frontier", optarg, 1, DIVISIONS_MAX, &number));
        options->divisions = (int32_t)number;
        break;
    case 'p':
        options->plot = optarg;
        break;
    case 1:
        MPO_CHECK(options->path == NULL, MPO_ERR_USAGE,
                  "refit takes one record, found %s and %s", options->path, optarg);
        options->path = optarg;
        break;
    case ':':
        MPO_FAIL(MPO_ERR_USAGE, "%s needs a value; see mpo help refit", argument);
    default:
        MPO_FAIL(MPO_ERR_USAGE, "refit does not understand %s; see mpo help refit",
                 argument);
    }
cleanup:
    return status;
}

enum mpo_status refit_parse(int argc, char *const *argv, struct refit_options *options)
{
    enum mpo_status status = MPO_OK;
    char *arguments[ARGUMENTS_MAX + 2] = {"refit"};
    *options = (struct refit_options){.objectives = "",
                                      .initial = "",
                                      .min = "",
                                      .max = "",
                                      .step_rule = "adaptive",
                                      .step_constant = 1.0,
                                      .steps = STEPS,
                                      .min_ess = ESS_MIN};
    MPO_CHECK(argc <= ARGUMENTS_MAX, MPO_ERR_USAGE, "refit takes one record at a time");
    for (int i = 0; i < argc; i++)
        arguments[i + 1] = argv[i];
    opterr = 0;
    optind = 0;
    for (;;) {
        const char *argument = arguments[optind > 0 ? optind : 1];
        int index = -1;
        int letter = getopt_long(argc + 1, arguments, "-:", known, &index);
        if (letter == -1)
            break;
        /* getopt takes any beginning of a name; a new option could break a script. */
        if (index >= 0 &&
            strcspn(argument, "=") != strlen("--") + strlen(known[index].name))
            letter = '?';
        MPO_TRY(take(letter, argument, options));
    }
    MPO_CHECK(options->path != NULL, MPO_ERR_USAGE,
              "expected one record, found none; see mpo help refit");
    MPO_CHECK(options->plot == NULL || options->divisions > 0, MPO_ERR_USAGE,
              "--plot draws the frontier; add --frontier");
cleanup:
    return status;
}

/* ---- names of objectives ---- */

const char *refit_name(const struct refit *refit, int32_t k)
{
    return mpo_record_objective(refit->record, refit->objective[k]);
}

static enum mpo_status add_objective(struct refit *refit, const char *name, size_t length)
{
    enum mpo_status status = MPO_OK;
    int32_t found = -1;
    for (int32_t k = 0; k < mpo_record_objective_count(refit->record); k++) {
        const char *other = mpo_record_objective(refit->record, k);
        if (strlen(other) == length && strncmp(other, name, length) == 0)
            found = k;
    }
    MPO_CHECK(found >= 0, MPO_ERR_USAGE, "--objectives: %s has no objective '%.*s'",
              refit->options.path, (int)length, name);
    for (int32_t k = 0; k < refit->count; k++)
        MPO_CHECK(refit->objective[k] != found, MPO_ERR_USAGE,
                  "--objectives: '%.*s' is there twice", (int)length, name);
    refit->objective[refit->count++] = found;
cleanup:
    return status;
}

static enum mpo_status choose_objectives(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const char *name = refit->options.objectives;
    int32_t all = mpo_record_objective_count(refit->record);
    MPO_NEW(all, &refit->objective);
    for (int32_t k = 0; *name == '\0' && k < all; k++)
        refit->objective[refit->count++] = k;
    while (*name != '\0') {
        size_t length = strcspn(name, ",");
        MPO_TRY(add_objective(refit, name, length));
        name += length + (name[length] == ',');
    }
cleanup:
    return status;
}

/* "a=0.1,b=0.2" into the places of bounds. */
static enum mpo_status read_bounds(struct refit *refit, const char *flag, const char *text,
                                   double *bounds)
{
    enum mpo_status status = MPO_OK;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        size_t name = strcspn(text, "=,");
        char *end = NULL;
        int32_t k = 0;
        while (k < refit->count && (strlen(refit_name(refit, k)) != name ||
                                    strncmp(refit_name(refit, k), text, name) != 0))
            k++;
        MPO_CHECK(name < length && k < refit->count, MPO_ERR_USAGE,
                  "--%s: expected NAME=NUMBER of an objective that is used, found '%.*s'",
                  flag, (int)length, text);
        bounds[k] = strtod(text + name + 1, &end);
        MPO_CHECK(end == text + length && end > text + name + 1 && isfinite(bounds[k]),
                  MPO_ERR_USAGE, "--%s: expected NAME=NUMBER, found '%.*s'", flag,
                  (int)length, text);
        text += length + (text[length] == ',');
    }
cleanup:
    return status;
}

enum mpo_status refit_apply(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    const struct refit_options *options = &refit->options;
    int32_t found = 0;
    MPO_TRY(choose_objectives(refit));
    if (*options->initial != '\0') {
        MPO_NEW(refit->count, &refit->initial);
        MPO_TRY(mpo_config_parse_numbers(options->initial, refit->initial, refit->count,
                                         &found));
        MPO_CHECK(found == refit->count, MPO_ERR_USAGE,
                  "--descent.initial has %d numbers, expected %d", found, refit->count);
    }
    if (*options->min == '\0' && *options->max == '\0')
        goto cleanup;
    MPO_NEW(2 * refit->count, &refit->bounds);
    for (int32_t k = 0; k < refit->count; k++)
        refit->bounds[refit->count + k] = 1.0;
    MPO_TRY(read_bounds(refit, "min", options->min, refit->bounds));
    MPO_TRY(read_bounds(refit, "max", options->max, refit->bounds + refit->count));
cleanup:
    return status;
}
