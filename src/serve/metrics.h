/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Counters, gauges and histograms of a server, of metrics.def, and their text for Prometheus
 * (exposition format 0.0.4).
 *
 *     metric        series                                         made by
 *     STEPS         one                                            0
 *     PROMPT_TOKENS one a model_name                               mpo_metrics_model
 *     REQUEST_SUCCESS  one a model_name and finished_reason        mpo_metrics_finish
 *     ...
 *
 *     int32_t model = mpo_metrics_model(metrics, request->model);
 *     mpo_metrics_add(metrics, MPO_METRIC_GENERATION_TOKENS, model, 1.0);
 *     mpo_metrics_observe(metrics, MPO_METRIC_STEP_POSITIONS, 0, positions);
 *
 * A series is written by one thread alone, which metrics.def names, and read by any: a value
 * is an atomic double that its writer loads and stores relaxed, so that an update costs a
 * few instructions, takes no lock and allocates nothing. A reader may see a histogram's sum
 * an observation before or after its buckets.
 *
 * Local.
 */
#pragma once

#include <stdint.h>

#include "mpo/status.h"
#include "serve_impl.h"

enum mpo_metric {
#define MPO_METRIC(identifier, type, series, buckets, name, help) MPO_METRIC_##identifier,
#include "metrics.def"
    MPO_METRIC_COUNT
};

/* Values of labels: MPO_METRIC_STAGE_HTTP, MPO_METRIC_CAUSE_SLOW, ... */
enum mpo_metric_finish {
#define MPO_LABEL_FINISH(enumerator, value) MPO_METRIC_FINISH_##enumerator,
#include "metrics.def"
    MPO_METRIC_FINISH_COUNT
};
enum mpo_metric_stage {
#define MPO_LABEL_STAGE(enumerator, value) MPO_METRIC_STAGE_##enumerator,
#include "metrics.def"
    MPO_METRIC_STAGE_COUNT
};
enum mpo_metric_cause {
#define MPO_LABEL_CAUSE(enumerator, value) MPO_METRIC_CAUSE_##enumerator,
#include "metrics.def"
    MPO_METRIC_CAUSE_COUNT
};
enum mpo_metric_code {
#define MPO_LABEL_CODE(enumerator, value) MPO_METRIC_CODE_##enumerator,
#include "metrics.def"
    MPO_METRIC_CODE_COUNT
};
enum mpo_metric_path {
#define MPO_LABEL_PATH(enumerator, value) MPO_METRIC_PATH_##enumerator,
#include "metrics.def"
    MPO_METRIC_PATH_COUNT
};

struct mpo_metrics;

/**
 * All at 0, but for the number of ranks; each group has as many.
 *
 * @param catalog  its models and policies are labels; borrowed, like the prefix
 * @param prefix   before each name: "mpo:", "vllm:", ""
 * @return MPO_ERR_MEMORY
 */
enum mpo_status mpo_metrics_open(const struct mpo_serve_catalog *catalog,
                                 const char *prefix, int32_t rank_count,
                                 int32_t group_count, struct mpo_metrics **out);
void mpo_metrics_close(struct mpo_metrics **metrics);

/* ---- series ---- */

/** The series of a request's `model`: of the catalog's models each has one, all "mpo@..."
 *  have one, and so have all other names together. HTTP thread only: the series is shown
 *  from then on. */
int32_t mpo_metrics_model(struct mpo_metrics *metrics, const char *model);

/** Of REQUEST_SUCCESS: a model and why a choice of it is complete. */
int32_t mpo_metrics_finish(int32_t model, enum mpo_metric_finish finish);

/** The finished_reason of a choice. */
enum mpo_metric_finish mpo_metrics_finish_of(enum mpo_serve_finish finish);

/** Of REQUESTS_REFUSED: the code of a refusal; OTHER for one that is not listed. */
enum mpo_metric_code mpo_metrics_code(const char *code);

/** The code; a literal. */
const char *mpo_metrics_code_name(enum mpo_metric_code code);

/** Of HTTP_REQUESTS: a path and a status; a status that is none of HTTP_STATUS in metrics.c
 *  counts as 500. */
int32_t mpo_metrics_route(enum mpo_metric_path path, int http_status);

/* ---- updates: by the thread that metrics.def names; allocate nothing ---- */

/** Add to a counter, or to a gauge (negative to take away). */
void mpo_metrics_add(struct mpo_metrics *metrics, enum mpo_metric metric, int32_t series,
                     double value);

/** Set a gauge, or a counter that is counted elsewhere, such as seconds of mpo/timing.h. */
void mpo_metrics_set(struct mpo_metrics *metrics, enum mpo_metric metric, int32_t series,
                     double value);

/** Add an observation to a histogram. */
void mpo_metrics_observe(struct mpo_metrics *metrics, enum mpo_metric metric,
                         int32_t series, double value);

/** What a counter or gauge says. Any thread. */
double mpo_metrics_get(const struct mpo_metrics *metrics, enum mpo_metric metric,
                       int32_t series);

/* ---- groups ----
 * An engine counts as group 0 of its process. Of other processes rank zero has copies. */

/** Values of the series that each group has. */
int32_t mpo_metrics_group_values(const struct mpo_metrics *metrics);

/** Those of a group. @param out  [mpo_metrics_group_values] */
void mpo_metrics_read_group(const struct mpo_metrics *metrics, int32_t group, double *out);

/** Set them, by the thread that gets them from the group's root.
 *  @param values  [mpo_metrics_group_values] */
void mpo_metrics_write_group(struct mpo_metrics *metrics, int32_t group,
                             const double *values);

/* ---- text ---- */

#define MPO_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/** All of it, for the caller to free; NULL without memory. Series of models that were never
 *  requested and of routes that were never taken are left out. HTTP thread only. */
char *mpo_metrics_text(const struct mpo_metrics *metrics, size_t *bytes);
