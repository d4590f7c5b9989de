/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where libllama computes. On the CPU it gets an explicit empty list of devices: otherwise
 * a libllama built for GPUs would place work, and a context of hundreds of megabytes, on
 * every visible GPU. On GPUs the list is the rank's run of them, of which a policy uses the
 * number it requests, from the end: the output layer is on the last one of a list, and the
 * logits must be where the mixture is. All layers and the cache are on GPUs then, and only
 * the table of the input tokens stays on the host, where libllama always keeps it.
 *
 * libllama numbers CUDA devices as CUDA does, those that CUDA_VISIBLE_DEVICES shows.
 */
#include "llama_impl.h"

#include <string.h>

/* The backend for a kind of device, of which it finds some. */
static enum mpo_status find_backend(const char *kind, ggml_backend_reg_t *out)
{
    enum mpo_status status = MPO_OK;
    const char *name = strcmp(kind, "cuda") == 0 ? "CUDA" : kind;
    ggml_backend_reg_t backend = NULL;
    MPO_TRY(mpo_llama_load_cpu()); /* where others lie that libllama knows comes along */
    backend = ggml_backend_reg_by_name(name);
    if (backend == NULL) {
        MPO_TRY(mpo_llama_load_backend(kind));
        backend = ggml_backend_reg_by_name(name);
    }
    MPO_CHECK(backend != NULL && ggml_backend_reg_dev_count(backend) > 0, MPO_ERR_DEVICE,
              "libllama finds no device of kind %s; see nvidia-smi and "
              "CUDA_VISIBLE_DEVICES, or set run.device=cpu",
              kind);
    *out = backend;
cleanup:
    return status;
}

enum mpo_status mpo_llama_check_device(const char *kind)
{
    ggml_backend_reg_t backend = NULL;
    return strcmp(kind, MPO_DEVICE_CPU) == 0 ? MPO_OK : find_backend(kind, &backend);
}

int32_t mpo_llama_spread(const struct mpo_policy_spec *spec, int32_t run)
{
    int32_t wanted = spec->devices > 1 ? spec->devices : 1;
    return wanted < run ? wanted : run;
}

enum mpo_status mpo_llama_find_devices(const struct mpo_device *device,
                                       ggml_backend_dev_t list[MPO_DEVICE_RUN_MAX + 1])
{
    enum mpo_status status = MPO_OK;
    ggml_backend_reg_t backend = NULL;
    list[0] = NULL;
    MPO_TRY(mpo_llama_load_cpu());
    if (mpo_device_is_cpu(device))
        return MPO_OK;
    MPO_TRY(find_backend(device->kind, &backend));
    size_t count = ggml_backend_reg_dev_count(backend);
    MPO_CHECK(
        (size_t)device->index < count && device->index - device->first < MPO_DEVICE_RUN_MAX,
        MPO_ERR_DEVICE, "libllama finds %zu devices of kind %s, but not number %d (%s)",
        count, device->kind, device->index, device->name);
    for (int32_t index = device->first; index <= device->index; index++)
        *list++ = ggml_backend_reg_dev_get(backend, (size_t)index);
    *list = NULL;
cleanup:
    return status;
}
