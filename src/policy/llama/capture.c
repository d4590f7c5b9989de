/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of logits that stay where they were computed.
 *
 * libllama copies each row of logits to the host, unless the row's sequence has a sampler
 * that runs on the backend. Here every sequence has one, and none of them samples: the
 * first one called while a graph is built adds one copy of all the graph's rows, in the
 * order of the batch's outputs, to a table at a fixed address on the device. With a fixed
 * address other streams can read it and libllama's graphs, including CUDA's, can be reused.
 * The samplers return no tensor, so nothing goes to the host.
 *
 * A sampler is handed a view of one row. The tensor with all rows is what it is a view of,
 * or the source of that where libllama has padded it. libllama's interface does not promise
 * this, so it is checked: if no graph got its copy while the context was created, the
 * context is created again without samplers.
 *
 * Each sequence needs a chain of its own, since a chain can be attached once. libllama
 * begins with a probe of every chain, on a tensor that is a view of nothing.
 */
#include "llama_impl.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <stdlib.h>

#include "base/memory.h"

struct mpo_llama_capture {
    struct llama_sampler_seq_config *chain; /* [chain_count] one per sequence */
    int32_t chain_count;
    int32_t vocab_size;
    int32_t capacity;             /* rows */
    struct ggml_context *shape;   /* what the table is described in */
    struct ggml_tensor *table;    /* [capacity, vocab_size] */
    ggml_backend_buffer_t buffer; /* what it lies in; NULL: no room */
    ggml_backend_dev_t device;    /* that the buffer belongs to, NULL: unknown */
    bool is_in_graph;             /* the graph being built has its copy */
    bool works;                   /* some graph has */
    bool has_lost;                /* some graph with rows has not */
};

/* ---- the sampler ---- */

static const char *capture_name(const struct llama_sampler *sampler)
{
    (void)sampler;
    return "mpo_capture";
}

/* Required, but never called: there is nothing to sample. */
static void capture_apply(struct llama_sampler *sampler, llama_token_data_array *tokens)
{
    (void)sampler;
    (void)tokens;
}

/* The first sampler allocates, in the memory of the device with the logits. */
static bool capture_backend_init(struct llama_sampler *sampler,
                                 ggml_backend_buffer_type_t type, uint32_t output_count)
{
    struct mpo_llama_capture *capture = sampler->ctx;
    (void)output_count;
    if (capture->shape != NULL)
        return capture->buffer != NULL;
    struct ggml_init_params params = {.mem_size = ggml_tensor_overhead(), .no_alloc = true};
    capture->shape = ggml_init(params);
    if (capture->shape == NULL)
        return false;
    capture->table = ggml_new_tensor_2d(capture->shape, GGML_TYPE_F32, capture->vocab_size,
                                        capture->capacity);
    capture->device = ggml_backend_buft_get_device(type);
    capture->buffer = ggml_backend_alloc_ctx_tensors_from_buft(capture->shape, type);
    return capture->buffer != NULL;
}

/* Another graph begins. */
static void capture_backend_reset(struct llama_sampler *sampler)
{
    struct mpo_llama_capture *capture = sampler->ctx;
    capture->is_in_graph = false;
}

static struct ggml_tensor *all_rows(const struct ggml_tensor *row)
{
    struct ggml_tensor *all = row->view_src;
    return all != NULL && all->op == GGML_OP_PAD ? all->src[0] : all;
}

static bool add_copy(const struct mpo_llama_capture *capture, struct ggml_context *context,
                     struct ggml_cgraph *graph, struct ggml_tensor *all)
{
    if (all->type != GGML_TYPE_F32 || all->ne[0] != capture->vocab_size ||
        all->ne[1] > capture->capacity || all->ne[2] != 1 || !ggml_is_contiguous(all))
        return false;
    struct ggml_tensor *place = ggml_view_2d(context, capture->table, all->ne[0],
                                             all->ne[1], capture->table->nb[1], 0);
    struct ggml_tensor *copy = ggml_cpy(context, all, place);
    if (capture->device != NULL && !ggml_backend_dev_supports_op(capture->device, copy))
        return false;
    ggml_build_forward_expand(graph, copy);
    return true;
}

static void capture_backend_apply(struct llama_sampler *sampler,
                                  struct ggml_context *context, struct ggml_cgraph *graph,
                                  struct llama_sampler_data *data)
{
    struct mpo_llama_capture *capture = sampler->ctx;
    struct ggml_tensor *all = all_rows(data->logits);
    data->logits = NULL;
    if (capture->is_in_graph || all == NULL || all->ne[1] == 0)
        return;
    capture->is_in_graph = add_copy(capture, context, graph, all);
    capture->works = capture->works || capture->is_in_graph;
    capture->has_lost = capture->has_lost || !capture->is_in_graph;
}

/* ---- open and close ---- */

enum mpo_status mpo_llama_capture_open(const struct mpo_llama_policy *policy,
                                       struct llama_context_params *params,
                                       struct mpo_llama_capture **out)
{
    static struct llama_sampler_i verbs = {
        .name = capture_name,
        .apply = capture_apply,
        .backend_init = capture_backend_init,
        .backend_apply = capture_backend_apply,
        .backend_reset = capture_backend_reset,
    };
    enum mpo_status status = MPO_OK;
    struct mpo_llama_capture *capture = NULL;
    MPO_NEW(1, &capture);
    *out = capture;
    capture->vocab_size = policy->model->size;
    capture->capacity = policy->output_count_max;
    MPO_NEW(policy->sequence_count, &capture->chain);
    for (int32_t i = 0; i < policy->sequence_count; i++) {
        struct llama_sampler *chain =
            llama_sampler_chain_init(llama_sampler_chain_default_params());
        llama_sampler_chain_add(chain, llama_sampler_init(&verbs, capture));
        capture->chain[i] = (struct llama_sampler_seq_config){i, chain};
        capture->chain_count++;
    }
    params->n_outputs_max_per_seq = params->n_outputs_max;
    params->samplers = capture->chain;
    params->n_samplers = (size_t)capture->chain_count;
cleanup:
    return status;
}

bool mpo_llama_capture_built(void)
{
    return true;
}

void mpo_llama_capture_close(struct mpo_llama_capture *capture)
{
    if (capture == NULL)
        return;
    for (int32_t i = 0; i < capture->chain_count; i++)
        llama_sampler_free(capture->chain[i].sampler);
    ggml_backend_buffer_free(capture->buffer);
    ggml_free(capture->shape);
    free(capture->chain);
    free(capture);
}

bool mpo_llama_capture_works(const struct mpo_llama_capture *capture)
{
    return capture->works && !capture->has_lost;
}

const float *mpo_llama_capture_row(const struct mpo_llama_capture *capture, int32_t output)
{
    const float *table = ggml_get_data(capture->table);
    return table + (size_t)output * (size_t)capture->vocab_size;
}
