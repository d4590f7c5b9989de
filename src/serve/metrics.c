/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All values are in one array, the series of a metric one after the other, and the buckets
 * of a histogram's series, then its sum. Buckets are counted apart and added up when they
 * are printed, so that an observation writes two numbers and the count is always that of
 * the buckets.
 */
#include "metrics.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "buffer.h"

/* Bounds of a histogram at most, without infinity. */
#define BOUND_COUNT_MAX 28

enum type { COUNTER, GAUGE, HISTOGRAM };

enum series { MODEL, FINISH, CODE, CAUSE, ROUTE, CONNECTIONS, STAGE, ENGINE, POLICY };

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

struct metric {
    enum type type;
    enum series series;
    const double *bounds; /* ended by infinity */
    const char *name;
    const char *help;
};

static const struct metric METRIC[] = {
#define MPO_METRIC(identifier, type, series, buckets, name, help)                          \
    {type, series, buckets, name, help},
#include "metrics.def"
};

static const char *const FINISH_NAME[] = {
#define MPO_LABEL_FINISH(enumerator, value) value,
#include "metrics.def"
};

static const char *const STAGE_NAME[] = {
#define MPO_LABEL_STAGE(enumerator, value) value,
#include "metrics.def"
};

static const char *const CAUSE_NAME[] = {
#define MPO_LABEL_CAUSE(enumerator, value) value,
#include "metrics.def"
};

static const char *const CODE_NAME[] = {
#define MPO_LABEL_CODE(enumerator, value) value,
#include "metrics.def"
};

static const char *const PATH_NAME[] = {
#define MPO_LABEL_PATH(enumerator, value) value,
#include "metrics.def"
};

static const int HTTP_STATUS[] = {200, 204, 400, 401, 403, 404, 405, 408,
                                  413, 414, 429, 431, 500, 503, 504};
#define HTTP_STATUS_COUNT ((int32_t)(sizeof HTTP_STATUS / sizeof *HTTP_STATUS))
#define HTTP_STATUS_OTHER 500

/* Names of models beside the catalog's. */
#define ANY_WEIGHTS "mpo@"
#define ANY_OTHER   "other"
#define MODEL_EXTRA 2

struct mpo_metrics {
    const struct mpo_serve_catalog *catalog;
    const char *prefix;
    int32_t model_count;             /* MODEL_EXTRA included */
    bool *is_asked;                  /* [model_count] */
    int32_t first[MPO_METRIC_COUNT]; /* of a metric's values */
    int32_t width[MPO_METRIC_COUNT]; /* values of one series */
    int32_t bound_count[MPO_METRIC_COUNT];
    _Atomic double *value;
};

/* ---- life ---- */

static int32_t series_count(const struct mpo_metrics *metrics, enum series series)
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
        return MPO_METRIC_PATH_COUNT * HTTP_STATUS_COUNT;
    case STAGE:
        return MPO_METRIC_STAGE_COUNT;
    case POLICY:
        return metrics->catalog->policy_count;
    case CONNECTIONS:
    case ENGINE:
        break;
    }
    return 1;
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
                                 struct mpo_metrics **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_metrics *metrics = NULL;
    int32_t value_count = 0;
    *out = NULL;
    MPO_NEW(1, &metrics);
    metrics->catalog = catalog;
    metrics->prefix = prefix;
    metrics->model_count = catalog->model_count + MODEL_EXTRA;
    MPO_NEW(metrics->model_count, &metrics->is_asked);
    metrics->is_asked[0] = true;
    for (int32_t i = 0; i < MPO_METRIC_COUNT; i++) {
        metrics->bound_count[i] = count_bounds(metrics, METRIC[i].bounds);
        metrics->width[i] = METRIC[i].type == HISTOGRAM ? metrics->bound_count[i] + 2 : 1;
        metrics->first[i] = value_count;
        value_count += metrics->width[i] * series_count(metrics, METRIC[i].series);
    }
    MPO_NEW(value_count, &metrics->value);
    mpo_metrics_set(metrics, MPO_METRIC_RANKS, 0, rank_count);
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
    if (index == count && strncmp(model, ANY_WEIGHTS, strlen(ANY_WEIGHTS)) != 0)
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

static int32_t find_http_status(int http_status)
{
    for (int32_t i = 0; i < HTTP_STATUS_COUNT; i++)
        if (HTTP_STATUS[i] == http_status)
            return i;
    return find_http_status(HTTP_STATUS_OTHER);
}

int32_t mpo_metrics_route(enum mpo_metric_path path, int http_status)
{
    return (int32_t)path * HTTP_STATUS_COUNT + find_http_status(http_status);
}

/* ---- updates ---- */

static _Atomic double *value_at(const struct mpo_metrics *metrics, enum mpo_metric metric,
                                int32_t series)
{
    return metrics->value + metrics->first[metric] + series * metrics->width[metric];
}

static double read_value(_Atomic double *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void write_value(_Atomic double *value, double to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

void mpo_metrics_add(struct mpo_metrics *metrics, enum mpo_metric metric, int32_t series,
                     double value)
{
    _Atomic double *at = value_at(metrics, metric, series);
    write_value(at, read_value(at) + value);
}

void mpo_metrics_set(struct mpo_metrics *metrics, enum mpo_metric metric, int32_t series,
                     double value)
{
    write_value(value_at(metrics, metric, series), value);
}

void mpo_metrics_observe(struct mpo_metrics *metrics, enum mpo_metric metric,
                         int32_t series, double value)
{
    _Atomic double *bucket = value_at(metrics, metric, series);
    _Atomic double *sum = bucket + metrics->bound_count[metric] + 1;
    const double *bounds = METRIC[metric].bounds;
    int32_t index = 0;
    while (index < metrics->bound_count[metric] && value > bounds[index])
        index++;
    write_value(bucket + index, read_value(bucket + index) + 1.0);
    write_value(sum, read_value(sum) + value);
}

double mpo_metrics_get(const struct mpo_metrics *metrics, enum mpo_metric metric,
                       int32_t series)
{
    return read_value(value_at(metrics, metric, series));
}

/* ---- text ---- */

static const char *model_name(const struct mpo_metrics *metrics, int32_t model)
{
    int32_t count = metrics->catalog->model_count;
    if (model < count)
        return metrics->catalog->model[model].name;
    return model == count ? ANY_WEIGHTS : ANY_OTHER;
}

/* name="value" */
static void put_label(struct mpo_serve_buffer *out, const char *name, const char *value)
{
    mpo_serve_buffer_put(out, name);
    mpo_serve_buffer_put(out, "=\"");
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == '\\' || *at == '"' || *at == '\n')
            mpo_serve_buffer_put(out, "\\");
        mpo_serve_buffer_add(out, *at == '\n' ? "n" : at, 1);
    }
    mpo_serve_buffer_put(out, "\"");
}

/* The labels of a series, with commas between them. */
static void put_labels(const struct mpo_metrics *metrics, enum series series, int32_t index,
                       struct mpo_serve_buffer *out)
{
    char status[16];
    switch (series) {
    case MODEL:
        put_label(out, "model_name", model_name(metrics, index));
        break;
    case FINISH:
        put_label(out, "model_name", model_name(metrics, index / MPO_METRIC_FINISH_COUNT));
        mpo_serve_buffer_put(out, ",");
        put_label(out, "finished_reason", FINISH_NAME[index % MPO_METRIC_FINISH_COUNT]);
        break;
    case CODE:
        put_label(out, "code", CODE_NAME[index]);
        break;
    case CAUSE:
        put_label(out, "cause", CAUSE_NAME[index]);
        break;
    case ROUTE:
        snprintf(status, sizeof status, "%d", HTTP_STATUS[index % HTTP_STATUS_COUNT]);
        put_label(out, "path", PATH_NAME[index / HTTP_STATUS_COUNT]);
        mpo_serve_buffer_put(out, ",");
        put_label(out, "status", status);
        break;
    case STAGE:
        put_label(out, "stage", STAGE_NAME[index]);
        break;
    case POLICY:
        put_label(out, "model_name", model_name(metrics, 0));
        mpo_serve_buffer_put(out, ",");
        put_label(out, "policy", metrics->catalog->policy_name[index]);
        break;
    case ENGINE:
        put_label(out, "model_name", model_name(metrics, 0));
        break;
    case CONNECTIONS:
        break;
    }
}

static bool is_shown(const struct mpo_metrics *metrics, enum mpo_metric metric,
                     int32_t index)
{
    switch (METRIC[metric].series) {
    case MODEL:
        return metrics->is_asked[index];
    case FINISH:
        return metrics->is_asked[index / MPO_METRIC_FINISH_COUNT];
    case ROUTE:
        return mpo_metrics_get(metrics, metric, index) > 0.0;
    default:
        return true;
    }
}

/* One line: prefix, name, suffix, labels, `le` where it is no NULL, value. */
struct line {
    enum mpo_metric metric;
    int32_t index;
    const char *suffix;
    const char *le;
    double value;
};

static void put_line(const struct mpo_metrics *metrics, const struct line *line,
                     struct mpo_serve_buffer *out)
{
    const struct metric *metric = &METRIC[line->metric];
    bool has_labels = metric->series != CONNECTIONS;
    mpo_serve_buffer_put(out, metrics->prefix);
    mpo_serve_buffer_put(out, metric->name);
    mpo_serve_buffer_put(out, line->suffix);
    mpo_serve_buffer_put(out, has_labels || line->le != NULL ? "{" : "");
    put_labels(metrics, metric->series, line->index, out);
    if (line->le != NULL) {
        mpo_serve_buffer_put(out, has_labels ? "," : "");
        put_label(out, "le", line->le);
    }
    mpo_serve_buffer_put(out, has_labels || line->le != NULL ? "}" : "");
    mpo_serve_buffer_print(out, " %.17g\n", line->value);
}

/* A bound as vLLM's client library writes it: 1.0, 0.05, +Inf. */
static void format_bound(double bound, char text[32])
{
    snprintf(text, 32, "%.15g", bound);
    if (isinf(bound))
        snprintf(text, 32, "+Inf");
    else if (strpbrk(text, ".e") == NULL)
        strncat(text, ".0", 31 - strlen(text));
}

static void put_histogram(const struct mpo_metrics *metrics, enum mpo_metric metric,
                          int32_t index, struct mpo_serve_buffer *out)
{
    _Atomic double *bucket = value_at(metrics, metric, index);
    int32_t bound_count = metrics->bound_count[metric];
    char bound[32];
    struct line line = {.metric = metric, .index = index, .suffix = "_bucket", .le = bound};
    for (int32_t i = 0; i <= bound_count; i++) {
        line.value += read_value(bucket + i);
        format_bound(i < bound_count ? METRIC[metric].bounds[i] : INFINITY, bound);
        put_line(metrics, &line, out);
    }
    double count = line.value;
    line = (struct line){metric, index, "_sum", NULL, read_value(bucket + bound_count + 1)};
    put_line(metrics, &line, out);
    line = (struct line){metric, index, "_count", NULL, count};
    put_line(metrics, &line, out);
}

static void put_metric(const struct mpo_metrics *metrics, enum mpo_metric metric,
                       struct mpo_serve_buffer *out)
{
    static const char *const type[] = {"counter", "gauge", "histogram"};
    const struct metric *one = &METRIC[metric];
    mpo_serve_buffer_put(out, "# HELP ");
    mpo_serve_buffer_put(out, metrics->prefix);
    mpo_serve_buffer_print(out, "%s %s\n# TYPE ", one->name, one->help);
    mpo_serve_buffer_put(out, metrics->prefix);
    mpo_serve_buffer_print(out, "%s %s\n", one->name, type[one->type]);
    for (int32_t i = 0; i < series_count(metrics, one->series); i++) {
        struct line line = {metric, i, "", NULL, mpo_metrics_get(metrics, metric, i)};
        if (!is_shown(metrics, metric, i))
            continue;
        if (one->type == HISTOGRAM)
            put_histogram(metrics, metric, i, out);
        else
            put_line(metrics, &line, out);
    }
}

char *mpo_metrics_text(const struct mpo_metrics *metrics, size_t *bytes)
{
    struct mpo_serve_buffer out = {0};
    for (int32_t i = 0; i < MPO_METRIC_COUNT; i++)
        put_metric(metrics, (enum mpo_metric)i, &out);
    *bytes = out.count;
    if (out.is_lost)
        mpo_serve_buffer_close(&out);
    return out.bytes;
}
