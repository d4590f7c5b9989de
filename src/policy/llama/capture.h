/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Rows of logits that stay in the memory of a context's device. All local.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <llama.h>

#include "mpo/status.h"

struct mpo_llama_policy;

/** A context whose rows of logits stay in its device's memory. */
struct mpo_llama_capture;

/** False if libllama cannot leave them there. */
bool mpo_llama_capture_built(void);

/** Allocate for a policy with known sizes and set the parameters of the context to be
 *  created next. Must outlive that context. */
enum mpo_status mpo_llama_capture_open(const struct mpo_llama_policy *policy,
                                       struct llama_context_params *params,
                                       struct mpo_llama_capture **out);
void mpo_llama_capture_close(struct mpo_llama_capture *capture); /* NULL-safe */

/** True if all graphs so far, including those
 *  built with the context, keep their rows. */
bool mpo_llama_capture_works(const struct mpo_llama_capture *capture);

/** The logits of an output of the last llama_decode: [size of the vocabulary] floats, on
 *  the device, after llama_synchronize. */
const float *mpo_llama_capture_row(const struct mpo_llama_capture *capture, int32_t output);
