/* SPDX-License-Identifier: Apache-2.0 */
#include "allocations.h"

#include <stddef.h>

static long count_made;
static long failing = -1;

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

void allocations_fail_after(long made)
{
    failing = made;
}

static int fails_now(void)
{
    return count_made++ == failing;
}

long allocations_made(void)
{
    return count_made;
}

void *__wrap_malloc(size_t bytes)
{
    return fails_now() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails_now() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return fails_now() ? NULL : __real_realloc(old, bytes);
}

void *__wrap_reallocarray(void *old, size_t count, size_t bytes)
{
    return fails_now() ? NULL : __real_reallocarray(old, count, bytes);
}
