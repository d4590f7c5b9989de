/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture's loops for one instruction set, under names of their own. Compiled with
 * LOOP_CLONE, its name, and for all but the default LOOP_CLONE_TARGET, the same as text.
 */
#define JOIN(head, tail)                head##_##tail
#define JOIN_OF(head, tail)             JOIN(head, tail)
#define CLONE_OF(name)                  JOIN_OF(name, LOOP_CLONE)
#define TEXT(name)                      #name
#define TEXT_OF(name)                   TEXT(name)
#define mpo_mixture_max                 CLONE_OF(max)
#define mpo_mixture_exp_sum             CLONE_OF(exp_sum)
#define mpo_mixture_greatest            CLONE_OF(greatest)
#define mpo_mixture_add_scaled          CLONE_OF(add_scaled)
#define mpo_mixture_weighted_sum        CLONE_OF(weighted_sum)
#define mpo_mixture_exponentiate        CLONE_OF(exponentiate)
#define mpo_mixture_exponentiate_scaled CLONE_OF(exponentiate_scaled)

#ifdef LOOP_CLONE_TARGET
#define MPO_SIMD_CLONES __attribute__((target(LOOP_CLONE_TARGET)))
#else
#define MPO_SIMD_CLONES
#endif

#include "mixture/loops.c"

#include "loop_clones.h"

extern const struct loop_clone CLONE_OF(loop_clone);
const struct loop_clone CLONE_OF(loop_clone) = {
    .name = TEXT_OF(LOOP_CLONE),
    .max = mpo_mixture_max,
    .exp_sum = mpo_mixture_exp_sum,
    .add_scaled = mpo_mixture_add_scaled,
    .greatest = mpo_mixture_greatest,
    .exponentiate = mpo_mixture_exponentiate,
    .exponentiate_scaled = mpo_mixture_exponentiate_scaled,
    .weighted_sum = mpo_mixture_weighted_sum,
};
