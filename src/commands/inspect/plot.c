/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect --plot: the trajectory, drawn by the script trajectory.gp from the series that
 * --format=tsv prints.
 */
#include "inspect_impl.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/text.h"
#include "base/timing.h"
#include "commands/report/plot.h"

/* The series of the script, in the order of record.def; the stages' times come last. */
static const enum inspect_field fields[] = {INSPECT_weights,
                                            INSPECT_average,
                                            INSPECT_value,
                                            INSPECT_value_error,
                                            INSPECT_averaged_gap,
                                            INSPECT_ess,
#define STAGE_FIELD(name, sentence) INSPECT_timing_##name,
                                            MPO_TIMED_STAGE_LIST(STAGE_FIELD)
#undef STAGE_FIELD
};

static void put_title(const struct inspect *inspect, struct plot *plot)
{
    char title[512] = "";
    char reason[MPO_SAMPLE_REASON_BYTES] = "";
    const char *run = mpo_record_attribute(inspect->record, "run_id");
    snprintf(title, sizeof title, "%s%s%.200s, %lld step%s, %s", inspect->path,
             run[0] != '\0' ? ", run " : "", run, (long long)inspect->step_count,
             mpo_text_plural(inspect->step_count), inspect_state(inspect));
    plot_put_text(plot, "title", title);
    bool is_known = inspect_why_unknown(inspect, reason)[0] == '\0';
    plot_put_text(plot, "value_title", is_known ? "F at the weights" : "F of the draws");
    bool is_served = mpo_record_target(inspect->record) == MPO_TARGET_SERVED;
    plot_put_text(plot, "regret_title", is_served ? "imbalance" : "averaged gap");
}

static enum mpo_status put_names(const struct inspect *inspect, struct plot *plot)
{
    enum mpo_status status = MPO_OK;
    const char **objective = NULL; /* [K] */
    const char *stage[MPO_TIMED_STAGE_COUNT];
    MPO_NEW(inspect->objective_count, &objective);
    for (int32_t k = 0; k < inspect->objective_count; k++)
        objective[k] = mpo_record_objective(inspect->record, k);
    for (int32_t i = 0; i < MPO_TIMED_STAGE_COUNT; i++)
        stage[i] = mpo_timing_name((enum mpo_timed_stage)i);
    plot_put_list(plot, "objective", objective, inspect->objective_count);
    plot_put_list(plot, "stage", stage, MPO_TIMED_STAGE_COUNT);
cleanup:
    free(objective);
    return status;
}

/* Series that an older record lacks have columns too, filled with NaN. */
static void put_table(const struct inspect *inspect, struct plot *plot)
{
    struct inspect_request request = {0};
    struct inspect whole = *inspect;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        request.wanted[fields[i]] = whole.is_there[fields[i]] = true;
    plot_begin_table(plot);
    inspect_print_tsv_head(&whole, &request, plot->input);
    inspect_print_tsv_steps(&whole, &request, plot->input);
}

enum mpo_status inspect_plot(const struct inspect *inspect, const char *output)
{
    enum mpo_status status = MPO_OK;
    struct plot plot = {0};
    MPO_CHECK(inspect->step_count > 0, MPO_ERR_DATA,
              "%s: expected a step to plot, found none yet", inspect->path);
    MPO_TRY(plot_open(PLOT_TRAJECTORY, output, &plot));
    put_title(inspect, &plot);
    MPO_TRY(put_names(inspect, &plot));
    put_table(inspect, &plot);
    MPO_TRY(plot_draw(&plot));
cleanup:
    plot_close(&plot);
    return status;
}
