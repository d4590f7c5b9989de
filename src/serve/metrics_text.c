/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of GET /metrics.
 */
#include "metrics_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "buffer.h"

/* ---- labels ---- */

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

static const char *const PATH_NAME[] = {
#define MPO_LABEL_PATH(enumerator, value) value,
#include "metrics.def"
};

static const char *model_name(const struct mpo_metrics *metrics, int32_t model)
{
    int32_t count = metrics->catalog->model_count;
    if (model < count)
        return metrics->catalog->model[model].name;
    return model == count ? METRICS_ANY_WEIGHTS : METRICS_ANY_OTHER;
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
    char number[16];
    int32_t of_group = metrics_group_series(metrics, series);
    int32_t group = of_group > 0 ? index / of_group : 0;
    index -= group * of_group;
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
        put_label(out, "code", mpo_metrics_code_name((enum mpo_metric_code)index));
        break;
    case CAUSE:
        put_label(out, "cause", CAUSE_NAME[index]);
        break;
    case ROUTE:
        snprintf(number, sizeof number, "%d",
                 metrics_http_status[index % METRICS_HTTP_STATUS_COUNT]);
        put_label(out, "path", PATH_NAME[index / METRICS_HTTP_STATUS_COUNT]);
        mpo_serve_buffer_put(out, ",");
        put_label(out, "status", number);
        break;
    case STAGE:
        put_label(out, "stage", STAGE_NAME[index]);
        break;
    case POLICY:
        put_label(out, "model_name", model_name(metrics, 0));
        mpo_serve_buffer_put(out, ",");
        put_label(out, "policy", mpo_serve_hosted_name(metrics->catalog, index));
        break;
    case ENGINE:
        put_label(out, "model_name", model_name(metrics, 0));
        break;
    case CONNECTIONS:
        break;
    }
    if (of_group == 0 || metrics->group_count == 1)
        return;
    snprintf(number, sizeof number, "%d", group);
    mpo_serve_buffer_put(out, ",");
    put_label(out, "group", number);
}

static bool is_shown(const struct mpo_metrics *metrics, enum mpo_metric metric,
                     int32_t index)
{
    switch (metrics_list[metric].series) {
    case MODEL:
        return metrics->is_asked[index];
    case FINISH:
        return metrics->is_asked[index / MPO_METRIC_FINISH_COUNT];
    case ROUTE:
        return mpo_metrics_get(metrics, metric, index) > 0.0;
    case STAGE: /* there is one HTTP thread */
        return index < MPO_METRIC_STAGE_COUNT ||
               index % MPO_METRIC_STAGE_COUNT != MPO_METRIC_STAGE_HTTP;
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
    const struct metric *metric = &metrics_list[line->metric];
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
    _Atomic double *bucket = metrics_at(metrics, metric, index);
    int32_t bound_count = metrics->bound_count[metric];
    char bound[32];
    struct line line = {.metric = metric, .index = index, .suffix = "_bucket", .le = bound};
    for (int32_t i = 0; i <= bound_count; i++) {
        line.value += metrics_read(bucket + i);
        format_bound(i < bound_count ? metrics_list[metric].bounds[i] : INFINITY, bound);
        put_line(metrics, &line, out);
    }
    double count = line.value;
    line =
        (struct line){metric, index, "_sum", NULL, metrics_read(bucket + bound_count + 1)};
    put_line(metrics, &line, out);
    line = (struct line){metric, index, "_count", NULL, count};
    put_line(metrics, &line, out);
}

static void put_metric(const struct mpo_metrics *metrics, enum mpo_metric metric,
                       struct mpo_serve_buffer *out)
{
    static const char *const type[] = {"counter", "gauge", "histogram"};
    const struct metric *one = &metrics_list[metric];
    mpo_serve_buffer_put(out, "# HELP ");
    mpo_serve_buffer_put(out, metrics->prefix);
    mpo_serve_buffer_print(out, "%s %s\n# TYPE ", one->name, one->help);
    mpo_serve_buffer_put(out, metrics->prefix);
    mpo_serve_buffer_print(out, "%s %s\n", one->name, type[one->type]);
    for (int32_t i = 0; i < metrics_series_count(metrics, one->series); i++) {
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
