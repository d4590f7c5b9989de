/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beginnings of prompts among rows: exact lengths for each policy, what is worth a copy, and
 * which row is forgotten first.
 */
#include <string.h>

#include "runner.h"
#include "serve/prefixes.h"

#define ROWS     4
#define POLICIES 2
#define CONTEXT  16

/* Policy 0 has the letters of a text as tokens, policy 1 the same behind its own beginning. */
struct text {
    int32_t token[POLICIES][CONTEXT];
    const int32_t *list[POLICIES];
    int32_t count[POLICIES];
    bool part[POLICIES];
    struct mpo_prefix_prompt prompt;
};

static const struct mpo_prefix_prompt *tell(struct text *text, const char *letters)
{
    int32_t length = (int32_t)strlen(letters);
    *text = (struct text){.count = {length, length + 2}, .part = {true, true}};
    text->token[1][0] = text->token[1][1] = 1000;
    for (int32_t i = 0; i < length; i++)
        text->token[0][i] = text->token[1][i + 2] = letters[i];
    for (int32_t h = 0; h < POLICIES; h++)
        text->list[h] = text->token[h];
    text->prompt = (struct mpo_prefix_prompt){text->list, text->count, text->part, NULL};
    return &text->prompt;
}

static struct mpo_prefixes *open_prefixes(void)
{
    const struct mpo_prefixes_spec spec = {ROWS, POLICIES, CONTEXT};
    struct mpo_prefixes *prefixes = NULL;
    assert_ok(mpo_prefixes_open(&spec, &prefixes));
    return prefixes;
}

static void begin(struct mpo_prefixes *prefixes, int32_t row, const char *letters)
{
    struct text text;
    mpo_prefixes_begin(prefixes, row, tell(&text, letters));
}

static void add(struct mpo_prefixes *prefixes, int32_t row, const char *letters)
{
    for (; *letters != '\0'; letters++)
        mpo_prefixes_add(prefixes, row, *letters);
}

struct found {
    struct mpo_prefix prefix;
    int32_t reused[POLICIES];
};

static void assert_found(const struct mpo_prefixes *prefixes, const char *letters,
                         bool is_fed, struct found expected)
{
    struct text text;
    struct found found = {.reused = {0, 0}};
    found.prefix.reused = found.reused;
    mpo_prefixes_find(prefixes, tell(&text, letters), is_fed, &found.prefix);
    assert_int_equal(found.prefix.row, expected.prefix.row);
    assert_int_equal(found.prefix.saved, expected.prefix.saved);
    for (int32_t h = 0; expected.prefix.row >= 0 && h < POLICIES; h++)
        assert_int_equal(found.reused[h], expected.reused[h]);
}

#define NONE ((struct found){.prefix = {.row = -1}})

static void a_row_holds_its_prompt_and_all_but_its_last_token(void **state)
{
    struct mpo_prefixes *prefixes = open_prefixes();
    (void)state;
    begin(prefixes, 2, "abcdef");
    assert_found(prefixes, "abcdefgh", true, NONE); /* not fed yet */
    assert_found(prefixes, "abcdefgh", false,
                 (struct found){{.row = 2, .saved = 8}, {6, 8}});
    add(prefixes, 2, "g");
    assert_found(prefixes, "abcdefgh", false, NONE);
    assert_found(prefixes, "abcdefgh", true,
                 (struct found){{.row = 2, .saved = 8}, {6, 8}});
    add(prefixes, 2, "hi");
    assert_found(prefixes, "abcdefghij", true,
                 (struct found){{.row = 2, .saved = 10}, {8, 10}});
    assert_found(prefixes, "abcdefxhij", true,
                 (struct found){{.row = 2, .saved = 8}, {6, 8}});
    assert_found(prefixes, "axcdefghij", true, NONE); /* three tokens are not worth it */
    assert_int_equal(mpo_prefixes_keep(prefixes, 2), 10);
    assert_found(prefixes, "abcdefghij", true,
                 (struct found){{.row = 2, .saved = 10}, {8, 10}});
    mpo_prefixes_forget(prefixes, 2);
    assert_found(prefixes, "abcdefghij", true, NONE);
    mpo_prefixes_close(&prefixes);
}

/* The last token is fed for its logits, however much is there. */
static void the_last_token_is_never_reused(void **state)
{
    struct mpo_prefixes *prefixes = open_prefixes();
    (void)state;
    begin(prefixes, 0, "abcdef");
    add(prefixes, 0, "gh");
    assert_found(prefixes, "abcdef", true, (struct found){{.row = 0, .saved = 7}, {5, 7}});
    assert_found(prefixes, "abcdefg", true, (struct found){{.row = 0, .saved = 8}, {6, 8}});
    mpo_prefixes_close(&prefixes);
}

/* What counts is the policy that has most left. */
static void policies_reuse_what_each_of_them_shares(void **state)
{
    struct mpo_prefixes *prefixes = open_prefixes();
    struct text text;
    struct found found;
    (void)state;
    tell(&text, "abcdefgh");
    text.token[1][8] = 'x';
    mpo_prefixes_begin(prefixes, 0, &text.prompt);
    add(prefixes, 0, "i");
    assert_found(prefixes, "abcdefghij", true,
                 (struct found){{.row = 0, .saved = 8}, {8, 8}});
    tell(&text, "abcdefgh");
    text.part[1] = false;
    mpo_prefixes_begin(prefixes, 0, &text.prompt);
    add(prefixes, 0, "i");
    assert_found(prefixes, "abcdefghij", true, NONE); /* policy 1 has nothing of it */
    tell(&text, "abcdefghij");
    text.part[1] = false;
    found.prefix.reused = found.reused;
    mpo_prefixes_find(prefixes, &text.prompt, true, &found.prefix);
    assert_int_equal(found.prefix.saved, 8);
    assert_int_equal(found.reused[1], 0);
    mpo_prefixes_close(&prefixes);
}

static void the_longest_is_taken_then_the_latest(void **state)
{
    struct mpo_prefixes *prefixes = open_prefixes();
    (void)state;
    begin(prefixes, 0, "abcdef");
    begin(prefixes, 1, "abcdefgh");
    begin(prefixes, 2, "abcdefgx");
    for (int32_t row = 0; row < 3; row++)
        add(prefixes, row, "z");
    assert_found(prefixes, "abcdefghi", true,
                 (struct found){{.row = 1, .saved = 10}, {8, 10}});
    assert_found(prefixes, "abcdefgyy", true,
                 (struct found){{.row = 2, .saved = 9}, {7, 9}});
    mpo_prefixes_touch(prefixes, 1);
    assert_found(prefixes, "abcdefgyy", true,
                 (struct found){{.row = 1, .saved = 9}, {7, 9}});
    mpo_prefixes_close(&prefixes);
}

static void the_oldest_kept_row_goes_first(void **state)
{
    struct mpo_prefixes *prefixes = open_prefixes();
    (void)state;
    for (int32_t row = 0; row < 3; row++) {
        begin(prefixes, row, "abcdef");
        add(prefixes, row, "gh");
    }
    assert_int_equal(mpo_prefixes_oldest(prefixes, -1), -1); /* all of them live */
    begin(prefixes, 3, "abcdef");
    assert_int_equal(mpo_prefixes_keep(prefixes, 3), 0); /* its prompt was never fed */
    for (int32_t row = 0; row < 3; row++)
        assert_int_equal(mpo_prefixes_keep(prefixes, row), 9);
    assert_int_equal(mpo_prefixes_kept_rows(prefixes), 3);
    assert_int_equal(mpo_prefixes_kept_cells(prefixes), 27);
    assert_int_equal(mpo_prefixes_oldest(prefixes, -1), 0);
    assert_int_equal(mpo_prefixes_oldest(prefixes, 0), 1);
    mpo_prefixes_touch(prefixes, 0);
    assert_int_equal(mpo_prefixes_oldest(prefixes, -1), 1);
    mpo_prefixes_forget(prefixes, 1);
    assert_int_equal(mpo_prefixes_oldest(prefixes, -1), 2);
    assert_int_equal(mpo_prefixes_kept_cells(prefixes), 18);
    mpo_prefixes_close(&prefixes);
}

/* A row that becomes the new one loses nothing where all it holds is reused. */
static void whole_rows_are_told_from_parts(void **state)
{
    struct mpo_prefixes *prefixes = open_prefixes();
    int32_t reused[POLICIES] = {7, 9};
    struct mpo_prefix prefix = {.row = 1, .reused = reused};
    (void)state;
    begin(prefixes, 1, "abcdef");
    add(prefixes, 1, "gh");
    assert_false(mpo_prefixes_is_kept(prefixes, 1));
    mpo_prefixes_keep(prefixes, 1);
    assert_true(mpo_prefixes_is_kept(prefixes, 1));
    assert_true(mpo_prefixes_is_whole(prefixes, &prefix));
    reused[1] = 8;
    assert_false(mpo_prefixes_is_whole(prefixes, &prefix));
    mpo_prefixes_close(&prefixes);
}

/* A prompt that is looked up: its row counts as being fed until all of it is, or all but its
 * last token where nothing is drawn, and others may only begin as a row that was asked alike. */
static void rows_that_are_looked_up_are_filled_late(void **state)
{
    struct mpo_prefixes *prefixes = open_prefixes();
    const bool first[ROWS] = {true, false, false, false};
    const bool second[ROWS] = {false, true, false, false};
    struct text text;
    struct found found;
    (void)state;
    begin(prefixes, 1, "abcdef");
    mpo_prefixes_fill(prefixes, 1, 5);
    assert_found(prefixes, "abcdefg", true, (struct found){{.row = 1, .saved = 5}, {5, 5}});
    found.prefix.reused = found.reused;
    tell(&text, "abcdefg");
    text.prompt.among = first;
    mpo_prefixes_find(prefixes, &text.prompt, true, &found.prefix);
    assert_int_equal(found.prefix.row, -1);
    text.prompt.among = second;
    mpo_prefixes_find(prefixes, &text.prompt, true, &found.prefix);
    assert_int_equal(found.prefix.row, 1);
    assert_int_equal(mpo_prefixes_keep(prefixes, 1), 5);
    mpo_prefixes_fill(prefixes, 1, 2); /* it is filled, whatever comes */
    assert_int_equal(mpo_prefixes_kept_cells(prefixes), 5);
    mpo_prefixes_close(&prefixes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_holds_its_prompt_and_all_but_its_last_token),
        cmocka_unit_test(the_last_token_is_never_reused),
        cmocka_unit_test(policies_reuse_what_each_of_them_shares),
        cmocka_unit_test(the_longest_is_taken_then_the_latest),
        cmocka_unit_test(the_oldest_kept_row_goes_first),
        cmocka_unit_test(whole_rows_are_told_from_parts),
        cmocka_unit_test(rows_that_are_looked_up_are_filled_late),
    };
    return run_cases("prefixes", tests);
}
