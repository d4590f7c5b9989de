/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration written out: it reads back to the same values, the reference file holds
 * every option, and help shows what a command takes. Here too: lists of numbers.
 */
#include "config_cases.h"
#include "config/config_impl.h"

static char *printed(const struct mpo_config *config)
{
    char *text = NULL;
    assert_ok(mpo_config_print(config, &text));
    assert_non_null(text);
    return text;
}

static void printing_and_reading_again_is_the_identity(void **state)
{
    (void)state;
    struct mpo_config *config = opened(
        MINIMAL REFERENCE
        "run: {seed: 9007199254740993, threads: 2}\n"
        "rollout: {end_bias: 0.1, control: auto}\n"
        "descent: {initial: [0.3333333333333333, 0.6666666666666667]}\n"
        "generate:\n"
        "  weights: \"a 'b' \\\"c\\\" \\\\ \\t\\n\\r \\x7f\\x85\\xa0\\u2028\\ufeff: #\"\n"
        "  prompt: \"\\U0001F600 \xC3\xA9 \"\n",
        FLAGS("--force", "--policies.a.system=- {x}: [y]"));
    char *once = printed(config);
    struct mpo_config *again = opened(once, NO_FLAGS);
    char *twice = printed(again);
    assert_string_equal(once, twice);
    assert_string_equal(again->generate.weights, config->generate.weights);
    assert_string_equal(again->generate.prompt, config->generate.prompt);
    assert_string_equal(again->policies[0].system, "- {x}: [y]");
    assert_same_bits(again->rollout.end_bias, 0.1);
    assert_same_bits(again->descent.initial.value[1], 0.6666666666666667);
    assert_true(again->run.seed == 9007199254740993);
    free(once);
    free(twice);
    mpo_config_close(&config);
    mpo_config_close(&again);
}

/* Take the comment marks from the list of policies and from prompts.file. */
static char *uncommented_reference(void)
{
    char *text = NULL;
    char *line = NULL;
    size_t bytes = 0;
    size_t room = 0;
    FILE *reference = tmpfile();
    FILE *stream = open_memstream(&text, &bytes);
    assert_ok(mpo_config_print_reference(reference));
    rewind(reference);
    while (getline(&line, &room, reference) >= 0) {
        bool example = strncmp(line, "#   ", 4) == 0 || strcmp(line, "# policies:\n") == 0;
        if (strcmp(line, "  # file: FILE\n") == 0)
            fputs("  file: FILE\n", stream);
        else
            fputs(example ? line + 2 : line, stream);
    }
    free(line);
    fclose(reference);
    fclose(stream);
    return text;
}

static void the_reference_holds_every_option_with_its_default(void **state)
{
    (void)state;
    char *reference = uncommented_reference();
    struct mpo_config *written = opened(reference, NO_FLAGS);
    struct mpo_config *omitted = opened("prompts: {file: FILE}\n"
                                        "policies: [{name: NAME, model: MODEL}]\n",
                                        NO_FLAGS);
    char *left = printed(written);
    char *right = printed(omitted);
    assert_string_equal(left, right);
#define MPO_SECTION_BEGIN(section, scope, sentence)                                        \
    {                                                                                      \
        bool is_in_files = mpo_config_is_in_files(MPO_SECTION_##section);                  \
        assert_int_equal(strstr(reference, "\n# " sentence "\n" #section ":") != NULL,     \
                         is_in_files);
#define MPO_OPTION_AS(section, member, name, type, initial, low, high, list, sentence)     \
    assert_true(!is_in_files || strstr(reference, "# " sentence) != NULL);                 \
    assert_true(!is_in_files || strstr(left, name ": ") != NULL);
#define MPO_SECTION_END(section) }
#include "mpo/options.def"
    free(left);
    free(right);
    free(reference);
    mpo_config_close(&written);
    mpo_config_close(&omitted);
}

/* The flags of a command as "NAME VALUE CHOICES DEFAULT" lines. */
static char *listed(const char *command)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    struct mpo_config_flag flag = {0};
    for (int i = 0; mpo_config_flag(command, i, &flag); i++)
        fprintf(stream, "\n%s %s %s %s;", flag.name, flag.value,
                flag.choices != NULL ? flag.choices : "",
                flag.initial != NULL ? flag.initial : "required");
    fclose(stream);
    return text;
}

static void a_command_has_its_own_flags_first_and_no_other_command_s(void **state)
{
    (void)state;
    char *text = listed("generate");
    const char *own = strstr(text, "\n--weights =TEXT  uniform;");
    const char *common = strstr(text, "\n--run.seed =N  1;");
    assert_non_null(own);
    assert_non_null(common);
    assert_true(own < common);
    assert_non_null(strstr(text, "\n--policies.NAME.temperature =X  1;"));
    assert_non_null(strstr(text, "\n--policies.NAME.name =TEXT  required;"));
    assert_non_null(strstr(text, "\n--run.device = auto|cpu|cuda auto;"));
    assert_non_null(strstr(text, "\n--record.responses [=true|false]  true;"));
    assert_non_null(strstr(text, "\n--format = text|jsonl text;\n--json   ;"));
    assert_null(strstr(text, "force"));
    free(text);
}

static void
a_command_without_a_configuration_has_its_own_flags_and_what_it_takes(void **state)
{
    (void)state;
    char *text = listed("refit");
    assert_non_null(strstr(text, "\n--descent.steps =N  500;"));
    assert_non_null(strstr(text, "\n--min-ess =X  0.1;"));
    assert_null(strstr(text, "--run."));
    assert_non_null(strstr(text, "\n--descent.map = entropy entropy;"));
    assert_null(strstr(text, "--rollout."));
    free(text);
    text = listed("no such command");
    assert_string_equal(text, "");
    free(text);
}

static void flags_alone_are_read_with_what_else_there_is(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    struct mpo_config_arguments arguments = {0};
    assert_ok(mpo_config_open_flags(
        "refit", 5, FLAGS("a.h5", "--json", "--descent.steps=7", "--min-ess", "0.5"),
        &arguments, &config));
    assert_int_equal(arguments.count, 1);
    assert_string_equal(arguments.text[0], "a.h5");
    assert_int_equal(config->refit.format, MPO_REPORT_JSON);
    assert_int_equal(config->descent.steps, 7);
    assert_close(config->refit.min_ess, 0.5, 0);
    assert_false(mpo_config_is_quiet(config, "refit"));
    mpo_config_close(&config);
    assert_ok(mpo_config_open_flags("inspect", 4, FLAGS("a", "b", "c", "--quiet"),
                                    &arguments, &config));
    assert_int_equal(arguments.count, 3);
    assert_true(mpo_config_is_quiet(config, "inspect"));
    mpo_config_close(&config);
    const char *bad[] = {"--json=x", "--run.seed=1", "--descent.mop=entropy", "--min-es=1",
                         "--descent.steps=0"};
    const char *words[] = {"expected no value", "--run.seed", "--descent.map", "--min-ess",
                           "from 1 to 1000000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_status(
            mpo_config_open_flags("refit", 1, FLAGS((char *)bad[i]), &arguments, &config),
            MPO_ERR_USAGE);
        assert_error_names(words[i]);
        assert_null(config);
    }
}

static void json_is_a_synonym_wherever_there_is_a_format(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    assert_ok(open_yaml("generate", MINIMAL, FLAGS("--json"), &config));
    assert_int_equal(config->generate.format, MPO_GENERATE_JSONL);
    mpo_config_close(&config);
    assert_ok(open_yaml("evaluate", MINIMAL, FLAGS("--json"), &config));
    assert_int_equal(config->evaluate.format, MPO_TABLE_JSON);
    mpo_config_close(&config);
    assert_ok(open_yaml("fit", MINIMAL, FLAGS("--json", "--quiet"), &config));
    assert_int_equal(config->fit.format, MPO_REPORT_JSON);
    assert_true(mpo_config_is_quiet(config, "fit"));
    assert_false(mpo_config_is_quiet(config, "score"));
    mpo_config_close(&config);
    assert_flag_refused("--json=true", "--json: expected no value, found 'true'");
}

static void lists_of_numbers_are_parsed_strictly(void **state)
{
    (void)state;
    double value[3] = {0};
    int32_t count = 0;
    const char *bad[] = {"", ",", "1,", ",1", "1,,2", "a", "1 2", "0x1", "nan", "1;2"};
    assert_ok(mpo_config_parse_numbers("0.4,0.6", value, 3, &count));
    assert_int_equal(count, 2);
    assert_close(value[1], 0.6, 0);
    assert_ok(mpo_config_parse_numbers(" 1e-3 , -2,3 ", value, 3, &count));
    assert_int_equal(count, 3);
    assert_close(value[1], -2, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_status(mpo_config_parse_numbers(bad[i], value, 3, &count), MPO_ERR_USAGE);
    assert_status(mpo_config_parse_numbers("1,2,3,4", value, 3, &count), MPO_ERR_USAGE);
    assert_error_names("at most 3 numbers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(printing_and_reading_again_is_the_identity),
        cmocka_unit_test(the_reference_holds_every_option_with_its_default),
        cmocka_unit_test(a_command_has_its_own_flags_first_and_no_other_command_s),
        cmocka_unit_test(
            a_command_without_a_configuration_has_its_own_flags_and_what_it_takes),
        cmocka_unit_test(flags_alone_are_read_with_what_else_there_is),
        cmocka_unit_test(json_is_a_synonym_wherever_there_is_a_format),
        cmocka_unit_test(lists_of_numbers_are_parsed_strictly),
    };
    return cmocka_run_group_tests_name("printed configurations", tests, make_folder,
                                       remove_folder);
}
