/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exponents of the mixture. Where they are the weights themselves nothing is computed, so
 * that a mixture without strength and scales has the bits of its weights.
 */
#include "mpo/exponents.h"

#include <stddef.h>

static double scale_of(const struct mpo_exponents *exponents, int32_t k)
{
    return exponents->scale != NULL ? exponents->scale[k] : 1.0;
}

bool mpo_exponents_are_weights(const struct mpo_exponents *exponents)
{
    bool are_one = exponents->strength == 1.0;
    for (int32_t k = 0; k < exponents->objective_count; k++)
        are_one = are_one && scale_of(exponents, k) == 1.0;
    return are_one;
}

void mpo_exponents_of(const struct mpo_exponents *exponents, const double *weights,
                      double *mu)
{
    bool are_weights = mpo_exponents_are_weights(exponents);
    double sum = 0.0;
    for (int32_t k = 0; k < exponents->objective_count; k++) {
        mu[k] = are_weights ? weights[k]
                            : exponents->strength * scale_of(exponents, k) * weights[k];
        sum += mu[k];
    }
    for (int32_t h = exponents->objective_count; h < exponents->policy_count; h++)
        mu[h] = are_weights ? 0.0 : 1.0 - sum;
}

double mpo_exponents_score(const struct mpo_exponents *exponents, const double *figure,
                           int32_t k)
{
    if (mpo_exponents_are_weights(exponents))
        return figure[k];
    return scale_of(exponents, k) * (figure[k] - figure[exponents->objective_count]);
}
