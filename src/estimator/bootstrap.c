/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bootstrap over prompts, on columns of which the mean is taken out first: sums and
 * squares of a resample then lose no digits. All columns of a replicate come from one draw of
 * the units. Draws are counted by (replicate, index), so the intervals are a function of the
 * seed and the values alone. Cost: replicates x n x C.
 */
#include "bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "mpo/rng.h"

#define TAIL     0.025
#define ONE_SIDE 0.95

/* Least scatter of a resample, as a part of the sample's. */
#define SCATTER_LEAST 0.25

/* Room of one run. */
struct bootstrap {
    const struct mpo_bootstrap_spec *spec;
    double *centred; /* [n, C] */
    double *error;   /* [C] s */
    double *sum;     /* [C] of a resample */
    double *square;  /* [C] */
    double *t;       /* [C, replicates] */
    double *maximum; /* [replicates] */
};

/* ---- the sample ---- */

static void average_columns(const struct mpo_bootstrap_spec *spec, struct mpo_interval *out)
{
    for (int32_t c = 0; c < spec->column_count; c++) {
        double sum = 0.0;
        for (int64_t i = 0; i < spec->unit_count; i++)
            sum += spec->value[i * spec->column_count + c];
        out[c] = (struct mpo_interval){sum / (double)spec->unit_count, NAN, NAN};
    }
}

static double error_of(double sum, double square, double count)
{
    double mean = sum / count;
    return sqrt(fmax(square / count - mean * mean, 0.0) / (count - 1.0));
}

static void centre_columns(struct bootstrap *bootstrap, const struct mpo_interval *out)
{
    const struct mpo_bootstrap_spec *spec = bootstrap->spec;
    for (int32_t c = 0; c < spec->column_count; c++) {
        double square = 0.0;
        for (int64_t i = 0; i < spec->unit_count; i++) {
            int64_t at = i * spec->column_count + c;
            bootstrap->centred[at] = spec->value[at] - out[c].estimate;
            square += bootstrap->centred[at] * bootstrap->centred[at];
        }
        bootstrap->error[c] = error_of(0.0, square, (double)spec->unit_count);
    }
}

/* ---- resamples ---- */

static void draw_resample(struct bootstrap *bootstrap, int32_t replicate)
{
    const struct mpo_bootstrap_spec *spec = bootstrap->spec;
    memset(bootstrap->sum, 0, (size_t)spec->column_count * sizeof *bootstrap->sum);
    memset(bootstrap->square, 0, (size_t)spec->column_count * sizeof *bootstrap->square);
    for (int64_t i = 0; i < spec->unit_count; i++) {
        struct mpo_rng_counter counter = {.step = (uint64_t)replicate,
                                          .prompt = (uint64_t)i};
        double uniform = mpo_rng_uniform(spec->seed, MPO_RNG_BOOTSTRAP, counter);
        int64_t unit = (int64_t)(uniform * (double)spec->unit_count);
        const double *value = bootstrap->centred + unit * spec->column_count;
        for (int32_t c = 0; c < spec->column_count; c++) {
            bootstrap->sum[c] += value[c];
            bootstrap->square[c] += value[c] * value[c];
        }
    }
}

static void studentise_resample(struct bootstrap *bootstrap, int32_t replicate)
{
    const struct mpo_bootstrap_spec *spec = bootstrap->spec;
    double count = (double)spec->unit_count;
    for (int32_t c = 0; c < spec->column_count; c++) {
        double error = error_of(bootstrap->sum[c], bootstrap->square[c], count);
        error = fmax(error, SCATTER_LEAST * bootstrap->error[c]);
        bootstrap->t[(size_t)c * (size_t)spec->replicates + (size_t)replicate] =
            error > 0.0 ? bootstrap->sum[c] / count / error : 0.0;
    }
}

/* ---- quantiles ---- */

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

static void find_interval(const struct bootstrap *bootstrap, int32_t c,
                          struct mpo_interval *out)
{
    int32_t replicates = bootstrap->spec->replicates;
    double *t = bootstrap->t + (size_t)c * (size_t)replicates;
    qsort(t, (size_t)replicates, sizeof *t, compare_doubles);
    out->low = out->estimate -
               bootstrap->error[c] * fmax(quantile_of(t, replicates, 1.0 - TAIL), 0.0);
    out->high =
        out->estimate - bootstrap->error[c] * fmin(quantile_of(t, replicates, TAIL), 0.0);
}

/* Needs t in the order of the replicates. */
static void find_bounds(const struct bootstrap *bootstrap,
                        const struct mpo_bootstrap_family *family,
                        const struct mpo_interval *out, double *upper)
{
    int32_t replicates = bootstrap->spec->replicates;
    for (int32_t b = 0; b < replicates; b++) {
        bootstrap->maximum[b] = -INFINITY;
        for (int32_t c = family->first; c < family->first + family->count; c++)
            bootstrap->maximum[b] =
                fmax(bootstrap->maximum[b],
                     -bootstrap->t[(size_t)c * (size_t)replicates + (size_t)b]);
    }
    qsort(bootstrap->maximum, (size_t)replicates, sizeof *bootstrap->maximum,
          compare_doubles);
    double factor = fmax(quantile_of(bootstrap->maximum, replicates, ONE_SIDE), 0.0);
    for (int32_t c = family->first; c < family->first + family->count; c++)
        upper[c] = out[c].estimate + factor * bootstrap->error[c];
}

/* ---- all together ---- */

static enum mpo_status open_bootstrap(struct bootstrap *bootstrap)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_bootstrap_spec *spec = bootstrap->spec;
    size_t columns = (size_t)spec->column_count;
    MPO_NEW((size_t)spec->unit_count * columns, &bootstrap->centred);
    MPO_NEW(columns, &bootstrap->error);
    MPO_NEW(columns, &bootstrap->sum);
    MPO_NEW(columns, &bootstrap->square);
    MPO_NEW(columns * (size_t)spec->replicates, &bootstrap->t);
    MPO_NEW(spec->replicates, &bootstrap->maximum);
cleanup:
    return status;
}

static void close_bootstrap(struct bootstrap *bootstrap)
{
    free(bootstrap->maximum);
    free(bootstrap->t);
    free(bootstrap->square);
    free(bootstrap->sum);
    free(bootstrap->error);
    free(bootstrap->centred);
}

enum mpo_status mpo_bootstrap_run(const struct mpo_bootstrap_spec *spec,
                                  struct mpo_interval *out, double *upper)
{
    enum mpo_status status = MPO_OK;
    struct bootstrap bootstrap = {.spec = spec};
    average_columns(spec, out);
    for (int32_t c = 0; upper != NULL && c < spec->column_count; c++)
        upper[c] = NAN;
    if (spec->unit_count < 2)
        return MPO_OK;
    MPO_TRY(open_bootstrap(&bootstrap));
    centre_columns(&bootstrap, out);
    for (int32_t b = 0; b < spec->replicates; b++) {
        draw_resample(&bootstrap, b);
        studentise_resample(&bootstrap, b);
    }
    for (int32_t f = 0; upper != NULL && f < spec->family_count; f++)
        find_bounds(&bootstrap, &spec->family[f], out, upper);
    for (int32_t c = 0; c < spec->column_count; c++)
        find_interval(&bootstrap, c, &out[c]);
cleanup:
    close_bootstrap(&bootstrap);
    return status;
}
