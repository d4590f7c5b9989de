/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables: what follows a token is its row, to the bit, whatever came before it. And what is
 * a table's own about prompts.
 */
#include <math.h>
#include <stdlib.h>

#include "feed_words.h"
#include "runner.h"

enum { VOCAB = FEED_WORDS_VOCAB };

/* ---- a table's own ---- */

static void a_prompt_without_words_is_the_start(void **state)
{
    (void)state;
    struct feed_case test = {.kind = &feed_words};
    const struct mpo_message nothing = {"user", " "};
    const struct mpo_prompt empty = {
        .messages = &nothing, .message_count = 1, .prefill = ""};
    const struct mpo_message word = {"user", "b"};
    const struct mpo_prompt filled = {
        .messages = &word, .message_count = 1, .prefill = "c"};
    int32_t count = 0;
    table_folder_make(test.folder);
    feed_words_open(&test);
    assert_ok(mpo_policy_encode(&test.policy, 0, &empty, &count));
    assert_int_equal(count, 1);
    assert_int_equal(test.policy.slot[0].token[0], VOCAB);
    assert_ok(mpo_policy_encode(&test.policy, 0, &filled, &count));
    assert_int_equal(count, 3);
    assert_int_equal(test.policy.slot[0].token[0], VOCAB);
    assert_int_equal(test.policy.slot[0].token[1], 1);
    assert_int_equal(test.policy.slot[0].token[2], 2);
    mpo_policy_close(&test.policy);
    table_folder_remove(test.folder);
    free(test.table);
}

static void words_that_the_table_has_not_are_refused(void **state)
{
    (void)state;
    struct feed_case test = {.kind = &feed_words};
    const struct mpo_message message = {"user", "a zebra"};
    struct mpo_prompt prompt = {.messages = &message, .message_count = 1, .prefill = ""};
    const int32_t kept = 1;
    table_folder_make(test.folder);
    feed_words_open(&test);
    assert_ok(mpo_policy_encode_tokens(&test.policy, 0, &kept, 1));
    assert_status(mpo_policy_encode(&test.policy, 0, &prompt, NULL), MPO_ERR_DATA);
    assert_error_names("'zebra' is not a token");
    prompt.prefill = "</s>";
    prompt.message_count = 0;
    assert_status(mpo_policy_encode(&test.policy, 0, &prompt, NULL), MPO_ERR_DATA);
    assert_error_names("end token");
    assert_int_equal(mpo_policy_prompt_tokens(&test.policy, 0), 1);
    mpo_policy_close(&test.policy);
    table_folder_remove(test.folder);
    free(test.table);
}

/* What one of them heeds, a job heeds. */
static void options_that_no_policy_heeds_are_listed(void **state)
{
    (void)state;
    const struct mpo_policy_spec spec[2] = {
        {.name = "words", .kind = "table", .model = "words.table"},
        {.name = "model", .kind = "llama", .model = "model.gguf"}};
    const struct mpo_policy_spec tables[2] = {spec[0], spec[0]};
    assert_string_equal(mpo_policies_idle_option(tables, 2, 0), "policies.devices");
    assert_string_equal(mpo_policies_idle_option(tables, 2, 3), "run.device_rows");
    assert_string_equal(mpo_policies_idle_option(tables, 2, 4), "run.kv");
    assert_null(mpo_policies_idle_option(tables, 2, 5));
    assert_null(mpo_policies_idle_option(spec, 2, 0));
    assert_null(mpo_policies_idle_option(&spec[1], 1, 0));
    assert_null(mpo_policies_idle_option(NULL, 0, 0));
}

static void a_prompt_cannot_end_where_the_table_ends(void **state)
{
    (void)state;
    char folder[TABLE_PATH_BYTES];
    char path[TABLE_PATH_BYTES];
    const int32_t token[3] = {0, 1, 0};
    void *library = NULL;
    struct mpo_policy policy;
    const struct mpo_policies_spec common = {.prompt_slots = 1};
    table_folder_make(folder);
    table_write_text(folder, "short.table", "mpo-table 1\ntokens a </s>\nrow a 0.5 0.5\n",
                     path);
    const struct mpo_policy_spec spec = {
        .name = "short", .model = path, .lora = "", .system = "", .request = ""};
    assert_ok(mpo_policy_open(&spec, &common, &mpo_policy_table_ops, &library, &policy));
    assert_status(mpo_policy_encode_tokens(&policy, 0, token, 2), MPO_ERR_DATA);
    assert_error_names("ends with '</s>'");
    assert_ok(mpo_policy_encode_tokens(&policy, 0, token, 3));
    mpo_policy_close(&policy);
    table_folder_remove(folder);
}

static void pieces_are_words_with_the_space_before_all_but_the_first(void **state)
{
    (void)state;
    struct feed_case test = {.kind = &feed_words};
    char text[8];
    const int32_t token[4] = {VOCAB - 1, 0, 1, VOCAB - 1};
    table_folder_make(test.folder);
    feed_words_open(&test);
    assert_int_equal(mpo_policy_piece(&test.policy, 1, true, text, 2), 1);
    assert_string_equal(text, "b");
    assert_int_equal(mpo_policy_piece(&test.policy, 1, false, text, 3), 2);
    assert_string_equal(text, " b");
    assert_int_equal(mpo_policy_piece(&test.policy, 1, false, text, 2), -1);
    assert_int_equal(mpo_policy_piece(&test.policy, 1, true, text, 1), -1);
    assert_int_equal(mpo_policy_piece(&test.policy, 1, true, text, 0), -1);
    assert_int_equal(mpo_policy_piece(&test.policy, VOCAB - 1, true, text, 1), 0);
    assert_int_equal(mpo_policy_piece(&test.policy, VOCAB, true, text, 1), 0);
    assert_int_equal(mpo_policy_piece(&test.policy, -1, true, text, 1), 0);
    assert_int_equal(mpo_policy_text(&test.policy, token, 4, text, sizeof text), 3);
    assert_string_equal(text, "a b");
    mpo_policy_close(&test.policy);
    table_folder_remove(test.folder);
    free(test.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_without_words_is_the_start),
        cmocka_unit_test(words_that_the_table_has_not_are_refused),
        cmocka_unit_test(options_that_no_policy_heeds_are_listed),
        cmocka_unit_test(a_prompt_cannot_end_where_the_table_ends),
        cmocka_unit_test(pieces_are_words_with_the_space_before_all_but_the_first),
    };
    return feed_case_run("policy_feed", &feed_words) +
           run_cases("policy_feed_table", tests);
}
