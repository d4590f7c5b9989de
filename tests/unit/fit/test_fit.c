/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fit as another program runs it: a session, steps one by one, a monitor, a stop, and a
 * resume that gives what a fit without a break gives, to the bit.
 */
#include <stdio.h>
#include <string.h>

#include "mpo/fit.h"
#include "mpo/record.h"
#include "runner.h"
#include "table_files.h"

#define STEPS      6
#define OBJECTIVES 2
#define TEXT_BYTES 2048

static const char config_format[] = "run:\n"
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
                                    "  prompts_per_step: 2\n"
                                    "descent:\n"
                                    "  steps: %d\n"
                                    "record:\n"
                                    "  file: out.h5\n";

struct folder {
    char path[TABLE_PATH_BYTES];
    char config[TABLE_PATH_BYTES];
    char record[TABLE_PATH_BYTES + 16];
};

static void make_folder(struct folder *folder)
{
    char text[TEXT_BYTES];
    char path[TABLE_PATH_BYTES];
    table_folder_make_two(folder->path);
    table_write_text(folder->path, "prompts.txt", "a\nb\na b\n", path);
    snprintf(text, sizeof text, config_format, STEPS);
    table_write_text(folder->path, "config.yaml", text, folder->config);
    snprintf(folder->record, sizeof folder->record, "%s/out.h5", folder->path);
}

/* What a monitor saw. */
struct seen {
    int64_t count;
    int64_t stop_after; /* 0: never */
    int64_t drawn;
    double average[STEPS][OBJECTIVES];
    double value[STEPS];
};

static void look(void *argument, const struct mpo_fit *fit,
                 const struct mpo_estimate *estimate)
{
    struct seen *seen = argument;
    int64_t step = mpo_fit_summary(fit)->steps - 1;
    assert_in_range(step, 0, STEPS - 1);
    memcpy(seen->average[step], mpo_fit_average(fit), sizeof seen->average[step]);
    seen->value[step] = estimate->value;
    if (++seen->count == seen->stop_after)
        mpo_session_stop();
}

static void count_draws(void *argument, struct mpo_rollout_step *draw)
{
    struct seen *seen = argument;
    seen->drawn += draw->prompt_count;
}

static struct mpo_session *open_session(const struct folder *folder,
                                        const char *const *flags, int32_t flag_count)
{
    struct mpo_session *session = NULL;
    const struct mpo_session_spec spec = {
        .config = folder->config, .flags = flags, .flag_count = flag_count};
    assert_ok(mpo_session_open(&spec, &session));
    return session;
}

static struct mpo_fit *open_fit(struct mpo_session *session, struct seen *seen)
{
    struct mpo_fit *fit = NULL;
    const struct mpo_fit_spec spec = {
        .session = session, .monitor = look, .prepare = count_draws, .argument = seen};
    assert_ok(mpo_fit_open(&spec, &fit));
    return fit;
}

/* All steps, or those up to a stop. @return how the loop ended */
static enum mpo_status run_fit(const struct folder *folder, const char *const *flags,
                               int32_t flag_count, struct seen *seen)
{
    struct mpo_session *session = open_session(folder, flags, flag_count);
    struct mpo_fit *fit = open_fit(session, seen);
    enum mpo_status status = MPO_OK;
    bool more = true;
    while (more && status == MPO_OK)
        status = mpo_fit_step(fit, &more);
    assert_ok(mpo_fit_finish(fit));
    mpo_fit_close(&fit);
    assert_null(fit);
    mpo_session_close(&session);
    return status;
}

/* ---- cases ---- */

static void a_fit_takes_its_steps_and_its_record_has_them(void **state)
{
    (void)state;
    struct folder folder;
    struct seen seen = {0};
    struct mpo_record *record = NULL;
    double average[STEPS * OBJECTIVES];
    make_folder(&folder);
    assert_ok(run_fit(&folder, NULL, 0, &seen));
    assert_int_equal(seen.count, STEPS);
    assert_int_equal(seen.drawn, 2 * STEPS);
    assert_ok(mpo_record_open(folder.record, &record));
    assert_true(mpo_record_is_complete(record));
    assert_int_equal(mpo_record_step_count(record), STEPS);
    assert_ok(mpo_record_read(record, "average", 0, STEPS, average));
    for (int i = 0; i < STEPS * OBJECTIVES; i++)
        assert_same_bits(average[i], seen.average[i / OBJECTIVES][i % OBJECTIVES]);
    assert_close(average[0] + average[1], 1.0, 1e-12);
    mpo_record_close(&record);
    table_folder_remove(folder.path);
}

static void a_fit_that_is_stopped_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    static const char *const resume[] = {"--resume"};
    struct folder whole;
    struct folder broken;
    struct seen expected = {0};
    struct seen first = {.stop_after = 2};
    struct seen second = {0};
    make_folder(&whole);
    make_folder(&broken);
    assert_ok(run_fit(&whole, NULL, 0, &expected));
    assert_int_equal(run_fit(&broken, NULL, 0, &first), MPO_REQUEUE);
    assert_int_equal(first.count, 2);
    /* The request was of that session. */
    assert_ok(run_fit(&broken, resume, 1, &second));
    assert_int_equal(second.count, STEPS - 2);
    for (int step = 0; step < STEPS; step++) {
        const struct seen *seen = step < 2 ? &first : &second;
        assert_same_bits(seen->value[step], expected.value[step]);
        for (int k = 0; k < OBJECTIVES; k++)
            assert_same_bits(seen->average[step][k], expected.average[step][k]);
    }
    table_folder_remove(whole.path);
    table_folder_remove(broken.path);
}

static void a_resumed_fit_knows_what_was_before(void **state)
{
    (void)state;
    static const char *const flags[] = {"--resume", "--descent.steps=9"};
    struct folder folder;
    struct seen seen = {0};
    make_folder(&folder);
    assert_ok(run_fit(&folder, NULL, 0, &seen));
    struct mpo_session *session = open_session(&folder, flags, 2);
    struct mpo_fit *fit = open_fit(session, &seen);
    const struct mpo_fit_summary *summary = mpo_fit_summary(fit);
    assert_true(mpo_fit_resumes(fit));
    assert_int_equal(mpo_fit_first_step(fit), STEPS);
    assert_int_equal(summary->steps, STEPS);
    assert_int_equal(summary->tokens, summary->tokens_before);
    assert_true(mpo_fit_value_error(summary) > 0.0);
    assert_ok(mpo_fit_finish(fit));
    assert_ok(mpo_fit_finish(fit));
    bool more = true;
    assert_status(mpo_fit_step(fit, &more), MPO_ERR_USAGE);
    assert_error_names("whose record is closed");
    assert_false(more);
    mpo_fit_close(&fit);
    mpo_fit_close(&fit);
    mpo_fit_close(NULL);
    mpo_session_close(&session);
    table_folder_remove(folder.path);
}

static void ask_for_too_much(void *argument, struct mpo_rollout_step *draw)
{
    (void)argument;
    draw->prompt_count = INT32_MAX;
}

static void keep_failure(void *argument, enum mpo_status status, const char *text)
{
    (void)text;
    *(enum mpo_status *)argument = status;
}

static void a_fit_that_failed_does_not_finish_well(void **state)
{
    (void)state;
    struct folder folder;
    struct mpo_session *session = NULL;
    struct mpo_fit *fit = NULL;
    enum mpo_status told = MPO_OK;
    bool more = true;
    make_folder(&folder);
    const struct mpo_session_spec spec = {
        .config = folder.config, .on_failure = keep_failure, .argument = &told};
    assert_ok(mpo_session_open(&spec, &session));
    assert_ok(mpo_fit_open(
        &(struct mpo_fit_spec){.session = session, .prepare = ask_for_too_much}, &fit));
    assert_status(mpo_fit_step(fit, &more), MPO_ERR_USAGE);
    assert_error_names("a step of 2147483647 prompts, expected 0 to 2");
    assert_false(more);
    assert_int_equal(told, MPO_ERR_USAGE);
    mpo_error_set("");
    assert_status(mpo_fit_finish(fit), MPO_ERR_USAGE);
    assert_error_names("a step of this fit failed before");
    more = true;
    assert_status(mpo_fit_step(fit, &more), MPO_ERR_USAGE);
    assert_false(more);
    mpo_fit_close(&fit);
    mpo_session_close(&session);
    table_folder_remove(folder.path);
}

static void refuse_fit(const struct mpo_session_spec *session_spec,
                       enum mpo_status expected, const char *word)
{
    struct mpo_session *session = NULL;
    struct mpo_fit *fit = NULL;
    assert_ok(mpo_session_open(session_spec, &session));
    assert_status(mpo_fit_open(&(struct mpo_fit_spec){.session = session}, &fit), expected);
    assert_error_names(word);
    assert_null(fit);
    mpo_session_close(&session);
}

static void what_is_no_fit_is_refused(void **state)
{
    (void)state;
    static const char *const both[] = {"--resume", "--force"};
    struct folder folder;
    struct seen seen = {0};
    make_folder(&folder);
    struct mpo_session_spec spec = {.config = folder.config};
    spec.size = (struct mpo_session_size){.unit_prompts = 1, .responses = 4};
    refuse_fit(&spec, MPO_ERR_USAGE, "8 responses");
    spec =
        (struct mpo_session_spec){.config = folder.config, .flags = both, .flag_count = 2};
    refuse_fit(&spec, MPO_ERR_USAGE, "--force");
    assert_ok(run_fit(&folder, NULL, 0, &seen));
    spec = (struct mpo_session_spec){.config = folder.config};
    refuse_fit(&spec, MPO_ERR_OUTPUT, "out.h5");
    table_folder_remove(folder.path);
}

static void a_process_has_one_session_at_a_time(void **state)
{
    (void)state;
    struct folder folder;
    struct mpo_session *second = NULL;
    make_folder(&folder);
    const struct mpo_session_spec spec = {.config = folder.config};
    struct mpo_session *session = open_session(&folder, NULL, 0);
    assert_status(mpo_session_open(&spec, &second), MPO_ERR_USAGE);
    assert_error_names("close it");
    assert_null(second);
    mpo_session_close(&session);
    assert_ok(mpo_session_open(&spec, &second));
    mpo_session_close(&second);
    assert_status(
        mpo_session_open(&(struct mpo_session_spec){.config = "no.yaml"}, &second),
        MPO_ERR_INPUT);
    assert_ok(mpo_session_open(&spec, &second));
    mpo_session_close(&second);
    table_folder_remove(folder.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fit_takes_its_steps_and_its_record_has_them),
        cmocka_unit_test(a_fit_that_is_stopped_goes_on_to_the_same_bits),
        cmocka_unit_test(a_resumed_fit_knows_what_was_before),
        cmocka_unit_test(a_fit_that_failed_does_not_finish_well),
        cmocka_unit_test(what_is_no_fit_is_refused),
        cmocka_unit_test(a_process_has_one_session_at_a_time),
    };
    return run_cases("fit", tests);
}
