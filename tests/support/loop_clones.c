/* SPDX-License-Identifier: Apache-2.0 */
#include "loop_clones.h"

#include <stddef.h>
#include <string.h>

extern const struct loop_clone loop_clone_default;
#ifdef __x86_64__
extern const struct loop_clone loop_clone_avx2;
extern const struct loop_clone loop_clone_avx512f;
#endif

static const struct loop_clone *const clones[] = {
    &loop_clone_default,
#ifdef __x86_64__
    &loop_clone_avx2,
    &loop_clone_avx512f,
#endif
};

const struct loop_clone *loop_clone(int32_t index)
{
    return index < (int32_t)(sizeof clones / sizeof *clones) ? clones[index] : NULL;
}

bool loop_clone_runs(const struct loop_clone *clone)
{
#ifdef __x86_64__
    if (strcmp(clone->name, "avx2") == 0)
        return __builtin_cpu_supports("avx2");
    if (strcmp(clone->name, "avx512f") == 0)
        return __builtin_cpu_supports("avx512f");
#endif
    return strcmp(clone->name, "default") == 0;
}
