/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF files. Policies of one rank that name the same file, by whatever path, share one
 * loaded model: K adapters on one base need the weights once and one context each.
 *
 * libllama throws and catches its own exceptions while it loads, but some damaged metadata
 * reaches an assertion that ends the process, so they are examined first (metadata.c).
 */
#include "llama_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

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

bool mpo_llama_is_of_family(const struct llama_model *model, const char *const *family,
                            size_t count)
{
    char name[64] = "";
    if (llama_vocab_type(llama_model_get_vocab(model)) != LLAMA_VOCAB_TYPE_BPE ||
        llama_model_meta_val_str(model, "tokenizer.ggml.pre", name, sizeof name) < 0)
        return false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, family[i]) == 0)
            return true;
    return false;
}

/* The reason why a model cannot be a policy, or NULL. A policy is a causal decoder whose
 * cache can be cut and copied at any token. */
static const char *reason_unfit(const struct llama_model *model)
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

/* Bytes of the longest text that one token stands for. */
static size_t longest_piece(const struct mpo_llama_model *model, bool special)
{
    int32_t longest = 1;
    for (int32_t id = 0; id < model->used; id++) {
        int32_t bytes = -llama_token_to_piece(model->vocab, id, NULL, 0, 0, special);
        longest = bytes > longest ? bytes : longest;
    }
    return (size_t)longest;
}

/* SentencePiece in libllama takes a
 * time that grows with the square of a text without words, minutes for a megabyte, so what
 * cannot fit must be known beforehand. */
static size_t choose_piece_bytes(const struct mpo_llama_model *model)
{
    return llama_vocab_type(model->vocab) == LLAMA_VOCAB_TYPE_SPM
               ? longest_piece(model, false)
               : 0;
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
    model->piece_bytes = choose_piece_bytes(model);
    model->longest_bytes = longest_piece(model, true);
    model->composes = mpo_llama_composes(model->handle);
    model->cuts_capitals = mpo_llama_cuts_capitals(model->handle);
    model->cuts_endings = mpo_llama_cuts_endings(model->handle);
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
    const struct mpo_llama_source source = {library, spec->name, spec->model};
    MPO_TRY(mpo_llama_metadata_examine(&source, model));
    mpo_llama_library_listen(library, spec->name, spec->model);
    mpo_llama_library_heed(library, true);
    model->handle = llama_model_load_from_file(spec->model, params);
    mpo_llama_library_heed(library, false);
    MPO_CHECK(model->handle != NULL || !mpo_llama_library_lacks_memory(library),
              MPO_ERR_MEMORY,
              "policy '%s': not enough memory for %s (%s); use a smaller or more quantised "
              "model, or more ranks, so that each has fewer policies",
              spec->name, spec->model, mpo_llama_library_said(library));
    MPO_CHECK(model->handle != NULL, MPO_ERR_DATA,
              "policy '%s': libllama cannot load %s (%s)", spec->name, spec->model,
              mpo_llama_library_said(library));
    const char *reason = reason_unfit(model->handle);
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
    mpo_llama_rules_free(&model->rules);
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
    MPO_TRY(mpo_llama_file_find(spec->name, spec->model, &file));
    while (model != NULL && !(mpo_llama_file_same(&model->file, &file) &&
                              model->device_count == device_count))
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
    MPO_TRY(mpo_llama_file_hash(common->hash_models, spec->model, &model->file));
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

static enum mpo_status load_adapter(const struct mpo_llama_policy *policy, const char *path,
                                    struct mpo_llama_adapter *adapter)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_library *library = policy->library;
    const struct mpo_policy_spec *spec = &policy->spec;
    const struct mpo_llama_source source = {library, spec->name, path};
    MPO_TRY(mpo_llama_metadata_examine_adapter(&source, policy->model));
    mpo_llama_library_listen(library, spec->name, path);
    mpo_llama_library_heed(library, true);
    adapter->handle = llama_adapter_lora_init(policy->model->handle, path);
    mpo_llama_library_heed(library, false);
    MPO_CHECK(adapter->handle != NULL, MPO_ERR_DATA,
              "policy '%s': adapter %s does not fit the model %s (libllama: %s)",
              spec->name, path, spec->model, mpo_llama_library_said(library));
    MPO_CHECK(llama_adapter_get_alora_n_invocation_tokens(adapter->handle) == 0,
              MPO_ERR_DATA,
              "policy '%s': adapter %s applies only after its invocation tokens; expected "
              "a plain LoRA adapter",
              spec->name, path);
cleanup:
    return status;
}

enum mpo_status mpo_llama_adapter_load(const struct mpo_llama_policy *policy,
                                       const char *path, struct mpo_llama_adapter **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_adapter *fresh = NULL;
    MPO_NEW(1, &fresh);
    MPO_TRY(mpo_llama_file_find(policy->spec.name, path, &fresh->file));
    MPO_TRY(load_adapter(policy, path, fresh));
    MPO_TRY(mpo_llama_file_hash(policy->hash_models, path, &fresh->file));
    fresh->next = policy->model->adapters;
    policy->model->adapters = fresh;
    *out = fresh;
    fresh = NULL;
cleanup:
    if (fresh != NULL)
        free_adapter(fresh);
    return status;
}

enum mpo_status mpo_llama_adapter_acquire(const struct mpo_llama_policy *policy,
                                          const char *path, struct mpo_llama_adapter **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_file file = {0};
    struct mpo_llama_adapter *adapter = policy->model->adapters;
    MPO_TRY(mpo_llama_file_find(policy->spec.name, path, &file));
    while (adapter != NULL && !mpo_llama_file_same(&adapter->file, &file))
        adapter = adapter->next;
    if (adapter == NULL)
        return mpo_llama_adapter_load(policy, path, out);
    *out = adapter;
cleanup:
    return status;
}
