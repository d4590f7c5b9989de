/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A llama model of one block that does nothing: the embedding is the identity, attention
 * and feed-forward weights are zero, so what reaches the output is sqrt(E) times a unit
 * vector (after the RMS norm, whose epsilon is zero) and output.weight[v][s] = logits[s][v]
 * / sqrt(E).
 *
 * A model with a memory has attention: queries and keys stay zero, so that every token
 * before and at a position weighs the same, and values are unit vectors, which halves of
 * floats hold exactly.
 *
 * The adapter acts on the output: a = 1/sqrt(E) everywhere makes a.x = 1,
 * and b is the shift.
 */
#include "bigram_gguf.h"

#include <ggml.h>
#include <gguf.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

#define TOKEN_BYTES     64
#define PADDING_LOGIT   50.0f
#define TYPE_NORMAL     1
#define TYPE_UNKNOWN    2
#define TYPE_CONTROL    3
#define TYPE_UNUSED     5
#define TYPE_BYTE       6
#define FEED_FORWARD    4
#define HEAD_SIZE       2
#define METADATA_BYTES  ((size_t)1 << 20)
#define DEFAULT_CONTEXT 512

/* A model being made. */
struct model {
    struct bigram_gguf_options options;
    struct ggml_context *tensors;
    struct gguf_context *file;
    int32_t states; /* tokens that have a row of the table */
    int32_t vocab;  /* and padding */
    int32_t embedding;
};

static struct ggml_context *make_tensors(size_t bytes)
{
    struct ggml_init_params params = {
        .mem_size = bytes + METADATA_BYTES, .mem_buffer = NULL, .no_alloc = false};
    struct ggml_context *tensors = ggml_init(params);
    assert_non_null(tensors);
    return tensors;
}

/* A tensor of one value everywhere, [rows, columns] in memory order; rows 0: a vector. */
static float *add_tensor(struct model *model, const char *name, int64_t columns,
                         int64_t rows, float value)
{
    struct ggml_tensor *tensor =
        rows > 0 ? ggml_new_tensor_2d(model->tensors, GGML_TYPE_F32, columns, rows)
                 : ggml_new_tensor_1d(model->tensors, GGML_TYPE_F32, columns);
    float *data = tensor->data;
    ggml_set_name(tensor, name);
    for (int64_t i = 0; i < ggml_nelements(tensor); i++)
        data[i] = value;
    gguf_add_tensor(model->file, tensor);
    return data;
}

static void write_file(struct model *model, const char *path)
{
    bool written = gguf_write_to_file(model->file, path, false);
    gguf_free(model->file);
    ggml_free(model->tensors);
    if (!written)
        fail_msg("%s could not be written", path);
}

/* ---- the model ---- */

static int32_t name_token(const struct model *model, int32_t id, char text[TOKEN_BYTES])
{
    static const char *const first[3] = {"<unk>", "<s>", "</s>"};
    int32_t control = id - BIGRAM_GGUF_TOKENS;
    if (model->options.changed_text != NULL && id == model->options.changed_id) {
        snprintf(text, TOKEN_BYTES, "%s", model->options.changed_text);
        return TYPE_NORMAL;
    }
    if (id < 3) {
        snprintf(text, TOKEN_BYTES, "%s", first[id]);
        return id == 0 ? TYPE_UNKNOWN : TYPE_CONTROL;
    }
    if (id < BIGRAM_GGUF_SPACE) {
        snprintf(text, TOKEN_BYTES, "<0x%02X>", (unsigned)(id - 3));
        return TYPE_BYTE;
    }
    if (id == BIGRAM_GGUF_SPACE) {
        snprintf(text, TOKEN_BYTES, "\xe2\x96\x81");
        return TYPE_NORMAL;
    }
    if (id < model->states) {
        snprintf(text, TOKEN_BYTES, "%s", model->options.control[control]);
        return TYPE_CONTROL;
    }
    snprintf(text, TOKEN_BYTES, "[PAD%d]", id - model->states);
    return TYPE_UNUSED;
}

static void add_vocabulary(struct model *model)
{
    const struct bigram_gguf_options *options = &model->options;
    size_t count = (size_t)model->vocab;
    char(*text)[TOKEN_BYTES] = runner_allocate(count, sizeof *text);
    const char **texts = runner_allocate(count, sizeof *texts);
    float *scores = runner_allocate(count, sizeof *scores);
    int32_t *types = runner_allocate(count, sizeof *types);
    for (int32_t id = 0; id < model->vocab; id++) {
        types[id] = name_token(model, id, text[id]);
        texts[id] = text[id];
    }
    gguf_set_val_str(model->file, "tokenizer.ggml.model",
                     options->tokenizer != NULL ? options->tokenizer : "llama");
    gguf_set_arr_str(model->file, "tokenizer.ggml.tokens", texts, count);
    gguf_set_arr_data(model->file, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores,
                      count);
    gguf_set_arr_data(model->file, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types,
                      count);
    gguf_set_val_bool(model->file, "tokenizer.ggml.add_space_prefix", false);
    gguf_set_val_bool(model->file, "tokenizer.ggml.add_bos_token", options->add_bos);
    gguf_set_val_u32(model->file, "tokenizer.ggml.eos_token_id",
                     options->eos > 0 ? (uint32_t)options->eos : 2);
    if (options->suppressed_count > 0)
        gguf_set_arr_data(model->file, "tokenizer.ggml.suppress_tokens", GGUF_TYPE_INT32,
                          options->suppressed, (size_t)options->suppressed_count);
    if (options->chat_template != NULL)
        gguf_set_val_str(model->file, "tokenizer.chat_template", options->chat_template);
    free(types);
    free(scores);
    free(texts);
    free(text);
}

static void add_architecture(struct model *model)
{
    int32_t context = model->options.context_tokens;
    struct gguf_context *file = model->file;
    gguf_set_val_str(file, "general.architecture", "llama");
    if (model->options.says_f32)
        gguf_set_val_u32(file, "general.file_type", 0);
    gguf_set_val_u32(file, "llama.context_length",
                     context > 0 ? (uint32_t)context : DEFAULT_CONTEXT);
    gguf_set_val_u32(file, "llama.embedding_length", (uint32_t)model->embedding);
    gguf_set_val_u32(file, "llama.block_count", 1);
    gguf_set_val_u32(file, "llama.feed_forward_length", FEED_FORWARD);
    gguf_set_val_u32(file, "llama.attention.head_count",
                     (uint32_t)(model->embedding / HEAD_SIZE));
    gguf_set_val_f32(file, "llama.attention.layer_norm_rms_epsilon", 0.0f);
    if (model->options.embeddings)
        gguf_set_val_bool(file, "llama.attention.causal", false);
}

static void add_diagonal(struct model *model, const char *name, float value)
{
    int64_t wide = model->embedding;
    float *data = add_tensor(model, name, wide, wide, 0.0f);
    for (int64_t i = 0; i < wide; i++)
        data[i * wide + i] = value;
}

static void add_weights(struct model *model, const float *logits)
{
    int64_t wide = model->embedding;
    float scale = 1.0f / sqrtf((float)model->embedding);
    float *embedding = add_tensor(model, "token_embd.weight", wide, model->vocab, 0.0f);
    float *output =
        add_tensor(model, "output.weight", wide, model->vocab, PADDING_LOGIT * scale);
    for (int32_t state = 0; state < model->states; state++) {
        embedding[(int64_t)state * wide + state] = 1.0f;
        for (int32_t next = 0; next < model->states; next++)
            output[(int64_t)next * wide + state] =
                logits[(int64_t)state * model->states + next] * scale;
    }
    add_tensor(model, "output_norm.weight", wide, 0, 1.0f);
    add_tensor(model, "blk.0.attn_norm.weight", wide, 0, 1.0f);
    add_tensor(model, "blk.0.ffn_norm.weight", wide, 0, 1.0f);
    add_tensor(model, "blk.0.attn_q.weight", wide, wide, 0.0f);
    add_tensor(model, "blk.0.attn_k.weight", wide, wide, 0.0f);
    add_diagonal(model, "blk.0.attn_v.weight", model->options.memory > 0.0f ? scale : 0.0f);
    add_diagonal(model, "blk.0.attn_output.weight", model->options.memory);
    add_tensor(model, "blk.0.ffn_gate.weight", wide, FEED_FORWARD, 0.0f);
    add_tensor(model, "blk.0.ffn_up.weight", wide, FEED_FORWARD, 0.0f);
    add_tensor(model, "blk.0.ffn_down.weight", FEED_FORWARD, wide, 0.0f);
}

/* The norm multiplies by its root, which is a power of 2 then. */
static int32_t choose_width(const struct model *model)
{
    int32_t width = 4;
    while (width < model->states)
        width *= 4;
    return model->options.few_bits
               ? width
               : (model->states + HEAD_SIZE - 1) / HEAD_SIZE * HEAD_SIZE;
}

void bigram_gguf_write(const char *path, const float *logits,
                       const struct bigram_gguf_options *options)
{
    struct model model = {.file = gguf_init_empty()};
    if (options != NULL)
        model.options = *options;
    model.states = BIGRAM_GGUF_TOKENS + model.options.control_count;
    model.vocab = model.states + model.options.padding;
    model.embedding = choose_width(&model);
    size_t floats = (size_t)model.embedding * (size_t)(2 * model.vocab) +
                    (size_t)model.embedding * (size_t)(4 * model.embedding + 32);
    model.tensors = make_tensors(floats * sizeof(float));
    add_architecture(&model);
    add_vocabulary(&model);
    add_weights(&model, logits);
    write_file(&model, path);
}

/* ---- the adapter ---- */

void bigram_gguf_logits(const float *logits, float memory, const int32_t *token,
                        int32_t count, float *out)
{
    double hidden[BIGRAM_GGUF_TOKENS] = {0.0};
    double square = 0.0;
    for (int32_t i = 0; i < count; i++)
        hidden[token[i]] += (double)memory / count;
    hidden[token[count - 1]] += 1.0;
    for (int32_t s = 0; s < BIGRAM_GGUF_TOKENS; s++)
        square += hidden[s] * hidden[s];
    for (int32_t v = 0; v < BIGRAM_GGUF_TOKENS; v++) {
        double sum = 0.0;
        for (int32_t s = 0; s < BIGRAM_GGUF_TOKENS; s++)
            if (hidden[s] != 0.0)
                sum += hidden[s] * (double)logits[s * BIGRAM_GGUF_TOKENS + v];
        out[v] = (float)(sum / sqrt(square));
    }
}

void bigram_gguf_write_adapter(const char *path, const float *shift, int32_t token_count)
{
    struct model model = {.file = gguf_init_empty(), .tensors = make_tensors(0)};
    int64_t wide = BIGRAM_GGUF_TOKENS;
    gguf_set_val_str(model.file, "general.architecture", "llama");
    gguf_set_val_str(model.file, "general.type", "adapter");
    gguf_set_val_str(model.file, "adapter.type", "lora");
    gguf_set_val_f32(model.file, "adapter.lora.alpha", 1.0f);
    add_tensor(&model, "output.weight.lora_a", wide, 1, 1.0f / sqrtf((float)wide));
    float *b = add_tensor(&model, "output.weight.lora_b", 1, token_count, 0.0f);
    memcpy(b, shift, (size_t)token_count * sizeof *b);
    write_file(&model, path);
}
