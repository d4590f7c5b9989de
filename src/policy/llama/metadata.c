/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata of GGUF files, read through gguf.h, which reports where libllama would end
 * the process: repeated tokens, layer or expert counts out of range, keys of another type,
 * an epsilon below zero. Reading them twice costs about 0.1 s for 150 000 tokens.
 *
 * From them come the rules by which a model's texts become tokens, too: libllama keeps them
 * to itself, and two policies must have the same.
 */
#include "llama_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

#define LAYER_COUNT_MAX  512  /* LLAMA_MAX_LAYERS */
#define EXPERT_COUNT_MAX 1024 /* LLAMA_MAX_EXPERTS */

/* Files up to this size are looked through for numbers that are none. */
#define SCAN_BYTES_MAX ((off_t)1 << 30)

static enum mpo_status read_metadata(const struct mpo_llama_source *source,
                                     const char *path, struct gguf_context **out)
{
    enum mpo_status status = MPO_OK;
    struct gguf_init_params params = {.no_alloc = true, .ctx = NULL};
    mpo_llama_library_listen(source->library, source->policy, path);
    *out = gguf_init_from_file(path, params);
    MPO_CHECK(*out != NULL, MPO_ERR_DATA,
              "policy '%s': %s is truncated or damaged (libllama: %s); download it again",
              source->policy, path, mpo_llama_library_said(source->library));
cleanup:
    return status;
}

/* ---- values ---- */

/* libllama reports an absent key. */
static bool has_type(const struct gguf_context *metadata, const char *key,
                     enum gguf_type type)
{
    int64_t id = gguf_find_key(metadata, key);
    return id < 0 || gguf_get_kv_type(metadata, id) == type;
}

static const char *text_value(const struct gguf_context *metadata, const char *key,
                              const char *absent)
{
    int64_t id = gguf_find_key(metadata, key);
    if (id < 0 || gguf_get_kv_type(metadata, id) != GGUF_TYPE_STRING)
        return absent;
    return gguf_get_val_str(metadata, id);
}

/* An array of texts, or -1. */
static int64_t find_texts(const struct gguf_context *metadata, const char *key)
{
    int64_t id = gguf_find_key(metadata, key);
    bool is_list = id >= 0 && gguf_get_kv_type(metadata, id) == GGUF_TYPE_ARRAY &&
                   gguf_get_arr_type(metadata, id) == GGUF_TYPE_STRING;
    return is_list ? id : -1;
}

/* A count of the architecture, such as llama.block_count; `absent` when there is none, -1
 * when it is no single number. */
static int64_t metadata_count(const struct gguf_context *metadata, const char *name,
                              int64_t absent)
{
    char key[256];
    const char *arch = text_value(metadata, "general.architecture", NULL);
    if (arch == NULL)
        return absent;
    snprintf(key, sizeof key, "%s.%s", arch, name);
    int64_t id = gguf_find_key(metadata, key);
    if (id < 0)
        return absent;
    if (gguf_get_kv_type(metadata, id) != GGUF_TYPE_UINT32)
        return -1;
    return gguf_get_val_u32(metadata, id);
}

/* ---- the vocabulary ---- */

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has_text(const char *const *sorted, size_t count, const char *text)
{
    return bsearch(&text, sorted, count, sizeof *sorted, compare_text) != NULL;
}

/* SentencePiece spells unknown text byte by byte. */
static bool spells_byte(const char *const *sorted, size_t count, unsigned byte)
{
    char spelled[8];
    const char single[2] = {(char)byte, '\0'};
    snprintf(spelled, sizeof spelled, "<0x%02X>", byte);
    return has_text(sorted, count, spelled) || has_text(sorted, count, single);
}

/* RWKV's tokens are written with the escapes of a Python literal, where \\c is c unless it is
 * one of t, n, r and x. */
static bool escapes_byte(const char *const *sorted, size_t count, unsigned byte)
{
    static const char special[] = "\t\n\r";
    static const char letter[] = "tnr";
    const char *named = byte != 0 ? strchr(special, (int)byte) : NULL;
    bool means_itself = strchr("tnrx", (int)byte) == NULL;
    char hex[8];
    const char single[2] = {(char)byte, '\0'};
    const char escaped[3] = {'\\', named != NULL ? letter[named - special] : (char)byte,
                             '\0'};
    snprintf(hex, sizeof hex, "\\x%02x", byte);
    return (byte != '\\' && has_text(sorted, count, single)) ||
           ((named != NULL || means_itself) && has_text(sorted, count, escaped)) ||
           has_text(sorted, count, hex);
}

/* A byte without a token makes SentencePiece throw an exception that is never caught, and
 * RWKV loop for ever. */
static enum mpo_status check_bytes(const struct mpo_llama_source *source,
                                   const struct gguf_context *metadata,
                                   const char *const *sorted, size_t count)
{
    enum mpo_status status = MPO_OK;
    const char *tokenizer = text_value(metadata, "tokenizer.ggml.model", "");
    bool is_rwkv = strcmp(tokenizer, "rwkv") == 0;
    if (!is_rwkv && strcmp(tokenizer, "llama") != 0)
        return MPO_OK;
    for (unsigned byte = 1; byte < 256; byte++)
        MPO_CHECK(is_rwkv ? escapes_byte(sorted, count, byte)
                          : spells_byte(sorted, count, byte),
                  MPO_ERR_DATA,
                  "policy '%s': %s has no token for the byte 0x%02X, which its tokenizer "
                  "'%s' needs; convert the model again",
                  source->policy, source->path, byte, tokenizer);
cleanup:
    return status;
}

static enum mpo_status check_tokens(const struct mpo_llama_source *source,
                                    const struct gguf_context *metadata)
{
    enum mpo_status status = MPO_OK;
    const char **sorted = NULL;
    int64_t id = find_texts(metadata, "tokenizer.ggml.tokens");
    MPO_CHECK(id >= 0, MPO_ERR_DATA, "policy '%s': %s has no list of tokens",
              source->policy, source->path);
    size_t count = gguf_get_arr_n(metadata, id);
    MPO_CHECK(count >= 2 && count < INT32_MAX, MPO_ERR_DATA,
              "policy '%s': %s has a vocabulary of %zu tokens", source->policy,
              source->path, count);
    MPO_NEW(count, &sorted);
    for (size_t i = 0; i < count; i++)
        sorted[i] = gguf_get_arr_str(metadata, id, i);
    qsort(sorted, count, sizeof *sorted, compare_text);
    for (size_t i = 1; i < count; i++)
        MPO_CHECK(sorted[i][0] == '\0' || strcmp(sorted[i - 1], sorted[i]) != 0,
                  MPO_ERR_DATA,
                  "policy '%s': %s has token '%.100s' twice; the file is damaged",
                  source->policy, source->path, sorted[i]);
    MPO_TRY(check_bytes(source, metadata, sorted, count));
cleanup:
    free(sorted);
    return status;
}

/* ---- rules ---- */

/* Whether the tokenizer puts a space before a text, as libllama decides it. */
static bool adds_space(const struct gguf_context *metadata, const char *tokenizer)
{
    int64_t id = gguf_find_key(metadata, "tokenizer.ggml.add_space_prefix");
    if (id >= 0 && gguf_get_kv_type(metadata, id) == GGUF_TYPE_BOOL)
        return gguf_get_val_bool(metadata, id);
    return strcmp(tokenizer, "llama") == 0;
}

static void print_rules(FILE *stream, const struct gguf_context *metadata)
{
    const char *tokenizer = text_value(metadata, "tokenizer.ggml.model", "");
    bool is_bpe = strcmp(tokenizer, "gpt2") == 0;
    int64_t merges = is_bpe ? find_texts(metadata, "tokenizer.ggml.merges") : -1;
    fprintf(stream, "the tokenizer '%s'%c", tokenizer, '\0');
    if (is_bpe)
        fprintf(stream, "the pre-tokenizer '%s'%c",
                text_value(metadata, "tokenizer.ggml.pre", "default"), '\0');
    fprintf(stream, "add_space_prefix %s%c",
            adds_space(metadata, tokenizer) ? "true" : "false", '\0');
    for (size_t i = 0; merges >= 0 && i < gguf_get_arr_n(metadata, merges); i++)
        fprintf(stream, "merge %zu '%s'%c", i + 1, gguf_get_arr_str(metadata, merges, i),
                '\0');
}

static enum mpo_status keep_rules(const struct gguf_context *metadata,
                                  struct mpo_llama_rules *rules)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = 0;
    int32_t count = 0;
    FILE *stream = open_memstream(&rules->text, &bytes);
    MPO_CHECK(stream != NULL, MPO_ERR_MEMORY, "no memory for the rules of a tokenizer");
    print_rules(stream, metadata);
    MPO_CHECK(fclose(stream) == 0, MPO_ERR_MEMORY,
              "no memory for the rules of a tokenizer");
    for (size_t at = 0; at < bytes; at += strlen(rules->text + at) + 1)
        count++;
    MPO_NEW(count, &rules->rule);
    for (size_t at = 0; at < bytes; at += strlen(rules->text + at) + 1)
        rules->rule[rules->count++] = rules->text + at;
cleanup:
    return status;
}

void mpo_llama_rules_free(struct mpo_llama_rules *rules)
{
    free(rules->rule);
    free(rules->text);
    *rules = (struct mpo_llama_rules){0};
}

/* ---- a model ---- */

static enum mpo_status check_counts(const struct mpo_llama_source *source,
                                    const struct gguf_context *metadata)
{
    enum mpo_status status = MPO_OK;
    int64_t layers = metadata_count(metadata, "block_count", 1);
    MPO_CHECK(layers >= 1 && layers <= LAYER_COUNT_MAX, MPO_ERR_DATA,
              "policy '%s': %s has %lld layers, expected 1 to %d; the file is damaged",
              source->policy, source->path, (long long)layers, LAYER_COUNT_MAX);
    int64_t experts = metadata_count(metadata, "expert_count", 0);
    int64_t chosen = metadata_count(metadata, "expert_used_count", 0);
    bool each_layer = experts == -1 || chosen == -1; /* has its own; libllama compares */
    MPO_CHECK(each_layer || (experts <= EXPERT_COUNT_MAX && chosen <= experts &&
                             (chosen > 0) == (experts > 0)),
              MPO_ERR_DATA,
              "policy '%s': %s uses %lld of %lld experts; the file is damaged",
              source->policy, source->path, (long long)chosen, (long long)experts);
cleanup:
    return status;
}

/* An epsilon below zero ends the process in the first decode, and no number spreads. */
static enum mpo_status check_numbers(const struct mpo_llama_source *source,
                                     const struct gguf_context *metadata)
{
    enum mpo_status status = MPO_OK;
    const char *arch = text_value(metadata, "general.architecture", "");
    for (int64_t id = 0; id < gguf_get_n_kv(metadata); id++) {
        const char *key = gguf_get_key(metadata, id);
        if (gguf_get_kv_type(metadata, id) != GGUF_TYPE_FLOAT32 ||
            strncmp(key, arch, strlen(arch)) != 0)
            continue;
        float value = gguf_get_val_f32(metadata, id);
        bool is_epsilon = mpo_text_ends_with(key, "epsilon");
        MPO_CHECK(!isnan(value) && (!is_epsilon || (value >= 0.0f && isfinite(value))),
                  MPO_ERR_DATA,
                  "policy '%s': %s has %s %g, expected %s; the file is damaged",
                  source->policy, source->path, key, (double)value,
                  is_epsilon ? "a number of at least 0" : "a number");
    }
cleanup:
    return status;
}

static bool is_floating(enum ggml_type type)
{
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ||
           ggml_is_quantized(type);
}

/* libllama multiplies by whatever the matrices of every architecture hold. Others have
 * tables of integers, too. */
static enum mpo_status check_matrices(const struct mpo_llama_source *source,
                                      const char *path, const struct gguf_context *metadata)
{
    enum mpo_status status = MPO_OK;
    static const char *const part[] = {"attn_",     "ffn_up",     "ffn_down",
                                       "ffn_gate.", "token_embd", "output"};
    for (int64_t id = 0; id < gguf_get_n_tensors(metadata); id++) {
        enum ggml_type type = gguf_get_tensor_type(metadata, id);
        const char *name = gguf_get_tensor_name(metadata, id);
        bool is_matrix = false;
        for (size_t i = 0; i < sizeof part / sizeof *part; i++)
            is_matrix = is_matrix || strstr(name, part[i]) != NULL;
        MPO_CHECK(!is_matrix || is_floating(type), MPO_ERR_DATA,
                  "policy '%s': %s: tensor %s is of type %s, expected floating-point "
                  "numbers; the file is damaged",
                  source->policy, path, name, ggml_type_name(type));
    }
cleanup:
    return status;
}

/* One part of a model, the first or a further one. */
static enum mpo_status examine_part(const struct mpo_llama_source *source, const char *path,
                                    struct mpo_llama_model *model)
{
    enum mpo_status status = MPO_OK;
    struct gguf_context *metadata = NULL;
    MPO_TRY(read_metadata(source, path, &metadata));
    if (path == source->path) {
        MPO_TRY(mpo_llama_file_parts(source->policy, path, metadata, &model->file));
        MPO_TRY(check_tokens(source, metadata));
        MPO_TRY(check_counts(source, metadata));
        MPO_TRY(check_numbers(source, metadata));
        MPO_TRY(keep_rules(metadata, &model->rules));
    }
    MPO_TRY(check_matrices(source, path, metadata));
    model->tensor_count += gguf_get_n_tensors(metadata);
    if (gguf_find_tensor(metadata, "output.weight") >= 0)
        model->has_output = true;
    if (model->file.bytes <= SCAN_BYTES_MAX && !mpo_guard_is_fork())
        MPO_TRY(mpo_llama_file_scan(source->policy, path, metadata));
cleanup:
    gguf_free(metadata);
    return status;
}

enum mpo_status mpo_llama_metadata_examine(const struct mpo_llama_source *source,
                                           struct mpo_llama_model *model)
{
    enum mpo_status status = MPO_OK;
    char *part = NULL;
    MPO_TRY(examine_part(source, source->path, model));
    for (int32_t index = 1; index < model->file.part_count; index++) {
        free(part);
        part = NULL;
        MPO_TRY(mpo_llama_file_part(&model->file, source->path, index, &part));
        MPO_TRY(examine_part(source, part, model));
    }
cleanup:
    free(part);
    return status;
}

/* ---- an adapter ---- */

/* libllama checks the first two sizes against the model's. */
static enum mpo_status check_tensor(const struct mpo_llama_source *source,
                                    const struct gguf_context *metadata, int64_t id)
{
    enum mpo_status status = MPO_OK;
    enum ggml_type type = gguf_get_tensor_type(metadata, id);
    const int64_t *size = gguf_get_tensor_ne(metadata, id);
    const char *name = gguf_get_tensor_name(metadata, id);
    bool of_experts = strstr(name, "_exps.") != NULL;
    MPO_CHECK(is_floating(type), MPO_ERR_DATA,
              "policy '%s': adapter %s: tensor %s is of type %s, expected floating-point "
              "numbers; convert the adapter again",
              source->policy, source->path, name, ggml_type_name(type));
    MPO_CHECK((size[2] == 1 || of_experts) && size[3] == 1, MPO_ERR_DATA,
              "policy '%s': adapter %s: tensor %s is of shape %lld x %lld x %lld x %lld, "
              "expected a matrix; convert the adapter again",
              source->policy, source->path, name, (long long)size[0], (long long)size[1],
              (long long)size[2], (long long)size[3]);
cleanup:
    return status;
}

/* libllama adds the product of a pair where it multiplies by a matrix or looks up a token. It
 * leaves out vectors that an adapter brings whole, and pairs for whatever else a model has. */
static enum mpo_status refuse_what_is_left_out(const struct mpo_llama_source *source,
                                               const char *name)
{
    enum mpo_status status = MPO_OK;
    static const char *const left_out[] = {"norm", ".bias", "position_embd", "token_types"};
    bool is_pair =
        mpo_text_ends_with(name, ".lora_a") || mpo_text_ends_with(name, ".lora_b");
    bool is_left_out = !is_pair;
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        is_left_out = is_left_out || strstr(name, left_out[i]) != NULL;
    MPO_CHECK(
        !is_left_out, MPO_ERR_DATA,
        "policy '%s': adapter %s has the tensor %s, which libllama leaves out, so that "
        "the policy would not be the one that was trained; merge the adapter into the "
        "model and convert that",
        source->policy, source->path, name);
cleanup:
    return status;
}

/* libllama would multiply a tied embedding the wrong way round, and end the process. */
static enum mpo_status check_tensors(const struct mpo_llama_source *source,
                                     const struct gguf_context *metadata,
                                     const struct mpo_llama_model *model)
{
    enum mpo_status status = MPO_OK;
    int64_t count = gguf_get_n_tensors(metadata);
    int64_t pairs = 0;
    for (int64_t id = 0; id < count; id++) {
        const char *name = gguf_get_tensor_name(metadata, id);
        pairs += mpo_text_ends_with(name, ".lora_a");
        MPO_CHECK(strcmp(name, "token_embd.weight.lora_a") != 0 || model->has_output,
                  MPO_ERR_DATA,
                  "policy '%s': adapter %s changes token_embd.weight, which its model uses "
                  "for the output too, and libllama cannot apply it there; merge the "
                  "adapter into the model and convert that",
                  source->policy, source->path);
        MPO_TRY(check_tensor(source, metadata, id));
    }
    MPO_CHECK(pairs > 0, MPO_ERR_DATA,
              "policy '%s': adapter %s has no LoRA tensors, expected pairs of ....lora_a "
              "and ....lora_b; convert the adapter again",
              source->policy, source->path);
    for (int64_t id = 0; id < count; id++)
        MPO_TRY(refuse_what_is_left_out(source, gguf_get_tensor_name(metadata, id)));
cleanup:
    return status;
}

enum mpo_status mpo_llama_metadata_examine_adapter(const struct mpo_llama_source *source,
                                                   const struct mpo_llama_model *model)
{
    enum mpo_status status = MPO_OK;
    struct gguf_context *metadata = NULL;
    MPO_TRY(read_metadata(source, source->path, &metadata));
    MPO_CHECK(has_type(metadata, "general.type", GGUF_TYPE_STRING) &&
                  has_type(metadata, "general.architecture", GGUF_TYPE_STRING) &&
                  has_type(metadata, "adapter.type", GGUF_TYPE_STRING) &&
                  has_type(metadata, "adapter.lora.alpha", GGUF_TYPE_FLOAT32),
              MPO_ERR_DATA, "policy '%s': the metadata of adapter %s are damaged",
              source->policy, source->path);
    MPO_CHECK(strcmp(text_value(metadata, "general.type", ""), "adapter") == 0,
              MPO_ERR_DATA,
              "policy '%s': %s is a model or something else, expected an adapter in GGUF "
              "format (launch/convert.sh FOLDER)",
              source->policy, source->path);
    int64_t alpha = gguf_find_key(metadata, "adapter.lora.alpha");
    MPO_CHECK(alpha < 0 || isfinite(gguf_get_val_f32(metadata, alpha)), MPO_ERR_DATA,
              "policy '%s': adapter %s has alpha %g, expected a number", source->policy,
              source->path, (double)gguf_get_val_f32(metadata, alpha));
    MPO_TRY(check_tensors(source, metadata, model));
    if (!mpo_guard_is_fork())
        MPO_TRY(mpo_llama_file_scan(source->policy, source->path, metadata));
cleanup:
    gguf_free(metadata);
    return status;
}
