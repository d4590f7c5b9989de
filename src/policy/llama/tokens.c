/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to tokens, where some of the text is a user's.
 *
 * The text of a special token stands for the token where a template has written all of it,
 * and for itself where any of its bytes is a user's: a prompt that holds "<|im_end|>" must
 * not end its own turn. libllama parses a whole text or none of it, and tokenising the
 * pieces apart would lose the merges across their borders. So the whole text is tokenised at
 * once when no special token has to stay text, which is nearly always. Otherwise it is cut
 * at the template's special tokens, exactly where libllama would cut it, and the plain text
 * in between is tokenised without specials. So is a text that its tokenizer composes first
 * (compose.c), which it does between special tokens.
 */
#include "llama_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- text ---- */

enum mpo_status mpo_llama_text_append(struct mpo_llama_text *text, const char *bytes,
                                      size_t count, bool user)
{
    enum mpo_status status = MPO_OK;
    size_t needed = text->length + count + 1;
    MPO_TRY(mpo_memory_grow((void **)&text->bytes, &text->capacity, needed, 1,
                            "text of a prompt"));
    MPO_TRY(mpo_memory_grow((void **)&text->user, &text->user_capacity, needed, 1,
                            "text of a prompt"));
    memcpy(text->bytes + text->length, bytes, count);
    memset(text->user + text->length, user, count);
    text->length += count;
    text->bytes[text->length] = '\0';
cleanup:
    return status;
}

void mpo_llama_text_free(struct mpo_llama_text *text)
{
    free(text->bytes);
    free(text->user);
    *text = (struct mpo_llama_text){0};
}

/* ---- special tokens ---- */

static int longest_first(const void *a, const void *b)
{
    const struct mpo_llama_special *x = a;
    const struct mpo_llama_special *y = b;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

enum mpo_status mpo_llama_specials_list(const struct mpo_llama_model *model,
                                        struct mpo_llama_specials *out)
{
    enum mpo_status status = MPO_OK;
    const uint32_t parsed = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
    size_t capacity = 0;
    for (int32_t id = 0; id < model->size; id++) {
        uint32_t attribute = (uint32_t)llama_vocab_get_attr(model->vocab, id);
        const char *text = llama_vocab_get_text(model->vocab, id);
        if ((attribute & parsed) == 0 || text[0] == '\0')
            continue;
        MPO_TRY(mpo_memory_grow((void **)&out->special, &capacity, out->count + 1,
                                sizeof *out->special, "special tokens"));
        out->special[out->count++] =
            (struct mpo_llama_special){text, strlen(text), id, attribute};
        out->begins[(unsigned char)text[0]] = true;
    }
    if (out->count > 0)
        qsort(out->special, out->count, sizeof *out->special, longest_first);
cleanup:
    return status;
}

const struct mpo_llama_special *
mpo_llama_special_at(const struct mpo_llama_specials *specials, const char *bytes,
                     size_t length)
{
    if (length == 0 || !specials->begins[(unsigned char)bytes[0]])
        return NULL;
    for (size_t i = 0; i < specials->count; i++) {
        const struct mpo_llama_special *special = &specials->special[i];
        if (special->length <= length && memcmp(special->text, bytes, special->length) == 0)
            return special;
    }
    return NULL;
}

/* The special token that the template has written at a place, or NULL.
 * @param refused  set when there is one with a user's bytes */
static const struct mpo_llama_special *written_at(const struct mpo_llama_specials *specials,
                                                  const struct mpo_llama_text *text,
                                                  size_t place, bool *refused)
{
    const char *bytes = text->bytes + place;
    if (!specials->begins[(unsigned char)*bytes])
        return NULL;
    for (size_t i = 0; i < specials->count; i++) {
        const struct mpo_llama_special *special = &specials->special[i];
        if (special->length > text->length - place ||
            memcmp(special->text, bytes, special->length) != 0)
            continue;
        if (memchr(text->user + place, 1, special->length) == NULL)
            return special;
        *refused = true;
    }
    return NULL;
}

/* ---- tokens ---- */

/* What is tokenised, and for whom. */
struct job {
    const struct mpo_llama_model *model;
    const struct mpo_llama_text *text;
    struct mpo_policy_tokens *out;
};

enum mpo_status mpo_llama_append_token(struct mpo_policy_tokens *out, int32_t id)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_policy_tokens_reserve(out, 1));
    out->token[out->count++] = id;
cleanup:
    return status;
}

static enum mpo_status tokenise_part(const struct job *job, const char *bytes,
                                     size_t length, bool special)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_tokens *out = job->out;
    size_t room = length + 8;
    if (length == 0)
        return MPO_OK;
    MPO_CHECK(room < INT32_MAX / 2, MPO_ERR_DATA, "the prompt is longer than 1 GB");
    for (int attempt = 0; attempt < 2; attempt++) {
        MPO_TRY(mpo_policy_tokens_reserve(out, room));
        int32_t count =
            llama_tokenize(job->model->vocab, bytes, (int32_t)length,
                           out->token + out->count, (int32_t)room, false, special);
        if (count >= 0) {
            out->count += count;
            return MPO_OK;
        }
        room = count == INT32_MIN ? 0 : (size_t)-count;
    }
    MPO_FAIL(MPO_ERR_INTERNAL, "the prompt could not be tokenised");
cleanup:
    return status;
}

/* Plain text between two special tokens, either NULL at an end of the text. Some special
 * tokens take the white space beside them. */
static enum mpo_status tokenise_between(const struct job *job, size_t start, size_t end,
                                        const struct mpo_llama_special *before,
                                        const struct mpo_llama_special *after)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_composed composed = {0};
    const char *bytes = job->text->bytes;
    if (before != NULL && (before->attribute & LLAMA_TOKEN_ATTR_RSTRIP) != 0)
        while (start < end && isspace((unsigned char)bytes[start]))
            start++;
    if (after != NULL && (after->attribute & LLAMA_TOKEN_ATTR_LSTRIP) != 0)
        while (start < end && isspace((unsigned char)bytes[end - 1]))
            end--;
    MPO_TRY(mpo_llama_compose(job->model, bytes + start, end - start, &composed));
    MPO_TRY(tokenise_part(job, composed.bytes, composed.length, false));
cleanup:
    free(composed.own);
    return status;
}

static enum mpo_status tokenise_cut(const struct job *job)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_llama_text *text = job->text;
    const struct mpo_llama_special *before = NULL;
    size_t start = 0;
    bool refused = false;
    for (size_t i = 0; i < text->length;) {
        const struct mpo_llama_special *special =
            written_at(&job->model->specials, text, i, &refused);
        if (special == NULL) {
            i++;
            continue;
        }
        MPO_TRY(tokenise_between(job, start, i, before, special));
        MPO_TRY(mpo_llama_append_token(job->out, special->id));
        i += special->length;
        start = i;
        before = special;
    }
    MPO_TRY(tokenise_between(job, start, text->length, before, NULL));
cleanup:
    return status;
}

enum mpo_status mpo_llama_tokenise(const struct mpo_llama_model *model,
                                   const struct mpo_llama_text *text,
                                   struct mpo_policy_tokens *out)
{
    enum mpo_status status = MPO_OK;
    const struct job job = {model, text, out};
    struct mpo_llama_composed composed = {0};
    bool refused = false;
    for (size_t i = 0; i < text->length && !refused; i++)
        (void)written_at(&model->specials, text, i, &refused);
    MPO_TRY(mpo_llama_compose(model, text->bytes, text->length, &composed));
    MPO_TRY(refused || composed.own != NULL
                ? tokenise_cut(&job)
                : tokenise_part(&job, text->bytes, text->length, true));
cleanup:
    free(composed.own);
    return status;
}

int32_t mpo_llama_token_after(const struct mpo_llama_model *model,
                              const struct mpo_llama_text *text, size_t place)
{
    bool refused = false;
    while (place < text->length && isspace((unsigned char)text->bytes[place]))
        place++;
    if (place >= text->length)
        return -1;
    const struct mpo_llama_special *special =
        written_at(&model->specials, text, place, &refused);
    return special != NULL ? special->id : -1;
}
