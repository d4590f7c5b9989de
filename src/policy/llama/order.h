/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which a hash table of addresses, as libllama has for adapters, returns them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Whether a std::unordered_map returns the addresses in the reverse of the order in which
 *  they were put into it, as it does where each has a bucket of its own.
 *  Local. @param address  [count] */
bool mpo_llama_are_in_order(const void *const *address, size_t count);

#ifdef __cplusplus
}
#endif
