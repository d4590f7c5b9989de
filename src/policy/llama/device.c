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

static void say_nothing(enum ggml_log_level level, const char *text, void *user_data)
{
    (void)level;
    (void)text;
    (void)user_data;
}

/* Registers backends that are libraries of their own, which must be done once. */
static void load_backends(void)
{
    static bool loaded = false;
    if (loaded)
        return;
    loaded = true;
    llama_log_set(say_nothing, NULL);
    ggml_backend_load_all();
}

/* The backend for a kind of device, NULL when there is none or it finds no device. */
static ggml_backend_reg_t find_backend(const char *kind)
{
    load_backends();
    ggml_backend_reg_t backend =
        strcmp(kind, "cuda") == 0 ? ggml_backend_reg_by_name("CUDA") : NULL;
    return backend != NULL && ggml_backend_reg_dev_count(backend) > 0 ? backend : NULL;
}

enum mpo_status mpo_llama_check_device(const char *kind)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(strcmp(kind, MPO_DEVICE_CPU) == 0 || find_backend(kind) != NULL,
              MPO_ERR_DEVICE,
              "this libllama has no %s, or finds no device; build it for %s with "
              "MPO_LLAMA_CUDA=ON launch/setup.sh, or set run.device=cpu",
              kind, kind);
cleanup:
    return status;
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
    load_backends();
    list[0] = NULL;
    if (mpo_device_is_cpu(device))
        return MPO_OK;
    MPO_TRY(mpo_llama_check_device(device->kind));
    ggml_backend_reg_t backend = find_backend(device->kind);
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
