/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of text, lines that fit a terminal, and how figures are spelt. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "runner.h"

#define WIDE  "\xe6\x9c\x89" /* a letter of two columns */
#define ACUTE "\xcc\x81"     /* a mark that combines with the letter before it */

static void columns_are_counted_as_a_terminal_does(void **state)
{
    (void)state;
    assert_int_equal(mpo_text_columns(""), 0);
    assert_int_equal(mpo_text_columns("abc"), 3);
    assert_int_equal(mpo_text_columns("gr\xc3\xb6\xc3\x9f"
                                      "e"),
                     5);
    assert_int_equal(mpo_text_columns(WIDE WIDE), 4);
    assert_int_equal(mpo_text_columns("e" ACUTE), 1);
    assert_int_equal(mpo_text_columns("\xff\xfe"), 2);
}

static void what_fits_never_ends_within_a_letter(void **state)
{
    (void)state;
    assert_int_equal(mpo_text_fit("abc", 5), 3);
    assert_int_equal(mpo_text_fit("abc", 2), 2);
    assert_int_equal(mpo_text_fit("abc", 0), 0);
    assert_int_equal(mpo_text_fit(WIDE WIDE, 3), strlen(WIDE));
    assert_int_equal(mpo_text_fit("e" ACUTE "f", 1), strlen("e" ACUTE));
}

static void assert_wrapped(const char *text, int32_t column, int32_t indent, int32_t width,
                           const char *expected)
{
    char *out = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&out, &bytes);
    assert_non_null(stream);
    mpo_text_wrap(stream, text, column, indent, width);
    assert_int_equal(fclose(stream), 0);
    assert_string_equal(out, expected);
    free(out);
}

static void words_are_wrapped_and_never_cut(void **state)
{
    (void)state;
    assert_wrapped("", 0, 2, 10, "");
    assert_wrapped("one two three", 0, 2, 80, "one two three");
    assert_wrapped("one two three", 0, 2, 7, "one two\n  three");
    assert_wrapped("one two three", 1, 2, 7, "one\n  two\n  three");
    assert_wrapped("a-word-too-long for it", 0, 1, 6, "a-word-too-long\n for\n it");
    assert_wrapped("x " WIDE WIDE " y", 0, 0, 4, "x\n" WIDE WIDE "\ny");
    assert_wrapped("two  spaces", 0, 0, 80, "two  spaces");
}

static void lines_of_the_text_stay_lines(void **state)
{
    (void)state;
    assert_wrapped("one\ntwo three", 1, 2, 80, "one\n  two three");
    assert_wrapped("one two\nthree", 0, 2, 6, "one\n  two\n  three");
    assert_wrapped("one\n\ntwo", 0, 1, 80, "one\n \n two");
}

static void padding_counts_columns_and_not_letters(void **state)
{
    (void)state;
    static const char *const padded[][2] = {{"abc", "abc  "},
                                            {WIDE WIDE, WIDE WIDE " "},
                                            {"e" ACUTE, "e" ACUTE "    "},
                                            {"too long", "too long"}};
    for (size_t i = 0; i < sizeof padded / sizeof padded[0]; i++) {
        char *out = NULL;
        size_t bytes = 0;
        FILE *stream = open_memstream(&out, &bytes);
        assert_non_null(stream);
        mpo_text_pad(stream, padded[i][0], 5);
        assert_int_equal(fclose(stream), 0);
        assert_string_equal(out, padded[i][1]);
        free(out);
    }
}

static void figures_and_names_have_one_spelling(void **state)
{
    (void)state;
    char hash[MPO_TEXT_HASH_BYTES];
    char hex[7];
    mpo_text_hash(0xab, hash);
    assert_string_equal(hash, "00000000000000ab");
    mpo_text_hex((const unsigned char *)"\x00\x7f\xff", 3, hex);
    assert_string_equal(hex, "007fff");
    assert_int_equal(mpo_text_megabytes((3U << 20) - 1), 2);
    assert_int_equal(mpo_text_megabytes_up((2U << 20) + 1), 3);
    assert_int_equal(mpo_text_megabytes_up(2U << 20), 2);
    assert_true(mpo_text_megabytes_up(UINT64_MAX) == 1ULL << 44);
    assert_string_equal(mpo_text_plural(1), "");
    assert_string_equal(mpo_text_plural(0), "s");
    assert_true(mpo_text_ends_with("a.svg", ".svg"));
    assert_true(mpo_text_ends_with("a", ""));
    assert_false(mpo_text_ends_with("svg", ".svg"));
    assert_false(mpo_text_ends_with("a.svg.gz", ".svg"));
}

static void a_figure_is_a_number_or_a_dash(void **state)
{
    (void)state;
    assert_string_equal(mpo_text_figure(-0.12346, 4).text, "-0.1235");
    assert_string_equal(mpo_text_figure(-0.00004, 4).text, "0.0000");
    assert_string_equal(mpo_text_figure(-0.0, 0).text, "0");
    assert_string_equal(mpo_text_figure(-10.0, 0).text, "-10");
    assert_string_equal(mpo_text_figure(NAN, 4).text, "-");
    assert_string_equal(mpo_text_figure(-INFINITY, 4).text, "-");
    assert_string_equal(mpo_text_figure(1e300, 4).text, "1e+300");
}

static void shares_add_to_the_whole(void **state)
{
    (void)state;
    const double thirds[3] = {1.0, 1.0, 1.0};
    const double parts[5] = {0.0005, 0.00049, 0.00051, 0.9, 0.0985};
    const double none[2] = {0.0, 0.0};
    int32_t share[5] = {0};
    mpo_text_shares(thirds, 3, share);
    assert_int_equal(share[0] + share[1] + share[2], 1000);
    assert_int_equal(share[2], 333);
    mpo_text_shares(parts, 5, share);
    assert_int_equal(share[0] + share[1] + share[2] + share[3] + share[4], 1000);
    assert_int_equal(share[3], 900);
    mpo_text_shares(none, 2, share);
    assert_int_equal(share[0] + share[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_counted_as_a_terminal_does),
        cmocka_unit_test(what_fits_never_ends_within_a_letter),
        cmocka_unit_test(words_are_wrapped_and_never_cut),
        cmocka_unit_test(lines_of_the_text_stay_lines),
        cmocka_unit_test(padding_counts_columns_and_not_letters),
        cmocka_unit_test(figures_and_names_have_one_spelling),
        cmocka_unit_test(a_figure_is_a_number_or_a_dash),
        cmocka_unit_test(shares_add_to_the_whole),
    };
    return cmocka_run_group_tests_name("text in columns", tests, NULL, NULL);
}
