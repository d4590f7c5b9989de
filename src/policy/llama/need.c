/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a llama policy, estimated from the metadata of its model.
 *
 *     weights   sum of the tensors
 *     cache     cells x layers x KV heads x (key + value length) x 2 bytes (F16), or 4 for
 *               a file in F32
 *     work      logits twice (as computed, as handed out), and for one batch of tokens the
 *               attention's mask and the widest layer; for a file in F32 the attention of
 *               every head, twice
 *
 * On a device all of it is the device's, and libllama keeps room on the host for what it
 * could bring there: the logits, and as much thrice again where samplers of the backend
 * could answer with them.
 *
 * libllama knows the exact figures only after allocating and has no C interface for them.
 * Models with layers of different shapes are treated as if all were like the first.
 */
#include "llama_impl.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_ELEMENT_BYTES 2

/* Of the attention's scores, where they are not computed piece by piece. */
#define SCORE_ARRAYS 2

#define HOST_ARRAYS 4

/* Files of adapters in F16 whose sum is in F32: of the loaded one, and of the host with what was
 * read, the sum, and the file in memory that it is loaded from. */
#define SUM_ARRAYS      2
#define SUM_ARRAYS_MADE 7

/* What a context takes for its graphs and hardly writes to: libllama makes room for
 * max(1024, 8 x tensors) nodes, and 6 more for each pair of an adapter, and the scheduler for
 * twice 30 inputs of each. Architectures with recurrent layers take up to four times that. */
#define NODES_MIN       1024
#define NODES_OF_TENSOR 8
#define NODES_OF_PAIR   6
#define INPUTS_OF_NODE  60
#define OF_NODE_BYTES   (INPUTS_OF_NODE * sizeof(struct ggml_tensor) + 64)

/* Activations of the widest layer that exist at the same time: gate, up
 * and their product. */
#define WIDE_ARRAYS 3

/* ARCHITECTURE.name as a number, `absent` when there is none. */
static uint64_t model_number(const struct llama_model *model, const char *name,
                             uint64_t absent)
{
    char text[64] = "";
    mpo_llama_model_value(model, name, text, sizeof text);
    uint64_t value = strtoull(text, NULL, 10);
    return value > 0 ? value : absent;
}

bool mpo_llama_is_in_full(const struct llama_model *model)
{
    char type[16] = "";
    return llama_model_meta_val_str(model, "general.file_type", type, sizeof type) > 0 &&
           strtol(type, NULL, 10) == LLAMA_FTYPE_ALL_F32;
}

bool mpo_llama_is_invariant(const struct mpo_llama_policy *policy)
{
    return policy->batch_invariant && mpo_device_is_cpu(policy->device) &&
           !mpo_llama_is_in_full(policy->model->handle);
}

/* From 64 tokens on libllama's attention on the CPU goes through all cells in use, below
 * through a row's own. */
int32_t mpo_llama_pass_tokens(const struct mpo_llama_policy *policy,
                              const struct mpo_policy_setup *setup)
{
    bool is_small = setup->mixes_prompts && mpo_device_is_cpu(policy->device) &&
                    !mpo_llama_is_in_full(policy->model->handle);
    if (!is_small && !mpo_llama_is_invariant(policy))
        return MPO_LLAMA_BATCH_TOKENS;
    /* 64 rows are two passes of 32: one of 63 would leave a lone token for the second */
    int32_t passes =
        (setup->row_count + MPO_LLAMA_INVARIANT_TOKENS - 1) / MPO_LLAMA_INVARIANT_TOKENS;
    return passes > 1 ? (setup->row_count + passes - 1) / passes
                      : MPO_LLAMA_INVARIANT_TOKENS;
}

static uint64_t cache_bytes(const struct mpo_llama_policy *policy,
                            const struct mpo_policy_setup *setup)
{
    const struct llama_model *model = policy->model->handle;
    int32_t heads = llama_model_n_head(model);
    uint64_t width = (uint64_t)llama_model_n_embd(model);
    uint64_t head = heads > 0 ? width / (uint64_t)heads : width;
    uint64_t key = model_number(model, "attention.key_length", head);
    uint64_t value = model_number(model, "attention.value_length", head);
    uint64_t element = mpo_llama_is_in_full(model) ? sizeof(float) : CACHE_ELEMENT_BYTES;
    return (uint64_t)mpo_llama_cells(policy, setup) * (uint64_t)llama_model_n_layer(model) *
           (uint64_t)llama_model_n_head_kv(model) * (key + value) * element;
}

static uint64_t logit_count(const struct mpo_llama_policy *policy,
                            const struct mpo_policy_setup *setup)
{
    return (uint64_t)mpo_llama_outputs(policy, setup) * (uint64_t)policy->model->size;
}

static uint64_t work_bytes(const struct mpo_llama_policy *policy,
                           const struct mpo_policy_setup *setup)
{
    const struct llama_model *model = policy->model->handle;
    uint64_t width = (uint64_t)llama_model_n_embd(model);
    uint64_t wide = model_number(model, "feed_forward_length", 4 * width);
    uint64_t logits = logit_count(policy, setup);
    uint64_t token = WIDE_ARRAYS * wide + WIDE_ARRAYS * width +
                     (uint64_t)mpo_llama_seen_cells(policy, setup);
    if (mpo_llama_is_in_full(model))
        token += SCORE_ARRAYS * (uint64_t)mpo_llama_seen_cells(policy, setup) *
                 (uint64_t)llama_model_n_head(model);
    return (2 * logits + MPO_LLAMA_BATCH_TOKENS * token) * sizeof(float);
}

static uint64_t unused_bytes(const struct mpo_llama_policy *policy)
{
    uint64_t tensors = (uint64_t)policy->model->tensor_count;
    uint64_t nodes = NODES_OF_TENSOR * tensors;
    if (nodes < NODES_MIN)
        nodes = NODES_MIN;
    if (policy->adapter_count > 0)
        nodes += NODES_OF_PAIR * tensors;
    return nodes * OF_NODE_BYTES;
}

/* A survey has opened no device. */
static int32_t device_count(const struct mpo_llama_policy *policy)
{
    const struct mpo_device *device = policy->device;
    if (mpo_device_is_cpu(device))
        return 0;
    return mpo_llama_spread(&policy->spec, device->index - device->first + 1);
}

/* The sum of adapters in F32, of files in F16; on the host also what it is made of. */
static void add_sum(struct mpo_policy_need *need)
{
    uint64_t files = need->adapter_bytes;
    need->adapter_bytes += (need->devices > 0 ? SUM_ARRAYS : SUM_ARRAYS_MADE) * files;
    if (need->devices > 0)
        need->host_bytes += SUM_ARRAYS_MADE * files;
}

void mpo_llama_need(const void *self, const struct mpo_policy_setup *setup,
                    struct mpo_policy_need *out)
{
    const struct mpo_llama_policy *policy = self;
    const struct mpo_llama_file *file = &policy->model->file;
    *out = (struct mpo_policy_need){
        .model_file = {(uint64_t)file->device, (uint64_t)file->inode},
        .model_bytes = llama_model_size(policy->model->handle),
        .trained_tokens = policy->model->context_tokens,
        .context_tokens = mpo_llama_is_split(policy, setup) ? mpo_llama_cells(policy, setup)
                                                            : setup->cell_count,
        .longest_prompt_tokens = setup->longest_prompt_tokens,
        .devices = device_count(policy),
        .keeps_rows = mpo_llama_capture_built(),
        .unused_bytes = unused_bytes(policy),
        .has_threads = true,
    };
    for (int32_t i = 0; i < policy->adapter_count; i++)
        out->adapter_bytes += (uint64_t)policy->adapter[i]->file.bytes;
    if (policy->spec.rescales)
        add_sum(out);
    if (setup->cell_count > 0) {
        out->cache_bytes = cache_bytes(policy, setup);
        out->work_bytes = work_bytes(policy, setup);
        if (out->devices > 0)
            out->host_bytes += HOST_ARRAYS * logit_count(policy, setup) * sizeof(float);
    }
}
