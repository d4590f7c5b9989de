/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations that were stored and are read back: what another version wrote, and two of
 * them compared.
 */
#include "config_cases.h"

#define SEEN_BYTES 1024

static struct mpo_config *read_back(const char *text)
{
    struct mpo_config *config = NULL;
    assert_ok(mpo_config_read_text("r.h5", text, &config));
    assert_non_null(config);
    return config;
}

static void note(void *context, const char *key, const char *first, const char *second)
{
    char *seen = context;
    size_t used = strlen(seen);
    snprintf(seen + used, SEEN_BYTES - used, "%s: %s | %s;", key, first, second);
}

static void assert_differs(const struct mpo_config *first, const struct mpo_config *second,
                           const char *expected)
{
    char seen[SEEN_BYTES] = "";
    assert_ok(mpo_config_compare(first, second, note, seen));
    assert_string_equal(seen, expected);
}

static void assert_texts_differ(const char *first, const char *second, const char *expected)
{
    struct mpo_config *a = read_back(first);
    struct mpo_config *b = read_back(second);
    assert_differs(a, b, expected);
    mpo_config_close(&a);
    mpo_config_close(&b);
}

static void what_was_printed_is_read_back_without_a_difference(void **state)
{
    (void)state;
    struct mpo_config *config =
        opened(MINIMAL REFERENCE "descent: {initial: [0.1, 0.9]}\nrollout: {control: auto, "
                                 "end_bias: 0.1}\n",
               FLAGS("--policies.a.system=- {x}: [y]\n\"", "--policies.b.lora=l: #.gguf"));
    char *text = NULL;
    assert_ok(mpo_config_print(config, &text));
    struct mpo_config *stored = read_back(text);
    assert_differs(config, stored, "");
    assert_true(mpo_config_is_given(stored, "descent.steps"));
    assert_true(mpo_config_is_given(config, "descent.steps"));
    mpo_config_close(&stored);
    mpo_config_close(&config);
    free(text);
}

static void values_are_compared_and_not_how_they_are_written(void **state)
{
    (void)state;
    assert_texts_differ("run: {seed: 7}\nrollout: {control: auto, end_bias: 0.50}\n",
                        "rollout:\n  end_bias: 5e-1\nrun:\n  \"seed\": +7\n", "");
    assert_texts_differ("descent: {initial: [0.5, 0.5]}\n", "descent: {initial: '0.5,0.5'}",
                        "");
    assert_texts_differ("rollout: {end_bias: 0.5, control: 1}\nrecord: {responses: true}\n",
                        "rollout: {end_bias: 0.25, control: auto}\n"
                        "record: {responses: false}\ndescent: {initial: [0.5, 0.5]}\n",
                        "rollout.end_bias: 0.5 | 0.25;rollout.control: 1 | auto;"
                        "descent.initial: - | [0.5, 0.5];record.responses: true | false;");
    assert_texts_differ("run: {device: cpu}\nprompts: {prefill: a}\n",
                        "run: {device: auto}\nprompts: {prefill: \"a: b\"}\n",
                        "run.device: cpu | auto;prompts.prefill: \"a\" | \"a: b\";");
}

static void what_a_text_leaves_out_was_at_its_default(void **state)
{
    (void)state;
    assert_texts_differ("run: {}\n", "run: {seed: 1}\n", "");
    assert_texts_differ("run: {}\n", "run: {seed: 2}\n", "run.seed: - | 2;");
    assert_texts_differ("prompts: {file: a}\n", "run: {}\n", "prompts.file: \"a\" | -;");
    struct mpo_config *config = read_back("descent: {step_rule: fixed}\n");
    assert_false(mpo_config_is_given(config, "descent.steps"));
    assert_true(mpo_config_is_given(config, "descent.step_rule"));
    assert_int_equal(config->descent.steps, 62);
    mpo_config_close(&config);
}

/* Of before there were these options, whose defaults are others now. */
static void what_came_with_another_default_was_as_before(void **state)
{
    (void)state;
    struct mpo_config *stored = read_back("run: {}\n");
    struct mpo_config *now = opened(MINIMAL, NO_FLAGS);
    assert_int_equal(stored->estimator.target, MPO_TARGET_WHOLE);
    assert_int_equal(stored->descent.average, MPO_AVERAGING_UNIFORM);
    assert_int_equal(now->estimator.target, MPO_TARGET_SERVED);
    assert_int_equal(now->descent.average, MPO_AVERAGING_LINEAR);
    mpo_config_close(&now);
    mpo_config_close(&stored);
}

static void what_a_file_or_a_flag_gave_is_written(void **state)
{
    (void)state;
    struct mpo_config *config = opened(MINIMAL "descent: {average: linear, steps: 62}\n",
                                       FLAGS("--rollout.responses=16"));
    assert_true(mpo_config_is_written(config, "descent.average"));
    assert_true(mpo_config_is_written(config, "descent.steps"));
    assert_true(mpo_config_is_written(config, "rollout.responses"));
    assert_false(mpo_config_is_written(config, "estimator.target"));
    assert_false(mpo_config_is_written(config, "no.option"));
    mpo_config_close(&config);
}

static void policies_are_matched_by_name(void **state)
{
    (void)state;
    assert_texts_differ(
        "policies:\n  - {name: a, model: x}\n  - {name: b, model: y, min: 0.25}\n",
        "policies:\n  - {name: b, model: y}\n  - {name: a, model: z}\n",
        "policies.a.model: \"x\" | \"z\";policies.b.min: 0.25 | -;");
    assert_texts_differ("policies:\n  - {name: a, model: x, min: 0.5}\n",
                        "policies:\n  - {name: b, model: x}\n",
                        "policies.a.name: \"a\" | -;policies.a.model: \"x\" | -;"
                        "policies.b.name: - | \"b\";policies.b.model: - | \"x\";");
    assert_texts_differ("policies:\n  - {model: x}\n", "policies:\n  - {model: x}\n",
                        "policies.?.model: \"x\" | -;policies.?.model: - | \"x\";");
}

static void what_another_version_says_is_shown_as_it_stands(void **state)
{
    (void)state;
    assert_texts_differ("run: {speed: 9, seed: 1}\nnew: {a: 1, b: [2]}\n", "run: {}\n",
                        "run.speed: 9 | -;new.a: 1 | -;new.b: a list | -;");
    assert_texts_differ("run: {speed: 9}\nodd: 3\n", "run: {speed: 8}\nodd: 3\n",
                        "run.speed: 9 | 8;");
    assert_texts_differ("run: {}\n", "policies:\n  - {name: a, model: m, taste: sour}\n",
                        "policies.a.name: - | \"a\";policies.a.model: - | \"m\";"
                        "policies.a.taste: - | sour;");
    assert_texts_differ("rollout: {responses: 1000}\n", "rollout: {responses: 16}\n",
                        "rollout.responses: 1000 | 16;");
    assert_texts_differ("descent: {map: p, initial: [2]}\n", "descent: {map: p}\n",
                        "descent.initial: a list | -;");
}

static void keys_may_be_long(void **state)
{
    (void)state;
    char expected[512];
    char name[64];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    char first[512];
    char second[512];
    snprintf(first, sizeof first, "policies:\n  - {name: %s, model: m, temperature: 2}\n",
             name);
    snprintf(second, sizeof second, "policies:\n  - {name: %s, model: m}\n", name);
    snprintf(expected, sizeof expected, "policies.%s.temperature: 2 | -;", name);
    assert_texts_differ(first, second, expected);
}

static void what_is_no_configuration_is_refused(void **state)
{
    (void)state;
    const char *bad[] = {"",
                         "run: [1\n",
                         "- a\n",
                         "run: 3\n",
                         "run: {}\nrun: {}\n",
                         "policies: 3\n",
                         "a: {b: &x [*x]}\n---\nc: 1\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct mpo_config *config = NULL;
        assert_status(mpo_config_read_text("r.h5", bad[i], &config), MPO_ERR_DATA);
        assert_error_names("r.h5: the configuration stored in it cannot be read");
        assert_null(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_printed_is_read_back_without_a_difference),
        cmocka_unit_test(values_are_compared_and_not_how_they_are_written),
        cmocka_unit_test(what_a_text_leaves_out_was_at_its_default),
        cmocka_unit_test(what_came_with_another_default_was_as_before),
        cmocka_unit_test(what_a_file_or_a_flag_gave_is_written),
        cmocka_unit_test(policies_are_matched_by_name),
        cmocka_unit_test(what_another_version_says_is_shown_as_it_stands),
        cmocka_unit_test(keys_may_be_long),
        cmocka_unit_test(what_is_no_configuration_is_refused),
    };
    return cmocka_run_group_tests_name("stored configurations", tests, make_folder,
                                       remove_folder);
}
