/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bootstrap over prompts. All results of a replicate come from one draw of the units,
 * so differences between columns are paired. Draws are counted by (replicate, index), so
 * the intervals are a function of the seed and the values alone.
 */
#include "bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "mpo/rng.h"

#define TAIL 0.025

static void add_unit(const struct mpo_bootstrap_spec *spec, int64_t unit, double *sum)
{
    const double *value = spec->value + unit * spec->column_count;
    for (int32_t c = 0; c < spec->column_count; c++)
        sum[c] += value[c];
}

static void derive_results(const struct mpo_bootstrap_spec *spec, double *sum,
                           double *result)
{
    for (int32_t c = 0; c < spec->column_count; c++)
        sum[c] /= (double)spec->unit_count;
    spec->derive(spec->context, sum, result);
}

static void draw_replicate(const struct mpo_bootstrap_spec *spec, int32_t replicate,
                           double *sum, double *result)
{
    memset(sum, 0, (size_t)spec->column_count * sizeof *sum);
    for (int64_t i = 0; i < spec->unit_count; i++) {
        struct mpo_rng_counter counter = {.step = (uint64_t)replicate,
                                          .prompt = (uint64_t)i};
        double uniform = mpo_rng_uniform(spec->seed, MPO_RNG_BOOTSTRAP, counter);
        add_unit(spec, (int64_t)(uniform * (double)spec->unit_count), sum);
    }
    derive_results(spec, sum, result);
}

static int compare_doubles(const void *a, const void *b)
{
    double first = *(const double *)a;
    double second = *(const double *)b;
    return (first > second) - (first < second);
}

/* Linear between order statistics, at p (n + 1). */
static double quantile_of(const double *sorted, int32_t count, double p)
{
    double at = p * (count + 1.0) - 1.0;
    int32_t below = (int32_t)floor(at);
    if (below < 0)
        return sorted[0];
    if (below + 1 >= count)
        return sorted[count - 1];
    return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

static void find_interval(const struct mpo_bootstrap_spec *spec, double *drawn,
                          struct mpo_interval *out)
{
    double units = (double)spec->unit_count;
    double stretch = sqrt(units / (units - 1.0));
    qsort(drawn, (size_t)spec->replicates, sizeof *drawn, compare_doubles);
    double low = quantile_of(drawn, spec->replicates, TAIL);
    double high = quantile_of(drawn, spec->replicates, 1.0 - TAIL);
    out->low = out->estimate - stretch * (high - out->estimate);
    out->high = out->estimate - stretch * (low - out->estimate);
}

enum mpo_status mpo_bootstrap_run(const struct mpo_bootstrap_spec *spec,
                                  struct mpo_interval *out)
{
    enum mpo_status status = MPO_OK;
    double *sum = NULL;
    double *result = NULL;
    double *drawn = NULL; /* [R, replicates] */
    MPO_NEW(spec->column_count, &sum);
    MPO_NEW(spec->result_count, &result);
    MPO_NEW((size_t)spec->result_count * (size_t)spec->replicates, &drawn);
    for (int64_t i = 0; i < spec->unit_count; i++)
        add_unit(spec, i, sum);
    derive_results(spec, sum, result);
    for (int32_t r = 0; r < spec->result_count; r++)
        out[r] = (struct mpo_interval){result[r], NAN, NAN};
    for (int32_t b = 0; spec->unit_count > 1 && b < spec->replicates; b++) {
        draw_replicate(spec, b, sum, result);
        for (int32_t r = 0; r < spec->result_count; r++)
            drawn[(size_t)r * (size_t)spec->replicates + (size_t)b] = result[r];
    }
    for (int32_t r = 0; spec->unit_count > 1 && r < spec->result_count; r++)
        find_interval(spec, drawn + (size_t)r * (size_t)spec->replicates, &out[r]);
cleanup:
    free(drawn);
    free(result);
    free(sum);
    return status;
}
