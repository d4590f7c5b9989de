/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Zeroed allocation that raises MPO_ERR_MEMORY with a message naming the purpose.
 *
 * Everything is allocated when handles are opened; the token loop allocates nothing.
 * Between steps only mpo_memory_grow is called, for texts and rows that a record stores.
 */
#pragma once

#include <stddef.h>

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Zeroed memory for count elements of element_bytes each; *out is owned by the caller
 *  and released with free(). A count of 0 gives a valid pointer. Local. */
enum mpo_status mpo_memory_take(size_t count, size_t element_bytes, const char *what,
                                void **out);

/** Owned copy of a string. Local. */
enum mpo_status mpo_memory_copy_text(const char *text, char **out);

/** Grow *array so that it holds at least `needed` elements, at least doubling it; the new
 *  part is zeroed. Never in the token loop. Local. */
enum mpo_status mpo_memory_grow(void **array, size_t *capacity, size_t needed,
                                size_t element_bytes, const char *what);

/** MPO_NEW(count, &pointer): mpo_memory_take for a typed pointer, named by
 *  its expression. */
#define MPO_NEW(count, pointer_out)                                                        \
    MPO_TRY(mpo_memory_take((size_t)(count), sizeof **(pointer_out), #pointer_out,         \
                            (void **)(pointer_out)))

#ifdef __cplusplus
}
#endif
