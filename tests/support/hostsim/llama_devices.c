/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated devices for libllama; llama_devices.h says what of a device they are.
 */
#include "llama_devices.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_runtime_api.h"

/* From here on libllama's own are meant. */
#undef ggml_backend_reg_by_name
#undef ggml_backend_buffer_free

ggml_backend_reg_t hostsim_reg_by_name(const char *name)
{
    bool is_simulated = strcmp(name, "CUDA") == 0 && getenv("HOSTSIM_NO_LLAMA") == NULL;
    return ggml_backend_reg_by_name(is_simulated ? "CPU" : name);
}

size_t hostsim_reg_dev_count(ggml_backend_reg_t backend)
{
    int count = 0;
    (void)backend;
    return cudaGetDeviceCount(&count) == cudaSuccess ? (size_t)count : 0;
}

ggml_backend_dev_t hostsim_reg_dev_get(ggml_backend_reg_t backend, size_t index)
{
    (void)backend;
    (void)index;
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

ggml_backend_buffer_t hostsim_alloc_ctx_tensors(struct ggml_context *context,
                                                ggml_backend_buffer_type_t type)
{
    struct ggml_tensor *tensor = ggml_get_first_tensor(context);
    size_t bytes = ggml_backend_buft_get_alloc_size(type, tensor);
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
        cudaGetLastError(); /* libllama's CUDA backend forgets it too */
        return NULL;
    }
    ggml_backend_buffer_t buffer = ggml_backend_cpu_buffer_from_ptr(memory, bytes);
    ggml_backend_tensor_alloc(buffer, tensor, memory);
    return buffer;
}

void hostsim_buffer_free(ggml_backend_buffer_t buffer)
{
    if (buffer != NULL)
        cudaFree(ggml_backend_buffer_get_base(buffer));
    ggml_backend_buffer_free(buffer);
}
