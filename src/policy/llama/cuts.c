/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words that libllama cuts otherwise than the model's tokenizer.
 *
 * The tokenizers of a few families end a word between a small letter and a capital, of any
 * script, and take combining marks for letters. libllama's expressions for them know the
 * capitals A to Z alone, and take marks for signs. Nothing outside of libllama can put
 * together what it cuts, so both expressions are followed through the text, and the first
 * piece that ends elsewhere is reported. A piece is what one of these takes, the first that
 * can, with capitals C, small letters S and letters L that are both; P is anything but L, a
 * digit or a line end, Z is white space and X anything but L, Z or a digit:
 *
 *     P? C* S+ E?   P? C+ S* E?   digits   ' '? X+ (line end or /)*   Z* line ends
 *     Z+ not before something else   Z+
 *
 * where E is one of 's 't 're 've 'm 'll 'd in some of the families.
 */
#include "llama_impl.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <utf8proc.h>

#define WORD_BYTES 64

/* Bytes of the letter at a place, at least 1. */
static size_t read_letter(const char *text, size_t length, utf8proc_int32_t *letter)
{
    utf8proc_ssize_t bytes =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, letter);
    return bytes > 0 ? (size_t)bytes : 1;
}

static utf8proc_category_t category_of(utf8proc_int32_t letter)
{
    return letter >= 0 ? utf8proc_category(letter) : UTF8PROC_CATEGORY_CN;
}

static bool is_mark(utf8proc_int32_t letter)
{
    utf8proc_category_t category = category_of(letter);
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

static bool is_letter(utf8proc_int32_t letter)
{
    utf8proc_category_t category = category_of(letter);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

static bool is_digit(utf8proc_int32_t letter)
{
    utf8proc_category_t category = category_of(letter);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

static bool is_space(utf8proc_int32_t letter)
{
    utf8proc_category_t category = category_of(letter);
    return (letter >= '\t' && letter <= '\r') || letter == 0x85 ||
           (category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP);
}

static bool is_line_end(utf8proc_int32_t letter)
{
    return letter == '\r' || letter == '\n';
}

/* What is followed through the text. */
struct cutter {
    const char *text;
    size_t length;
    bool as_libllama;
    bool has_endings; /* E above */
};

static size_t read_at(const struct cutter *cutter, size_t at, utf8proc_int32_t *letter)
{
    *letter = -1;
    return at < cutter->length ? read_letter(cutter->text + at, cutter->length - at, letter)
                               : 0;
}

/* What words are made of. */
static bool is_of_word(const struct cutter *cutter, utf8proc_int32_t letter)
{
    return is_letter(letter) || (!cutter->as_libllama && is_mark(letter));
}

/* Letters without a case, as most scripts have, are both capital and small. */
static bool can_be_capital(const struct cutter *cutter, utf8proc_int32_t letter)
{
    if (!is_of_word(cutter, letter))
        return false;
    return cutter->as_libllama ? letter < 'a' || letter > 'z'
                               : category_of(letter) != UTF8PROC_CATEGORY_LL;
}

static bool can_be_small(const struct cutter *cutter, utf8proc_int32_t letter)
{
    utf8proc_category_t category = category_of(letter);
    if (!is_of_word(cutter, letter))
        return false;
    return cutter->as_libllama
               ? letter < 'A' || letter > 'Z'
               : category != UTF8PROC_CATEGORY_LU && category != UTF8PROC_CATEGORY_LT;
}

/* ---- words ---- */

static size_t skip_small(const struct cutter *cutter, size_t at)
{
    utf8proc_int32_t letter = 0;
    for (size_t step = read_at(cutter, at, &letter); can_be_small(cutter, letter);
         step = read_at(cutter, at, &letter))
        at += step;
    return at;
}

/* Where C* S+, or C+ S* if `of_capitals`, ends; `at`: it is not there. As many capitals as
 * leave a small letter. */
static size_t end_of_word(const struct cutter *cutter, size_t at, bool of_capitals)
{
    utf8proc_int32_t letter = 0;
    size_t to = at;
    size_t last_small = cutter->length;
    for (size_t step = read_at(cutter, to, &letter); can_be_capital(cutter, letter);
         step = read_at(cutter, to, &letter)) {
        if (can_be_small(cutter, letter))
            last_small = to;
        to += step;
    }
    if (of_capitals)
        return to > at ? skip_small(cutter, to) : at;
    if (can_be_small(cutter, letter))
        return skip_small(cutter, to);
    return last_small < cutter->length ? skip_small(cutter, last_small) : at;
}

static size_t skip_ending(const struct cutter *cutter, size_t at)
{
    static const char *const ending[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; cutter->has_endings && i < sizeof ending / sizeof *ending; i++) {
        const size_t bytes = strlen(ending[i]);
        if (cutter->length - at >= bytes &&
            strncasecmp(cutter->text + at, ending[i], bytes) == 0)
            return at + bytes;
    }
    return at;
}

/* The word at a place with what may be before it; `at`: there is none. */
static size_t match_word(const struct cutter *cutter, size_t at)
{
    utf8proc_int32_t letter = 0;
    const size_t step = read_at(cutter, at, &letter);
    bool can_be_before = !is_letter(letter) && !is_digit(letter) && !is_line_end(letter);
    for (int of_capitals = 0; of_capitals <= 1; of_capitals++) {
        const size_t after = can_be_before ? at + step : at;
        size_t to = end_of_word(cutter, after, of_capitals);
        if (to == after && after > at)
            to = end_of_word(cutter, at, of_capitals);
        else if (to == after)
            to = at;
        if (to > at)
            return skip_ending(cutter, to);
    }
    return at;
}

/* ---- signs and white space ---- */

/* ' '? X+ and what follows; `at`: there are none. */
static size_t match_signs(const struct cutter *cutter, size_t at)
{
    utf8proc_int32_t letter = 0;
    size_t to = at < cutter->length && cutter->text[at] == ' ' ? at + 1 : at;
    const size_t first = to;
    for (size_t step = read_at(cutter, to, &letter);
         step > 0 && !is_letter(letter) && !is_digit(letter) && !is_space(letter);
         step = read_at(cutter, to, &letter))
        to += step;
    if (to == first)
        return at;
    while (to < cutter->length && strchr("\r\n/", cutter->text[to]) != NULL)
        to++;
    return to;
}

static size_t match_space(const struct cutter *cutter, size_t at)
{
    utf8proc_int32_t letter = 0;
    size_t to = at;
    size_t last = at; /* the last of them begins here */
    size_t line_end = at;
    for (size_t step = read_at(cutter, to, &letter); is_space(letter);
         step = read_at(cutter, to, &letter)) {
        last = to;
        to += step;
        if (is_line_end(letter))
            line_end = to;
    }
    if (line_end > at)
        return line_end;
    return to < cutter->length && last > at ? last : to;
}

/* ---- pieces ---- */

static size_t match_piece(const struct cutter *cutter, size_t at)
{
    utf8proc_int32_t letter = 0;
    const size_t step = read_at(cutter, at, &letter);
    if (is_digit(letter))
        return at + step; /* how many together is the same for both */
    size_t to = match_word(cutter, at);
    if (to == at)
        to = match_signs(cutter, at);
    if (to == at)
        to = match_space(cutter, at);
    return to > at ? to : at + step;
}

/* Where the letters and marks begin that a piece is a part of; what is in front of them in
 * the piece belongs to them only if it carries a mark. */
static size_t find_start(const struct cutter *cutter, size_t at)
{
    utf8proc_int32_t letter = 0;
    utf8proc_int32_t next = 0;
    const size_t step = read_at(cutter, at, &letter);
    read_at(cutter, at + step, &next);
    if (!is_letter(letter) && !is_mark(letter))
        return !is_space(letter) && is_mark(next) ? at : at + step;
    for (size_t before = at; before > 0;) {
        before--;
        while (before > 0 && ((unsigned char)cutter->text[before] & 0xc0) == 0x80)
            before--;
        read_at(cutter, before, &letter);
        if (!is_letter(letter) && !is_mark(letter))
            break;
        at = before;
    }
    return at;
}

size_t mpo_llama_find_cut(const char *text, bool has_endings, const char **found)
{
    struct cutter own = {text, strlen(text), false, has_endings};
    struct cutter other = {text, own.length, true, has_endings};
    for (size_t at = 0, to = 0; at < own.length; at = to) {
        to = match_piece(&own, at);
        const size_t other_to = match_piece(&other, at);
        if (to == other_to)
            continue;
        const size_t from = find_start(&own, at);
        *found = text + from;
        return (to > other_to ? to : other_to) - from;
    }
    return 0;
}

/* As many letters as have room, for a message. */
static size_t shorten_word(const char *text, size_t length)
{
    utf8proc_int32_t letter = 0;
    size_t at = 0;
    for (size_t step = 0; at < length; at += step) {
        step = read_letter(text + at, length - at, &letter);
        if (at + step > WORD_BYTES)
            break;
    }
    return at;
}

bool mpo_llama_cuts_endings(const struct llama_model *model)
{
    static const char *const family[] = {"tekken"};
    return !mpo_llama_is_of_family(model, family, 1);
}

bool mpo_llama_cuts_capitals(const struct llama_model *model)
{
    /* What LLAMA_VOCAB_PRE_TYPE_TEKKEN, _GPT4O and _MINIMAX_M2 stand for in libllama. */
    static const char *const family[] = {"tekken",  "gpt-4o", "llama4",
                                         "kanana2", "talkie", "minimax-m2"};
    return mpo_llama_is_of_family(model, family, sizeof family / sizeof family[0]);
}

bool mpo_llama_remark(const void *self, const char *text, char *line, size_t line_bytes)
{
    const struct mpo_llama_policy *policy = self;
    const char *found = NULL;
    size_t bytes = 0;
    if (policy->model->cuts_capitals)
        bytes = mpo_llama_find_cut(text, policy->model->cuts_endings, &found);
    if (bytes > 0)
        snprintf(line, line_bytes,
                 "policy '%s': libllama splits '%.*s' into other words than the "
                 "model's own tokenizer, because it knows only the capitals A to "
                 "Z and no combining marks; such text may get other tokens than "
                 "in training",
                 policy->spec.name, (int)shorten_word(found, bytes), found);
    return bytes > 0;
}
