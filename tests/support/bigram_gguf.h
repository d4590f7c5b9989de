/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Bigram models in GGUF: their logits after token s are row s of a table, to 1e-5, through
 * the real engine. What bigram.h computes is then the exact truth of a llama policy too.
 *
 * Tokens: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes 0..255, 259 a space, then the control
 * tokens asked for, then padding. Every byte of a text but the space is one token.
 *
 * Local; a failed write fails the test.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BIGRAM_GGUF_TOKENS 260
#define BIGRAM_GGUF_SPACE  259

/** The token of a byte. */
#define BIGRAM_GGUF_BYTE(byte) (3 + (int32_t)(unsigned char)(byte))

/** What differs from the plain model; all zero is the plain one. */
struct bigram_gguf_options {
    const char *chat_template;  /* NULL: none */
    const char *tokenizer;      /* what the file says of its tokens; NULL: "llama" */
    const char *const *control; /* [control_count] texts of control tokens from 260 on */
    const int32_t *suppressed;  /* [suppressed_count] of tokenizer.ggml.suppress_tokens */
    const char *changed_text;   /* NULL, or the text of token changed_id, no byte's */
    int32_t control_count;
    int32_t suppressed_count;
    int32_t changed_id;
    int32_t padding;        /* rows [PAD0], [PAD1], .. with logits of 50 */
    int32_t eos;            /* 0: token 2 */
    int32_t context_tokens; /* 0: 512 */
    bool add_bos;
    bool says_f32;   /* that its weights are F32: its cache is F32, too */
    bool embeddings; /* say that attention is not causal */
    bool
        few_bits; /* a width that is a power of 4, so that logits in eighths are exact to the
                        bit, also where a device multiplies in TF32 */
    float memory; /* 0: the next token depends on the last one alone. Otherwise attention
                        adds so much of the mean of all tokens to the last: with n_s the
                        share of s among them and h_s = [s is last] + memory n_s, the logits
                        are sum_s h_s logits[s] / |h| */
};

/**
 * Write a model.
 *
 * @param logits   [S, S] with S = BIGRAM_GGUF_TOKENS + control_count: row s, logits after s
 * @param options  NULL for the plain model
 */
void bigram_gguf_write(const char *path, const float *logits,
                       const struct bigram_gguf_options *options);

/** The logits of a model with memory and no control tokens after tokens, as struct
 *  bigram_gguf_options says.
 *  @param logits  [S, S] the table
 *  @param out     [S] */
void bigram_gguf_logits(const float *logits, float memory, const int32_t *token,
                        int32_t count, float *out);

/**
 * Write a LoRA adapter of rank 1 for a plain model: it adds scale * shift[v] to every row.
 *
 * @param shift       [token_count]
 * @param token_count the model's vocabulary; any other does not fit
 */
void bigram_gguf_write_adapter(const char *path, const float *shift, int32_t token_count);
