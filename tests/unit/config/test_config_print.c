/*
 * The configuration written out: it reads back to the same values, the reference file holds
 * every option, and help shows what a command takes. Here too: lists of numbers.
 */
#include "config_cases.h"

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
#define MPO_SECTION_BEGIN(section, sentence)                                               \
    assert_non_null(strstr(reference, "\n# " sentence "\n" #section ":"));
#define MPO_OPTION(section, name, type, initial, low, high, choices, sentence)             \
    assert_non_null(strstr(reference, "# " sentence));                                     \
    assert_non_null(strstr(left, #name ": "));
#define MPO_SECTION_END(section)
#include "mpo/options.def"
#undef MPO_SECTION_BEGIN
#undef MPO_OPTION
#undef MPO_SECTION_END
    free(left);
    free(right);
    free(reference);
    mpo_config_close(&written);
    mpo_config_close(&omitted);
}

static void help_shows_the_own_section_first_and_no_other_command(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    mpo_config_print_options(stream, "generate");
    fclose(stream);
    const char *own = strstr(text, "  --weights=TEXT\n");
    const char *common = strstr(text, "  --run.seed=N\n");
    assert_non_null(own);
    assert_non_null(common);
    assert_true(own < common);
    assert_non_null(strstr(text, "  --policies.NAME.temperature=X\n"));
    assert_non_null(strstr(text, "  --run.device=auto|cpu|cuda\n"));
    assert_non_null(strstr(text, "  --record.responses[=true|false]\n"));
    assert_null(strstr(text, "force"));
    free(text);
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
        cmocka_unit_test(help_shows_the_own_section_first_and_no_other_command),
        cmocka_unit_test(lists_of_numbers_are_parsed_strictly),
    };
    return cmocka_run_group_tests_name("printed configurations", tests, make_folder,
                                       remove_folder);
}
