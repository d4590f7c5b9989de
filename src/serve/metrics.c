/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All values are in one array, the series of a metric one after the other, and the buckets
 * of a histogram's series, then its sum. Buckets are counted apart and added up when they
 * are printed, so that an observation writes two numbers and the count is always that of
 * the buckets.
 */
#include "metrics_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Bounds of a histogram at most, without infinity. */
#define BOUND_COUNT_MAX 28

/* ---- buckets: vLLM's, but the last two ---- */

static const double FIRST_TOKEN[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08,    0.1,
                                     0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,     10,
                                     20,    40,    80,   160,  640,  2560, INFINITY};
static const double TOKEN[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15,    0.2,
                               0.3,  0.4,   0.5,  0.75,  1,   2.5,     5,
                               7.5,  10,    20,   40,    80,  INFINITY};
static const double REQUEST[] = {0.3, 0.5, 0.8, 1,    1.5,  2,       2.5, 5,
                                 10,  15,  20,  30,   40,   50,      60,  120,
                                 240, 480, 960, 1920, 7680, INFINITY};
static const double LENGTH[] = {1,   2,    5,    10,   20,  50,  100,     200,
                                500, 1000, 2000, 5000, 1e4, 2e4, 5e4,     1e5,
                                2e5, 5e5,  1e6,  2e6,  5e6, 1e7, INFINITY};
static const double POSITIONS[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, INFINITY};
static const double ROUND_TRIP[] = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3,    5e-3,
                                    0.01, 0.02, 0.05, 0.1,  0.2,  0.5,  1,    INFINITY};
static const double NONE[] = {INFINITY};

/* ---- the list ---- */

const struct metric metrics_list[MPO_METRIC_COUNT] = {
#define MPO_METRIC(identifier, type, series, buckets, name, help)                          \
    {type, series, buckets, name, help},
#include "metrics.def"
};

static const char *const CODE_NAME[] = {
#define MPO_LABEL_CODE(enumerator, value) value,
#include "metrics.def"
};

const int metrics_http_status[METRICS_HTTP_STATUS_COUNT] = {
    200, 204, 400, 401, 403, 404, 405, 408, 413, 414, 429, 431, 500, 503, 504};
#define HTTP_STATUS_OTHER 500

/* ---- life ---- */

/* Of one group, where each has its own. */
int32_t metrics_group_series(const struct mpo_metrics *metrics, enum series series)
{
    switch (series) {
    case STAGE:
        return MPO_METRIC_STAGE_COUNT;
    case POLICY:
        return metrics->catalog->policy_count;
    case ENGINE:
        return 1;
    default:
        return 0;
    }
}

int32_t metrics_series_count(const struct mpo_metrics *metrics, enum series series)
{
    switch (series) {
    case MODEL:
        return metrics->model_count;
    case FINISH:
        return metrics->model_count * MPO_METRIC_FINISH_COUNT;
    case CODE:
        return MPO_METRIC_CODE_COUNT;
    case CAUSE:
        return MPO_METRIC_CAUSE_COUNT;
    case ROUTE:
        return MPO_METRIC_PATH_COUNT * METRICS_HTTP_STATUS_COUNT;
    case CONNECTIONS:
        return 1;
    default:
        return metrics->group_count * metrics_group_series(metrics, series);
    }
}

/* Lengths up to the longest that there can be. */
static int32_t count_bounds(const struct mpo_metrics *metrics, const double *bounds)
{
    int32_t count = 0;
    while (isfinite(bounds[count]) &&
           (bounds != LENGTH || bounds[count] <= metrics->catalog->context_tokens))
        count++;
    return count;
}

enum mpo_status mpo_metrics_open(const struct mpo_serve_catalog *catalog,
                                 const char *prefix, int32_t rank_count,
                                 int32_t group_count, struct mpo_metrics **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_metrics *metrics = NULL;
    int32_t value_count = 0;
    *out = NULL;
    MPO_NEW(1, &metrics);
    metrics->catalog = catalog;
    metrics->prefix = prefix;
    metrics->group_count = group_count;
    metrics->model_count = catalog->model_count + METRICS_MODEL_EXTRA;
    MPO_NEW(metrics->model_count, &metrics->is_asked);
    metrics->is_asked[0] = true;
    for (int32_t i = 0; i < MPO_METRIC_COUNT; i++) {
        metrics->bound_count[i] = count_bounds(metrics, metrics_list[i].bounds);
        metrics->width[i] =
            metrics_list[i].type == HISTOGRAM ? metrics->bound_count[i] + 2 : 1;
        metrics->first[i] = value_count;
        value_count +=
            metrics->width[i] * metrics_series_count(metrics, metrics_list[i].series);
    }
    MPO_NEW(value_count, &metrics->value);
    const int32_t group_ranks = rank_count / group_count;
    for (int32_t group = 0; group < group_count; group++)
        mpo_metrics_set(metrics, MPO_METRIC_RANKS, group, group_ranks);
    *out = metrics;
    metrics = NULL;
cleanup:
    mpo_metrics_close(&metrics);
    return status;
}

void mpo_metrics_close(struct mpo_metrics **metrics_io)
{
    struct mpo_metrics *metrics = *metrics_io;
    if (metrics == NULL)
        return;
    free(metrics->value);
    free(metrics->is_asked);
    free(metrics);
    *metrics_io = NULL;
}

/* ---- series ---- */

int32_t mpo_metrics_model(struct mpo_metrics *metrics, const char *model)
{
    int32_t count = metrics->catalog->model_count;
    int32_t index = 0;
    while (index < count && strcmp(metrics->catalog->model[index].name, model) != 0)
        index++;
    if (index == count &&
        strncmp(model, METRICS_ANY_WEIGHTS, strlen(METRICS_ANY_WEIGHTS)) != 0)
        index++;
    metrics->is_asked[index] = true;
    return index;
}

int32_t mpo_metrics_finish(int32_t model, enum mpo_metric_finish finish)
{
    return model * MPO_METRIC_FINISH_COUNT + (int32_t)finish;
}

enum mpo_metric_finish mpo_metrics_finish_of(enum mpo_serve_finish finish)
{
    switch (finish) {
    case MPO_SERVE_FINISH_END:
    case MPO_SERVE_FINISH_STOP:
        return MPO_METRIC_FINISH_END;
    case MPO_SERVE_FINISH_LENGTH:
        return MPO_METRIC_FINISH_LENGTH;
    case MPO_SERVE_FINISH_NONE:
        break;
    }
    return MPO_METRIC_FINISH_ABORT;
}

enum mpo_metric_code mpo_metrics_code(const char *code)
{
    int32_t index = 0;
    while (index < MPO_METRIC_CODE_OTHER && strcmp(CODE_NAME[index], code) != 0)
        index++;
    return (enum mpo_metric_code)index;
}

const char *mpo_metrics_code_name(enum mpo_metric_code code)
{
    return CODE_NAME[code];
}

static int32_t find_http_status(int http_status)
{
    for (int32_t i = 0; i < METRICS_HTTP_STATUS_COUNT; i++)
        if (metrics_http_status[i] == http_status)
            return i;
    return find_http_status(HTTP_STATUS_OTHER);
}

int32_t mpo_metrics_route(enum mpo_metric_path path, int http_status)
{
    return (int32_t)path * METRICS_HTTP_STATUS_COUNT + find_http_status(http_status);
}

/* ---- updates ---- */

static void write_value(_Atomic double *value, double to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

void mpo_metrics_add(struct mpo_metrics *metrics, enum mpo_metric metric, int32_t series,
                     double value)
{
    _Atomic double *at = metrics_at(metrics, metric, series);
    write_value(at, metrics_read(at) + value);
}

void mpo_metrics_set(struct mpo_metrics *metrics, enum mpo_metric metric, int32_t series,
                     double value)
{
    write_value(metrics_at(metrics, metric, series), value);
}

void mpo_metrics_observe(struct mpo_metrics *metrics, enum mpo_metric metric,
                         int32_t series, double value)
{
    _Atomic double *bucket = metrics_at(metrics, metric, series);
    _Atomic double *sum = bucket + metrics->bound_count[metric] + 1;
    const double *bounds = metrics_list[metric].bounds;
    int32_t index = 0;
    while (index < metrics->bound_count[metric] && value > bounds[index])
        index++;
    write_value(bucket + index, metrics_read(bucket + index) + 1.0);
    write_value(sum, metrics_read(sum) + value);
}

double mpo_metrics_get(const struct mpo_metrics *metrics, enum mpo_metric metric,
                       int32_t series)
{
    return metrics_read(metrics_at(metrics, metric, series));
}

/* ---- groups ---- */

int32_t mpo_metrics_group_values(const struct mpo_metrics *metrics)
{
    int32_t count = 0;
    for (int32_t i = 0; i < MPO_METRIC_COUNT; i++)
        count += metrics->width[i] * metrics_group_series(metrics, metrics_list[i].series);
    return count;
}

/* A group's values of a metric. */
static _Atomic double *group_at(const struct mpo_metrics *metrics, int32_t metric,
                                int32_t group, int32_t *count)
{
    *count =
        metrics->width[metric] * metrics_group_series(metrics, metrics_list[metric].series);
    return metrics->value + metrics->first[metric] + group * *count;
}

void mpo_metrics_read_group(const struct mpo_metrics *metrics, int32_t group, double *out)
{
    for (int32_t i = 0; i < MPO_METRIC_COUNT; i++) {
        int32_t count = 0;
        _Atomic double *at = group_at(metrics, i, group, &count);
        for (int32_t j = 0; j < count; j++)
            *out++ = metrics_read(at + j);
    }
}

void mpo_metrics_write_group(struct mpo_metrics *metrics, int32_t group,
                             const double *values)
{
    for (int32_t i = 0; i < MPO_METRIC_COUNT; i++) {
        int32_t count = 0;
        _Atomic double *at = group_at(metrics, i, group, &count);
        for (int32_t j = 0; j < count; j++)
            write_value(at + j, *values++);
    }
}
