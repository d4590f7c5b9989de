/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The loops in which the mixture on the CPU spends its time, as vector code.
 *
 * All local, without a state. The same bits on every processor, whatever the width of its
 * vectors and whichever clone runs (mixture/loops.c); a test holds all clones to that, and
 * another counts vector instructions in each. Arrays may be of any length and alignment.
 */
#pragma once

#include <stdint.h>

/** The greatest of x [count], NaNs aside; -inf when there is none. */
float mpo_mixture_max(const float *x, int32_t count);

/** sum_i exp(scale x_i - top)
 *  @param x      [count] logits
 *  @param scale  inverse temperature
 *  @param top    no smaller than any scale x_i */
double mpo_mixture_exp_sum(const float *x, double scale, double top, int32_t count);

/** s_i += scale x_i
 *  @param s  [count] must not overlap x
 *  @param x  [count] logits */
void mpo_mixture_add_scaled(double *s, const float *x, double scale, int32_t count);

/** The greatest of s [count], as mpo_mixture_max. */
double mpo_mixture_greatest(const double *s, int32_t count);

/** s_i = exp(s_i - top)
 *  @param s    [count] scores, nat; overwritten
 *  @param top  no smaller than any s_i
 *  @return the sum of the new s_i */
double mpo_mixture_exponentiate(double *s, double top, int32_t count);

/** s_i = exp(scale s_i)
 *  @param s      [count] at most 0; overwritten
 *  @param scale  inverse temperature, positive */
void mpo_mixture_exponentiate_scaled(double *s, double scale, int32_t count);

/** sum_i e_i x_i
 *  @param e  [count] weights
 *  @param x  [count] logits */
double mpo_mixture_weighted_sum(const double *e, const float *x, int32_t count);
