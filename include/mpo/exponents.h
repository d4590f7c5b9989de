/* SPDX-License-Identifier: Apache-2.0 */
/**
 * From weights on the simplex to the exponents of the mixture, and the scores that go with
 * them.
 *
 *     mu_k   = A a_k l_k            of objective k
 *     mu_ref = 1 - sum_k mu_k       of the reference, if one is hosted
 *     s_k    = a_k (log pi_k - log pi_ref)                   (src/README.md, Exponents)
 *
 * A is the strength and a_k the scale of policy k: beta_k / beta where policies were trained
 * at unequal KL strength. With A = 1 and all a_k = 1 the exponents are the weights, the
 * reference cancels, and s_k is log pi_k: a term common to all k does not matter.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/limits.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Everything but the weights. */
struct mpo_exponents {
    int32_t objective_count; /* K */
    int32_t policy_count;    /* H: K, or K + 1 with a reference, which is the last one */
    double strength;         /* A > 0, at most MPO_STRENGTH_MAX */
    const double *scale;     /* [K] a_k > 0, at most MPO_SCALE_MAX, borrowed; NULL: all 1 */
};

/** A = 1 and all a_k = 1. Local. */
bool mpo_exponents_are_weights(const struct mpo_exponents *exponents);

/** mu [H] of weights [K]; 0 for a reference that cancels. Local. */
void mpo_exponents_of(const struct mpo_exponents *exponents, const double *weights,
                      double *mu);

/** s_k of figures [H] of one response, each a sum of log pi_h or of a control, nat. Local. */
double mpo_exponents_score(const struct mpo_exponents *exponents, const double *figure,
                           int32_t k);

#ifdef __cplusplus
}
#endif
