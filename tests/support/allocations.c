/* SPDX-License-Identifier: Apache-2.0 */
#include "allocations.h"

#include <stddef.h>

static long count_made;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__real_reallocarray(void *old, size_t count, size_t bytes);
void *__wrap_reallocarray(void *old, size_t count, size_t bytes);

void allocations_reset(void)
{
    count_made = 0;
}

long allocations_made(void)
{
    return count_made;
}

void *__wrap_malloc(size_t bytes)
{
    count_made++;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    count_made++;
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    count_made++;
    return __real_realloc(old, bytes);
}

void *__wrap_reallocarray(void *old, size_t count, size_t bytes)
{
    count_made++;
    return __real_reallocarray(old, count, bytes);
}
