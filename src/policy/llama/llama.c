/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies from GGUF models through libllama: one context per policy, one sequence per row.
 * This file opens them and makes their room; policy/llama/verbs.c decodes.
 *
 * The context has as many cells as rows can need at most, so that a decode cannot run out,
 * and room for the logits of a bounded number of positions: libllama aborts when more are
 * asked for. Everything is allocated here.
 */
#include "llama_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/report.h"
#include "base/memory.h"
#include "unite.h"

/* ---- open and close ---- */

static void policy_close(void *self)
{
    struct mpo_llama_policy *policy = self;
    if (policy == NULL)
        return;
    if (policy->context != NULL)
        llama_free(policy->context);
    if (policy->sum != NULL)
        llama_adapter_lora_free(policy->sum);
    mpo_llama_parts_close(&policy->parts);
    mpo_llama_capture_close(policy->capture);
    mpo_llama_order_close(policy);
    mpo_llama_steady_close(policy);
    mpo_llama_split_close(policy);
    free(policy->batch.token);
    free(policy->batch.pos);
    free(policy->batch.n_seq_id);
    free(policy->batch.seq_id);
    free(policy->batch.logits);
    free(policy->sequence);
    free(policy->output);
    free(policy->length);
    mpo_llama_template_close(policy);
    free(policy->adapter_names);
    free(policy->scale);
    free(policy->adapter);
    mpo_llama_model_release(policy->library, policy->model);
    free(policy);
}

static bool is_end(const struct mpo_llama_policy *policy, int32_t token)
{
    return token >= 0 && token < policy->model->size &&
           (policy->model->flags[token] & MPO_TOKEN_END) != 0;
}

/* What the template writes after an assistant's turn, else what the vocabulary says. */
static int32_t choose_end_token(const struct mpo_llama_policy *policy)
{
    const struct llama_vocab *vocab = policy->model->vocab;
    int32_t turn = llama_vocab_eot(vocab);
    int32_t written = mpo_llama_template_end(policy);
    if (is_end(policy, written))
        return written;
    int32_t token = policy->chat.name == NULL || turn < 0 ? llama_vocab_eos(vocab) : turn;
    return is_end(policy, token) ? token : -1;
}

/* What is worth knowing of the texts that the policy puts around every prompt. */
static void remark_on_texts(const struct mpo_llama_policy *policy)
{
    char line[MPO_REMARK_BYTES];
    if (mpo_llama_remark(policy, policy->spec.system, line, sizeof line) ||
        mpo_llama_remark(policy, policy->spec.request, line, sizeof line))
        mpo_remarks_add(&policy->library->remarks, "%s", line);
}

static enum mpo_status policy_open(const struct mpo_policy_spec *spec,
                                   const struct mpo_policies_spec *common, void **library,
                                   void **self)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = NULL;
    struct mpo_llama_library *shared = *library;
    *self = NULL;
    if (shared == NULL) {
        MPO_TRY(
            mpo_llama_library_open(common->metadata_only ? NULL : common->device, &shared));
        *library = shared;
        if (!common->metadata_only)
            MPO_TRY(mpo_llama_threads_start(common->thread_count));
    }
    MPO_NEW(1, &policy);
    policy->spec = *spec;
    policy->library = shared;
    policy->thread_count = common->thread_count;
    policy->hash_models = common->hash_models;
    policy->batch_invariant = common->batch_invariant;
    policy->rows_on_device = common->rows_on_device;
    policy->device_rows = common->device_rows;
    policy->kv = common->kv;
    policy->device = common->device;
    MPO_TRY(mpo_llama_model_acquire(shared, spec, common, &policy->model));
    MPO_TRY(mpo_llama_adapters_open(policy));
    MPO_TRY(mpo_llama_request_check(&policy->spec));
    policy->chat.time = common->prompt_time;
    MPO_TRY(mpo_llama_template_open(policy));
    policy->end_token = choose_end_token(policy);
    remark_on_texts(policy);
    *self = policy;
    policy = NULL;
cleanup:
    policy_close(policy);
    return status;
}

/* ---- vocabulary ---- */

static void policy_vocabulary(const void *self, struct mpo_vocabulary *out)
{
    const struct mpo_llama_policy *policy = self;
    *out = (struct mpo_vocabulary){
        .summary = policy->model->summary,
        .flags = policy->model->flags,
        .size = policy->model->size,
        .used = policy->model->used,
        .end_token = policy->end_token,
        .begin_token = llama_vocab_bos(policy->model->vocab),
        .rule_count = policy->model->rules.count,
    };
}

static const char *policy_rule(const void *self, int32_t index)
{
    const struct mpo_llama_policy *policy = self;
    return policy->model->rules.rule[index];
}

static void policy_token(const void *self, int32_t id, struct mpo_token *out)
{
    const struct mpo_llama_policy *policy = self;
    out->text = llama_vocab_get_text(policy->model->vocab, id);
    out->attribute = (uint32_t)llama_vocab_get_attr(policy->model->vocab, id);
}

/* Detokenising a whole text would take the space before its first word, which belongs to a
 * response that goes on from a prompt; so the first piece is like the others. */
static int32_t policy_piece(const void *self, int32_t token, bool first, char *text,
                            int32_t capacity)
{
    const struct mpo_llama_policy *policy = self;
    const struct mpo_llama_model *model = policy->model;
    (void)first;
    if ((model->flags[token] & MPO_TOKEN_END) != 0)
        return 0;
    int32_t bytes = llama_token_to_piece(model->vocab, token, text, capacity - 1, 0, false);
    if (bytes < 0)
        return -1;
    text[bytes] = '\0';
    return bytes;
}

static int32_t policy_show(const void *self, int32_t token, bool *special, char *text,
                           int32_t capacity)
{
    const struct mpo_llama_policy *policy = self;
    const struct llama_vocab *vocab = policy->model->vocab;
    const uint32_t parsed = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
    *special = ((uint32_t)llama_vocab_get_attr(vocab, token) & parsed) != 0;
    int32_t bytes = llama_token_to_piece(vocab, token, text, capacity - 1, 0, true);
    text[bytes > 0 ? bytes : 0] = '\0';
    return bytes < 0 ? -1 : bytes;
}

/* Whether libllama puts a space before the first word of a text. */
static bool adds_space(const struct mpo_llama_model *model)
{
    char value[8] = "";
    if (llama_vocab_type(model->vocab) != LLAMA_VOCAB_TYPE_SPM)
        return false;
    if (llama_model_meta_val_str(model->handle, "tokenizer.ggml.add_space_prefix", value,
                                 sizeof value) < 0)
        return true;
    return strcmp(value, "true") == 0;
}

/* The space that libllama adds is the one that a response's text shows at its beginning. */
static enum mpo_status policy_tokenise(const void *self, const char *text, int32_t *tokens,
                                       int32_t capacity, int32_t *count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_llama_policy *policy = self;
    struct mpo_llama_composed composed = {0};
    if (*text == ' ' && adds_space(policy->model))
        text++;
    *count = 0;
    if (*text == '\0')
        return MPO_OK;
    MPO_TRY(mpo_llama_compose(policy->model, text, strlen(text), &composed));
    *count = llama_tokenize(policy->model->vocab, composed.bytes, (int32_t)composed.length,
                            tokens, capacity, false, false);
    MPO_CHECK(*count >= 0, MPO_ERR_INTERNAL,
              "the response could not be tokenised for policy '%s'", policy->spec.name);
cleanup:
    free(composed.own);
    return status;
}

/* A letter with its accents is up to three letters, which some tokenizers compose to one. */
#define COMPOSED_FACTOR 3

/* The merges of a SentencePiece vocabulary end at white space. */
#define WORD_BYTES_MAX ((size_t)32 << 10)

static void policy_texts(const void *self, struct mpo_policies_texts *out)
{
    const struct mpo_llama_policy *policy = self;
    const struct mpo_llama_model *model = policy->model;
    bool merges = llama_vocab_type(model->vocab) == LLAMA_VOCAB_TYPE_SPM;
    *out = (struct mpo_policies_texts){
        .begin_token = llama_vocab_bos(model->vocab),
        .end_token = policy->end_token,
        .chat_template = policy->chat.text,
        .piece_bytes = model->longest_bytes * (model->composes ? COMPOSED_FACTOR : 1),
        .word_bytes_max = merges ? WORD_BYTES_MAX : 0,
        .adds_space = adds_space(model),
    };
    out->wants_begin = out->begin_token >= 0 && llama_vocab_get_add_bos(model->vocab);
}

static enum mpo_status policy_parse(const void *self, const char *text, bool special,
                                    struct mpo_policy_tokens *out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_llama_policy *policy = self;
    struct mpo_llama_text copy = {0};
    MPO_TRY(mpo_llama_text_append(&copy, text, strlen(text), !special));
    MPO_TRY(mpo_llama_tokenise(policy->model, &copy, out));
cleanup:
    mpo_llama_text_free(&copy);
    return status;
}

static int32_t trained_tokens(const void *self)
{
    const struct mpo_llama_policy *policy = self;
    return policy->model->context_tokens;
}

static bool cuts_rows(const void *self)
{
    const struct mpo_llama_policy *policy = self;
    const struct llama_model *model = policy->model->handle;
    return !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model);
}

static void policy_describe(const void *self, struct mpo_policy_info *out)
{
    const struct mpo_llama_policy *policy = self;
    if (policy->hash_models)
        out->sha256 = policy->model->file.sha256;
    if (policy->hash_models)
        out->lora_sha256 = policy->lora_sha256;
    if (policy->adapter_names != NULL)
        out->lora = policy->adapter_names;
    out->vocab_size = policy->model->size;
    out->context_tokens =
        policy->context != NULL ? (int32_t)llama_n_ctx(policy->context) : 0;
    out->longest_prompt_tokens = policy->setup.longest_prompt_tokens;
}

/* ---- room ---- */

int32_t mpo_llama_sequences(const struct mpo_llama_policy *policy,
                            const struct mpo_policy_setup *setup)
{
    if (mpo_llama_is_split(policy, setup))
        return setup->row_count;
    return setup->row_count < MPO_LLAMA_SEQUENCES_MAX ? setup->row_count + 1
                                                      : MPO_LLAMA_SEQUENCES_MAX;
}

/* libllama rounds up to a multiple of 256. */
int32_t mpo_llama_cells(const struct mpo_llama_policy *policy,
                        const struct mpo_policy_setup *setup)
{
    if (mpo_llama_is_split(policy, setup))
        return setup->row_count * mpo_llama_split_cells(setup);
    return setup->cell_count + mpo_llama_steady_cells(policy, setup);
}

int32_t mpo_llama_seen_cells(const struct mpo_llama_policy *policy,
                             const struct mpo_policy_setup *setup)
{
    return mpo_llama_is_split(policy, setup) ? mpo_llama_split_cells(setup)
                                             : mpo_llama_cells(policy, setup);
}

/* libllama wants as many as sequences. */
int32_t mpo_llama_outputs(const struct mpo_llama_policy *policy,
                          const struct mpo_policy_setup *setup)
{
    int32_t most = mpo_llama_sequences(policy, setup);
    int32_t wanted = setup->position_count;
    if (mpo_llama_is_invariant(policy))
        wanted +=
            MPO_LLAMA_BATCH_TOKENS / mpo_llama_pass_tokens(policy, setup) + 1; /* company */
    /* no more than tokens of a batch, which are no more than cells */
    if (wanted > MPO_LLAMA_BATCH_TOKENS)
        wanted = MPO_LLAMA_BATCH_TOKENS;
    if (setup->cell_count > 0 && wanted > setup->cell_count)
        wanted = setup->cell_count;
    if (wanted < setup->position_count)
        wanted = setup->position_count;
    if (most < MPO_LLAMA_OUTPUTS_MIN)
        most = MPO_LLAMA_OUTPUTS_MIN;
    return wanted > most ? wanted : most;
}

static enum mpo_status check_setup(const struct mpo_llama_policy *policy,
                                   const struct mpo_policy_setup *setup)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(setup->position_count <= MPO_LLAMA_BATCH_TOKENS, MPO_ERR_CONFIG,
              "policy '%s': logits of %d positions at once, expected at most %d",
              policy->spec.name, setup->position_count, MPO_LLAMA_BATCH_TOKENS);
    MPO_CHECK(setup->vocab_size <= policy->model->size, MPO_ERR_INTERNAL,
              "the common vocabulary has %d tokens and policy '%s' only %d",
              setup->vocab_size, policy->spec.name, policy->model->size);
    for (int32_t i = 0; i < setup->masked_count; i++)
        MPO_CHECK(setup->masked[i] >= 0 && setup->masked[i] < policy->model->size,
                  MPO_ERR_INTERNAL, "masked token %d of a vocabulary of %d",
                  setup->masked[i], policy->model->size);
cleanup:
    return status;
}

static struct llama_context_params context_params(const struct mpo_llama_policy *policy)
{
    struct llama_context_params params = llama_context_default_params();
    bool on_device = mpo_llama_library_has_device(policy->library);
    params.n_ctx = (uint32_t)mpo_llama_cells(policy, &policy->setup);
    params.n_batch = MPO_LLAMA_BATCH_TOKENS;
    params.n_ubatch = (uint32_t)policy->pass_tokens;
    params.n_seq_max = (uint32_t)policy->sequence_count;
    params.n_outputs_max = (uint32_t)policy->output_count_max;
    params.n_threads = policy->thread_count;
    params.n_threads_batch = policy->thread_count;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
    if (mpo_llama_is_in_full(policy->model->handle)) {
        params.type_k = GGML_TYPE_F32;
        params.type_v = GGML_TYPE_F32;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED; /* it rounds to F16 */
    }
    params.offload_kqv = on_device;
    params.op_offload = on_device;
    params.kv_unified = !policy->split.is_on;
    return params;
}

/* Leave rows on the device if libllama can do that. */
static enum mpo_status make_capturing_context(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    struct llama_context_params params = context_params(policy);
    MPO_TRY(mpo_llama_capture_open(policy, &params, &policy->capture));
    policy->context = llama_init_from_model(policy->model->handle, params);
    if (policy->context != NULL && mpo_llama_capture_works(policy->capture))
        return MPO_OK;
    mpo_report(MPO_REPORT_NOTE,
               "policy '%s': logits are copied through the host: libllama could not keep "
               "them on the device (%s)",
               policy->spec.name, mpo_llama_library_said(policy->library));
    if (policy->context != NULL)
        llama_free(policy->context);
    policy->context = NULL;
    mpo_llama_capture_close(policy->capture);
    policy->capture = NULL;
cleanup:
    return status;
}

static enum mpo_status make_context(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    mpo_llama_library_listen(policy->library, policy->spec.name, policy->spec.model);
    if (policy->rows_on_device)
        MPO_TRY(make_capturing_context(policy));
    if (policy->context == NULL)
        policy->context =
            llama_init_from_model(policy->model->handle, context_params(policy));
    MPO_CHECK(policy->context != NULL, MPO_ERR_MEMORY,
              "policy '%s': libllama cannot create a context of %d tokens (%s); lower "
              "unit_prompts, responses or max_tokens",
              policy->spec.name, policy->setup.cell_count,
              mpo_llama_library_said(policy->library));
    policy->memory = llama_get_memory(policy->context);
    policy->batch_tokens = (int32_t)llama_n_batch(policy->context);
    policy->pass_tokens = (int32_t)llama_n_ubatch(policy->context);
    policy->needs_company = mpo_llama_is_invariant(policy) ||
                            (mpo_device_is_cpu(policy->device) && !policy->split.is_on &&
                             llama_n_ctx(policy->context) >= MPO_LLAMA_SPLIT_CELLS);
    MPO_CHECK(policy->memory != NULL && policy->batch_tokens >= policy->output_count_max,
              MPO_ERR_DATA, "policy '%s': the model in %s has no cache of tokens",
              policy->spec.name, policy->spec.model);
cleanup:
    return status;
}

static enum mpo_status make_buffers(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    struct llama_batch *batch = &policy->batch;
    MPO_NEW(policy->sequence_count, &policy->length);
    MPO_NEW(policy->output_count_max, &policy->output);
    MPO_NEW(policy->batch_tokens, &policy->sequence);
    MPO_NEW(policy->batch_tokens, &batch->token);
    MPO_NEW(policy->batch_tokens, &batch->pos);
    MPO_NEW(policy->batch_tokens, &batch->n_seq_id);
    MPO_NEW(policy->batch_tokens, &batch->seq_id);
    MPO_NEW(policy->batch_tokens, &batch->logits);
    for (int32_t i = 0; i < policy->batch_tokens; i++) {
        batch->n_seq_id[i] = 1;
        batch->seq_id[i] = &policy->sequence[i];
    }
cleanup:
    return status;
}

static enum mpo_status policy_allocate(void *self, const struct mpo_policy_setup *setup)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    MPO_TRY(check_setup(policy, setup));
    policy->setup = *setup;
    policy->split.is_on = mpo_llama_is_split(policy, setup);
    policy->sequence_count = mpo_llama_sequences(policy, setup);
    policy->output_count_max = mpo_llama_outputs(policy, setup);
    policy->pass_tokens = mpo_llama_pass_tokens(policy, setup);
    MPO_TRY(make_context(policy));
    MPO_TRY(mpo_llama_adapters_set(policy));
    MPO_TRY(make_buffers(policy));
    if (mpo_llama_is_invariant(policy))
        MPO_TRY(mpo_llama_order_open(policy));
    if (policy->split.is_on)
        MPO_TRY(mpo_llama_split_open(policy));
    else if (mpo_llama_is_steady(policy))
        MPO_TRY(mpo_llama_steady_open(policy));
    MPO_TRY(mpo_device_use(policy->device));
cleanup:
    return status;
}

static bool policy_rows_on_device(const void *self)
{
    const struct mpo_llama_policy *policy = self;
    return policy->capture != NULL;
}

const struct mpo_policy_ops mpo_policy_llama_ops = {
    .kind = "llama",
    .check_device = mpo_llama_check_device,
    .open = policy_open,
    .try_open = mpo_llama_try_open,
    .close = policy_close,
    .close_library = mpo_llama_library_close,
    .vocabulary = policy_vocabulary,
    .token = policy_token,
    .rule = policy_rule,
    .remarks = mpo_llama_library_remarks,
    .trained_tokens = trained_tokens,
    .cuts_rows = cuts_rows,
    .remark = mpo_llama_remark,
    .encode = mpo_llama_encode,
    .need = mpo_llama_need,
    .allocate = policy_allocate,
    .engine_version = llama_version,
    .describe = policy_describe,
    .piece = policy_piece,
    .show = policy_show,
    .texts = policy_texts,
    .parse = policy_parse,
    .tokenise = policy_tokenise,
    .rows_on_device = policy_rows_on_device,
    .adapter_count = mpo_llama_adapter_count,
    .rescale = mpo_llama_rescale,
    .unite = mpo_llama_unite,
    .hash_model = mpo_llama_hash_model,
    .clear = mpo_llama_clear,
    .feed = mpo_llama_feed,
    .collect = mpo_llama_collect,
    .truncate = mpo_llama_truncate,
    .fork = mpo_llama_fork,
};
