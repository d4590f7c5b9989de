/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF files. Policies of one rank that name the same file, by whatever path, share one
 * loaded model: K adapters on one base need the weights once and one context each.
 *
 * libllama throws and catches its own exceptions while it loads, but some damaged metadata
 * reaches an assertion that ends the process: repeated tokens, layer or expert counts out
 * of range, keys of another type. Those are looked for here first, through gguf.h, which
 * reports instead of aborting. Reading the metadata twice costs about 0.1 s for 150 000
 * tokens.
 */
#include "llama_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

#define LAYER_COUNT_MAX  512  /* LLAMA_MAX_LAYERS */
#define EXPERT_COUNT_MAX 1024 /* LLAMA_MAX_EXPERTS */

/* ---- files ---- */

static enum mpo_status find_file(const char *policy, const char *path,
                                 struct mpo_llama_file *out)
{
    enum mpo_status status = MPO_OK;
    struct stat about = {0};
    char magic[4] = "";
    FILE *file = NULL;
    MPO_CHECK(stat(path, &about) == 0, MPO_ERR_INPUT, "policy '%s': %s: %s", policy, path,
              strerror(errno));
    MPO_CHECK(S_ISREG(about.st_mode), MPO_ERR_INPUT,
              "policy '%s': %s is not a file, expected one in GGUF format", policy, path);
    file = fopen(path, "rb");
    MPO_CHECK(file != NULL, MPO_ERR_INPUT, "policy '%s': %s: %s", policy, path,
              strerror(errno));
    MPO_CHECK(fread(magic, 1, sizeof magic, file) == sizeof magic &&
                  memcmp(magic, "GGUF", sizeof magic) == 0,
              MPO_ERR_DATA,
              "policy '%s': %s is not in GGUF format; convert the model first", policy,
              path);
    out->device = about.st_dev;
    out->inode = about.st_ino;
    out->bytes = about.st_size;
cleanup:
    if (file != NULL)
        fclose(file);
    return status;
}

static bool same_file(const struct mpo_llama_file *a, const struct mpo_llama_file *b)
{
    return a->device == b->device && a->inode == b->inode;
}

/* Two policies may use one file, and only the later one may request the hash. */
static enum mpo_status hash_file(bool wanted, const char *path, struct mpo_llama_file *file)
{
    enum mpo_status status = MPO_OK;
    if (wanted && file->sha256[0] == '\0')
        MPO_TRY(mpo_policy_file_sha256(path, file->sha256));
cleanup:
    return status;
}

/* ---- metadata that would end the process ---- */

static enum mpo_status read_metadata(struct mpo_llama_library *library, const char *policy,
                                     const char *path, struct gguf_context **out)
{
    enum mpo_status status = MPO_OK;
    struct gguf_init_params params = {.no_alloc = true, .ctx = NULL};
    mpo_llama_library_listen(library);
    *out = gguf_init_from_file(path, params);
    MPO_CHECK(*out != NULL, MPO_ERR_DATA,
              "policy '%s': %s is truncated or damaged (libllama: %s); download it again",
              policy, path, mpo_llama_library_said(library));
cleanup:
    return status;
}

/* libllama reports an absent key. */
static bool has_type(const struct gguf_context *metadata, const char *key,
                     enum gguf_type type)
{
    int64_t id = gguf_find_key(metadata, key);
    return id < 0 || gguf_get_kv_type(metadata, id) == type;
}

/* A count of the architecture, such as llama.block_count; `absent` when there is none. */
static int64_t metadata_count(const struct gguf_context *metadata, const char *name,
                              int64_t absent)
{
    char key[256];
    int64_t arch = gguf_find_key(metadata, "general.architecture");
    if (arch < 0 || gguf_get_kv_type(metadata, arch) != GGUF_TYPE_STRING)
        return absent;
    snprintf(key, sizeof key, "%s.%s", gguf_get_val_str(metadata, arch), name);
    int64_t id = gguf_find_key(metadata, key);
    if (id < 0 || gguf_get_kv_type(metadata, id) != GGUF_TYPE_UINT32)
        return absent;
    return gguf_get_val_u32(metadata, id);
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has_text(const char *const *sorted, size_t count, const char *text)
{
    return bsearch(&text, sorted, count, sizeof *sorted, compare_text) != NULL;
}

/* SentencePiece spells unknown text byte by byte, and a byte without a token throws an
 * exception that nobody catches. */
static enum mpo_status check_bytes(const struct gguf_context *metadata,
                                   const char *const *sorted, size_t count,
                                   const struct mpo_policy_spec *spec)
{
    enum mpo_status status = MPO_OK;
    int64_t id = gguf_find_key(metadata, "tokenizer.ggml.model");
    if (id < 0 || gguf_get_kv_type(metadata, id) != GGUF_TYPE_STRING ||
        strcmp(gguf_get_val_str(metadata, id), "llama") != 0)
        return MPO_OK;
    for (unsigned byte = 1; byte < 256; byte++) {
        char spelled[8];
        const char single[2] = {(char)byte, '\0'};
        snprintf(spelled, sizeof spelled, "<0x%02X>", byte);
        MPO_CHECK(has_text(sorted, count, spelled) || has_text(sorted, count, single),
                  MPO_ERR_DATA, "policy '%s': %s has no token for the byte 0x%02X",
                  spec->name, spec->model, byte);
    }
cleanup:
    return status;
}

static enum mpo_status check_tokens(const struct gguf_context *metadata,
                                    const struct mpo_policy_spec *spec)
{
    enum mpo_status status = MPO_OK;
    const char **sorted = NULL;
    int64_t id = gguf_find_key(metadata, "tokenizer.ggml.tokens");
    MPO_CHECK(id >= 0 && gguf_get_kv_type(metadata, id) == GGUF_TYPE_ARRAY &&
                  gguf_get_arr_type(metadata, id) == GGUF_TYPE_STRING,
              MPO_ERR_DATA, "policy '%s': %s has no list of tokens", spec->name,
              spec->model);
    size_t count = gguf_get_arr_n(metadata, id);
    MPO_CHECK(count >= 2 && count < INT32_MAX, MPO_ERR_DATA,
              "policy '%s': %s has a vocabulary of %zu tokens", spec->name, spec->model,
              count);
    MPO_NEW(count, &sorted);
    for (size_t i = 0; i < count; i++)
        sorted[i] = gguf_get_arr_str(metadata, id, i);
    qsort(sorted, count, sizeof *sorted, compare_text);
    for (size_t i = 1; i < count; i++)
        MPO_CHECK(sorted[i][0] == '\0' || strcmp(sorted[i - 1], sorted[i]) != 0,
                  MPO_ERR_DATA,
                  "policy '%s': %s has token '%.100s' twice; the file is damaged",
                  spec->name, spec->model, sorted[i]);
    MPO_TRY(check_bytes(metadata, sorted, count, spec));
cleanup:
    free(sorted);
    return status;
}

static enum mpo_status check_model_metadata(struct mpo_llama_library *library,
                                            const struct mpo_policy_spec *spec)
{
    enum mpo_status status = MPO_OK;
    struct gguf_context *metadata = NULL;
    MPO_TRY(read_metadata(library, spec->name, spec->model, &metadata));
    MPO_TRY(check_tokens(metadata, spec));
    int64_t layers = metadata_count(metadata, "block_count", 1);
    MPO_CHECK(layers >= 1 && layers <= LAYER_COUNT_MAX, MPO_ERR_DATA,
              "policy '%s': %s has %lld layers, expected 1 to %d; the file is damaged",
              spec->name, spec->model, (long long)layers, LAYER_COUNT_MAX);
    int64_t experts = metadata_count(metadata, "expert_count", 0);
    int64_t chosen = metadata_count(metadata, "expert_used_count", experts > 0);
    MPO_CHECK(
        experts <= EXPERT_COUNT_MAX && chosen <= experts && (chosen > 0) == (experts > 0),
        MPO_ERR_DATA, "policy '%s': %s uses %lld of %lld experts; the file is damaged",
        spec->name, spec->model, (long long)chosen, (long long)experts);
cleanup:
    gguf_free(metadata);
    return status;
}

static enum mpo_status check_adapter_metadata(struct mpo_llama_library *library,
                                              const struct mpo_policy_spec *spec)
{
    enum mpo_status status = MPO_OK;
    struct gguf_context *metadata = NULL;
    MPO_TRY(read_metadata(library, spec->name, spec->lora, &metadata));
    MPO_CHECK(has_type(metadata, "general.type", GGUF_TYPE_STRING) &&
                  has_type(metadata, "general.architecture", GGUF_TYPE_STRING) &&
                  has_type(metadata, "adapter.type", GGUF_TYPE_STRING) &&
                  has_type(metadata, "adapter.lora.alpha", GGUF_TYPE_FLOAT32),
              MPO_ERR_DATA, "policy '%s': the metadata of adapter %s are damaged",
              spec->name, spec->lora);
cleanup:
    gguf_free(metadata);
    return status;
}

/* ---- models ---- */

void mpo_llama_model_value(const struct llama_model *model, const char *name, char *value,
                           size_t value_bytes)
{
    char arch[128] = "";
    char key[256] = "";
    llama_model_meta_val_str(model, "general.architecture", arch, sizeof arch);
    snprintf(key, sizeof key, "%s.%s", arch, name);
    if (llama_model_meta_val_str(model, key, value, value_bytes) < 0)
        value[0] = '\0';
}

/* The reason why a model cannot be a policy, or NULL. A policy is a causal decoder whose
 * cache can be cut and copied at any token. */
static const char *unfit(const struct llama_model *model)
{
    char causal[16] = "";
    char pooling[16] = "";
    mpo_llama_model_value(model, "attention.causal", causal, sizeof causal);
    mpo_llama_model_value(model, "pooling_type", pooling, sizeof pooling);
    if (llama_model_has_encoder(model) || !llama_model_has_decoder(model))
        return "is an encoder or an encoder-decoder";
    if (llama_model_is_recurrent(model) || llama_model_is_hybrid(model))
        return "is recurrent: its state cannot be taken back to an earlier token";
    if (llama_model_is_diffusion(model))
        return "is a diffusion model, which has no next-token probabilities";
    if (strcmp(causal, "false") == 0 || (pooling[0] != '\0' && strcmp(pooling, "0") != 0))
        return "gives embeddings, not next-token probabilities";
    if (llama_vocab_type(llama_model_get_vocab(model)) == LLAMA_VOCAB_TYPE_NONE)
        return "has no vocabulary";
    if (llama_model_n_ctx_train(model) <= 0)
        return "has no context length";
    return NULL;
}

static const char *vocabulary_name(const struct llama_vocab *vocab)
{
    static const char *const names[] = {
        [LLAMA_VOCAB_TYPE_SPM] = "SPM",   [LLAMA_VOCAB_TYPE_BPE] = "BPE",
        [LLAMA_VOCAB_TYPE_WPM] = "WPM",   [LLAMA_VOCAB_TYPE_UGM] = "UGM",
        [LLAMA_VOCAB_TYPE_RWKV] = "RWKV", [LLAMA_VOCAB_TYPE_PLAMO2] = "PLaMo-2",
    };
    size_t type = (size_t)llama_vocab_type(vocab);
    bool known = type < sizeof names / sizeof names[0] && names[type] != NULL;
    return known ? names[type] : "unnamed";
}

/* Bytes of the longest text that one token stands for. SentencePiece in libllama takes a
 * time that grows with the square of a text without words, minutes for a megabyte, so what
 * cannot fit must be known beforehand. */
static size_t longest_piece(const struct mpo_llama_model *model)
{
    int32_t longest = 1;
    if (llama_vocab_type(model->vocab) != LLAMA_VOCAB_TYPE_SPM)
        return 0;
    for (int32_t id = 0; id < model->used; id++) {
        int32_t bytes = -llama_token_to_piece(model->vocab, id, NULL, 0, 0, false);
        longest = bytes > longest ? bytes : longest;
    }
    return (size_t)longest;
}

static enum mpo_status read_vocabulary(struct mpo_llama_model *model)
{
    enum mpo_status status = MPO_OK;
    const struct llama_vocab *vocab = llama_model_get_vocab(model->handle);
    int32_t suppressed_count = 0;
    const llama_token *suppressed =
        llama_vocab_get_suppress_tokens(vocab, &suppressed_count);
    model->vocab = vocab;
    model->size = llama_vocab_n_tokens(vocab);
    model->context_tokens = llama_model_n_ctx_train(model->handle);
    MPO_NEW(model->size, &model->flags);
    for (int32_t id = 0; id < model->size; id++) {
        bool unused = (llama_vocab_get_attr(vocab, id) & LLAMA_TOKEN_ATTR_UNUSED) != 0;
        model->flags[id] = unused ? MPO_TOKEN_MASKED : 0;
        if (llama_vocab_is_eog(vocab, id))
            model->flags[id] |= MPO_TOKEN_END;
        if (!unused)
            model->used = id + 1;
    }
    for (int32_t i = 0; i < suppressed_count; i++)
        model->flags[suppressed[i]] |= MPO_TOKEN_MASKED;
    snprintf(model->summary, sizeof model->summary,
             "a %s vocabulary with bos %d, eos %d, eot %d, add_bos %d",
             vocabulary_name(vocab), llama_vocab_bos(vocab), llama_vocab_eos(vocab),
             llama_vocab_eot(vocab), llama_vocab_get_add_bos(vocab));
    model->piece_bytes = longest_piece(model);
    MPO_TRY(mpo_llama_specials_list(model, &model->specials));
cleanup:
    return status;
}

static void choose_devices(struct mpo_llama_library *library,
                           const struct mpo_policy_spec *spec,
                           struct llama_model_params *params)
{
    int32_t count = mpo_llama_library_device_count(library, spec);
    params->devices = mpo_llama_library_devices(library, spec);
    params->n_gpu_layers = count > 0 ? -1 : 0;
    params->split_mode = count > 1 ? LLAMA_SPLIT_MODE_LAYER : LLAMA_SPLIT_MODE_NONE;
}

static enum mpo_status load_model(struct mpo_llama_library *library,
                                  const struct mpo_policy_spec *spec, bool metadata_only,
                                  struct mpo_llama_model *model)
{
    enum mpo_status status = MPO_OK;
    struct llama_model_params params = llama_model_default_params();
    choose_devices(library, spec, &params);
    if (metadata_only) {
        params.no_alloc = true;
        params.load_mode =
            LLAMA_LOAD_MODE_NONE; /* libllama insists: no_alloc maps nothing */
    }
    MPO_TRY(check_model_metadata(library, spec));
    mpo_llama_library_listen(library);
    model->handle = llama_model_load_from_file(spec->model, params);
    MPO_CHECK(model->handle != NULL || !mpo_llama_library_lacks_memory(library),
              MPO_ERR_MEMORY,
              "policy '%s': not enough memory for %s (%s); use a smaller or more quantised "
              "model, or more ranks, so that each has fewer policies",
              spec->name, spec->model, mpo_llama_library_said(library));
    MPO_CHECK(model->handle != NULL, MPO_ERR_DATA,
              "policy '%s': libllama cannot load %s (%s)", spec->name, spec->model,
              mpo_llama_library_said(library));
    const char *reason = unfit(model->handle);
    MPO_CHECK(reason == NULL, MPO_ERR_DATA,
              "policy '%s': the model in %s %s; expected a causal language model",
              spec->name, spec->model, reason);
    MPO_TRY(read_vocabulary(model));
cleanup:
    return status;
}

static void free_adapter(struct mpo_llama_adapter *adapter)
{
    if (adapter->handle != NULL)
        llama_adapter_lora_free(adapter->handle);
    free(adapter);
}

static void free_model(struct mpo_llama_model *model)
{
    while (model->adapters != NULL) {
        struct mpo_llama_adapter *adapter = model->adapters;
        model->adapters = adapter->next;
        free_adapter(adapter);
    }
    llama_model_free(model->handle);
    free(model->specials.special);
    free(model->flags);
    free(model);
}

enum mpo_status mpo_llama_model_acquire(struct mpo_llama_library *library,
                                        const struct mpo_policy_spec *spec,
                                        const struct mpo_policies_spec *common,
                                        struct mpo_llama_model **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_file file = {0};
    struct mpo_llama_model *fresh = NULL;
    struct mpo_llama_model *model = library->models;
    int32_t device_count = mpo_llama_library_device_count(library, spec);
    MPO_TRY(find_file(spec->name, spec->model, &file));
    while (model != NULL &&
           !(same_file(&model->file, &file) && model->device_count == device_count))
        model = model->next;
    if (model == NULL) {
        MPO_NEW(1, &fresh);
        fresh->file = file;
        fresh->device_count = device_count;
        MPO_TRY(load_model(library, spec, common->metadata_only, fresh));
        fresh->next = library->models;
        library->models = fresh;
        model = fresh;
        fresh = NULL;
    }
    model->reference_count++;
    *out = model;
    MPO_TRY(hash_file(common->hash_models, spec->model, &model->file));
cleanup:
    if (fresh != NULL)
        free_model(fresh);
    return status;
}

void mpo_llama_model_release(struct mpo_llama_library *library,
                             struct mpo_llama_model *model)
{
    if (model == NULL || --model->reference_count > 0)
        return;
    struct mpo_llama_model **link = &library->models;
    while (*link != model)
        link = &(*link)->next;
    *link = model->next;
    free_model(model);
}

/* ---- adapters ---- */

static enum mpo_status load_adapter(struct mpo_llama_library *library,
                                    struct mpo_llama_model *model,
                                    const struct mpo_policy_spec *spec,
                                    struct mpo_llama_adapter *adapter)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_adapter_metadata(library, spec));
    mpo_llama_library_listen(library);
    adapter->handle = llama_adapter_lora_init(model->handle, spec->lora);
    MPO_CHECK(adapter->handle != NULL, MPO_ERR_DATA,
              "policy '%s': adapter %s does not fit the model %s (libllama: %s)",
              spec->name, spec->lora, spec->model, mpo_llama_library_said(library));
    MPO_CHECK(llama_adapter_get_alora_n_invocation_tokens(adapter->handle) == 0,
              MPO_ERR_DATA,
              "policy '%s': adapter %s applies only after its invocation tokens; expected "
              "a plain LoRA adapter",
              spec->name, spec->lora);
cleanup:
    return status;
}

enum mpo_status mpo_llama_adapter_acquire(struct mpo_llama_library *library,
                                          struct mpo_llama_model *model,
                                          const struct mpo_policy_spec *spec, bool hash,
                                          struct mpo_llama_adapter **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_file file = {0};
    struct mpo_llama_adapter *fresh = NULL;
    struct mpo_llama_adapter *adapter = model->adapters;
    MPO_TRY(find_file(spec->name, spec->lora, &file));
    while (adapter != NULL && !same_file(&adapter->file, &file))
        adapter = adapter->next;
    if (adapter == NULL) {
        MPO_NEW(1, &fresh);
        fresh->file = file;
        MPO_TRY(load_adapter(library, model, spec, fresh));
        fresh->next = model->adapters;
        model->adapters = fresh;
        adapter = fresh;
        fresh = NULL;
    }
    *out = adapter;
    MPO_TRY(hash_file(hash, spec->lora, &adapter->file));
cleanup:
    if (fresh != NULL)
        free_adapter(fresh);
    return status;
}
