/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end tilt's step: stochastic gradient descent on KL(pi_l || q) in b, with AdaGrad's
 * step size, so that the half nat of the first step is the only constant.
 *
 * Source: Duchi, Hazan & Singer, JMLR 12 (2011) 2121-2159.
 */
#include "estimator_impl.h"

#include <math.h>

void mpo_tilt_step(struct mpo_tilt *tilt, double direction)
{
    if (!tilt->adapt)
        return;
    tilt->squares += direction * direction;
    if (tilt->squares > 0.0)
        tilt->end_bias += 0.5 * direction / sqrt(tilt->squares);
}
