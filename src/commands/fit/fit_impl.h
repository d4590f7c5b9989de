/**
 * A fit: the stages of the job and of the optimiser, and the report.
 */
#pragma once

#include "decode/text.h"
#include "session/session_impl.h"
#include "base/text.h"
#include "commands/report/progress.h"

/** Sums over the steps taken, for the final warnings and table. */
struct fit_summary {
    int64_t steps;
    int64_t tokens;
    double ess_sum;
    double truncated_sum;
    double value_mean;
    double value_square_sum; /* of deviations from the mean (Welford) */
    double last_gap;
    bool stopped_on_gap;
    int64_t tokens_before; /* of earlier processes of a resumed run */
    double elapsed_before; /* seconds, likewise */
};

struct fit {
    struct mpo_config *config;
    struct mpo_session *session;
    int32_t objective_count; /* K */
    int32_t policy_count;    /* H */
    int64_t *prompt;         /* [prompts_per_step] */
    double *proposal;        /* [H + 2]: mu, end bias, 1 to go on or 0 to stop */
    int64_t first_step;      /* steps in the record when this process started */
    bool resumes;            /* such a record exists; rank zero only */

    /* rank zero only */
    struct mpo_estimator *estimator;
    struct mpo_descent *descent;
    struct mpo_record_writer *record;
    double *weights; /* [K] l_t of the present step */
    struct mpo_decode_text response_text;
    char *text; /* all responses of the step, one after another */
    size_t text_capacity;
    int64_t *text_bytes; /* [prompts_per_step * responses] */

    struct mpo_timing total; /* this rank, all steps */
    struct fit_summary summary;
    struct progress progress;
    double started;
};

/** Resume: compare the record with this job, load the optimiser's state and the summary,
 *  set first_step. Without a record nothing changes. Rank zero only. @return MPO_ERR_CONFIG
 *  when the configuration is another (the text shows the difference); MPO_ERR_DATA when
 *  models or prompts are */
enum mpo_status fit_resume_load(struct fit *fit);

/** Create the record with everything known before the first step, or
 *  open the one to resume. Collective; errors are agreed on. */
enum mpo_status fit_create_record(struct fit *fit, int argc, char *const *argv);

/** Add a step to the summary / after the last one, derive what depends on it. Rank zero
 *  only. */
void fit_summary_add(struct fit *fit, const struct mpo_estimate *estimate);
void fit_summary_settle(struct fit *fit);

/** Hash of all prompts as the record has it. */
#define FIT_PROMPTS_HASH_ATTRIBUTE "prompts_xxh64"
void fit_prompts_hash(const struct fit *fit, char text[MPO_TEXT_HASH_BYTES]);

/** Messages at the start, after a step and at the end. Rank zero only, except the stage
 *  table, which is collective. */
void fit_report_start(struct fit *fit);
void fit_report_step(struct fit *fit, const struct mpo_estimate *estimate);
enum mpo_status fit_report_stages(const struct fit *fit);
enum mpo_status fit_report_end(const struct fit *fit);
