/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time an element of the mixture's loops, for every clone that this processor runs. Clones
 * take turns, so that what else the machine does meets all alike; the figure is the least of
 * many rounds over one block of the vocabulary, which lies in the first cache.
 *
 *     cmake --build build --target mixture_loops && build/tests/mixture_loops
 */
#include <stdio.h>
#include <string.h>

#include "base/timing.h"
#include "loop_clones.h"
#include "mpo/rows.h"

enum { CLONES_MAX = 8, ROUNDS = 2000, REPEATS = 20, LOOPS = 6 };

static const char *const loop_name[LOOPS] = {"exp_sum", "exponentiate", "add_scaled",
                                             "max",     "greatest",     "weighted_sum"};

static float logits[MPO_ROWS_BLOCK];
static double scores[MPO_ROWS_BLOCK];
static double scratch[MPO_ROWS_BLOCK];
static volatile double used; /* so that no result goes unused */

static void call(const struct loop_clone *clone, int32_t loop)
{
    const int32_t n = MPO_ROWS_BLOCK;
    switch (loop) {
    case 0:
        used = clone->exp_sum(logits, 0.9, 0.0, n);
        break;
    case 1: /* of fresh scores: what was exponentiated before is another argument */
        memcpy(scratch, scores, sizeof scratch);
        used = clone->exponentiate(scratch, 0.0, n);
        break;
    case 2:
        clone->add_scaled(scratch, logits, 1e-9, n);
        break;
    case 3:
        used = (double)clone->max(logits, n);
        break;
    case 4:
        used = clone->greatest(scores, n);
        break;
    default:
        used = clone->weighted_sum(scores, logits, n);
        break;
    }
}

/* Seconds an element. */
static double measure(const struct loop_clone *clone, int32_t loop)
{
    double start = mpo_timing_now();
    for (int32_t i = 0; i < REPEATS; i++)
        call(clone, loop);
    return (mpo_timing_now() - start) / REPEATS / MPO_ROWS_BLOCK;
}

int main(void)
{
    double least[CLONES_MAX][LOOPS] = {{0.0}};
    for (int32_t i = 0; i < MPO_ROWS_BLOCK; i++) {
        scores[i] = -20.0 * i / MPO_ROWS_BLOCK;
        logits[i] = (float)scores[i];
    }
    for (int32_t round = 0; round < ROUNDS; round++)
        for (int32_t c = 0; c < CLONES_MAX && loop_clone(c) != NULL; c++)
            for (int32_t loop = 0; loop < LOOPS && loop_clone_runs(loop_clone(c)); loop++) {
                double seconds = measure(loop_clone(c), loop);
                if (round == 0 || seconds < least[c][loop])
                    least[c][loop] = seconds;
            }
    printf("clone");
    for (int32_t loop = 0; loop < LOOPS; loop++)
        printf("\t%s", loop_name[loop]);
    printf("\n");
    for (int32_t c = 0; c < CLONES_MAX && loop_clone(c) != NULL; c++) {
        printf("%s", loop_clone(c)->name);
        for (int32_t loop = 0; loop < LOOPS && loop_clone_runs(loop_clone(c)); loop++)
            printf("\t%.2f", 1e9 * least[c][loop]);
        printf("\n");
    }
    return 0;
}
