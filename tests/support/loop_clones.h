/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The clones of the mixture's loops (mixture/loops.h) one by one, where the program has only
 * the one that suits the processor. loop_clone.c is compiled once an instruction set.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct loop_clone {
    const char *name; /* of the instruction set */
    float (*max)(const float *x, int32_t count);
    double (*exp_sum)(const float *x, double scale, double top, int32_t count);
    void (*add_scaled)(double *s, const float *x, double scale, int32_t count);
    double (*greatest)(const double *s, int32_t count);
    double (*exponentiate)(double *s, double top, int32_t count);
    void (*exponentiate_scaled)(double *s, double scale, int32_t count);
    double (*weighted_sum)(const double *e, const float *x, int32_t count);
};

/** Clone `index`; NULL behind the last one. The first is that of every processor. */
const struct loop_clone *loop_clone(int32_t index);

/** Whether this processor has the clone's instructions. */
bool loop_clone_runs(const struct loop_clone *clone);
