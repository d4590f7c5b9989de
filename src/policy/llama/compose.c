/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Letters and accents composed to one letter (Unicode's form NFC).
 *
 * Some tokenizers compose a text before they cut it into words, libllama none: an e with an
 * accent of its own would become other tokens than those the model was trained with. What
 * a tokenizer does stands in its tokenizer.json ("normalizer"), which a GGUF file leaves
 * out; the name of the pre-tokenizer, which stands for a family, tells it.
 *
 * Source: Unicode Standard Annex 15; for the families transformers 5.23 (the classes of
 * tokenizers that set normalizers.NFC) and the models' tokenizer.json.
 */
#include "llama_impl.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

/* Sorting the accents of a letter takes a time that grows with the square of their number. */
#define ACCENTS_MAX 256

bool mpo_llama_composes(const struct llama_model *model)
{
    static const char *const family[] = {
        "qwen2",            /* Qwen 1.5 to 3 (Qwen2Tokenizer) */
        "qwen35",           /* Qwen 3.5 (Qwen3_5Tokenizer) */
        "deepseek-r1-qwen", /* DeepSeek-R1-Distill-Qwen (tokenizer.json) */
        "command-r",        /* Command R (CohereTokenizer) */
        "olmo",             /* OLMo, OLMoE, Pythia (GPTNeoXTokenizer; tokenizer.json) */
        "mpt",              /* MPT (GPTNeoXTokenizer) */
    };
    return mpo_llama_is_of_family(model, family, sizeof family / sizeof family[0]);
}

/* Whether NFC can change a text: below U+0300 every letter stays as it is. */
static bool may_change(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)bytes[i] >= 0xCC)
            return true;
    return false;
}

static enum mpo_status check_accents(const char *bytes, size_t length)
{
    enum mpo_status status = MPO_OK;
    int32_t accents = 0;
    for (size_t at = 0; at < length;) {
        utf8proc_int32_t letter = 0;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)bytes + at,
                                                 (utf8proc_ssize_t)(length - at), &letter);
        if (step <= 0)
            return MPO_OK; /* no text: it stays as it is */
        accents = utf8proc_get_property(letter)->combining_class != 0 ? accents + 1 : 0;
        MPO_CHECK(accents <= ACCENTS_MAX, MPO_ERR_DATA,
                  "a letter with more than %d accents, expected ordinary text",
                  ACCENTS_MAX);
        at += (size_t)step;
    }
cleanup:
    return status;
}

enum mpo_status mpo_llama_compose(const struct mpo_llama_model *model, const char *bytes,
                                  size_t length, struct mpo_llama_composed *out)
{
    enum mpo_status status = MPO_OK;
    utf8proc_uint8_t *own = NULL;
    *out = (struct mpo_llama_composed){.bytes = bytes, .length = length};
    if (!model->composes || !may_change(bytes, length))
        return MPO_OK;
    MPO_TRY(check_accents(bytes, length));
    utf8proc_ssize_t count =
        utf8proc_map((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)length, &own,
                     UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    MPO_CHECK(count != UTF8PROC_ERROR_NOMEM, MPO_ERR_MEMORY, "no memory to compose a text");
    bool same = count < 0 || ((size_t)count == length && memcmp(own, bytes, length) == 0);
    if (same)
        goto cleanup;
    *out = (struct mpo_llama_composed){(const char *)own, (size_t)count, (char *)own};
    own = NULL;
cleanup:
    free(own);
    return status;
}
