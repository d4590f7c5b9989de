/* SPDX-License-Identifier: Apache-2.0 */
#include "allocations.h"

#include <stdatomic.h>
#include <stddef.h>

static _Atomic long count_made;
static long first_failing;
static long failing_count;
static bool (*fails_when)(void);

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

void allocations_fail(long made, long count)
{
    first_failing = made;
    failing_count = count;
}

void allocations_fail_when(bool (*fails)(void))
{
    fails_when = fails;
}

static bool fails_now(void)
{
    long after = count_made++ - first_failing;
    if (fails_when != NULL)
        return fails_when();
    return after >= 0 && after < failing_count;
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
