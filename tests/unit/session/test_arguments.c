/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mpo/status.h promises of NULL: openers, and calls that take what a program made, answer
 * MPO_ERR_USAGE with the name of what is missing and leave no handle behind; closing what is
 * closed, or NULL, has no effect.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mpo/mpo.h"
#include "runner.h"
#include "table_files.h"

static char folder[TABLE_PATH_BYTES];
static struct mpo_session *session;

#define TEXT                                                                               \
    "prompts:\n"                                                                           \
    "  file: prompts.txt\n"                                                                \
    "policies:\n"                                                                          \
    "  - name: up\n"                                                                       \
    "    model: up.table\n"                                                                \
    "rollout:\n"                                                                           \
    "  responses: 2\n"                                                                     \
    "  max_tokens: 4\n"                                                                    \
    "  prompts_per_step: 2\n"

static int open_session(void **state)
{
    char path[TABLE_PATH_BYTES];
    (void)state;
    table_folder_make_two(folder);
    table_write_text(folder, "prompts.txt", "a\nb\na b\n", path);
    assert_ok(mpo_session_open(
        &(struct mpo_session_spec){.config_text = TEXT, .config_folder = folder},
        &session));
    return 0;
}

static int close_session(void **state)
{
    (void)state;
    mpo_session_close(&session);
    mpo_session_close(&session);
    table_folder_remove(folder);
    return 0;
}

/* The text begins with the function's name and says what it lacks. Texts of before are gone,
 * so that it is this call's own. */
#define refuse_null(call, name)                                                            \
    do {                                                                                   \
        mpo_error_set("");                                                                 \
        assert_status(call, MPO_ERR_USAGE);                                                \
        assert_error_names(": expected " name ", found NULL");                             \
        const char *function_ = mpo_error_text();                                          \
        assert_memory_equal(#call, function_, strcspn(function_, ":"));                    \
    } while (0)

/* The same of an opener, whose handle is NULL after it, whatever it was before. */
#define refuse_to_open(type, call, name)                                                   \
    do {                                                                                   \
        struct type *handle = (void *)folder;                                              \
        struct type **out = &handle;                                                       \
        refuse_null(call, name);                                                           \
        assert_null(handle);                                                               \
    } while (0)

static void openers_name_what_is_missing(void **state)
{
    (void)state;
    const struct mpo_comm *comm = mpo_session_comm(session);
    refuse_to_open(mpo_session, mpo_session_open(NULL, out), "spec");
    refuse_null(mpo_session_open(&(struct mpo_session_spec){.config_text = TEXT}, NULL),
                "out");
    refuse_null(mpo_comm_begin(NULL), "spec");
    refuse_null(mpo_comm_open(1, NULL), "out");
    refuse_null(mpo_placement_open_comm(1, 1, NULL), "out");
    refuse_to_open(mpo_config, mpo_config_open(NULL, 0, NULL, out), "command");
    refuse_to_open(mpo_config, mpo_config_open_text("fit", NULL, 0, NULL, out), "source");
    const struct mpo_config_text no_text = {0};
    refuse_to_open(mpo_config, mpo_config_open_text("fit", &no_text, 0, NULL, out),
                   "source->text");
    refuse_to_open(mpo_config, mpo_config_read_text("it", NULL, out), "text");
    const struct mpo_prompts_spec no_path = {.format = "text"};
    refuse_to_open(mpo_prompts, mpo_prompts_open(NULL, out), "spec");
    refuse_to_open(mpo_prompts, mpo_prompts_open(&no_path, out), "spec->path");
    refuse_to_open(mpo_prompts, mpo_prompts_open_single(NULL, NULL, out), "text");
    refuse_to_open(mpo_policies, mpo_policies_open(NULL, comm, out), "spec");
    const struct mpo_policies_spec of_none = {.thread_count = 1};
    refuse_to_open(mpo_policies, mpo_policies_open(&of_none, NULL, out), "comm");
    refuse_to_open(mpo_exchange, mpo_exchange_open(NULL, comm, out), "spec");
    refuse_to_open(mpo_mixture, mpo_mixture_open(NULL, out), "spec");
    refuse_to_open(mpo_decode, mpo_decode_open(NULL, out), "spec");
    const struct mpo_decode_spec no_policies = {.comm = comm};
    refuse_to_open(mpo_decode, mpo_decode_open(&no_policies, out), "spec->policies");
    refuse_to_open(mpo_rollout, mpo_rollout_open(NULL, out), "spec");
    const struct mpo_rollout_spec no_decode = {.comm = comm,
                                               .policies = mpo_session_policies(session)};
    refuse_to_open(mpo_rollout, mpo_rollout_open(&no_decode, out), "spec->decode");
    refuse_to_open(mpo_estimator, mpo_estimator_open(NULL, out), "spec");
    refuse_to_open(mpo_descent, mpo_descent_open(NULL, out), "spec");
    const struct mpo_descent_spec no_map = {.steps = 1, .objective_count = 1};
    refuse_to_open(mpo_descent, mpo_descent_open(&no_map, out), "spec->map");
    refuse_to_open(mpo_rewards, mpo_rewards_open(NULL, out), "spec");
    refuse_to_open(mpo_record, mpo_record_open(NULL, out), "path");
    refuse_to_open(mpo_record_writer, mpo_record_create(NULL, out), "spec");
    refuse_to_open(mpo_record_writer, mpo_record_resume("x.h5", NULL, 0, out), "segment");
}

/* All ranks are told of it: a fit is opened by all together. */
static void a_fit_names_what_is_missing(void **state)
{
    (void)state;
    const struct mpo_fit_spec no_session = {.command_line = "it"};
    refuse_to_open(mpo_fit, mpo_fit_open(NULL, out), "spec");
    refuse_to_open(mpo_fit, mpo_fit_open(&no_session, out), "spec->session");
    refuse_null(mpo_fit_open(&(struct mpo_fit_spec){.session = session}, NULL), "out");
    bool more = true;
    refuse_null(mpo_fit_step(NULL, &more), "fit");
    refuse_null(mpo_fit_finish(NULL), "fit");
    refuse_null(mpo_fit_adopt(session, NULL), "config");
    refuse_null(mpo_session_begin_step(session, NULL), "progress");
    refuse_null(mpo_session_begin_step(NULL, &(struct mpo_session_progress){0}), "session");
    refuse_null(mpo_session_begin_step(session, &(struct mpo_session_progress){0}),
                "progress->unit");
}

static void a_machine_names_what_is_missing(void **state)
{
    (void)state;
    struct mpo_decode *decode = mpo_session_decode(session);
    const struct mpo_decode_event *event = NULL;
    const double mu[] = {1.0};
    const struct mpo_decode_row row = {.share = -1, .mu = mu, .free_count = 1};
    const struct mpo_message message = {"user", "a"};
    const struct mpo_message no_role = {.content = "a"};
    const int32_t token = 0;
    int32_t index = 0;
    refuse_null(mpo_decode_offer_text(decode, 0, NULL, NULL), "text");
    refuse_null(mpo_decode_offer_text(NULL, 0, "a", NULL), "decode");
    refuse_null(mpo_decode_offer_tokens(decode, 0, NULL, 1), "token");
    refuse_null(mpo_decode_offer_tokens(NULL, 0, &token, 1), "decode");
    refuse_null(mpo_decode_admit(NULL, &row, &index), "decode");
    refuse_null(mpo_decode_admit(decode, NULL, &index), "row");
    refuse_null(mpo_decode_admit(decode, &row, NULL), "index");
    refuse_null(mpo_decode_step(NULL, &event, &index), "decode");
    refuse_null(mpo_decode_step(decode, NULL, &index), "events");
    refuse_null(mpo_decode_step(decode, &event, NULL), "count");
    refuse_null(mpo_decode_follow(NULL), "decode");
    struct mpo_prompt prompt = {.messages = &message, .message_count = 1};
    assert_status(mpo_decode_offer(decode, 0, NULL, NULL), MPO_ERR_USAGE);
    assert_error_names("a prompt: expected prompt, found NULL");
    assert_status(mpo_decode_offer(decode, 0, &prompt, NULL), MPO_ERR_USAGE);
    assert_error_names("a prompt: expected prompt->prefill, found NULL");
    prompt.prefill = "";
    prompt.messages = NULL;
    assert_status(mpo_decode_offer(decode, 0, &prompt, NULL), MPO_ERR_USAGE);
    assert_error_names("a prompt: expected prompt->messages, found NULL");
    prompt.messages = &no_role;
    assert_status(mpo_decode_offer(decode, 0, &prompt, NULL), MPO_ERR_USAGE);
    assert_error_names("a prompt: expected message->role, found NULL");
    assert_ok(mpo_decode_offer_text(decode, 0, "a", NULL));
    assert_ok(mpo_decode_release(decode));
}

static void a_prompt_is_what_a_policy_can_read(void **state)
{
    (void)state;
    struct mpo_decode *decode = mpo_session_decode(session);
    struct mpo_message message = {"tool", "a"};
    struct mpo_prompt prompt = {.messages = &message, .message_count = 1, .prefill = ""};
    assert_status(mpo_decode_offer(decode, 0, &prompt, NULL), MPO_ERR_DATA);
    assert_error_names(
        "expected role system, user or assistant in messages[0], found 'tool'");
    message.role = "user";
    message.content = "a \xff";
    assert_status(mpo_decode_offer(decode, 0, &prompt, NULL), MPO_ERR_DATA);
    assert_error_names("found the byte 0xFF after 2 bytes");
    message.content = "a";
    prompt.prefill = "\xc3";
    assert_status(mpo_decode_offer(decode, 0, &prompt, NULL), MPO_ERR_DATA);
    assert_error_names("expected the prefill in UTF-8, found the byte 0xC3");
    prompt.prefill = "";
    prompt.message_count = -1;
    assert_status(mpo_decode_offer(decode, 0, &prompt, NULL), MPO_ERR_DATA);
    assert_error_names("the prompt has -1 messages");
    prompt.message_count = 1;
    assert_ok(mpo_decode_offer(decode, 0, &prompt, NULL));
}

static void a_step_of_a_rollout_names_what_is_missing(void **state)
{
    (void)state;
    struct mpo_rollout *rollout = mpo_session_rollout(session);
    const double mu[] = {1.0};
    const int64_t prompts[] = {0, 2, 3, -1};
    struct mpo_rollout_step step = {.prompt = prompts, .prompt_count = 2, .mu = mu};
    struct mpo_responses responses = {0};
    struct mpo_scores scores = {0};
    refuse_null(mpo_rollout_run(NULL, &step, &responses), "rollout");
    refuse_null(mpo_rollout_run(rollout, NULL, &responses), "step");
    refuse_null(mpo_rollout_run(rollout, &step, NULL), "out");
    assert_status(mpo_rollout_score(rollout, &step, &scores), MPO_ERR_USAGE);
    assert_error_names("opened to draw responses was asked to score given responses");
    step.mu = NULL;
    assert_status(mpo_rollout_run(rollout, &step, &responses), MPO_ERR_USAGE);
    assert_error_names("a step with mu NULL, expected 1 exponents");
    step.mu = mu;
    step.prompt = NULL;
    assert_status(mpo_rollout_run(rollout, &step, &responses), MPO_ERR_USAGE);
    assert_error_names("a step of 2 prompts, and prompt is NULL");
    for (int i = 2; i < 4; i++) {
        step.prompt = &prompts[i];
        step.prompt_count = 1;
        assert_status(mpo_rollout_run(rollout, &step, &responses), MPO_ERR_USAGE);
        assert_error_names("expected an index of those that the policies have");
    }
    step.prompt = prompts;
    step.prompt_count = 3;
    assert_status(mpo_rollout_run(rollout, &step, &responses), MPO_ERR_USAGE);
    assert_error_names("a step of 3 prompts, expected 0 to 2");
    step.prompt_count = 2;
    assert_ok(mpo_rollout_run(rollout, &step, &responses));
    assert_int_equal(responses.prompt_count, 2);
}

static void an_exponent_has_a_bound(void **state)
{
    (void)state;
    const double refused[] = {1e300, -1e300, 1.1 * MPO_EXPONENT_MAX, INFINITY, NAN};
    struct mpo_decode *decode = mpo_session_decode(session);
    const int64_t prompt = 0;
    struct mpo_responses responses = {0};
    int32_t index = 0;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const double one = 1.0;
        struct mpo_decode_row row = {.share = -1, .mu = &refused[i], .free_count = 1};
        struct mpo_rollout_step step = {
            .prompt = &prompt, .prompt_count = 1, .mu = &refused[i]};
        assert_status(mpo_decode_admit(decode, &row, &index), MPO_ERR_USAGE);
        assert_error_names("of policy 'up', expected a finite one from -1e+06 to 1e+06");
        assert_status(mpo_rollout_run(mpo_session_rollout(session), &step, &responses),
                      MPO_ERR_USAGE);
        assert_error_names("of policy 'up', expected a finite one from -1e+06 to 1e+06");
        row.mu = step.mu = &one;
        row.end_bias = step.end_bias = refused[i];
        assert_status(mpo_decode_admit(decode, &row, &index), MPO_ERR_USAGE);
        assert_error_names("a row with end bias");
        assert_status(mpo_rollout_run(mpo_session_rollout(session), &step, &responses),
                      MPO_ERR_USAGE);
        assert_error_names("a step with end bias");
    }
    const double largest = MPO_EXPONENT_MAX;
    const struct mpo_decode_row row = {.share = -1, .mu = &largest, .free_count = 1};
    assert_ok(mpo_decode_admit(decode, &row, &index));
    mpo_decode_cancel(decode, index);
}

static void files_and_figures_name_what_is_missing(void **state)
{
    (void)state;
    const struct mpo_config *config = mpo_session_config(session);
    struct mpo_record_row row = {0};
    double value = 0.0;
    int32_t count = 0;
    char *text = NULL;
    refuse_null(mpo_config_print(config, NULL), "text");
    refuse_null(mpo_config_get(config, NULL, &text), "key");
    refuse_null(mpo_config_bounds(NULL, &(double *){NULL}), "config");
    refuse_null(mpo_config_compare(config, NULL, NULL, NULL), "second");
    refuse_null(mpo_config_parse_numbers(NULL, &value, 1, &count), "text");
    refuse_null(mpo_record_append(NULL, &row, NULL), "writer");
    refuse_null(mpo_record_read(NULL, "weights", 0, 1, &value), "record");
    refuse_null(mpo_record_verify(NULL), "record");
    refuse_null(mpo_record_check(NULL, false), "path");
    refuse_null(mpo_descent_step(NULL, &value), "descent");
    refuse_null(mpo_descent_check_bounds(NULL, 1), "bounds");
    refuse_null(mpo_rewards_measure(NULL, &(struct mpo_rewards_batch){0}, &value),
                "rewards");
    refuse_null(mpo_policies_tokenise(mpo_session_policies(session), NULL, false,
                                      &(int32_t *){NULL}, &count),
                "text");
    assert_status(mpo_config_open("fit", 2, (char *[]){(char *)"a.yaml", NULL},
                                  &(struct mpo_config *){NULL}),
                  MPO_ERR_USAGE);
    assert_error_names("expected 2 texts in argv, found NULL as number 2");
    assert_status(mpo_config_open("fit", 1, NULL, &(struct mpo_config *){NULL}),
                  MPO_ERR_USAGE);
    assert_error_names("found argc 1 and argv NULL");
}

static void optimisers_refuse_sizes_that_are_none(void **state)
{
    (void)state;
    struct mpo_descent *descent = NULL;
    struct mpo_descent_spec slow = {.map = "entropy", .steps = 3};
    assert_status(mpo_descent_open(&slow, &descent), MPO_ERR_USAGE);
    slow.objective_count = 2;
    slow.averaging = (enum mpo_averaging)99;
    assert_status(mpo_descent_open(&slow, &descent), MPO_ERR_CONFIG);
    assert_error_names("descent.average: expected uniform|linear, found number 99");
    slow.averaging = MPO_AVERAGING_UNIFORM;
    slow.step_rule = MPO_STEP_RULE_FIXED;
    slow.step_constant = NAN;
    assert_status(mpo_descent_open(&slow, &descent), MPO_ERR_CONFIG);
    assert_error_names("descent.step_constant: expected one above 0, found nan");
    slow.step_constant = 1e300;
    assert_ok(mpo_descent_open(&slow, &descent));
    assert_status(mpo_descent_step(descent, (double[]){1e300, -1e300}), MPO_ERR_DATA);
    assert_error_names("step 1: the weight of objective 1 is");
    mpo_descent_close(&descent);

    struct mpo_estimator *estimator = NULL;
    const struct mpo_exponents others = {3, 3, 1.0, NULL};
    struct mpo_estimator_spec estimate = {.prompts_max = 1, .responses_max = 1};
    assert_status(mpo_estimator_open(&estimate, &estimator), MPO_ERR_USAGE);
    estimate.objective_count = 2;
    estimate.exponents = &others;
    assert_status(mpo_estimator_open(&estimate, &estimator), MPO_ERR_USAGE);
    assert_error_names("expected exponents of its 2 objectives, found those of 3");
    const struct mpo_exponents strong = {2, 3, 1e300, NULL};
    estimate.exponents = &strong;
    assert_status(mpo_estimator_open(&estimate, &estimator), MPO_ERR_USAGE);
    assert_error_names("a strength above 0 and at most 1000, found 1e+300");
}

static void stages_refuse_sizes_that_are_none(void **state)
{
    (void)state;
    const double one[] = {1.0};
    const double none[] = {0.0};
    const int32_t twice[] = {1, 1};
    const struct mpo_comm *comm = mpo_session_comm(session);
    struct mpo_mixture *mixture = NULL;
    struct mpo_mixture_spec mix = {.device = "cpu", .temperature = none, .vocab_size = 2};
    assert_status(mpo_mixture_open(&mix, &mixture), MPO_ERR_USAGE);
    mix.policy_count = mix.row_capacity = 1;
    assert_status(mpo_mixture_open(&mix, &mixture), MPO_ERR_USAGE);
    assert_error_names("expected temperatures above 0, found 0 of policy 0");
    mix.temperature = one;
    mix.end_count = 2;
    assert_status(mpo_mixture_open(&mix, &mixture), MPO_ERR_USAGE);
    assert_error_names("expected end tokens, found 2 in a list that is NULL");
    mix.end_token = twice;
    assert_status(mpo_mixture_open(&mix, &mixture), MPO_ERR_USAGE);
    assert_error_names("in ascending order below 2, found 1 as number 2");

    int32_t group_size = 0;
    struct mpo_exchange *exchange = NULL;
    struct mpo_policies *policies = NULL;
    const struct mpo_policy_spec nameless = {.kind = "table"};
    struct mpo_policies_spec loaded = {.policies = &nameless};
    assert_status(mpo_placement_group_size(0, 0, 0, &group_size), MPO_ERR_USAGE);
    assert_status(mpo_exchange_open(&(struct mpo_exchange_spec){.transport = "self"}, comm,
                                    &exchange),
                  MPO_ERR_USAGE);
    assert_error_names("found policy_count 0 and group_size 0");
    assert_status(mpo_policies_open(&loaded, comm, &policies), MPO_ERR_USAGE);
    assert_error_names("found policy_count 0 and group_size 0");
    loaded.placement = (struct mpo_placement){1, 1};
    assert_status(mpo_policies_open(&loaded, comm, &policies), MPO_ERR_USAGE);
    assert_error_names(
        "expected thread_count and prompt_slots of 1 or more, found 0 and 0");
    loaded.thread_count = loaded.prompt_slots = 1;
    assert_status(mpo_policies_open(&loaded, comm, &policies), MPO_ERR_USAGE);
    assert_error_names("mpo_policies_open: expected policy->name, found NULL");
    const struct mpo_policies_room room = {
        .row_capacity = 1, .position_capacity = 1, .held_prompts = 1, .response_tokens = 1};
    struct mpo_policies *own = (struct mpo_policies *)mpo_session_policies(session);
    assert_status(mpo_policies_make_room(own, comm, &room), MPO_ERR_USAGE);
    assert_error_names("have their room already");
    struct mpo_comm *groups = NULL;
    assert_status(mpo_comm_open(2, &groups), MPO_ERR_USAGE);
    assert_error_names("groups of a size that divides 1, the number of ranks, found 2");
}

static void closing_nothing_has_no_effect(void **state)
{
    (void)state;
    mpo_session_close(NULL);
    mpo_session_close(&(struct mpo_session *){NULL});
    mpo_fit_close(NULL);
    mpo_fit_close(&(struct mpo_fit *){NULL});
    mpo_comm_close(NULL);
    mpo_comm_close(&(struct mpo_comm *){NULL});
    mpo_config_close(NULL);
    mpo_prompts_close(NULL);
    mpo_policies_close(NULL);
    mpo_policies_survey_release(NULL);
    mpo_exchange_close(NULL);
    mpo_mixture_close(NULL);
    mpo_decode_close(NULL);
    mpo_rollout_close(NULL);
    mpo_estimator_close(NULL);
    mpo_descent_close(NULL);
    mpo_rewards_close(NULL);
    mpo_record_close(NULL);
    mpo_record_discard(NULL);
    assert_ok(mpo_record_finish(NULL));
    mpo_record_release_scores(NULL);
    mpo_record_release_sample(NULL);
}

/* A caller's own failure comes without a text of ours. */
static void a_failure_without_a_text_has_the_sentence_of_its_status(void **state)
{
    (void)state;
    mpo_error_set("");
    assert_int_equal(mpo_session_end_loop(MPO_REQUEUE), MPO_REQUEUE);
    assert_string_equal(mpo_error_text(), mpo_status_sentence(MPO_REQUEUE));
    mpo_error_set("my own disk is full");
    assert_int_equal(mpo_comm_agree(MPO_ERR_IO), MPO_ERR_IO);
    assert_string_equal(mpo_error_text(), "my own disk is full");
    assert_ok(mpo_session_end_loop(MPO_OK));
    mpo_error_set(mpo_error_text() + strlen("my own "));
    assert_string_equal(mpo_error_text(), "disk is full");
    mpo_error_set(NULL);
    assert_string_equal(mpo_error_text(), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openers_name_what_is_missing),
        cmocka_unit_test(a_fit_names_what_is_missing),
        cmocka_unit_test(a_machine_names_what_is_missing),
        cmocka_unit_test(a_prompt_is_what_a_policy_can_read),
        cmocka_unit_test(a_step_of_a_rollout_names_what_is_missing),
        cmocka_unit_test(an_exponent_has_a_bound),
        cmocka_unit_test(files_and_figures_name_what_is_missing),
        cmocka_unit_test(optimisers_refuse_sizes_that_are_none),
        cmocka_unit_test(stages_refuse_sizes_that_are_none),
        cmocka_unit_test(closing_nothing_has_no_effect),
        cmocka_unit_test(a_failure_without_a_text_has_the_sentence_of_its_status),
    };
    return cmocka_run_group_tests_name("arguments", tests, open_session, close_session);
}
