/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether libllama applies all of an adapter. It keeps a pair for any tensor that a model
 * has, but an architecture adds the product only where its author thought of it, and no
 * warning says which pairs it leaves out. So a graph is searched: a pair is left out whose
 * tensor is in the graph and which is not there itself.
 *
 * A graph is seen by a sampler of the backend (as in capture.c), while it is built. What
 * comes after it needs weights, which an attempt has not got. So this is done in a process of
 * its own, that ends in the sampler; if it ends elsewhere, nothing is known and nothing said.
 */
#include "llama_impl.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"

#define SECONDS_MAX 10
#define NAME_BYTES  128

/* A pair of an adapter: its tensor, whether the graph has it, and whether it has the pair. */
struct pair {
    char tensor[NAME_BYTES]; /* "": no pair */
    int32_t adapter;
    bool is_used;
    bool is_applied;
};

struct look {
    struct pair *pair; /* [count] */
    size_t count;
    struct pair *left_out; /* out */
};

static void leave_process(const char *where)
{
    (void)where;
    _exit(0);
}

/* ---- the graph ---- */

static void note_source(struct look *look, const struct ggml_tensor *source)
{
    const char *name = ggml_get_name(source);
    for (size_t i = 0; i < look->count; i++) {
        struct pair *pair = &look->pair[i];
        const size_t bytes = strlen(pair->tensor);
        if (strncmp(name, pair->tensor, bytes) != 0)
            continue;
        pair->is_used = pair->is_used || name[bytes] == '\0';
        pair->is_applied = pair->is_applied || strcmp(name + bytes, ".lora_a") == 0;
    }
}

static void look_at_graph(struct look *look, struct ggml_cgraph *graph)
{
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        for (int j = 0; j < GGML_MAX_SRC; j++)
            if (node->src[j] != NULL)
                note_source(look, node->src[j]);
    }
    for (size_t i = 0; i < look->count && look->left_out->tensor[0] == '\0'; i++)
        if (look->pair[i].is_used && !look->pair[i].is_applied)
            *look->left_out = look->pair[i];
}

static const char *look_name(const struct llama_sampler *sampler)
{
    (void)sampler;
    return "mpo_look";
}

/* Required, but never called: there is nothing to sample. */
static void look_apply(struct llama_sampler *sampler, llama_token_data_array *tokens)
{
    (void)sampler;
    (void)tokens;
}

static bool look_backend_init(struct llama_sampler *sampler,
                              ggml_backend_buffer_type_t type, uint32_t output_count)
{
    (void)sampler;
    (void)type;
    (void)output_count;
    return true;
}

/* libllama begins with a probe, on a tensor that is a view of nothing. */
static void look_backend_apply(struct llama_sampler *sampler, struct ggml_context *context,
                               struct ggml_cgraph *graph, struct llama_sampler_data *data)
{
    (void)context;
    if (data->logits->view_src == NULL)
        return;
    look_at_graph(sampler->ctx, graph);
    leave_process("");
}

/* ---- the pairs ---- */

static enum mpo_status list_pairs(const struct mpo_llama_policy *policy, int32_t adapter,
                                  struct look *look, size_t *capacity)
{
    enum mpo_status status = MPO_OK;
    struct gguf_context *metadata =
        gguf_init_from_file(mpo_llama_adapter_path(policy, adapter),
                            (struct gguf_init_params){.no_alloc = true});
    const int64_t count = metadata != NULL ? gguf_get_n_tensors(metadata) : 0;
    for (int64_t id = 0; id < count; id++) {
        const char *name = gguf_get_tensor_name(metadata, id);
        const char *end = strstr(name, ".lora_a");
        if (end == NULL || end - name >= NAME_BYTES)
            continue;
        MPO_TRY(mpo_memory_grow((void **)&look->pair, capacity, look->count + 1,
                                sizeof *look->pair, "tensors of an adapter"));
        struct pair *pair = &look->pair[look->count++];
        *pair = (struct pair){.adapter = adapter};
        memcpy(pair->tensor, name, (size_t)(end - name));
    }
cleanup:
    gguf_free(metadata);
    return status;
}

/* ---- the process ---- */

static void look_through(const struct mpo_llama_policy *policy, struct pair *left_out)
{
    static struct llama_sampler_i verbs = {
        .name = look_name,
        .apply = look_apply,
        .backend_init = look_backend_init,
        .backend_apply = look_backend_apply,
    };
    struct look look = {.left_out = left_out};
    size_t capacity = 0;
    llama_token token = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGALRM, SIG_DFL);
    alarm(SECONDS_MAX);
    ggml_set_abort_callback(leave_process);
    for (int32_t i = 0; i < policy->adapter_count; i++)
        if (list_pairs(policy, i, &look, &capacity) != MPO_OK)
            return;
    struct llama_sampler *chain =
        llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, llama_sampler_init(&verbs, &look));
    if (llama_set_sampler(policy->context, 0, chain))
        llama_decode(policy->context, llama_batch_get_one(&token, 1));
}

enum mpo_status mpo_llama_check_applied(const struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    struct pair found = {0};
    struct pair *left_out = policy->adapter_count > 0
                                ? mmap(NULL, sizeof *left_out, PROT_READ | PROT_WRITE,
                                       MAP_SHARED | MAP_ANONYMOUS, -1, 0)
                                : MAP_FAILED;
    if (left_out == MAP_FAILED)
        return MPO_OK;
    pid_t pid = fork();
    if (pid == 0) {
        look_through(policy, left_out);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    found = *left_out;
    munmap(left_out, sizeof *left_out);
    MPO_CHECK(
        found.tensor[0] == '\0', MPO_ERR_DATA,
        "policy '%s': adapter %s changes the tensor %s, which libllama leaves out for "
        "this architecture, so that the policy would not be the one that was trained; "
        "merge the adapter into the model and convert that",
        policy->spec.name, mpo_llama_adapter_path(policy, found.adapter), found.tensor);
cleanup:
    return status;
}
