/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture's loops for vector code. A sum is taken in lanes, whose number does not depend
 * on the processor:
 *
 *     lane_l = sum over i = l, l + L, l + 2 L, ... of f_i,    sum = lane_0 + lane_1 + ...
 *
 * and the lane 0 takes what is left over of count / L. So the order of additions, and with
 * it the last bit, is that of the text, where `omp simd reduction` would leave it to the
 * width of the vectors. L = 16 fills two registers of AVX-512 or four of AVX2, so that
 * additions do not wait for one another; 8 is enough where an exponential is between them
 * and is stored as well.
 */
#include "loops.h"

#include <math.h>

#include "simd_exp.h"

#define LANES       16
#define STORE_LANES 8

static double lane_sum(const double *lane, int32_t lane_count)
{
    double sum = 0.0;
    for (int32_t l = 0; l < lane_count; l++)
        sum += lane[l];
    return sum;
}

MPO_SIMD_CLONES
float mpo_mixture_max(const float *restrict x, int32_t count)
{
    float lane[LANES];
    int32_t whole = count - count % LANES;
    for (int32_t l = 0; l < LANES; l++)
        lane[l] = -INFINITY;
    for (int32_t i = 0; i < whole; i += LANES) {
#pragma omp simd
        for (int32_t l = 0; l < LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    }
    float top = -INFINITY;
    for (int32_t i = whole; i < count; i++)
        top = x[i] > top ? x[i] : top;
    for (int32_t l = 0; l < LANES; l++)
        top = lane[l] > top ? lane[l] : top;
    return top;
}

MPO_SIMD_CLONES
double mpo_mixture_exp_sum(const float *restrict x, double scale, double top, int32_t count)
{
    double lane[LANES] = {0.0};
    int32_t whole = count - count % LANES;
    for (int32_t i = 0; i < whole; i += LANES) {
#pragma omp simd
        for (int32_t l = 0; l < LANES; l++)
            lane[l] += mpo_simd_exp((double)x[i + l] * scale - top);
    }
    for (int32_t i = whole; i < count; i++)
        lane[0] += mpo_simd_exp((double)x[i] * scale - top);
    return lane_sum(lane, LANES);
}

MPO_SIMD_CLONES
void mpo_mixture_add_scaled(double *restrict s, const float *restrict x, double scale,
                            int32_t count)
{
#pragma omp simd
    for (int32_t i = 0; i < count; i++)
        s[i] += scale * (double)x[i];
}

MPO_SIMD_CLONES
double mpo_mixture_greatest(const double *restrict s, int32_t count)
{
    double lane[LANES];
    int32_t whole = count - count % LANES;
    for (int32_t l = 0; l < LANES; l++)
        lane[l] = -INFINITY;
    for (int32_t i = 0; i < whole; i += LANES) {
#pragma omp simd
        for (int32_t l = 0; l < LANES; l++)
            lane[l] = s[i + l] > lane[l] ? s[i + l] : lane[l];
    }
    double top = -INFINITY;
    for (int32_t i = whole; i < count; i++)
        top = s[i] > top ? s[i] : top;
    for (int32_t l = 0; l < LANES; l++)
        top = lane[l] > top ? lane[l] : top;
    return top;
}

MPO_SIMD_CLONES
double mpo_mixture_exponentiate(double *restrict s, double top, int32_t count)
{
    double lane[STORE_LANES] = {0.0};
    int32_t whole = count - count % STORE_LANES;
    for (int32_t i = 0; i < whole; i += STORE_LANES) {
#pragma omp simd
        for (int32_t l = 0; l < STORE_LANES; l++) {
            s[i + l] = mpo_simd_exp(s[i + l] - top);
            lane[l] += s[i + l];
        }
    }
    for (int32_t i = whole; i < count; i++) {
        s[i] = mpo_simd_exp(s[i] - top);
        lane[0] += s[i];
    }
    return lane_sum(lane, STORE_LANES);
}

MPO_SIMD_CLONES
void mpo_mixture_exponentiate_scaled(double *restrict s, double scale, int32_t count)
{
#pragma omp simd
    for (int32_t i = 0; i < count; i++)
        s[i] = mpo_simd_exp(s[i] * scale);
}

MPO_SIMD_CLONES
double mpo_mixture_weighted_sum(const double *restrict e, const float *restrict x,
                                int32_t count)
{
    double lane[LANES] = {0.0};
    int32_t whole = count - count % LANES;
    for (int32_t i = 0; i < whole; i += LANES) {
#pragma omp simd
        for (int32_t l = 0; l < LANES; l++)
            lane[l] += e[i + l] * (double)x[i + l];
    }
    for (int32_t i = whole; i < count; i++)
        lane[0] += e[i] * (double)x[i];
    return lane_sum(lane, LANES);
}
