/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of an answer, however it is split into tokens: every way to cut some bytes into
 * pieces, with characters of one to four bytes, bytes that are none, and stop texts.
 */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "runner.h"
#include "answer_case.h"

#define STOPS_MAX 3

/* Bytes, what stops them, and the text that is left, its bytes before repair. */
struct text_case {
    const char *bytes;
    const char *stop[STOPS_MAX];
    const char *text;
    int32_t count; /* of bytes */
    int32_t kept;  /* of them */
};

#define FFFD        "\xef\xbf\xbd"
#define TEXT(whole) .bytes = (whole), .count = (int32_t)sizeof(whole) - 1
#define ALL_KINDS   "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z"
#define BROKEN                                                                             \
    "a\xff"                                                                                \
    "b\xe2\x82"                                                                            \
    "c\xc3\xa9"

static const struct text_case texts[] = {
    {TEXT(ALL_KINDS), .text = ALL_KINDS, .kept = 11},
    {TEXT(BROKEN), .text = "a" FFFD "b" FFFD FFFD "c\xc3\xa9", .kept = 8},
    {TEXT("ab\xf0\x9f\x98"), .text = "ab" FFFD FFFD FFFD, .kept = 5},
    {TEXT("\xe2\xe2\x82\xac\x82x"), .text = FFFD "\xe2\x82\xac" FFFD "x", .kept = 6},
    {TEXT("a STOP b"), .stop = {"STOP"}, .text = "a ", .kept = 2},
    {TEXT("aSTOabSTOx"), .stop = {"STOP"}, .text = "aSTOabSTOx", .kept = 10},
    {TEXT("aSTO"), .stop = {"STOP"}, .text = "aSTO", .kept = 4},
    {TEXT("abcabdx"), .stop = {"abd", "bcx", "dx"}, .text = "abc", .kept = 3},
    {TEXT("xyzabcdef"), .stop = {"def", "abcde"}, .text = "xyz", .kept = 3},
    {TEXT("aaab"), .stop = {"aab"}, .text = "a", .kept = 1},
    {TEXT("x\xe2\x82\xacy"), .stop = {"\xe2\x82\xac"}, .text = "x", .kept = 1},
    {TEXT("x\xe2\x82ySTOPz"), .stop = {"ST", "OP"}, .text = "x" FFFD FFFD "y", .kept = 4},
    {TEXT("STOP"), .stop = {"STOP"}, .text = "", .kept = 0},
    {TEXT(""), .text = "", .kept = 0},
};

/* ---- what is right, of the bytes as a whole ---- */

/* Characters that end in the first `at` of the bytes, and those before the end of the one
 * that `at` is in. */
static void place_of(const struct text_case *text, int32_t at, int32_t *before,
                     int32_t *after)
{
    int32_t end = 0;
    at = at < text->kept ? at : text->kept;
    *before = 0;
    *after = 0;
    while (end < at) {
        utf8proc_int32_t codepoint = 0;
        utf8proc_ssize_t length = utf8proc_iterate(
            (const utf8proc_uint8_t *)text->bytes + end, text->kept - end, &codepoint);
        end += length > 0 ? (int32_t)length : 1;
        *after += 1;
        *before += end <= at;
    }
}

static int32_t characters_in(const char *text)
{
    int32_t count = 0;
    for (; *text != '\0'; text++)
        count += (*text & 0xC0) != 0x80;
    return count;
}

/* ---- one way to split ---- */

struct split {
    const struct text_case *text;
    int32_t token[ANSWER_CASE_WORDS_MAX];
    int32_t end[ANSWER_CASE_WORDS_MAX]; /* bytes up to the end of each token */
    bool is_special[ANSWER_CASE_WORDS_MAX];
    int32_t count;
};

/* Bit i of `cuts`: a token ends after byte i. Tokens without text are put in between. */
static void make_split(struct answer_case *self, const struct text_case *text,
                       uint32_t cuts, bool with_specials, struct split *out)
{
    int32_t first = 0;
    int32_t special = with_specials ? answer_case_special(self, "<s>") : -1;
    *out = (struct split){.text = text};
    for (int32_t i = 0; i < text->count; i++) {
        if ((cuts >> i & 1) == 0 && i + 1 < text->count)
            continue;
        out->token[out->count] = answer_case_word(self, text->bytes + first, i + 1 - first);
        out->end[out->count++] = i + 1;
        first = i + 1;
        if (!with_specials)
            continue;
        out->is_special[out->count] = true;
        out->token[out->count] = special;
        out->end[out->count++] = i + 1;
    }
}

static void run_split(struct answer_case *self, const struct split *split, bool stream,
                      struct answer_case_sent *sent)
{
    self->request.stream = stream;
    answer_case_begin(self, sent);
    answer_case_seat(self, sent, 0);
    answer_case_tokens(self, sent, split->token, split->count);
    answer_case_done(sent);
    assert_true(sent->is_complete);
    assert_int_equal(sent->http_status, 200);
}

/* Each entry comes with the chunk that has the end of its text, or before the next text. */
static void check_chunks(const struct split *split, json_t *chunks)
{
    int32_t entries = 0;
    int32_t characters = 0;
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        json_t *chunk = json_array_get(chunks, i);
        json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
        json_t *tokens = json_object_get(json_object_get(choice, "logprobs"), "tokens");
        int32_t before = 0;
        int32_t after = 0;
        characters += characters_in(json_string_value(json_object_get(choice, "text")));
        entries += (int32_t)json_array_size(tokens);
        if (!json_is_null(json_object_get(choice, "finish_reason")))
            continue;
        if (entries > 0) {
            place_of(split->text, split->end[entries - 1], &before, &after);
            assert_true(after <= characters);
        }
        if (entries == split->count || split->end[entries] > split->text->kept)
            continue; /* a stop text was about to cut it */
        place_of(split->text, split->end[entries], &before, &after);
        assert_true(after > characters || split->is_special[entries]);
    }
}

static void check_offsets(const struct split *split, json_t *logprobs)
{
    json_t *offsets = json_object_get(logprobs, "text_offset");
    size_t count = json_array_size(offsets);
    assert_int_equal(json_array_size(json_object_get(logprobs, "tokens")), count);
    for (size_t i = 0; i < count; i++) {
        int32_t before = 0;
        int32_t after = 0;
        place_of(split->text, i > 0 ? split->end[i - 1] : 0, &before, &after);
        assert_int_equal(json_integer_value(json_array_get(offsets, i)), before);
    }
}

static void check_split(const struct text_case *text, uint32_t cuts, bool with_specials,
                        enum mpo_serve_kind kind)
{
    char *stops[STOPS_MAX];
    int32_t stop_count = 0;
    struct answer_case self;
    struct answer_case_sent whole;
    struct answer_case_sent streamed;
    struct split split;
    bool is_done = false;
    answer_case_make(&self);
    self.request.kind = kind;
    self.request.logprobs = true;
    self.request.top_logprobs = 1;
    while (stop_count < STOPS_MAX && text->stop[stop_count] != NULL) {
        stops[stop_count] = (char *)text->stop[stop_count];
        stop_count++;
    }
    answer_case_stop(&self, stops, stop_count);
    make_split(&self, text, cuts, with_specials, &split);
    run_split(&self, &split, false, &whole);
    run_split(&self, &split, true, &streamed);
    json_t *body = answer_case_json(&whole);
    json_t *chunks = answer_case_chunks(&streamed, &is_done);
    char *joined = answer_case_joined_text(chunks, 0);
    json_t *logprobs = answer_case_joined_logprobs(chunks, 0);
    assert_true(is_done);
    assert_string_equal(answer_case_whole_text(body, 0), text->text);
    assert_string_equal(joined, text->text);
    assert_true(split.count == 0 ||
                json_equal(logprobs, answer_case_whole_logprobs(body, 0)));
    if (kind == MPO_SERVE_COMPLETION) {
        check_chunks(&split, chunks);
        check_offsets(&split, answer_case_whole_logprobs(body, 0));
    }
    json_decref(logprobs);
    json_decref(chunks);
    json_decref(body);
    free(joined);
    answer_case_end(&streamed);
    answer_case_end(&whole);
}

/* ---- cases ---- */

static void check_all_splits(enum mpo_serve_kind kind, bool with_specials)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t inside = texts[i].count > 1 ? texts[i].count - 1 : 0;
        for (uint32_t cuts = 0; cuts < 1u << inside; cuts++)
            check_split(&texts[i], cuts, with_specials, kind);
    }
}

static void streams_and_whole_completions_have_one_text(void **state)
{
    (void)state;
    check_all_splits(MPO_SERVE_COMPLETION, false);
}

static void streams_and_whole_chats_have_one_text(void **state)
{
    (void)state;
    check_all_splits(MPO_SERVE_CHAT, false);
}

static void tokens_without_text_change_no_text(void **state)
{
    (void)state;
    check_all_splits(MPO_SERVE_COMPLETION, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_and_whole_completions_have_one_text),
        cmocka_unit_test(streams_and_whole_chats_have_one_text),
        cmocka_unit_test(tokens_without_text_change_no_text),
    };
    return run_cases("answer text", tests);
}
