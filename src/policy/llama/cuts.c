/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words that libllama cuts otherwise than the model's tokenizer.
 *
 * The tokenizers of a few families end a word between a small letter and a capital, of any
 * script, and take combining accents for letters. libllama's expressions for them know the
 * capitals A to Z alone, and no accents. Nothing outside of libllama can put together what
 * it cuts, so such words are found, and told.
 *
 * A word is what one of these takes, the first that can, with capitals C and small letters S:
 *
 *     C* S+   or   C+ S*
 */
#include "llama_impl.h"

#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#define WORD_BYTES 64

/* Bytes of the letter at a place, at least 1. */
static size_t read_letter(const char *text, size_t length, utf8proc_int32_t *letter)
{
    utf8proc_ssize_t bytes =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, letter);
    return bytes > 0 ? (size_t)bytes : 1;
}

static bool is_letter(utf8proc_int32_t letter)
{
    utf8proc_category_t category = letter >= 0 ? utf8proc_category(letter) : 0;
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

static bool is_accent(utf8proc_int32_t letter)
{
    utf8proc_category_t category = letter >= 0 ? utf8proc_category(letter) : 0;
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

/* Letters without a case, as most scripts have, are both capital and small. */
static bool can_be_capital(utf8proc_int32_t letter, bool as_libllama)
{
    return as_libllama ? letter < 'a' || letter > 'z'
                       : utf8proc_category(letter) != UTF8PROC_CATEGORY_LL;
}

static bool can_be_small(utf8proc_int32_t letter, bool as_libllama)
{
    utf8proc_category_t category = utf8proc_category(letter);
    return as_libllama
               ? letter < 'A' || letter > 'Z'
               : category != UTF8PROC_CATEGORY_LU && category != UTF8PROC_CATEGORY_LT;
}

/* Bytes of the first word of some letters. */
static size_t first_word(const char *text, size_t length, bool as_libllama)
{
    utf8proc_int32_t letter = 0;
    bool has_small = false;
    size_t last_small = 0;
    size_t at = 0;
    for (size_t step = 0; at < length; at += step) {
        step = read_letter(text + at, length - at, &letter);
        if (can_be_small(letter, as_libllama)) {
            has_small = true;
            last_small = at;
        }
        if (!can_be_capital(letter, as_libllama))
            break;
    }
    if (!has_small)
        return at;
    at = last_small;
    for (size_t step = 0; at < length; at += step) {
        step = read_letter(text + at, length - at, &letter);
        if (!can_be_small(letter, as_libllama))
            break;
    }
    return at;
}

static bool are_cut_alike(const char *letters, size_t length)
{
    for (size_t at = 0; at < length;) {
        size_t word = first_word(letters + at, length - at, false);
        if (word != first_word(letters + at, length - at, true))
            return false;
        at += word;
    }
    return true;
}

/* The first letters that are cut otherwise, with an accent that follows them.
 * @return their bytes, 0 when there are none */
static size_t find_letters(const char *text, size_t length, const char **found)
{
    utf8proc_int32_t letter = 0;
    size_t start = 0;
    for (size_t at = 0, step = 0; at <= length; at += step) {
        step = 1;
        letter = -1;
        if (at < length)
            step = read_letter(text + at, length - at, &letter);
        if (is_letter(letter))
            continue;
        *found = text + start;
        if (at > start && is_accent(letter))
            return at - start + step;
        if (!are_cut_alike(text + start, at - start))
            return at - start;
        start = at + step;
    }
    return 0;
}

/* As many letters as have room, for a message. */
static size_t shorten(const char *text, size_t length)
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
        bytes = find_letters(text, strlen(text), &found);
    if (bytes > 0)
        snprintf(
            line, line_bytes,
            "policy '%s': libllama cuts '%.*s' into other words than the model's own "
            "tokenizer, for it knows the capitals A to Z alone and no combining accents; "
            "such text can get other tokens than the model was trained with",
            policy->spec.name, (int)shorten(found, bytes), found);
    return bytes > 0;
}
