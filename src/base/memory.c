/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation with a message. Uses calloc, so that every buffer starts in a known state and
 * an overflowing product is refused.
 */
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum mpo_status mpo_memory_take(size_t count, size_t element_bytes, const char *what,
                                void **out)
{
    enum mpo_status status = MPO_OK;
    *out = calloc(count > 0 ? count : 1, element_bytes);
    MPO_CHECK(*out != NULL, MPO_ERR_MEMORY,
              "no memory for %s: %zu elements of %zu bytes; use fewer responses, shorter "
              "responses or a smaller model",
              what, count, element_bytes);
cleanup:
    return status;
}

enum mpo_status mpo_memory_copy_text(const char *text, char **out)
{
    enum mpo_status status = MPO_OK;
    *out = strdup(text);
    MPO_CHECK(*out != NULL, MPO_ERR_MEMORY, "no memory for a text of %zu bytes",
              strlen(text));
cleanup:
    return status;
}

enum mpo_status mpo_memory_grow(void **array, size_t *capacity, size_t needed,
                                size_t element_bytes, const char *what)
{
    enum mpo_status status = MPO_OK;
    if (needed <= *capacity)
        return MPO_OK;
    size_t wanted = *capacity > 0 ? *capacity : 16;
    while (wanted < needed)
        wanted = wanted > SIZE_MAX / 2 ? needed : 2 * wanted;
    void *bigger = reallocarray(*array, wanted, element_bytes);
    MPO_CHECK(bigger != NULL, MPO_ERR_MEMORY, "no memory for %s: %zu elements of %zu bytes",
              what, wanted, element_bytes);
    memset((char *)bigger + *capacity * element_bytes, 0,
           (wanted - *capacity) * element_bytes);
    *array = bigger;
    *capacity = wanted;
cleanup:
    return status;
}
