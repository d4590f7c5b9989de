/**
 * A fit: the job's stages, the optimiser's stages, and what is said about it.
 */
#pragma once

#include "job.h"
#include "progress.h"

/** Sums over the steps taken, for the end's warnings and table. */
struct fit_summary {
    int64_t steps;
    int64_t tokens;
    double ess_sum;
    double truncated_sum;
    double value_mean;
    double value_square_sum; /* of deviations from the mean (Welford) */
    double last_gap;
    bool stopped_on_gap;
};

struct fit {
    struct mpo_config *config;
    struct job job;
    int32_t objective_count; /* K */
    int32_t policy_count;    /* H */
    int64_t *prompt;         /* [prompts_per_step] */
    double *proposal;        /* [H + 2]: mu, end bias, 1 to go on or 0 to stop */

    /* rank zero only */
    struct mpo_estimator *estimator;
    struct mpo_descent *descent;
    struct mpo_record_writer *record;
    double *weights;     /* [K] l_t of the present step */
    char *response_text; /* one response */
    char *text;          /* all responses of the step, one after another */
    size_t text_capacity;
    int64_t *text_bytes; /* [prompts_per_step * responses] */

    struct mpo_timing total; /* this rank, all steps */
    struct fit_summary summary;
    struct progress progress;
    double started;
};

/** Create the record with everything known before the first step. Collective. */
enum mpo_status fit_create_record(struct fit *fit, int argc, char *const *argv);

/** What is said at the start, after a step, and at the end. Rank zero only but for the
 *  stage table, which gathers. */
void fit_report_start(struct fit *fit);
void fit_report_step(struct fit *fit, const struct mpo_estimate *estimate);
enum mpo_status fit_report_stages(const struct fit *fit);
enum mpo_status fit_report_end(const struct fit *fit);
