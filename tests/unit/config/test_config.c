/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: what is read from the file, and what from flags, in which precedence.
 */
#include <math.h>

#include "config_cases.h"

static void what_is_left_out_has_its_default(void **state)
{
    (void)state;
    struct mpo_config *config = opened(MINIMAL, NO_FLAGS);
    assert_int_equal(config->run.seed, 1);
    assert_true(config->run.threads == MPO_AUTO_INTEGER);
    assert_string_equal(config->run.device, "auto");
    assert_int_equal(config->rollout.responses, 16);
    assert_true(isnan(config->rollout.end_bias));
    assert_int_equal(config->descent.initial.count, 0);
    assert_true(config->record.responses);
    assert_false(config->fit.force);
    assert_string_equal(config->policies[1].chat_template, "auto");
    assert_close(config->policies[1].temperature, 1, 0);
    assert_int_equal(config->policy_count, 2);
    assert_int_equal(config->objective_count, 2);
    mpo_config_close(&config);
    assert_null(config);
    mpo_config_close(&config);
}

static void every_type_is_read_from_the_file(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(MINIMAL "run: {seed: 7, threads: 3, device: cpu}\n"
                       "rollout: {end_bias: -1.5e0, control: auto}\n"
                       "descent: {initial: [0.25, 0.75], stop_gap: 0.125}\n"
                       "record: {responses: false}\n"
                       "generate:\n  weights: 'a: #b'\n  prompt: |\n    two\n    lines\n",
               NO_FLAGS);
    assert_int_equal(config->run.seed, 7);
    assert_int_equal(config->run.threads, 3);
    assert_string_equal(config->run.device, "cpu");
    assert_close(config->rollout.end_bias, -1.5, 0);
    assert_true(isnan(config->rollout.control));
    assert_int_equal(config->descent.initial.count, 2);
    assert_close(config->descent.initial.value[1], 0.75, 0);
    assert_close(config->descent.stop_gap, 0.125, 0);
    assert_false(config->record.responses);
    assert_string_equal(config->generate.weights, "a: #b");
    assert_string_equal(config->generate.prompt, "two\nlines\n");
    mpo_config_close(&config);
}

static void numbers_may_be_one_text_too(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(MINIMAL "descent: {initial: '0.4, 0.6'}\n", NO_FLAGS);
    assert_int_equal(config->descent.initial.count, 2);
    assert_close(config->descent.initial.value[0], 0.4, 0);
    mpo_config_close(&config);
}

static void an_empty_section_is_no_section(void **state)
{
    (void)state;
    struct mpo_config *config = opened(MINIMAL "rollout:\n  # responses: 3\n", NO_FLAGS);
    assert_int_equal(config->rollout.responses, 16);
    mpo_config_close(&config);
}

static void objectives_come_first_in_their_order_then_the_reference(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(FILE_PART "policies:\n" REFERENCE "  - {name: z, model: z}\n"
                         "  - {name: a, model: a}\n",
               NO_FLAGS);
    assert_int_equal(config->policy_count, 3);
    assert_int_equal(config->objective_count, 2);
    assert_string_equal(config->policies[0].name, "z");
    assert_string_equal(config->policies[1].name, "a");
    assert_string_equal(config->policies[2].name, "r");
    mpo_config_close(&config);
}

static void paths_are_relative_to_the_folder_of_the_file(void **state)
{
    (void)state;
    const char *yaml = "prompts: {file: '-'}\npolicies:\n"
                       "  - {name: a, model: m/a.gguf, lora: /abs/l.gguf}\n"
                       "  - {name: b, model: ../b.gguf}\n";
    struct mpo_config *config = NULL;
    write_bytes("sub/c.yaml", yaml, strlen(yaml));
    assert_ok(open_path("fit", "sub/c.yaml", NO_FLAGS, &config));
    assert_string_equal(config->prompts.file, "-");
    assert_string_equal(config->policies[0].model, "sub/m/a.gguf");
    assert_string_equal(config->policies[0].lora.text[0], "/abs/l.gguf");
    assert_string_equal(config->policies[1].model, "sub/../b.gguf");
    assert_int_equal(config->policies[1].lora.count, 0);
    assert_string_equal(config->record.file, "sub/mpo.h5");
    mpo_config_close(&config);
}

static void adapters_and_their_scales_may_be_lists(void **state)
{
    (void)state;
    const char *yaml = "prompts: {file: p}\npolicies:\n"
                       "  - {name: a, model: a.gguf, lora: [x.gguf, /y.gguf], "
                       "lora_scale: [1, 0.5]}\n"
                       "  - {name: b, model: b.gguf, lora: '[x]'}\n";
    struct mpo_config *config = NULL;
    struct mpo_config *again = NULL;
    char *text = NULL;
    write_bytes("sub/c.yaml", yaml, strlen(yaml));
    assert_ok(open_path("fit", "sub/c.yaml",
                        FLAGS("--policies.b.lora_scale=[2]", "--policies.a.devices=2"),
                        &config));
    assert_int_equal(config->policies[0].lora.count, 2);
    assert_string_equal(config->policies[0].lora.text[0], "sub/x.gguf");
    assert_string_equal(config->policies[0].lora.text[1], "/y.gguf");
    assert_int_equal(config->policies[0].lora_scale.count, 2);
    assert_true(config->policies[0].lora_scale.value[1] == 0.5);
    assert_string_equal(config->policies[1].lora.text[0], "sub/[x]");
    assert_int_equal(config->policies[1].lora_scale.count, 1);
    assert_true(config->policies[1].lora_scale.value[0] == 2.0);
    assert_ok(mpo_config_print(config, &text));
    assert_non_null(strstr(text, "lora: [\"sub/x.gguf\", \"/y.gguf\"]\n"));
    assert_non_null(strstr(text, "lora_scale: [1, 0.5]\n"));
    assert_non_null(strstr(text, "lora: \"sub/[x]\"\n"));
    assert_non_null(strstr(text, "lora_scale: 2\n"));
    free(text);
    mpo_config_close(&config);
    assert_ok(open_path("fit", "sub/c.yaml",
                        FLAGS("--policies.a.lora=[u, v ,w]", "--policies.a.lora_scale=3"),
                        &again));
    assert_int_equal(again->policies[0].lora.count, 3);
    assert_string_equal(again->policies[0].lora.text[1], "v");
    assert_int_equal(again->policies[0].lora_scale.count, 1);
    mpo_config_close(&again);
}

static void paths_of_flags_stay_as_given(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    write_bytes("sub/c.yaml", MINIMAL, strlen(MINIMAL));
    assert_ok(open_path("fit", "sub/c.yaml", FLAGS("--record.file=here.h5"), &config));
    assert_string_equal(config->record.file, "here.h5");
    assert_string_equal(config->prompts.file, "sub/p.txt");
    mpo_config_close(&config);
}

static void flags_beat_the_file_and_the_last_flag_wins(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(MINIMAL "rollout: {responses: 4, max_tokens: 5}\n",
               FLAGS("--rollout.responses=8", "--rollout.responses", "9",
                     "--rollout.end_bias", "-3", "--descent.initial=0.5,0.5"));
    assert_int_equal(config->rollout.responses, 9);
    assert_int_equal(config->rollout.max_tokens, 5);
    assert_close(config->rollout.end_bias, -3, 0);
    assert_int_equal(config->descent.initial.count, 2);
    mpo_config_close(&config);
}

static void a_flag_without_a_value_means_true(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(MINIMAL, FLAGS("--fit.force", "--quiet", "--record.responses=false"));
    assert_true(config->fit.force);
    assert_true(config->fit.quiet);
    assert_false(config->record.responses);
    mpo_config_close(&config);
}

static void the_own_section_of_a_command_needs_no_name(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    assert_ok(open_yaml("generate", MINIMAL,
                        FLAGS("--weights", "0.4,0.6", "--n=3", "--generate.greedy"),
                        &config));
    assert_string_equal(config->generate.weights, "0.4,0.6");
    assert_int_equal(config->generate.n, 3);
    assert_true(config->generate.greedy);
    mpo_config_close(&config);
    assert_refused(
        MINIMAL, FLAGS("--n=3"), MPO_ERR_USAGE,
        "--n is a flag of `mpo generate`, not of `mpo fit` (mpo help fit lists all)");
}

static void flags_of_policies_go_by_name(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(MINIMAL, FLAGS("--policies.b.temperature=0.7", "--policies.a.model=x=y",
                              "--policies.b.role=reference"));
    assert_close(config->policies[0].temperature, 1, 0);
    assert_close(config->policies[1].temperature, 0.7, 0);
    assert_string_equal(config->policies[0].model, "x=y");
    assert_int_equal(config->objective_count, 1);
    mpo_config_close(&config);
}

static void an_unknown_policy_in_a_flag_lists_the_known_ones(void **state)
{
    (void)state;
    assert_flag_refused("--policies.c.model=x",
                        "--policies.c.model: unknown policy 'c'; known: a, b");
    assert_flag_refused("--policies.ab.model=x", "unknown policy 'ab'; known: a, b");
}

static void a_malformed_flag_of_a_policy_shows_the_form(void **state)
{
    (void)state;
    const char *form = "expected --policies.NAME.key=value, found '";
    assert_flag_refused("--policies.a.temperature", form);
    assert_flag_refused("--policies.a=1", form);
    assert_flag_refused("--policies.=1", form);
    assert_flag_refused("--policies..model=1", form);
    assert_flag_refused("--policies.a.modle=x", "did you mean 'model'?");
}

static void an_unknown_flag_names_the_nearest(void **state)
{
    (void)state;
    assert_flag_refused("--rollout.respones=3",
                        "unknown option '--rollout.respones'; the nearest known one is "
                        "'--rollout.responses' (mpo help fit lists all)");
    assert_flag_refused("--responses=3", "the nearest known one is '--rollout.responses'");
    assert_flag_refused("-f", "unknown option '-f'");
}

static void a_flag_of_other_commands_names_them(void **state)
{
    (void)state;
    assert_flag_refused(
        "--step=3", "--step is a flag of `mpo generate`, `mpo score`, `mpo "
                    "evaluate`, `mpo export`, not of `mpo fit`; the nearest known one is "
                    "'--descent.steps' (mpo help fit lists all)");
    assert_flag_refused("--best_of=3", "--best_of is a flag of `mpo generate`, not of");
    assert_flag_refused("--inspect.plot=x", "--inspect.plot is a flag of `mpo inspect`");
    assert_flag_refused("--limit=3", "`mpo generate`, `mpo score`, `mpo evaluate`, not of");
    /* and its own are nearer */
    struct mpo_config *config = NULL;
    assert_int_equal(open_yaml("generate", MINIMAL, FLAGS("--ste=3"), &config),
                     MPO_ERR_USAGE);
    assert_error_names("the nearest known one is '--step' (mpo help generate lists all)");
    assert_int_equal(open_yaml("generate", MINIMAL, FLAGS("--force"), &config),
                     MPO_ERR_USAGE);
    assert_error_names("--force is a flag of `mpo fit`, not of `mpo generate` (mpo help");
    struct mpo_config_arguments arguments = {0};
    assert_int_equal(mpo_config_open_flags("inspect", 1, FLAGS("--rollout.responses=3"),
                                           &arguments, &config),
                     MPO_ERR_USAGE);
    assert_error_names("--rollout.responses is a setting of a configuration, not of `mpo "
                       "inspect` (mpo help inspect lists all)");
    assert_int_equal(
        mpo_config_open_flags("version", 1, FLAGS("--jsn"), &arguments, &config),
        MPO_ERR_USAGE);
    assert_error_names("unknown option '--jsn'; the nearest known one is '--json'");
}

static void what_is_far_from_all_suggests_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        char *far[] = {"--zzzzzzzzzz", "--x=3", "-x", "--=3", "--pqr.stu_vwx=1"};
        assert_flag_refused(far[i], "unknown option '");
        assert_null(strstr(mpo_error_text(), "nearest"));
        assert_null(strstr(mpo_error_text(), "flag of"));
    }
}

static void hyphens_of_keys_are_underscores(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(MINIMAL, FLAGS("--run.step-deadline=9", "--rollout.max_tokens=5",
                              "--policies.a.reward-zero=0", "--record.hash-models=false"));
    assert_close(config->run.step_deadline, 9, 0);
    const char *const keys[] = {"run.step-deadline", "run.step_deadline"};
    for (int i = 0; i < 2; i++) {
        char *text = NULL;
        assert_ok(mpo_config_get(config, keys[i], &text));
        assert_string_equal(text, "9\n");
        free(text);
    }
    char *text = NULL;
    assert_ok(mpo_config_get(config, "policies.a.reward-zero", &text));
    free(text);
    assert_int_equal(mpo_config_get(config, "run.step-deadlin", &text), MPO_ERR_USAGE);
    assert_error_names("the nearest key is 'run.step_deadline'");
    assert_int_equal(mpo_config_get(config, "run.step", &text), MPO_ERR_USAGE);
    assert_int_equal(mpo_config_get(config, "run.step_deadline_", &text), MPO_ERR_USAGE);
    mpo_config_close(&config);
    assert_refused("run: {step-deadline: 9}\n" MINIMAL, NO_FLAGS, MPO_ERR_CONFIG,
                   "run.step-deadline: unknown key; did you mean 'step_deadline'?");
}

static void the_beginning_of_a_flag_is_not_the_flag(void **state)
{
    (void)state;
    assert_flag_refused("--rollout.resp=3", "unknown option '--rollout.resp'; the nearest "
                                            "known one is '--rollout.responses'");
    assert_flag_refused("--forc", "unknown option '--forc'");
    /* as long as the option's name without its section */
    assert_flag_refused("--rollout.r=3", "unknown option '--rollout.r'");
}

static void wrong_values_of_flags_name_the_flag(void **state)
{
    (void)state;
    assert_flag_refused("--rollout.responses=0", "--rollout.responses: expected a whole "
                                                 "number from 1 to 256, found '0'");
    assert_flag_refused("--force=maybe", "--force: expected true or false, found 'maybe'");
    assert_flag_refused("--policies.a.temperature=hot",
                        "--policies.a.temperature: expected a number from 0.001 to 1000, "
                        "found 'hot'");
    assert_flag_refused("--rollout.responses",
                        "--rollout.responses: expected a value, found none");
    assert_flag_refused("--generate.prompt=\xff",
                        "--generate.prompt: expected text in UTF-8");
}

static void one_configuration_file_is_expected(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    assert_status(mpo_config_open("fit", 0, NULL, &config), MPO_ERR_USAGE);
    assert_string_equal(
        mpo_error_text(),
        "expected one configuration file, found none; usage: mpo fit CONFIG "
        "[--section.key=value ...]");
    assert_flag_refused("d.yaml",
                        "expected one configuration file, found c.yaml and d.yaml");
    assert_null(config);
}

static void flags_may_stand_before_the_file(void **state)
{
    (void)state;
    struct mpo_config *config = NULL;
    write_bytes("c.yaml", MINIMAL, strlen(MINIMAL));
    assert_ok(mpo_config_open("fit", 3, FLAGS("--force", "--", "c.yaml"), &config));
    assert_true(config->fit.force);
    mpo_config_close(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_left_out_has_its_default),
        cmocka_unit_test(every_type_is_read_from_the_file),
        cmocka_unit_test(numbers_may_be_one_text_too),
        cmocka_unit_test(an_empty_section_is_no_section),
        cmocka_unit_test(objectives_come_first_in_their_order_then_the_reference),
        cmocka_unit_test(paths_are_relative_to_the_folder_of_the_file),
        cmocka_unit_test(adapters_and_their_scales_may_be_lists),
        cmocka_unit_test(paths_of_flags_stay_as_given),
        cmocka_unit_test(flags_beat_the_file_and_the_last_flag_wins),
        cmocka_unit_test(a_flag_without_a_value_means_true),
        cmocka_unit_test(the_own_section_of_a_command_needs_no_name),
        cmocka_unit_test(flags_of_policies_go_by_name),
        cmocka_unit_test(an_unknown_policy_in_a_flag_lists_the_known_ones),
        cmocka_unit_test(a_malformed_flag_of_a_policy_shows_the_form),
        cmocka_unit_test(an_unknown_flag_names_the_nearest),
        cmocka_unit_test(a_flag_of_other_commands_names_them),
        cmocka_unit_test(what_is_far_from_all_suggests_nothing),
        cmocka_unit_test(hyphens_of_keys_are_underscores),
        cmocka_unit_test(the_beginning_of_a_flag_is_not_the_flag),
        cmocka_unit_test(wrong_values_of_flags_name_the_flag),
        cmocka_unit_test(one_configuration_file_is_expected),
        cmocka_unit_test(flags_may_stand_before_the_file),
    };
    return cmocka_run_group_tests_name("configuration", tests, make_folder, remove_folder);
}
