/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a session: the path of a file, a text with a folder of its own or
 * none, or one that is open; and what is said of a text that is wrong.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mpo/config.h"
#include "mpo/session.h"
#include "runner.h"
#include "table_files.h"

#define TEXT                                                                               \
    "run:\n"                                                                               \
    "  seed: 3\n"                                                                          \
    "prompts:\n"                                                                           \
    "  file: prompts.txt\n"                                                                \
    "policies:\n"                                                                          \
    "  - name: up\n"                                                                       \
    "    model: up.table\n"                                                                \
    "  - name: down\n"                                                                     \
    "    model: down.table\n"

struct folder {
    char path[TABLE_PATH_BYTES];
    char config[TABLE_PATH_BYTES];
};

static void make_folder(struct folder *folder)
{
    char path[TABLE_PATH_BYTES];
    table_folder_make_two(folder->path);
    table_write_text(folder->path, "prompts.txt", "a\nb\n", path);
    table_write_text(folder->path, "config.yaml", TEXT, folder->config);
}

/* The configuration of an opened session, as YAML. */
static char *print_session(const struct mpo_session_spec *spec)
{
    struct mpo_session *session = NULL;
    char *text = NULL;
    assert_ok(mpo_session_open(spec, &session));
    assert_ok(mpo_config_print(mpo_session_config(session), &text));
    mpo_session_close(&session);
    return text;
}

static void a_text_is_the_same_session_as_its_file(void **state)
{
    (void)state;
    static const char *const flags[] = {"--run.seed=5", "--policies.up.min=0.25"};
    struct folder folder;
    char slashed[TABLE_PATH_BYTES + 1];
    make_folder(&folder);
    snprintf(slashed, sizeof slashed, "%s/", folder.path);
    struct mpo_session_spec spec = {
        .config = folder.config, .flags = flags, .flag_count = 2};
    char *of_file = print_session(&spec);
    spec.config = NULL;
    spec.config_text = TEXT;
    spec.config_folder = folder.path;
    char *of_text = print_session(&spec);
    spec.config_folder = slashed;
    char *of_slash = print_session(&spec);
    assert_non_null(strstr(of_file, "seed: 5"));
    assert_non_null(strstr(of_file, folder.path));
    assert_string_equal(of_text, of_file);
    assert_string_equal(of_slash, of_file);
    free(of_slash);
    free(of_text);
    free(of_file);
    table_folder_remove(folder.path);
}

static void without_a_folder_paths_begin_at_the_working_directory(void **state)
{
    (void)state;
    struct folder folder;
    char before[TABLE_PATH_BYTES];
    make_folder(&folder);
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder.path), 0);
    char *text = print_session(&(struct mpo_session_spec){.config_text = TEXT});
    assert_non_null(strstr(text, "file: \"prompts.txt\""));
    free(text);
    text =
        print_session(&(struct mpo_session_spec){.config_text = TEXT, .config_folder = ""});
    assert_non_null(strstr(text, "model: \"up.table\""));
    free(text);
    assert_int_equal(chdir(before), 0);
    table_folder_remove(folder.path);
}

static void refuse_session(const struct mpo_session_spec *spec, enum mpo_status expected,
                           const char *words)
{
    struct mpo_session *session = NULL;
    assert_status(mpo_session_open(spec, &session), expected);
    assert_null(session);
    assert_error_names(words);
}

static void one_configuration_is_expected(void **state)
{
    (void)state;
    struct folder folder;
    struct mpo_config *config = NULL;
    make_folder(&folder);
    assert_ok(mpo_config_open("fit", 1, (char *[]){folder.config}, &config));
    struct mpo_session_spec spec = {0};
    refuse_session(&spec, MPO_ERR_USAGE, "found none");
    spec = (struct mpo_session_spec){.config = folder.config, .config_text = TEXT};
    refuse_session(&spec, MPO_ERR_USAGE, "found config and config_text");
    spec = (struct mpo_session_spec){.settings = config, .config_text = TEXT};
    refuse_session(&spec, MPO_ERR_USAGE, "found config_text and settings");
    spec = (struct mpo_session_spec){.settings = config, .config = folder.config};
    refuse_session(&spec, MPO_ERR_USAGE, "found config and settings");
    spec = (struct mpo_session_spec){.config = folder.config, .config_folder = "/tmp"};
    refuse_session(&spec, MPO_ERR_USAGE, "with config, which has a folder");
    spec = (struct mpo_session_spec){.settings = config, .config_folder = "/tmp"};
    refuse_session(&spec, MPO_ERR_USAGE, "with settings");
    mpo_config_close(&config);
    table_folder_remove(folder.path);
}

static void flags_are_as_many_as_their_count(void **state)
{
    (void)state;
    static const char *const flags[2] = {"--run.seed=3", NULL};
    struct mpo_session_spec spec = {.config_text = TEXT, .flag_count = 1};
    refuse_session(&spec, MPO_ERR_USAGE, "found flag_count 1 and flags NULL");
    spec.flag_count = -1;
    refuse_session(&spec, MPO_ERR_USAGE, "found flag_count -1");
    spec = (struct mpo_session_spec){.config_text = TEXT, .flags = flags, .flag_count = 2};
    refuse_session(&spec, MPO_ERR_USAGE, "found NULL as number 2");
}

static void a_bad_text_is_refused_with_line_and_column(void **state)
{
    (void)state;
    static const char *const flag[] = {"--run.seed=many"};
    static const char *const path[] = {"my.yaml"};
    struct mpo_session_spec spec = {.config_text = TEXT "    sed: 4\n"};
    refuse_session(&spec, MPO_ERR_CONFIG,
                   "configuration text:10:5: policies[1].sed: unknown key");
    spec.config_text = "run:\n  seed: many\n";
    refuse_session(&spec, MPO_ERR_CONFIG,
                   "configuration text:2:3: run.seed: expected a whole number");
    spec.config_text = "run: [\n";
    refuse_session(&spec, MPO_ERR_CONFIG, "configuration text:2:1: expected YAML");
    spec.config_text = "";
    refuse_session(&spec, MPO_ERR_CONFIG, "configuration text: expected sections");
    spec.config_text = TEXT "    min: 0.7\n    max: 0.2\n";
    refuse_session(&spec, MPO_ERR_CONFIG, "configuration text:8:5: policies[1].min");
    spec.config_text = TEXT;
    spec.flags = flag;
    spec.flag_count = 1;
    refuse_session(&spec, MPO_ERR_USAGE, "--run.seed: expected a whole number");
    spec.flags = path;
    refuse_session(&spec, MPO_ERR_USAGE, "with a configuration text, found 'my.yaml'");
}

static void a_text_of_any_length_is_no_text(void **state)
{
    (void)state;
    char *text = runner_allocate(MPO_CONFIG_BYTES_MAX + 2, 1);
    memset(text, '\n', MPO_CONFIG_BYTES_MAX + 1);
    refuse_session(&(struct mpo_session_spec){.config_text = text}, MPO_ERR_CONFIG,
                   "configuration text: expected at most");
    free(text);
}

static void files_of_a_text_are_looked_for_in_its_folder(void **state)
{
    (void)state;
    struct folder folder;
    make_folder(&folder);
    const struct mpo_session_spec spec = {.config_text = TEXT,
                                          .config_folder = "/no/such/folder"};
    refuse_session(&spec, MPO_ERR_INPUT, "/no/such/folder/prompts.txt");
    table_folder_remove(folder.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_the_same_session_as_its_file),
        cmocka_unit_test(without_a_folder_paths_begin_at_the_working_directory),
        cmocka_unit_test(one_configuration_is_expected),
        cmocka_unit_test(flags_are_as_many_as_their_count),
        cmocka_unit_test(a_bad_text_is_refused_with_line_and_column),
        cmocka_unit_test(a_text_of_any_length_is_no_text),
        cmocka_unit_test(files_of_a_text_are_looked_for_in_its_folder),
    };
    return run_cases("session_config", tests);
}
