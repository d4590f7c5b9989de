/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The size of a session as another program sets it: what contradicts itself is refused before
 * anything is opened, by the names of the members, and what does not is opened.
 */
#include <string.h>

#include "mpo/decode.h"
#include "mpo/session.h"
#include "runner.h"
#include "table_files.h"

#define TEXT                                                                               \
    "prompts:\n"                                                                           \
    "  file: prompts.txt\n"                                                                \
    "policies:\n"                                                                          \
    "  - name: up\n"                                                                       \
    "    model: up.table\n"                                                                \
    "rollout:\n"                                                                           \
    "  responses: 2\n"                                                                     \
    "  max_tokens: 4\n"

static char folder[TABLE_PATH_BYTES];

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

static enum mpo_status open_sized(const struct mpo_session_size *size,
                                  struct mpo_session **session)
{
    return mpo_session_open(&(struct mpo_session_spec){.config_text = TEXT,
                                                       .config_folder = folder,
                                                       .size = *size},
                            session);
}

struct refusal {
    struct mpo_session_size size;
    const char *words;
};

static void refuse_sizes(const struct refusal *refusal, size_t count)
{
    struct mpo_session *session = NULL;
    for (size_t i = 0; i < count; i++) {
        assert_status(open_sized(&refusal[i].size, &session), MPO_ERR_USAGE);
        assert_null(session);
        assert_error_names(refusal[i].words);
    }
}
#define REFUSE(refusals) refuse_sizes(refusals, sizeof(refusals) / sizeof *(refusals))

static void a_rollout_needs_prompts_and_responses(void **state)
{
    (void)state;
    static const char *const stop[] = {"b"};
    const struct refusal refusals[] = {
        {{.responses = 4}, "size.unit_prompts: expected 1 or more with size.responses"},
        {{.unit_prompts = 4}, "size.responses: expected 1 or more with size.unit_prompts"},
        {{.prompts_max = 4}, "with size.prompts_max, found 0"},
        {{.row_capacity = 4}, "with size.row_capacity, found 0"},
        {{.stop = stop, .stop_count = 1}, "with size.stop_count, found 0"},
        {{.prompt = "a"}, "with size.prompt, found 0"},
        {{.try_limit = 9}, "with size.try_limit, found 0"},
        {{.integrates_ends = true}, "with size.integrates_ends, found 0"},
        {{.distinct_prompts = true}, "with size.distinct_prompts, found 0"},
        {{.prompts.path = "prompts.txt"}, "with size.prompts.path, found 0"},
        {{.prompts.response_count = 1}, "with size.prompts.response_count, found 0"},
    };
    REFUSE(refusals);
}

static void numbers_are_within_their_range(void **state)
{
    (void)state;
    const struct refusal refusals[] = {
        {{.unit_prompts = -1, .responses = 4},
         "size.unit_prompts: expected a number from 1 to 1000000, found -1"},
        {{.unit_prompts = 1, .responses = -4}, "size.responses: expected a number from 1"},
        {{.unit_prompts = 1, .responses = 257}, "size.responses: expected a number from 1"},
        {{.unit_prompts = 1000001, .responses = 1}, "found 1000001"},
        {{.unit_prompts = 1, .responses = 4, .prompts_max = -1}, "size.prompts_max"},
        {{.unit_prompts = 1, .responses = 4, .row_capacity = -1}, "size.row_capacity"},
        {{.unit_prompts = 1, .responses = 4, .stop_count = -1}, "size.stop_count"},
        {{.unit_prompts = 1, .responses = 4, .try_limit = -1}, "size.try_limit"},
        {{.unit_prompts = 1, .responses = 1, .prompts.response_count = 3},
         "size.prompts.response_count: expected a number from 0 to 2, found 3"},
        {{.unit_prompts = 2, .responses = 129}, "to 256 rows at once, found 258"},
        {{.unit_prompts = 1000000, .responses = 256}, "found 256000000"},
        {{.unit_prompts = 2, .responses = 4, .row_capacity = 3},
         "expected 4 (size.responses) to 256 rows at once, found 3"},
    };
    REFUSE(refusals);
}

static void texts_that_stop_a_response_are_there(void **state)
{
    (void)state;
    static const char *const missing[] = {"b", NULL};
    static char longer[1026];
    const char *const one[] = {longer};
    memset(longer, 'a', sizeof longer - 1);
    const struct refusal refusals[] = {
        {{.unit_prompts = 1, .responses = 2, .stop_count = 3},
         "size.stop: expected 3 texts (size.stop_count), found NULL"},
        {{.unit_prompts = 1, .responses = 2, .stop = missing, .stop_count = 2},
         "found NULL as number 2"},
        {{.unit_prompts = 1, .responses = 2, .stop = one, .stop_count = 1},
         "a text to stop at has 1025 bytes"},
    };
    REFUSE(refusals);
}

static void a_rollout_has_one_purpose_and_one_source(void **state)
{
    (void)state;
    static const char *const stop[] = {"b"};
    const struct refusal refusals[] = {
        {{.unit_prompts = 1, .responses = 2, .integrates_ends = true, .try_limit = 9},
         "found integrates_ends try_limit; a rollout has one purpose"},
        {{.unit_prompts = 1,
          .responses = 1,
          .try_limit = 9,
          .prompts = {.response_count = 1}},
         "found response_count try_limit"},
        {{.unit_prompts = 1, .responses = 2, .try_limit = 9, .stop = stop, .stop_count = 1},
         "size.stop_count: expected 0 with size.try_limit"},
        {{.unit_prompts = 2, .responses = 1, .prompts = {.response_count = 1}},
         "expected size.unit_prompts 1 and size.responses 1"},
        {{.unit_prompts = 1, .responses = 1, .prompts = {.response_count = 2}},
         "expected size.unit_prompts 1 and size.responses 2"},
        {{.unit_prompts = 1, .responses = 1, .prompt = "a", .prompts.path = "prompts.txt"},
         "expected one of size.prompt and size.prompts.path, found both"},
        {{.unit_prompts = 1,
          .responses = 1,
          .prompt = "a",
          .prompts = {.response_count = 1}},
         "expected 0 with size.prompt, which has no responses"},
        {{.unit_prompts = 1, .responses = 1, .prompts.format = "text"},
         "size.prompts.path: expected a file with size.prompts.format, found NULL"},
        {{.unit_prompts = 1, .responses = 1, .distinct_prompts = true},
         "size.prompts_max: expected the prompts of a step"},
    };
    REFUSE(refusals);
}

static void a_machine_is_whole_and_alone(void **state)
{
    (void)state;
    const struct mpo_session_machine whole = {
        .row_capacity = 2, .prompt_slots = 2, .prefill_tokens = 4, .context_tokens = 64};
    struct refusal refusals[] = {
        {{.machine.row_capacity = 4},
         "size.machine.prompt_slots: expected a number from 1 to 2147483647, found 0"},
        {{.machine.prompt_slots = 4},
         "size.machine.row_capacity: expected a number from 1"},
        {{.machine.top_max = 4}, "size.machine.row_capacity: expected a number from 1"},
        {{.machine = whole}, "size.machine.row_capacity: expected a number from 1 to 256"},
        {{.machine = whole}, "size.machine.context_tokens: expected a number from 1"},
        {{.machine = whole}, "size.machine.prefill_tokens: expected a number from 1"},
        {{.machine = whole}, "size.machine.top_max: expected a number from 0 to 128"},
        {{.machine = whole}, "size.machine.bias_max: expected a number from 0"},
        {{.machine = whole}, "size.machine.parked_rows: expected a number from 0 to 254"},
        {{.machine = whole},
         "size.machine.prefill_stretch: expected 0, or a number from 1, found 0.5"},
        {{.machine = whole, .unit_prompts = 1},
         "size.unit_prompts: expected 0 with size.machine.row_capacity"},
        {{.machine = whole, .prompt = "a"}, "size.prompt: expected 0 with size.machine"},
        {{.machine = whole}, "size.machine.blends: expected a number from 0 to 1024"},
        {{.machine = whole},
         "size.machine.blends: expected 0 with rollout.mixture: logits, found 1"},
    };
    refusals[3].size.machine.row_capacity = 257;
    refusals[4].size.machine.context_tokens = 0;
    refusals[5].size.machine.prefill_tokens = 0;
    refusals[6].size.machine.top_max = 129;
    refusals[7].size.machine.bias_max = -1;
    refusals[8].size.machine.parked_rows = 255;
    refusals[9].size.machine.prefill_stretch = 0.5;
    refusals[12].size.machine.blends = 1025;
    refusals[13].size.machine.blends = 1;
    REFUSE(refusals);
}

/* What is refused above in part is opened as a whole. */
static void sizes_that_agree_with_themselves_are_opened(void **state)
{
    (void)state;
    static const char *const stop[] = {"b"};
    const struct mpo_session_size sizes[] = {
        {.unit_prompts = 0},
        {.unit_prompts = 1, .responses = 2, .prompt = "", .advice = "lower it"},
        {.unit_prompts = 2, .responses = 2, .row_capacity = 2, .prompts_max = 1},
        {.unit_prompts = 1, .responses = 1, .prompt = "a", .stop = stop, .stop_count = 1},
        {.unit_prompts = 1, .responses = 2, .try_limit = 9, .stop = stop},
        {.unit_prompts = 1, .responses = 2, .integrates_ends = true},
        {.machine = {.row_capacity = 2,
                     .prompt_slots = 2,
                     .prefill_tokens = 4,
                     .context_tokens = 64},
         .advice = "lower it"},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct mpo_session *session = NULL;
        bool is_machine = sizes[i].machine.row_capacity > 0;
        assert_ok(open_sized(&sizes[i], &session));
        assert_non_null(mpo_session_decode(session));
        assert_true((mpo_session_rollout(session) == NULL) == is_machine);
        assert_true((mpo_session_prompts(session) == NULL) == is_machine);
        mpo_session_close(&session);
    }
}

static void prompts_need_neither_format_nor_prefill(void **state)
{
    (void)state;
    char path[TABLE_PATH_BYTES];
    struct mpo_session *session = NULL;
    table_write_text(folder, "others.txt", "b\n", path);
    const struct mpo_session_size size = {
        .unit_prompts = 1, .responses = 1, .prompts.path = path};
    assert_ok(open_sized(&size, &session));
    assert_int_equal(mpo_prompts_count(mpo_session_prompts(session)), 1);
    mpo_session_close(&session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rollout_needs_prompts_and_responses),
        cmocka_unit_test(numbers_are_within_their_range),
        cmocka_unit_test(texts_that_stop_a_response_are_there),
        cmocka_unit_test(a_rollout_has_one_purpose_and_one_source),
        cmocka_unit_test(a_machine_is_whole_and_alone),
        cmocka_unit_test(sizes_that_agree_with_themselves_are_opened),
        cmocka_unit_test(prompts_need_neither_format_nor_prefill),
    };
    return cmocka_run_group_tests_name("session_size", tests, make_folder, remove_folder);
}
