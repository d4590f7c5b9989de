/**
 * A record as inspect shows it: the whole trajectory in memory.
 */
#pragma once

#include <stdint.h>

#include "mpo/record.h"
#include "mpo/status.h"

/* One constant a field of record.def, in its order. */
enum inspect_field {
#define MPO_FIELD(path, member, type, shape, units, long_name) INSPECT_##member,
#include "mpo/record.def"
#undef MPO_FIELD
    INSPECT_FIELD_COUNT
};

struct inspect {
    const char *path; /* borrowed */
    struct mpo_record *record;
    int64_t step_count;                   /* N */
    int32_t objective_count;              /* K */
    double *step;                         /* [N] */
    double *series[INSPECT_FIELD_COUNT];  /* [N, columns] each */
    int32_t columns[INSPECT_FIELD_COUNT]; /* K or 1 */
};

/** "finished", "being written" or "left by a crash". */
const char *inspect_state(const struct inspect *inspect);

/** The trajectory as an SVG or PNG file, by the suffix of `output`, drawn by gnuplot.
 *  @return MPO_ERR_DEVICE when gnuplot is not installed; MPO_ERR_OUTPUT; MPO_ERR_DATA when
 *          there is no step */
enum mpo_status inspect_plot(const struct inspect *inspect, const char *output);
