/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Bounds that options, requests and the stages share.
 */
#pragma once

/** Largest A and a_k, and so the largest magnitude of an exponent that a mixture takes, from
 *  weights or as given: beyond it sums over policies lose the digits that tell tokens apart. */
#define MPO_STRENGTH_MAX 1e3
#define MPO_SCALE_MAX    1e3
#define MPO_EXPONENT_MAX (MPO_STRENGTH_MAX * MPO_SCALE_MAX)
