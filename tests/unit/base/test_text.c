/* Columns of text, and lines that fit a terminal. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_counted_as_a_terminal_does),
        cmocka_unit_test(what_fits_never_ends_within_a_letter),
        cmocka_unit_test(words_are_wrapped_and_never_cut),
    };
    return cmocka_run_group_tests_name("text in columns", tests, NULL, NULL);
}
