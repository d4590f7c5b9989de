/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Shared by the files of inspect: the request, and a record in memory.
 *
 * inspect.c reads the command line; open.c the record; each of the others prints or
 * draws one view of it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mpo/exponents.h"
#include "mpo/fit.h"
#include "mpo/record.h"
#include "mpo/status.h"

#include "estimator/sample.h"

/* One constant per field of record.def, in its order. */
enum inspect_field {
#define MPO_FIELD(path, member, type, shape, units, long_name) INSPECT_##member,
#include "mpo/record.def"
#undef MPO_FIELD
    INSPECT_FIELD_COUNT
};

struct inspect_request {
    const char *path;
    const char *other;              /* the second record of --compare */
    enum mpo_inspect_format format; /* auto: text, unless requested otherwise */
    const char *plot;
    bool schema;
    bool follow;
    bool compare;
    int64_t responses;                /* samples to print; 0: none requested */
    bool chosen;                      /* --series was given */
    bool wanted[INSPECT_FIELD_COUNT]; /* series for tsv and json */
};

/** A record and some of its steps, usually all. */
struct inspect {
    const char *path; /* borrowed */
    struct mpo_record *record;
    int64_t step_count; /* N, of those in memory */
    struct mpo_fit_plan plan;
    json_t *notes;                        /* array, owned */
    int32_t objective_count;              /* K */
    double strength;                      /* A of the exponents */
    double *scale;                        /* [K] a_k */
    bool balances_rewards;                /* what has the gradient's unit is of rewards */
    double *step;                         /* [N] */
    double *series[INSPECT_FIELD_COUNT];  /* [N, columns] each */
    int32_t columns[INSPECT_FIELD_COUNT]; /* K or 1 */
    bool is_there[INSPECT_FIELD_COUNT];   /* false: an older record without this series */
};

/* ---- reading (open.c) ---- */

/** Open without reading steps. Closed by inspect_close, also after a failure. */
enum mpo_status inspect_open(const char *path, struct inspect *inspect);

/** Read steps first .. first + count - 1 in place of those in memory. */
enum mpo_status inspect_load(struct inspect *inspect, int64_t first, int64_t count);

/** Open and read all steps. */
enum mpo_status inspect_open_whole(const char *path, struct inspect *inspect);

void inspect_close(struct inspect *inspect);

/** As mpo_fit_state. */
const char *inspect_state(const struct inspect *inspect);

/** The exponents of the record's mixture. */
struct mpo_exponents inspect_exponents(const struct inspect *inspect);

/** Why F is unknown (mpo_sample_why_unknown), from all steps in memory; "" where it is known.
 *  @param text  [MPO_SAMPLE_REASON_BYTES] out */
const char *inspect_why_unknown(const struct inspect *inspect, char *text);

/* ---- views ---- */

/** Value of a series at the last step, and its sum over the steps. */
double inspect_last(const struct inspect *inspect, enum inspect_field field);
double inspect_sum(const struct inspect *inspect, enum inspect_field field);

void inspect_print_summary(const struct inspect *inspect);
void inspect_print_schema(void);

/** Refuse requested series that the record lacks. */
enum mpo_status inspect_check_series(const struct inspect *inspect,
                                     const struct inspect_request *request);
void inspect_print_tsv_head(const struct inspect *inspect,
                            const struct inspect_request *request, FILE *out);
void inspect_print_tsv_steps(const struct inspect *inspect,
                             const struct inspect_request *request, FILE *out);
enum mpo_status inspect_print_json(const struct inspect *inspect,
                                   const struct inspect_request *request);

/** TSV of all existing and future steps, until the record is finished, its writer is gone,
 *  or Ctrl-C. */
enum mpo_status inspect_follow(const struct inspect_request *request);

/** Samples of the responses, spread over the run, with their scores. */
enum mpo_status inspect_print_responses(const struct inspect *inspect,
                                        const struct inspect_request *request);

/** Two records side by side. */
enum mpo_status inspect_compare(const struct inspect_request *request);

/** The trajectory as an SVG or PNG file, by the suffix of `output`, drawn by gnuplot.
 *  @return MPO_ERR_DATA when there is no step; else as plot_draw */
enum mpo_status inspect_plot(const struct inspect *inspect, const char *output);
