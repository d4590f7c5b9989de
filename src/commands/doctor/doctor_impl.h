/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What every rank sees, and the findings, in flow order.
 *
 *   doctor.c         the checks that every rank makes
 *   limits.c         limits of the process (ulimit) against what fit takes
 *   job.c            the checks that need all ranks' answers, on rank zero
 *   serve.c          with --serve: what the server opens beside the policies
 *   report.c         tables, findings and JSON
 */
#pragma once

#include "base/text.h"
#include "mpo/fit.h"
#include "session/context.h"
#include "session/plan.h"

/** The checks in the order in which fit, or serve, would meet the failure. */
#define DOCTOR_CHECK_LIST(X)                                                               \
    X(launch)                                                                              \
    X(server)                                                                              \
    X(prompts)                                                                             \
    X(ranks)                                                                               \
    X(device)                                                                              \
    X(policies)                                                                            \
    X(vocabulary)                                                                          \
    X(context)                                                                             \
    X(memory)                                                                              \
    X(exchange)                                                                            \
    X(threads)                                                                             \
    X(models)                                                                              \
    X(record)

enum doctor_check {
#define DOCTOR_CHECK_ENUM(name) DOCTOR_##name,
    DOCTOR_CHECK_LIST(DOCTOR_CHECK_ENUM)
#undef DOCTOR_CHECK_ENUM
        DOCTOR_CHECK_COUNT
};

enum doctor_level { DOCTOR_NONE, DOCTOR_OK, DOCTOR_WARNING, DOCTOR_PROBLEM };

/** One thing found; plain data. */
struct doctor_finding {
    int32_t check;
    int32_t level;              /* DOCTOR_NONE: no finding */
    int32_t rank;               /* DOCTOR_JOB: of no rank alone */
    struct mpo_failure failure; /* status MPO_OK unless it is a problem */
};

#define DOCTOR_JOB (-1)

/** Maximum findings of one rank; more would say nothing new. */
#define DOCTOR_FINDINGS_MAX 64

/** What one rank sees; plain data. */
struct doctor_rank {
    int32_t rank;
    int32_t local_rank;
    int32_t thread_count;
    int32_t policy_count;
    int32_t device_index;
    char device[32];
    char gpu_uuid[48]; /* "" when the device has none */
    struct mpo_host host;
    struct mpo_needs needs;
    uint64_t device_bytes; /* of the device's memory; 0 when it has none of its own */
    uint64_t device_rows_bytes;
    uint64_t device_library_bytes;
    uint64_t device_free_bytes;
    char versions[256];
};

/** The first prompt as a policy gets it; plain data. */
struct doctor_prompt {
    int32_t policy;
    int32_t token_count; /* 0: not known */
    int32_t special_count;
    char text[1200];
};

struct doctor {
    struct mpo_config *config;
    struct mpo_session *session;
    struct mpo_policies_survey survey;
    struct mpo_exchange_plan exchange;
    bool has_record;     /* to resume, which can be opened */
    bool serves;         /* serve is looked at, not fit */
    bool ranks_fit;      /* the number of ranks can host the policies */
    bool speaks_for_job; /* findings noted now belong to the job, not to a rank */
    struct mpo_failure record_models; /* of the record to resume: not those of the job */
    struct doctor_rank own;
    struct doctor_finding finding[DOCTOR_FINDINGS_MAX];
    int32_t finding_count;
    struct doctor_prompt *own_prompt; /* [own_prompt_count] of this rank's policies */
    int32_t own_prompt_count;

    /* rank zero only */
    struct doctor_rank *rank;         /* [W] */
    struct mpo_policy_survey *policy; /* [policy_count] rank after rank */
    struct doctor_prompt *prompt;     /* [policy_count] of the same */
    struct doctor_finding *all;       /* [all_count] in flow order, then by rank */
    int32_t policy_count;
    int32_t all_count;
};

/** Note a finding of this rank, or of the job.
 * The status of a problem decides the exit code. */
void doctor_note(struct doctor *doctor, enum doctor_check check, enum doctor_level level,
                 enum mpo_status status, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/** The limits of this rank's process; needs doctor->own. (limits.c) */
void doctor_examine_limits(struct doctor *doctor);

/** Whether there is a record to resume, for all ranks. Collective. (job.c) */
enum mpo_status doctor_find_record(struct doctor *doctor);

/** Compare its models with those of the survey; told with the record's checks. Collective.
 *  (job.c) */
void doctor_compare_models(struct doctor *doctor);

/** Rank zero: the checks over all ranks; needs doctor->rank and doctor->policy. */
void doctor_examine_job(struct doctor *doctor);

/* ---- serve.c ---- */

/** Rank zero: port, keys, certificate, folder of the URL's file. */
void doctor_examine_server(struct doctor *doctor);

/** Weights, presets and metrics. Collective. */
enum mpo_status doctor_examine_models(struct doctor *doctor);

/** Rank zero: what rows share; needs doctor->policy. */
void doctor_praise_context(struct doctor *doctor);

/** Rank zero: print everything in the format asked for.
 *  @param verdict  status of the first problem */
enum mpo_status doctor_report(const struct doctor *doctor, enum mpo_status verdict);
