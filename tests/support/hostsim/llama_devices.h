/* SPDX-License-Identifier: Apache-2.0 */
/**
 * libllama's side of the simulated devices: included before anything else of the files of
 * the llama policy that ask libllama for devices (policy/llama/device.c) or for their
 * memory (policy/llama/capture.c), so that their own text is what is tested.
 *
 * libllama has no simulated device to compute on. It is told to compute on its CPU for each
 * of them, once for every one in the list, and what it is asked to leave in their memory
 * lies there: rows of logits reach the mixture and the exchange as they do from a GPU.
 * Weights and cache are the host's, and no layer moves between devices.
 */
#pragma once

#include <ggml-alloc.h>
#include <ggml-backend.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The CPU's for "CUDA", unless the environment has HOSTSIM_NO_LLAMA. */
ggml_backend_reg_t hostsim_reg_by_name(const char *name);

/** As many as cudaGetDeviceCount finds. */
size_t hostsim_reg_dev_count(ggml_backend_reg_t backend);

/** The CPU, whichever is asked for. */
ggml_backend_dev_t hostsim_reg_dev_get(ggml_backend_reg_t backend, size_t index);

/** The one tensor of a context in the memory of the present device.
 *  @return NULL when there is no room */
ggml_backend_buffer_t hostsim_alloc_ctx_tensors(struct ggml_context *context,
                                                ggml_backend_buffer_type_t type);

/** NULL-safe, as libllama's. */
void hostsim_buffer_free(ggml_backend_buffer_t buffer);

#ifdef __cplusplus
}
#endif

#define ggml_backend_reg_by_name                 hostsim_reg_by_name
#define ggml_backend_reg_dev_count               hostsim_reg_dev_count
#define ggml_backend_reg_dev_get                 hostsim_reg_dev_get
#define ggml_backend_alloc_ctx_tensors_from_buft hostsim_alloc_ctx_tensors
#define ggml_backend_buffer_free                 hostsim_buffer_free
