/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks that need the results of all ranks or concern rank zero alone: how the job was
 * started, the memory of each host, versions, and the record.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor_impl.h"
#include "session/weights.h"

static void note_good(struct doctor *doctor, enum doctor_check check, const char *text)
{
    doctor_note(doctor, check, DOCTOR_OK, MPO_OK, "%s", text);
}

/* ---- launch ---- */

/* Whether a variable was set when the process started:
 * MPI has set some of its own since. */
static bool started_with(const char *name)
{
    bool found = false;
    char *line = NULL;
    size_t capacity = 0;
    size_t length = strlen(name);
    FILE *file = fopen("/proc/self/environ", "r");
    while (file != NULL && !found && getdelim(&line, &capacity, '\0', file) > 0)
        found = strncmp(line, name, length) == 0 && line[length] == '=';
    free(line);
    if (file != NULL)
        fclose(file);
    return found;
}

/* With Debian's Open MPI, srun's other plugins start every task as a separate job. */
static void examine_launch(struct doctor *doctor)
{
    int32_t size = mpo_comm_size(doctor->session->comm);
    int32_t hosts = 0;
    if (started_with("SLURM_STEP_ID") && !started_with("PMIX_RANK"))
        doctor_note(doctor, DOCTOR_launch, DOCTOR_WARNING, MPO_OK,
                    "this is a Slurm step without PMIx: every task would run as a separate "
                    "job; start it with srun --mpi=pmix or mpirun");
    for (int32_t r = 0; r < size; r++) {
        const struct doctor_rank *rank = &doctor->rank[r];
        hosts += rank->local_rank == 0;
        if (strcmp(rank->versions, doctor->rank[0].versions) != 0)
            doctor_note(doctor, DOCTOR_launch, DOCTOR_WARNING, MPO_OK,
                        "rank %d (%s) runs %s, but rank 0 runs %s", r, rank->host.name,
                        rank->versions, doctor->rank[0].versions);
    }
    doctor_note(doctor, DOCTOR_launch, DOCTOR_OK, MPO_OK, "%d rank%s on %d host%s", size,
                mpo_text_plural(size), hosts, mpo_text_plural(hosts));
}

static void praise_stages(struct doctor *doctor)
{
    const struct mpo_comm *comm = doctor->session->comm;
    const struct mpo_prompts *prompts = doctor->session->prompts;
    int32_t groups = mpo_comm_group_count(comm);
    int32_t policies = doctor->config->policy_count;
    if (prompts != NULL)
        doctor_note(doctor, DOCTOR_prompts, DOCTOR_OK, MPO_OK, "%lld in %s",
                    (long long)mpo_prompts_count(prompts), mpo_prompts_path(prompts));
    doctor_note(doctor, DOCTOR_ranks, DOCTOR_OK, MPO_OK, "%d policies on %d group%s of %d",
                policies, groups, mpo_text_plural(groups), mpo_comm_group_size(comm));
    note_good(doctor, DOCTOR_policies, "all files can be read");
    doctor_note(doctor, DOCTOR_vocabulary, DOCTOR_OK, MPO_OK,
                "common to all policies, %d tokens", doctor->survey.vocab_size);
    if (doctor->serves)
        doctor_praise_context(doctor);
    else
        doctor_note(
            doctor, DOCTOR_context, DOCTOR_OK, MPO_OK,
            "templates are known; all prompts fit the context with %lld response tokens",
            (long long)doctor->config->rollout.max_tokens);
}

static void note_unchecked(struct doctor *doctor, enum doctor_check check,
                           const char *reason)
{
    doctor_note(doctor, check, DOCTOR_WARNING, MPO_OK, "not checked, because %s", reason);
}

static bool all_prompts_fit(const struct doctor *doctor)
{
    for (int32_t i = 0; i < doctor->policy_count; i++)
        if (doctor->policy[i].prompts.status != MPO_OK)
            return false;
    return doctor->serves || doctor->session->prompts != NULL;
}

/* Why a figure would mislead; "": it does not. */
static const char *reason_unknown(const struct doctor *doctor, bool of_memory)
{
    if (!doctor->survey.all_loaded)
        return "some policies could not be read";
    if (!doctor->ranks_fit)
        return "the number of ranks is wrong";
    if (of_memory && !all_prompts_fit(doctor))
        return "some prompts could not be read or do not fit the context";
    if (!of_memory && doctor->survey.vocab_size == 0)
        return "vocabularies differ";
    return "";
}

/* A check that could not be made must not be reported as ok. */
static void admit_gaps(struct doctor *doctor)
{
    const char *memory = reason_unknown(doctor, true);
    const char *exchange = reason_unknown(doctor, false);
    if (!doctor->serves && doctor->session->prompts == NULL)
        note_unchecked(doctor, DOCTOR_context, "the prompts could not be read");
    else if (!doctor->survey.all_loaded)
        note_unchecked(doctor, DOCTOR_context, memory);
    if (!doctor->survey.all_loaded)
        note_unchecked(doctor, DOCTOR_vocabulary, memory);
    if (memory[0] != '\0')
        note_unchecked(doctor, DOCTOR_memory, memory);
    if (exchange[0] != '\0')
        note_unchecked(doctor, DOCTOR_exchange, exchange);
}

/* ---- memory ---- */

/* Memory that the ranks of one host need together. */
struct host_needs {
    const struct mpo_host *host;
    int32_t rank_count;
    uint64_t alone;  /* each rank with its own copy of the weights */
    uint64_t shared; /* every file in memory once */
};

static bool on_host(const struct doctor *doctor, int32_t rank, const struct mpo_host *host)
{
    return strcmp(doctor->rank[rank].host.name, host->name) == 0;
}

/* The policies of all ranks of the host, to count each file once. */
static uint64_t weights_once(const struct doctor *doctor, const struct mpo_host *host,
                             struct mpo_policy_survey *side_by_side)
{
    const struct mpo_policy_survey *next = doctor->policy;
    int32_t count = 0;
    for (int32_t r = 0; r < mpo_comm_size(doctor->session->comm); r++) {
        int32_t own = doctor->rank[r].policy_count;
        if (on_host(doctor, r, host)) {
            memcpy(side_by_side + count, next, (size_t)own * sizeof *next);
            count += own;
        }
        next += own;
    }
    return mpo_needs_weights_once(side_by_side, count);
}

static struct host_needs sum_host(const struct doctor *doctor, const struct mpo_host *host,
                                  struct mpo_policy_survey *side_by_side)
{
    struct host_needs sum = {.host = host};
    uint64_t weights = 0;
    for (int32_t r = 0; r < mpo_comm_size(doctor->session->comm); r++) {
        const struct mpo_needs *needs = &doctor->rank[r].needs;
        if (!on_host(doctor, r, host))
            continue;
        sum.rank_count++;
        sum.alone += mpo_needs_to_take(needs);
        weights += needs->weights_bytes;
    }
    sum.shared = sum.alone - weights + weights_once(doctor, host, side_by_side);
    return sum;
}

/* After "%d rank": the plural and the verb. */
static const char *need_of(int32_t rank_count)
{
    return rank_count == 1 ? " needs" : "s need";
}

static void judge_host(struct doctor *doctor, const struct host_needs *sum)
{
    const struct mpo_host *host = sum->host;
    unsigned long long alone = mpo_text_megabytes(sum->alone);
    unsigned long long shared = mpo_text_megabytes(sum->shared);
    unsigned long long free_mb = mpo_text_megabytes(host->memory_free_bytes);
    if (sum->shared > host->memory_free_bytes)
        doctor_note(
            doctor, DOCTOR_memory, DOCTOR_PROBLEM, MPO_ERR_MEMORY,
            "%s: %d rank%s %llu MB more, but %s leaves %llu MB; use more hosts or smaller "
            "models, or %s",
            host->name, sum->rank_count, need_of(sum->rank_count), shared,
            host->memory_limit, free_mb, doctor->session->size.advice);
    else if (sum->alone > host->memory_free_bytes)
        doctor_note(doctor, DOCTOR_memory, DOCTOR_WARNING, MPO_OK,
                    "%s: %d ranks need %llu MB if they share weights, but %llu MB if "
                    "libllama repacks them, and %s leaves %llu MB",
                    host->name, sum->rank_count, shared, alone, host->memory_limit,
                    free_mb);
    else
        doctor_note(doctor, DOCTOR_memory, DOCTOR_OK, MPO_OK,
                    "%s: %d rank%s %llu MB more, of %llu MB (%s)", host->name,
                    sum->rank_count, need_of(sum->rank_count), alone, free_mb,
                    host->memory_limit);
}

static void examine_memory(struct doctor *doctor)
{
    struct mpo_policy_survey *side_by_side = NULL;
    if (reason_unknown(doctor, true)[0] != '\0')
        return;
    enum mpo_status status =
        mpo_memory_take((size_t)doctor->policy_count, sizeof *side_by_side,
                        "the sum over a host", (void **)&side_by_side);
    if (status != MPO_OK)
        doctor_note(doctor, DOCTOR_memory, DOCTOR_PROBLEM, status, "%s", mpo_error_text());
    for (int32_t r = 0; status == MPO_OK && r < mpo_comm_size(doctor->session->comm); r++) {
        const struct doctor_rank *rank = &doctor->rank[r];
        if (rank->local_rank != 0)
            continue;
        struct host_needs sum = sum_host(doctor, &rank->host, side_by_side);
        judge_host(doctor, &sum);
    }
    free(side_by_side);
}

/* ---- the record ---- */

/* Models of different size are found without the hashes that fit compares. */
static void examine_groups(struct doctor *doctor)
{
    for (int32_t i = 0; doctor->config->record.hash_models && i < doctor->policy_count; i++)
        for (int32_t j = 0; j < i; j++) {
            const struct mpo_policy_survey *a = &doctor->policy[j];
            const struct mpo_policy_survey *b = &doctor->policy[i];
            if (a->policy == b->policy && a->load.status == MPO_OK &&
                b->load.status == MPO_OK &&
                (a->need.model_bytes != b->need.model_bytes ||
                 a->need.adapter_bytes != b->need.adapter_bytes)) {
                doctor_note(doctor, DOCTOR_record, DOCTOR_PROBLEM, MPO_ERR_DATA,
                            "policy '%s' is not the same model in every group; check the "
                            "model's path on each host",
                            doctor->session->hosted[a->policy].name);
                return;
            }
        }
}

static bool can_open(const char *path)
{
    struct mpo_record *record = NULL;
    bool is_open = access(path, F_OK) == 0 && mpo_record_open(path, &record) == MPO_OK;
    mpo_record_close(&record);
    return is_open;
}

enum mpo_status doctor_find_record(struct doctor *doctor)
{
    const struct mpo_comm *comm = doctor->session->comm;
    if (mpo_comm_rank(comm) == 0)
        doctor->has_record = can_open(doctor->config->record.file);
    return mpo_comm_broadcast(comm, &doctor->has_record, sizeof doctor->has_record, 0);
}

void doctor_compare_models(struct doctor *doctor)
{
    if (doctor->has_record)
        mpo_failure_keep(
            &doctor->record_models,
            mpo_weights_check_models(doctor->session, doctor->config->record.file));
}

/* What the record's stage warns of is a finding. */
static void note_warning(void *self, enum mpo_report_level level, const char *text)
{
    if (level == MPO_REPORT_WARNING)
        doctor_note(self, DOCTOR_record, DOCTOR_WARNING, MPO_OK, "%s", text);
}

static void praise_record(struct doctor *doctor, int64_t steps)
{
    const char *path = doctor->config->record.file;
    if (steps >= 0)
        doctor_note(doctor, DOCTOR_record, DOCTOR_OK, MPO_OK,
                    "%s can be continued after %lld steps", path, (long long)steps);
    else
        doctor_note(doctor, DOCTOR_record, DOCTOR_OK, MPO_OK, "%s can be created", path);
}

/* A record to resume may exist, and has to belong to this job, with its models. */
static void examine_record(struct doctor *doctor)
{
    const char *path = doctor->config->record.file;
    const struct mpo_config_fit *fit = &doctor->config->fit;
    int64_t steps = -1;
    struct mpo_reporter before =
        mpo_report_to((struct mpo_reporter){.say = note_warning, .self = doctor});
    enum mpo_status status = mpo_record_check(path, fit->force || fit->resume);
    if (status == MPO_OK && fit->resume)
        status = mpo_fit_check_record(doctor->session, &steps);
    if (status == MPO_OK)
        status = mpo_failure_raise(&doctor->record_models);
    mpo_report_to(before);
    if (mpo_record_is_on_network(path))
        doctor_note(doctor, DOCTOR_record, DOCTOR_WARNING, MPO_OK,
                    "%s " MPO_RECORD_NETWORK_ADVICE, path);
    if (status != MPO_OK)
        doctor_note(doctor, DOCTOR_record, DOCTOR_PROBLEM, status, "%s", mpo_error_text());
    else
        praise_record(doctor, steps);
}

void doctor_examine_job(struct doctor *doctor)
{
    doctor->speaks_for_job = true;
    examine_launch(doctor);
    praise_stages(doctor);
    admit_gaps(doctor);
    examine_memory(doctor);
    examine_groups(doctor);
    if (!doctor->serves)
        examine_record(doctor);
}
