/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of models as a configuration makes it: numbers, presets, a policy, another name,
 * and a record that a fit wrote.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/fit.h"
#include "runner.h"
#include "serve/models.h"
#include "table_files.h"

#define FLAGS_MAX 8

static const char config_text[] = "run:\n"
                                  "  seed: 3\n"
                                  "prompts:\n"
                                  "  file: prompts.txt\n"
                                  "policies:\n"
                                  "  - name: up\n"
                                  "    model: up.table\n"
                                  "  - name: down\n"
                                  "    model: down.table\n"
                                  "rollout:\n"
                                  "  responses: 8\n"
                                  "  max_tokens: 6\n"
                                  "estimator:\n"
                                  "  target: whole\n"
                                  "descent:\n"
                                  "  steps: 3\n"
                                  "record:\n"
                                  "  file: out.h5\n";

static char folder[TABLE_PATH_BYTES];
static char record[TABLE_PATH_BYTES + 32];
static struct mpo_serve_catalog catalog;
static struct mpo_session *session;

static int make_folder(void **state)
{
    char path[TABLE_PATH_BYTES];
    (void)state;
    table_folder_make_two(folder);
    table_write_text(folder, "prompts.txt", "a\nb\na b\n", path);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    table_folder_remove(folder);
    return 0;
}

/* A session of the command with these flags, and the catalog. */
static enum mpo_status open_catalog(const char *const *flags)
{
    struct mpo_session_spec spec = {.command = "serve",
                                    .config_text = config_text,
                                    .config_folder = folder,
                                    .flags = flags};
    while (flags[spec.flag_count] != NULL)
        spec.flag_count++;
    assert_ok(mpo_session_open(&spec, &session));
    return mpo_serve_models_open(session, &catalog);
}

static void close_catalog(void)
{
    mpo_serve_models_close(&catalog);
    mpo_session_close(&session);
}

static void refuse_catalog(const char *flag, enum mpo_status expected, const char *word)
{
    const char *const flags[] = {flag, NULL};
    assert_status(open_catalog(flags), expected);
    assert_error_names(word);
    assert_int_equal(catalog.model_count, 0);
    close_catalog();
}

static void check_names(const char *const *names, int32_t count)
{
    assert_int_equal(catalog.model_count, count);
    for (int32_t i = 0; i < count; i++)
        assert_string_equal(catalog.model[i].name, names[i]);
}

/* ---- numbers and names ---- */

static void by_itself_there_are_the_mixture_and_its_policies(void **state)
{
    (void)state;
    static const char *const flags[] = {NULL};
    static const char *const names[] = {"mpo", "policy/up", "policy/down"};
    assert_ok(open_catalog(flags));
    check_names(names, 3);
    assert_true(catalog.model[0].mu[0] == 0.5 && catalog.model[0].weights[1] == 0.5);
    assert_true(catalog.model[2].mu[1] == 1.0 && catalog.model[2].weights == NULL);
    assert_int_equal(catalog.model[2].policy, 1);
    assert_int_equal(catalog.vocab_size, 3);
    assert_int_equal(catalog.max_tokens, 1024);
    assert_true(catalog.policy_count == 2 && catalog.objective_count == 2);
    assert_false(catalog.has_reference || catalog.has_system[0] ||
                 catalog.refuses_unknown || catalog.allows_isolated);
    assert_string_equal(catalog.policy_name[1], "down");
    close_catalog();
}

static void presets_and_another_name_are_listed(void **state)
{
    (void)state;
    static const char *const flags[] = {"--weights=0.25,0.75",
                                        "--name=gpt-4o",
                                        "--presets=even=uniform;kind=0.8,0.2;one=down;",
                                        "--unknown-fields=refuse",
                                        "--isolated=true",
                                        NULL};
    static const char *const names[] = {"mpo",     "gpt-4o",    "mpo:even",   "mpo:kind",
                                        "mpo:one", "policy/up", "policy/down"};
    assert_ok(open_catalog(flags));
    check_names(names, 7);
    assert_true(catalog.model[0].mu[0] == 0.25 && catalog.model[1].mu[0] == 0.25);
    assert_true(catalog.model[3].weights[0] == 0.8);
    assert_true(catalog.model[4].mu[1] == 1.0 && catalog.model[4].as_given);
    assert_true(catalog.refuses_unknown && catalog.allows_isolated);
    close_catalog();
}

static void numbers_off_the_simplex_are_exponents(void **state)
{
    (void)state;
    static const char *const flags[] = {"--weights=-0.5,1.7", "--allow-any-weights",
                                        "--presets=on=0.5,0.5", NULL};
    assert_ok(open_catalog(flags));
    assert_true(catalog.model[0].as_given && catalog.model[0].mu[0] == -0.5);
    assert_false(catalog.model[1].as_given);
    close_catalog();
    refuse_catalog("--weights=-0.5,1.7", MPO_ERR_USAGE, "--weights");
}

static void presets_that_cannot_be_are_refused(void **state)
{
    (void)state;
    refuse_catalog("--presets=even", MPO_ERR_USAGE, "NAME=WEIGHTS");
    refuse_catalog("--presets=even=", MPO_ERR_USAGE, "NAME=WEIGHTS");
    refuse_catalog("--presets==uniform", MPO_ERR_USAGE, "NAME=WEIGHTS");
    refuse_catalog("--presets=a b=uniform", MPO_ERR_USAGE, "letters");
    refuse_catalog("--presets=a=uniform;a=up", MPO_ERR_USAGE, "mpo:a");
    refuse_catalog("--presets=a=0.5", MPO_ERR_USAGE, "--presets: expected 2 numbers");
    refuse_catalog("--presets=a=nowhere.h5", MPO_ERR_INPUT, "nowhere.h5");
    refuse_catalog("--name=mpo", MPO_ERR_USAGE, "another name");
    refuse_catalog("--name=a b", MPO_ERR_USAGE, "letters");
    refuse_catalog("--name=mpo@1", MPO_ERR_USAGE, "letters");
}

/* ---- a record ---- */

/* Of target whole, so that it has a tilt. */
static void write_record(void)
{
    struct mpo_session *fitting = NULL;
    struct mpo_fit *fit = NULL;
    bool more = true;
    assert_ok(mpo_session_open(
        &(struct mpo_session_spec){.config_text = config_text, .config_folder = folder},
        &fitting));
    assert_ok(mpo_fit_open(&(struct mpo_fit_spec){.session = fitting}, &fit));
    while (more)
        assert_ok(mpo_fit_step(fit, &more));
    assert_ok(mpo_fit_finish(fit));
    mpo_fit_close(&fit);
    mpo_session_close(&fitting);
}

static void a_record_gives_its_average_its_last_and_no_tilt(void **state)
{
    (void)state;
    static const char *const names[] = {"mpo",          "mpo:average", "mpo:last",
                                        "mpo:untilted", "mpo:old",     "policy/up",
                                        "policy/down"};
    char weights[TABLE_PATH_BYTES + 64];
    char presets[TABLE_PATH_BYTES + 64];
    const char *const flags[] = {weights, presets, NULL};
    snprintf(record, sizeof record, "%s/out.h5", folder);
    snprintf(weights, sizeof weights, "--weights=%s", record);
    snprintf(presets, sizeof presets, "--presets=old=%s", record);
    write_record();
    assert_ok(open_catalog(flags));
    check_names(names, 7);
    const struct mpo_serve_model *model = catalog.model;
    assert_true(model[0].mu[0] == model[1].mu[0] && model[0].mu[0] != model[2].mu[0]);
    assert_true(model[1].mu[0] == model[3].mu[0] && model[4].mu[0] == model[0].mu[0]);
    assert_true(model[0].end_bias != 0.0 && model[0].end_bias == model[2].end_bias);
    assert_true(model[3].end_bias == 0.0 && model[4].end_bias == model[0].end_bias);
    assert_close(model[0].weights[0] + model[0].weights[1], 1.0, 1e-12);
    close_catalog();
    refuse_catalog("--presets=average=uniform;x=uniform;x=up", MPO_ERR_USAGE, "mpo:x");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_itself_there_are_the_mixture_and_its_policies),
        cmocka_unit_test(presets_and_another_name_are_listed),
        cmocka_unit_test(numbers_off_the_simplex_are_exponents),
        cmocka_unit_test(presets_that_cannot_be_are_refused),
        cmocka_unit_test(a_record_gives_its_average_its_last_and_no_tilt),
    };
    make_folder(NULL);
    int failures = run_cases_on_ranks(argc, argv, "catalog", tests);
    remove_folder(NULL);
    return failures;
}
