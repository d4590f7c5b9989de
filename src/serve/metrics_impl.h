/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What metrics.c, which counts, and metrics_text.c, which prints, share.
 */
#pragma once

#include <stdatomic.h>

#include "metrics.h"

enum type { COUNTER, GAUGE, HISTOGRAM };

enum series { MODEL, FINISH, CODE, CAUSE, ROUTE, CONNECTIONS, STAGE, ENGINE, POLICY };

struct metric {
    enum type type;
    enum series series;
    const double *bounds; /* ended by infinity */
    const char *name;
    const char *help;
};

extern const struct metric metrics_list[MPO_METRIC_COUNT];

/** Statuses that are counted, each on its own. */
#define METRICS_HTTP_STATUS_COUNT 15
extern const int metrics_http_status[METRICS_HTTP_STATUS_COUNT];

/** Names of models beside the catalog's. */
#define METRICS_ANY_WEIGHTS "mpo@"
#define METRICS_ANY_OTHER   "other"
#define METRICS_MODEL_EXTRA 2

struct mpo_metrics {
    const struct mpo_serve_catalog *catalog;
    const char *prefix;
    int32_t group_count;
    int32_t model_count;             /* METRICS_MODEL_EXTRA included */
    bool *is_asked;                  /* [model_count] */
    int32_t first[MPO_METRIC_COUNT]; /* of a metric's values */
    int32_t width[MPO_METRIC_COUNT]; /* values of one series */
    int32_t bound_count[MPO_METRIC_COUNT];
    _Atomic double *value;
};

/** Series of a metric, and those that each group has of it; 0: there is one for all groups. */
int32_t metrics_series_count(const struct mpo_metrics *metrics, enum series series);
int32_t metrics_group_series(const struct mpo_metrics *metrics, enum series series);

static inline double metrics_read(const _Atomic double *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

/** The first value of a series. */
static inline _Atomic double *metrics_at(const struct mpo_metrics *metrics,
                                         enum mpo_metric metric, int32_t series)
{
    return metrics->value + metrics->first[metric] + series * metrics->width[metric];
}
