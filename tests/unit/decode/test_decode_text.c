/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a text may yet become a stop text, against the definition: the longest beginning of
 * a stop text that the text ends in, tried from the longest on.
 */
#include "decode/text.h"

#include <stdlib.h>
#include <string.h>

#include "runner.h"

enum { CASES = 20000, TEXT_BYTES = 40, STOPS = 3 };

/* Of few letters, so that beginnings repeat inside of texts. */
static void draw_letters(char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        text[i] = rand() % 3 > 0 ? 'a' : 'b';
    text[bytes] = '\0';
}

static size_t begun_by_definition(const char *text, const char *stop)
{
    size_t count = strlen(text);
    size_t length = strlen(stop);
    for (size_t begun = length > 0 ? length - 1 : 0; begun > 0; begun--)
        if (begun <= count && memcmp(text + count - begun, stop, begun) == 0)
            return begun;
    return 0;
}

/* @param bytes  owned by the caller, with room to be grown */
static size_t certain_bytes(char **bytes, const char *const *stop, int32_t count)
{
    size_t certain = 0;
    struct mpo_decode_text text = {0};
    const struct mpo_decode_stops stops = {stop, count};
    mpo_decode_text_open(&text, NULL, &stops);
    text.bytes = *bytes;
    text.count = strlen(*bytes);
    text.capacity = text.count + 1;
    assert_ok(mpo_decode_text_certain(&text, &certain));
    *bytes = text.bytes;
    return certain;
}

static void what_may_become_a_stop_text_is_not_certain(void **state)
{
    (void)state;
    srand(1);
    for (int i = 0; i < CASES; i++) {
        char stop[STOPS][TEXT_BYTES + 1];
        const char *list[STOPS];
        char *text = malloc(TEXT_BYTES + 1);
        size_t begun = 0;
        assert_non_null(text);
        draw_letters(text, (size_t)(rand() % TEXT_BYTES));
        for (int s = 0; s < STOPS; s++) {
            draw_letters(stop[s], (size_t)(rand() % (i % 2 == 0 ? 8 : TEXT_BYTES)));
            list[s] = stop[s];
            size_t one = begun_by_definition(text, stop[s]);
            begun = one > begun ? one : begun;
        }
        assert_int_equal(certain_bytes(&text, list, STOPS), strlen(text) - begun);
        free(text);
    }
}

/* The longest stop text, in a text that is all but its last byte again and again. */
static void the_longest_stop_text_is_begun_at_its_last_byte_but_one(void **state)
{
    (void)state;
    char stop[MPO_DECODE_STOP_BYTES_MAX + 1];
    const char *const list[] = {stop};
    size_t bytes = 3 * sizeof stop;
    char *text = calloc(bytes + 1, 1);
    assert_non_null(text);
    memset(text, 'a', bytes);
    memset(stop, 'a', sizeof stop);
    stop[MPO_DECODE_STOP_BYTES_MAX - 1] = 'b';
    stop[MPO_DECODE_STOP_BYTES_MAX] = '\0';
    assert_int_equal(certain_bytes(&text, list, 1),
                     bytes - (MPO_DECODE_STOP_BYTES_MAX - 1));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_may_become_a_stop_text_is_not_certain),
        cmocka_unit_test(the_longest_stop_text_is_begun_at_its_last_byte_but_one),
    };
    return run_cases("decode_text", tests);
}
