/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: files that are refused, and with which words. A message is part of the
 * interface: it has the file, the line, the column, the key and what was expected.
 */
#include "config_cases.h"

static void a_missing_file_is_a_missing_input(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    assert_status(open_path("fit", "none.yaml", NO_FLAGS, &config), MPO_ERR_INPUT);
    assert_error_names("none.yaml: ");
    assert_status(open_path("fit", "sub", NO_FLAGS, &config), MPO_ERR_INPUT);
    assert_error_names("sub: ");
}

static void unknown_key_names_line_and_column(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "rollout:\n  max_tokens: 3\n  respones: 4\n",
                        "c.yaml:7:3: rollout.respones: unknown key; did you mean "
                        "'responses'?");
    assert_file_refused(MINIMAL "rolout: {}\n",
                        "c.yaml:5:1: rolout: unknown key; did you mean 'rollout'?");
    assert_file_refused(
        FILE_PART "policies:\n  - name: a\n    modle: x\n",
        "c.yaml:4:5: policies[0].modle: unknown key; did you mean 'model'?");
    assert_file_refused(MINIMAL "exchange: {completely_other: 1}\n",
                        "c.yaml:5:12: exchange.completely_other: unknown key; known: "
                        "transport, pattern, rows, ranks_per_group");
}

static void bounds_are_named_where_their_policy_is(void **state)
{
    (void)state;
    const char *policy =
        FILE_PART "policies:\n  - {name: r, model: r.gguf, role: reference}\n"
                  "  - {name: a, model: a.gguf, min: 0.5, max: 0.25}\n";
    assert_file_refused(policy,
                        "c.yaml:4:5: policies[1].min: expected min to be at most max, "
                        "found min 0.5 and max 0.25 for 'a'");
    assert_file_refused(MINIMAL "  - {name: r, model: r.gguf, role: reference, max: 0.5}\n",
                        "c.yaml:5:5: policies[2].min: expected no min and max for 'r'");
    assert_file_refused(FILE_PART "policies:\n  - {name: a, model: a.gguf, max: 0.5}\n",
                        "c.yaml: policies: expected maxima that sum to at least 1");
}

static void a_second_document_is_refused_where_it_begins(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "---\nrun: {seed: 1}\n",
                        "c.yaml:6:1: expected one YAML document, found a second one");
}

static void duplicate_key_names_both_lines(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "run:\n  seed: 1\n  seed: 2\n",
                        "c.yaml:7:3: run.seed: duplicate key; line 6 has it already");
    assert_file_refused(MINIMAL "run: {}\nprompts: {}\n",
                        "c.yaml:6:1: prompts: duplicate key; line 1 has it already");
}

static void wrong_values_name_place_expectation_and_finding(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "rollout:\n  responses: many\n",
                        "c.yaml:6:3: rollout.responses: expected a whole number from 1 to "
                        "256, found 'many'");
    assert_file_refused(MINIMAL "rollout: {responses: 257}\n",
                        "c.yaml:5:11: rollout.responses: expected a whole number from 1 to "
                        "256, found '257'");
    assert_file_refused(MINIMAL "run: {threads: 0}\n", "4096, or auto, found '0'");
    assert_file_refused(MINIMAL "run: {device: gpu}\n",
                        "run.device: expected one of auto|cpu|cuda, found 'gpu'");
    assert_file_refused(MINIMAL "run: {device: au}\n", "found 'au'");
    assert_file_refused(MINIMAL "fit: {force: yes}\n", "fit.force: expected true or false");
    assert_file_refused(MINIMAL "descent: {initial: [0.5, x]}\n",
                        "descent.initial: expected numbers");
    assert_file_refused(MINIMAL "descent: {initial: [0, 1]}\n",
                        "expected numbers from 1e-12 to 1, found 0");
    assert_file_refused(MINIMAL "descent: {initial: '0.5;0.5'}\n", "found '0.5;0.5'");
}

static void numbers_are_decimal_finite_and_whole_texts(void **state)
{
    (void)state;
    const char *bad[] = {"nan", "inf", "0x10", "1.5x", "1e999", "''", "1 2", "--1", "e"};
    char yaml[256];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(yaml, sizeof yaml, MINIMAL "descent: {step_constant: %s}\n", bad[i]);
        assert_file_refused(yaml, "c.yaml:5:11: descent.step_constant: expected a number");
        snprintf(yaml, sizeof yaml, MINIMAL "run: {seed: %s}\n", bad[i]);
        assert_file_refused(yaml, "c.yaml:5:7: run.seed: expected a whole number");
    }
    assert_file_refused(MINIMAL "run: {seed: 99999999999999999999}\n", "expected a whole");
    assert_file_refused(MINIMAL "run: {seed: 1.0}\n", "expected a whole number");
}

static void wrong_kinds_of_node_are_named(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "run: 3\n",
                        "c.yaml:5:6: run: expected a mapping, found one value");
    assert_file_refused(MINIMAL "run: {seed: [1]}\n", "run.seed: expected one value");
    assert_file_refused(MINIMAL "run: {seed: {a: 1}}\n", "found a mapping");
    assert_file_refused(MINIMAL "run: {seed: }\n", "found nothing");
    assert_file_refused(MINIMAL "prompts: ~\n", "duplicate key");
    assert_file_refused(MINIMAL "generate: {prompt: null}\n", "found nothing");
    assert_file_refused(MINIMAL "generate: {prompt: \"a\\0b\"}\n", "a NUL");
    assert_file_refused(MINIMAL "{a: b}: 3\n", "expected");
    assert_file_refused(MINIMAL "descent: {initial: {a: 1}}\n", "a list of numbers");
    assert_file_refused(
        FILE_PART "policies: {a: x}\n",
        "c.yaml:2:1: policies: expected a list of policies, found a mapping");
    assert_file_refused(FILE_PART "policies:\n  - a.gguf\n",
                        "c.yaml:3:5: policies[0]: expected a mapping, found one value");
    assert_file_refused("- a\n",
                        "c.yaml:1:1: expected a mapping of sections, found a list");
}

static void invalid_yaml_names_the_line(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "run: [1\nrollout:\n", "c.yaml:6:");
    assert_file_refused(MINIMAL "run:\n\tseed: 1\n", "c.yaml:6:1: expected YAML");
    assert_file_refused(MINIMAL "run: {seed: *none}\n", "c.yaml:5:");
    assert_file_refused(FILE_PART "# \xff\n", "c.yaml:2:3: expected YAML");
    assert_file_refused(MINIMAL "---\nrun: {}\n", "one YAML document");
    assert_file_refused("", "found an empty file");
    assert_file_refused("# nothing\n", "found an empty file");
}

static void a_file_over_the_limit_is_refused(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    char *text = runner_allocate(MPO_CONFIG_BYTES_MAX + 1, 1);
    memset(text, '#', MPO_CONFIG_BYTES_MAX + 1);
    write_bytes("c.yaml", text, MPO_CONFIG_BYTES_MAX + 1);
    free(text);
    assert_status(open_path("fit", "c.yaml", NO_FLAGS, &config), MPO_ERR_CONFIG);
    assert_error_names("at most 4194304 bytes");
}

static void required_options_are_asked_for(void **state)
{
    (void)state;
    assert_file_refused(TWO, "c.yaml: prompts.file: expected a value, found none");
    assert_file_refused(FILE_PART, "c.yaml: policies: expected a list of at least one");
    assert_file_refused(FILE_PART "policies: []\n", "c.yaml: policies: expected a list");
    assert_file_refused(FILE_PART "policies:\n  - name: a\n",
                        "c.yaml:3:5: policies[0].model: expected a value, found none");
    assert_file_refused(FILE_PART "policies:\n  - model: a\n",
                        "policies[0].name: expected");
    assert_file_refused(FILE_PART "policies:\n  -\n", "policies[0].name: expected");
    struct mpo_config *config = opened(TWO, FLAGS("--prompts.file=x"));
    assert_string_equal(config->prompts.file, "x");
    mpo_config_close(&config);
}

static void one_prompt_of_generate_replaces_the_file(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    assert_ok(open_yaml("generate", TWO, FLAGS("--prompt=Hello"), &config));
    assert_string_equal(config->prompts.file, "");
    mpo_config_close(&config);
    assert_status(open_yaml("generate", TWO, NO_FLAGS, &config), MPO_ERR_CONFIG);
    assert_error_names("prompts.file");
    assert_refused(TWO, FLAGS("--generate.prompt=Hello"), MPO_ERR_CONFIG, "prompts.file");
}

static void names_of_policies_are_checked(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "  - {name: a, model: c}\n",
                        "c.yaml:5:5: policies[2].name: expected a unique name, found 'a', "
                        "which policies[0] already has");
    assert_file_refused(MINIMAL "  - {name: '', model: c}\n", "policies[2].name: expected");
    assert_file_refused(MINIMAL "  - {name: a.b, model: c}\n", "no dot");
    assert_file_refused(MINIMAL "  - {name: uniform, model: c}\n", "uniform");
    assert_file_refused(MINIMAL "  - {name: \"a\\tb\", model: c}\n",
                        "no control characters");
    assert_file_refused(MINIMAL "  - {name: \"a\\x85b\", model: c}\n",
                        "no control characters");
    assert_file_refused(
        MINIMAL
        "  - {name: 1234567890123456789012345678901234567890123456789012345678901234, "
        "model: c}\n",
        "at most 63 bytes");
    assert_refused(MINIMAL, FLAGS("--policies.b.name=a"), MPO_ERR_CONFIG, "a unique name");
}

static void at_most_one_reference_and_at_least_one_objective(void **state)
{
    (void)state;
    assert_file_refused(
        MINIMAL REFERENCE "  - {name: s, model: s, role: reference}\n",
        "c.yaml:6:5: policies[3].role: expected at most one policy with role "
        "reference, found 's' and 'r'");
    assert_file_refused(FILE_PART "policies:\n" REFERENCE, "at least one policy with role");
    assert_file_refused(MINIMAL "rollout: {proposal: reference}\n",
                        "c.yaml:5:11: rollout.proposal: reference needs one policy");
    struct mpo_config *config =
        opened(MINIMAL REFERENCE "rollout: {proposal: reference}\n", NO_FLAGS);
    mpo_config_close(&config);
}

static void initial_weights_are_checked(void **state)
{
    (void)state;
    assert_file_refused(
        MINIMAL "descent:\n  initial: [0.5, 0.25, 0.25]\n",
        "c.yaml:6:3: descent.initial: expected 2 numbers, one per objective, "
        "found 3");
    assert_file_refused(MINIMAL "descent: {initial: [0.5, 0.25]}\n", "found a sum of 0.75");
    assert_refused(MINIMAL, FLAGS("--descent.initial=0.5,0.6"), MPO_ERR_CONFIG,
                   "--descent.initial: expected weights that sum to 1");
}

static void a_unit_has_at_most_256_rows(void **state)
{
    (void)state;
    assert_file_refused(MINIMAL "rollout: {responses: 16, unit_prompts: 17}\n",
                        "c.yaml:5:26: rollout.unit_prompts: expected rollout.unit_prompts "
                        "x rollout.responses to be at most 256, found 17 x 16");
    struct mpo_config *config =
        opened(MINIMAL "rollout: {responses: 16, unit_prompts: 16}\n", NO_FLAGS);
    mpo_config_close(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_file_is_a_missing_input),
        cmocka_unit_test(unknown_key_names_line_and_column),
        cmocka_unit_test(duplicate_key_names_both_lines),
        cmocka_unit_test(bounds_are_named_where_their_policy_is),
        cmocka_unit_test(a_second_document_is_refused_where_it_begins),
        cmocka_unit_test(wrong_values_name_place_expectation_and_finding),
        cmocka_unit_test(numbers_are_decimal_finite_and_whole_texts),
        cmocka_unit_test(wrong_kinds_of_node_are_named),
        cmocka_unit_test(invalid_yaml_names_the_line),
        cmocka_unit_test(a_file_over_the_limit_is_refused),
        cmocka_unit_test(required_options_are_asked_for),
        cmocka_unit_test(one_prompt_of_generate_replaces_the_file),
        cmocka_unit_test(names_of_policies_are_checked),
        cmocka_unit_test(at_most_one_reference_and_at_least_one_objective),
        cmocka_unit_test(initial_weights_are_checked),
        cmocka_unit_test(a_unit_has_at_most_256_rows),
    };
    return cmocka_run_group_tests_name("refused configurations", tests, make_folder,
                                       remove_folder);
}
