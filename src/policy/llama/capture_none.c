/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In place of policy/llama/capture.c and applied.c where libllama has no samplers of the
 * backend: nothing is captured, so rows of logits go through the host, and no graph is seen.
 */
#include "llama_impl.h"

enum mpo_status mpo_llama_capture_open(const struct mpo_llama_policy *policy,
                                       struct llama_context_params *params,
                                       struct mpo_llama_capture **out)
{
    (void)policy;
    (void)params;
    *out = NULL;
    return MPO_OK;
}

bool mpo_llama_capture_built(void)
{
    return false;
}

void mpo_llama_capture_close(struct mpo_llama_capture *capture)
{
    (void)capture;
}

bool mpo_llama_capture_works(const struct mpo_llama_capture *capture)
{
    (void)capture;
    return false;
}

const float *mpo_llama_capture_row(const struct mpo_llama_capture *capture, int32_t output)
{
    (void)capture;
    (void)output;
    return NULL;
}

enum mpo_status mpo_llama_check_applied(const struct mpo_llama_policy *policy)
{
    (void)policy;
    return MPO_OK;
}
