/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts: both formats, what they refuse and with which line.
 * Every case writes a file into a folder of its own, which is also the working directory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mpo/prompts.h"
#include "runner.h"

static char folder[] = "/tmp/mpo_prompts_XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL || chdir(folder) != 0;
}

static int remove_folder(void **state)
{
    (void)state;
    remove("p.txt");
    remove("p.jsonl");
    return chdir("/") != 0 || rmdir(folder) != 0;
}

static void write_bytes(const char *path, const char *text, size_t bytes)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(text, 1, bytes, stream), bytes);
    assert_int_equal(fclose(stream), 0);
}

static enum mpo_status open_file(const char *path, const char *prefill,
                                 struct mpo_prompts **prompts)
{
    const struct mpo_prompts_spec spec = {
        .path = path, .format = "auto", .prefill = prefill};
    return mpo_prompts_open(&spec, prompts);
}

static struct mpo_prompts *opened(const char *path, const char *text)
{
    struct mpo_prompts *prompts = NULL;
    write_bytes(path, text, strlen(text));
    assert_ok(open_file(path, "", &prompts));
    return prompts;
}

static void assert_bytes_refused(const char *path, const char *text, size_t bytes,
                                 const char *words)
{
    struct mpo_prompts *prompts = NULL;
    write_bytes(path, text, bytes);
    assert_status(open_file(path, "", &prompts), MPO_ERR_DATA);
    assert_null(prompts);
    assert_error_names(words);
}

static void assert_json_refused(const char *text, const char *words)
{
    assert_bytes_refused("p.jsonl", text, strlen(text), words);
}

static void assert_prompt(const struct mpo_prompts *prompts, int64_t index,
                          const char *text, const char *prefill)
{
    const struct mpo_prompt *prompt = mpo_prompts_get(prompts, index);
    assert_string_equal(prompt->text, text);
    assert_string_equal(prompt->prefill, prefill);
    const struct mpo_message *last = &prompt->messages[prompt->message_count - 1];
    assert_string_equal(last->role, "user");
    assert_string_equal(last->content, text);
}

/* Text -------------------------------------------------------------------------------- */

static void a_line_is_a_prompt_and_blank_lines_are_none(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = opened("p.txt", "one\n\n  two words \n \t\r\nlast");
    assert_int_equal(mpo_prompts_count(prompts), 3);
    assert_prompt(prompts, 0, "one", "");
    assert_prompt(prompts, 1, "  two words ", "");
    assert_prompt(prompts, 2, "last", "");
    assert_int_equal(mpo_prompts_get(prompts, 2)->message_count, 1);
    mpo_prompts_close(&prompts);
    assert_null(prompts);
    mpo_prompts_close(&prompts);
}

static void windows_files_lose_their_mark_and_carriage_returns(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = opened("p.txt", "\xEF\xBB\xBF"
                                                  "one\r\nt\xC3\xBCr\r\n");
    assert_int_equal(mpo_prompts_count(prompts), 2);
    assert_prompt(prompts, 0, "one", "");
    assert_prompt(prompts, 1, "t\xC3\xBCr", "");
    mpo_prompts_close(&prompts);
}

static void the_prefill_holds_the_line(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    write_bytes("p.txt", "x\nlonger\n", 9);
    assert_ok(open_file("p.txt", "{prompt}: \"{prompt}\" {is", &prompts));
    assert_prompt(prompts, 0, "x", "x: \"x\" {is");
    assert_prompt(prompts, 1, "longer", "longer: \"longer\" {is");
    mpo_prompts_close(&prompts);
    assert_ok(open_file("p.txt", "Sure", &prompts));
    assert_prompt(prompts, 1, "longer", "Sure");
    mpo_prompts_close(&prompts);
}

static void a_prefill_that_grows_over_the_limit_is_refused(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    size_t bytes = MPO_PROMPTS_LINE_BYTES_MAX / 2 + 1;
    char *line = runner_allocate(bytes, 1);
    memset(line, 'a', bytes);
    write_bytes("p.txt", line, bytes);
    free(line);
    assert_status(open_file("p.txt", "{prompt}{prompt}", &prompts), MPO_ERR_DATA);
    assert_error_names(
        "p.txt:1: expected a prefill of at most 1048576 bytes, found 1048578");
    assert_ok(open_file("p.txt", "{prompt}", &prompts));
    mpo_prompts_close(&prompts);
}

static void bad_utf8_and_nul_name_the_line(void **state)
{
    (void)state;
    assert_bytes_refused("p.txt",
                         "ok\n\nab\xFF"
                         "c\n",
                         9,
                         "p.txt:3: expected text in UTF-8 without NUL, found the byte 0xFF "
                         "after 2 bytes");
    assert_bytes_refused("p.txt", "ok\na\0b\n", 7, "p.txt:2: expected text in UTF-8");
    assert_bytes_refused("p.txt", "\xED\xA0\x80\n", 4, "p.txt:1: "); /* a surrogate */
    assert_bytes_refused("p.txt", "a\n\xC3", 3, "p.txt:2: ");        /* half a letter */
    assert_bytes_refused("p.txt", "\xFF\xFEo\0k\0", 6, "0xFF");      /* UTF-16 */
}

static void a_line_over_the_limit_is_refused(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    size_t bytes = MPO_PROMPTS_LINE_BYTES_MAX + 3;
    char *text = runner_allocate(bytes + 1, 1);
    memset(text, 'a', bytes);
    text[1] = '\n';
    assert_bytes_refused("p.txt", text, bytes,
                         "p.txt:2: expected a line of at most 1048576");
    write_bytes("p.txt", text, bytes - 1);
    assert_ok(open_file("p.txt", "", &prompts));
    assert_int_equal(strlen(mpo_prompts_get(prompts, 1)->text), MPO_PROMPTS_LINE_BYTES_MAX);
    mpo_prompts_close(&prompts);
    free(text);
}

static void no_prompt_at_all_is_an_error(void **state)
{
    (void)state;
    assert_bytes_refused("p.txt", "", 0, "p.txt: expected at least one prompt, found none");
    assert_bytes_refused("p.txt", "\xEF\xBB\xBF\r\n\n", 6, "found none");
    assert_bytes_refused("p.jsonl", "\n\n", 2, "p.jsonl: expected at least one prompt");
}

static void a_missing_file_is_a_missing_input(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    assert_status(open_file("none.txt", "", &prompts), MPO_ERR_INPUT);
    assert_error_names("none.txt: ");
    assert_status(open_file("/tmp", "", &prompts), MPO_ERR_INPUT);
    assert_error_names("/tmp: ");
    assert_null(prompts);
}

static void the_format_goes_by_suffix_or_by_name(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    struct mpo_prompts_spec spec = {.path = "p.txt", .format = "jsonl", .prefill = ""};
    write_bytes("p.txt", "{\"prompt\": \"a\"}\n", 16);
    assert_ok(mpo_prompts_open(&spec, &prompts));
    assert_prompt(prompts, 0, "a", "");
    mpo_prompts_close(&prompts);
    spec.format = "auto";
    assert_ok(mpo_prompts_open(&spec, &prompts));
    assert_prompt(prompts, 0, "{\"prompt\": \"a\"}", "");
    mpo_prompts_close(&prompts);
    spec.format = "csv";
    assert_status(mpo_prompts_open(&spec, &prompts), MPO_ERR_CONFIG);
    assert_error_names("prompts.format: expected auto, text or jsonl, found 'csv'");
}

/* JSONL ------------------------------------------------------------------------------- */

static void a_prompt_member_is_a_user_message(void **state)
{
    (void)state;
    struct mpo_prompts *prompts =
        opened("p.jsonl", "{\"id\": 1, \"prompt\": \"a\\n\\u00e9\", \"tags\": [1, {}]}\r\n"
                          "\n"
                          "{\"prompt\": \"b\", \"prefill\": \"{prompt}\"}");
    assert_int_equal(mpo_prompts_count(prompts), 2);
    assert_prompt(prompts, 0, "a\n\xC3\xA9", "");
    assert_prompt(prompts, 1, "b", "{prompt}");
    assert_int_equal(mpo_prompts_get(prompts, 1)->message_count, 1);
    mpo_prompts_close(&prompts);
}

static void messages_keep_their_order_and_roles(void **state)
{
    (void)state;
    struct mpo_prompts *prompts =
        opened("p.jsonl", "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"},"
                          "{\"role\": \"user\", \"content\": \"u\"},"
                          "{\"role\": \"assistant\", \"content\": \"a\"},"
                          "{\"role\": \"user\", \"content\": \"v\", \"name\": \"n\"}]}\n");
    const struct mpo_prompt *prompt = mpo_prompts_get(prompts, 0);
    assert_prompt(prompts, 0, "v", "");
    assert_int_equal(prompt->message_count, 4);
    assert_string_equal(prompt->messages[0].role, "system");
    assert_string_equal(prompt->messages[0].content, "s");
    assert_string_equal(prompt->messages[2].role, "assistant");
    assert_string_equal(prompt->messages[2].content, "a");
    mpo_prompts_close(&prompts);
}

static void a_last_assistant_message_begins_the_response(void **state)
{
    (void)state;
    struct mpo_prompts *prompts =
        opened("p.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"},"
                          "{\"role\": \"assistant\", \"content\": \"Sure, \"}]}\n");
    assert_prompt(prompts, 0, "u", "Sure, ");
    assert_int_equal(mpo_prompts_get(prompts, 0)->message_count, 1);
    mpo_prompts_close(&prompts);
}

/* One line with the members of two responses, "yes" also as "ids". */
static enum mpo_status open_responses(const char *members, struct mpo_prompts **prompts)
{
    char text[256];
    snprintf(text, sizeof text, "{\"prompt\": \"p\", %s}\n", members);
    write_bytes("p.jsonl", text, strlen(text));
    return mpo_prompts_open(&(struct mpo_prompts_spec){.path = "p.jsonl",
                                                       .format = "jsonl",
                                                       .prefill = "",
                                                       .response_name = {"yes", "no"},
                                                       .token_name = {"ids", NULL},
                                                       .response_count = 2},
                            prompts);
}

static void a_response_is_a_text_or_token_ids_or_both(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    assert_ok(open_responses("\"ids\": [7, 0, 2147483647], \"no\": \"n\"", &prompts));
    const struct mpo_prompt *prompt = mpo_prompts_get(prompts, 0);
    assert_null(prompt->response[0].text);
    assert_int_equal(prompt->response[0].token_count, 3);
    assert_int_equal(prompt->response[0].token[0], 7);
    assert_int_equal(prompt->response[0].token[2], INT32_MAX);
    assert_string_equal(prompt->response[1].text, "n");
    assert_null(prompt->response[1].token);
    assert_false(prompt->says_ended || prompt->stopped);
    mpo_prompts_close(&prompts);
    assert_ok(open_responses("\"ids\": [1], \"yes\": \"\", \"no\": \"n\", \"no_ids\": 3, "
                             "\"ended\": false, \"finish\": \"stop\"",
                             &prompts));
    prompt = mpo_prompts_get(prompts, 0);
    assert_string_equal(prompt->response[0].text, "");
    assert_int_equal(prompt->response[0].token_count, 1);
    assert_true(prompt->says_ended && prompt->stopped && !prompt->ended);
    mpo_prompts_close(&prompts);
    assert_status(open_responses("\"no\": \"n\"", &prompts), MPO_ERR_DATA);
    assert_error_names("\"yes\" to be a string, found nothing");
}

static void messages_may_repeat_themselves_as_prompt_and_prefill(void **state)
{
    (void)state;
    struct mpo_prompts *prompts =
        opened("p.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"},"
                          "{\"role\": \"assistant\", \"content\": \"Sure, \"}],"
                          "\"prompt\": \"u\", \"prefill\": \"Sure, \"}\n");
    assert_prompt(prompts, 0, "u", "Sure, ");
    mpo_prompts_close(&prompts);
}

static void what_is_not_a_json_object_is_refused_with_its_line(void **state)
{
    (void)state;
    assert_json_refused("{\"prompt\": \"a\"}\n\n{\"prompt\": }\n",
                        "p.jsonl:3: expected a JSON object, found: ");
    assert_json_refused("[1]\n", "p.jsonl:1: expected a JSON object, found an array");
    assert_json_refused("\"a\"\n", "found a string");
    assert_json_refused("{\"prompt\": \"a\"} x\n", "p.jsonl:1: ");
    assert_json_refused("{\"prompt\": \"a\", \"prompt\": \"b\"}\n", "duplicate");
    assert_json_refused("{\"prompt\": \"a\\u0000b\"}\n", "p.jsonl:1: ");
    assert_json_refused("{\"prompt\": \"\\ud800\"}\n", "p.jsonl:1: ");
}

static void ambiguous_members_are_refused(void **state)
{
    (void)state;
    const char *one = "[{\"role\": \"user\", \"content\": \"u\"}]";
    char text[256];
    snprintf(text, sizeof text, "{\"prompt\": \"a\", \"messages\": %s}\n", one);
    assert_json_refused(text,
                        "p.jsonl:1: expected either \"prompt\" or \"messages\", found "
                        "both");
    assert_json_refused("{\"text\": \"a\"}\n", "found neither");
    snprintf(text, sizeof text, "{\"prefill\": \"a\", \"messages\": %s}\n", one);
    assert_json_refused(text, "expected no \"prefill\" with \"messages\"");
}

static void members_of_the_wrong_kind_are_refused(void **state)
{
    (void)state;
    assert_json_refused("{\"prompt\": 1}\n", "\"prompt\" to be a string, found a number");
    assert_json_refused("{\"prompt\": null}\n", "found null");
    assert_json_refused("{\"prompt\": \"\"}\n", "found an empty text");
    assert_json_refused("{\"prompt\": \"a\", \"prefill\": []}\n",
                        "\"prefill\" to be a string, found an array");
    assert_json_refused("{\"messages\": {}}\n", "to be an array, found an object");
    assert_json_refused("{\"messages\": []}\n", "expected 1 to 1024 messages, found 0");
    assert_json_refused("{\"messages\": [true]}\n",
                        "messages[0] to be an object, found true");
}

/* Messages with one letter a role: s, u, a, and x for a role that is none. */
static void assert_roles_refused(const char *letters, const char *words)
{
    static char text[1 << 16];
    size_t bytes = (size_t)snprintf(text, sizeof text, "{\"messages\": [");
    for (const char *at = letters; *at != '\0'; at++) {
        const char *role = *at == 's'   ? "system"
                           : *at == 'u' ? "user"
                           : *at == 'a' ? "assistant"
                                        : "tool";
        bytes += (size_t)snprintf(text + bytes, sizeof text - bytes,
                                  "%s{\"role\": \"%s\", \"content\": \"c\"}",
                                  at == letters ? "" : ",", role);
    }
    snprintf(text + bytes, sizeof text - bytes, "]}\n");
    assert_json_refused(text, words);
}

static void orders_of_roles_that_make_no_prompt_are_refused(void **state)
{
    (void)state;
    char many[MPO_PROMPTS_MESSAGE_COUNT_MAX + 2] = "";
    memset(many, 'u', MPO_PROMPTS_MESSAGE_COUNT_MAX + 1);
    assert_roles_refused("ux", "expected role system, user or assistant in messages[1], "
                               "found 'tool'");
    assert_roles_refused("us",
                         "expected the system message first, found it as messages[1]");
    assert_roles_refused("ss", "expected the system message first");
    assert_roles_refused("sa", "at least one user message");
    assert_roles_refused("a", "at least one user message");
    assert_roles_refused("s", "at least one user message");
    assert_roles_refused("uaa", "a user message before the last assistant message");
    assert_roles_refused(many, "expected 1 to 1024 messages, found 1025");
    assert_json_refused("{\"messages\": [{\"content\": \"c\"}]}\n", "a \"role\"");
    assert_json_refused("{\"messages\": [{\"role\": \"user\"}]}\n",
                        "\"content\" to be a string, found nothing");
}

static void a_common_prefill_is_for_text_files_only(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    write_bytes("p.jsonl", "{\"prompt\": \"a\"}\n", 16);
    assert_status(open_file("p.jsonl", "Sure", &prompts), MPO_ERR_CONFIG);
    assert_error_names("prompts.prefill");
}

static void one_prompt_can_be_given_as_a_string(void **state)
{
    (void)state;
    struct mpo_prompts *prompts = NULL;
    assert_ok(mpo_prompts_open_single("two\nlines", "> {prompt}", &prompts));
    assert_int_equal(mpo_prompts_count(prompts), 1);
    assert_prompt(prompts, 0, "two\nlines", "> two\nlines");
    mpo_prompts_close(&prompts);
    assert_status(mpo_prompts_open_single("", "", &prompts), MPO_ERR_DATA);
    assert_status(mpo_prompts_open_single("\xFF", "", &prompts), MPO_ERR_DATA);
    assert_error_names("0xFF");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_a_prompt_and_blank_lines_are_none),
        cmocka_unit_test(windows_files_lose_their_mark_and_carriage_returns),
        cmocka_unit_test(the_prefill_holds_the_line),
        cmocka_unit_test(a_prefill_that_grows_over_the_limit_is_refused),
        cmocka_unit_test(bad_utf8_and_nul_name_the_line),
        cmocka_unit_test(a_line_over_the_limit_is_refused),
        cmocka_unit_test(no_prompt_at_all_is_an_error),
        cmocka_unit_test(a_missing_file_is_a_missing_input),
        cmocka_unit_test(the_format_goes_by_suffix_or_by_name),
        cmocka_unit_test(a_prompt_member_is_a_user_message),
        cmocka_unit_test(messages_keep_their_order_and_roles),
        cmocka_unit_test(a_last_assistant_message_begins_the_response),
        cmocka_unit_test(a_response_is_a_text_or_token_ids_or_both),
        cmocka_unit_test(messages_may_repeat_themselves_as_prompt_and_prefill),
        cmocka_unit_test(what_is_not_a_json_object_is_refused_with_its_line),
        cmocka_unit_test(ambiguous_members_are_refused),
        cmocka_unit_test(members_of_the_wrong_kind_are_refused),
        cmocka_unit_test(orders_of_roles_that_make_no_prompt_are_refused),
        cmocka_unit_test(a_common_prefill_is_for_text_files_only),
        cmocka_unit_test(one_prompt_can_be_given_as_a_string),
    };
    return cmocka_run_group_tests_name("prompts", tests, make_folder, remove_folder);
}
