/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The mixture's inside: its devices (what they provide: mpo/backend/mixture_ops.h) and what
 * they share.
 */
#pragma once

#include "mpo/backend/mixture_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MPO_DEVICE(name, built)                                                            \
    extern const struct mpo_mixture_ops mpo_mixture_##name##_ops;
#include "registry.def"

/** The mixture of a device by name, NULL when this build has none. (registry.c) */
const struct mpo_mixture_ops *mpo_registry_mixture(const char *device);

/** Whether a row's expectation and entropy are wanted. */
static inline bool mpo_mixture_expects(const struct mpo_mixture_exponents *exponents,
                                       int32_t row)
{
    return exponents->expects == NULL || exponents->expects[row];
}

/** Round one row as mpo_mixture_round says. Local; out must not overlap x. */
void mpo_mixture_round_row(const float *x, int32_t count, float *out);

/** The effective rule of a draw; NULL: none. A filter does not affect GREATEST, and no rule
 *  affects GIVEN. Local. */
const struct mpo_mixture_rule *mpo_mixture_rule_of(const struct mpo_mixture_draws *draws,
                                                   int32_t draw);

/** The token of a draw under its rule. Local. Allocates nothing.
 *  @param score  [count] s(v), -inf for masked tokens; overwritten
 *  @param heap   [count] room
 *  @return -1 when the biases leave no token */
int32_t mpo_mixture_rule_token(const struct mpo_mixture_draws *draws, int32_t draw,
                               double *score, int32_t *heap, int32_t count);

#ifdef __cplusplus
}
#endif
