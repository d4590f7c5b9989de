/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor: would fit run, or with --serve the server? Every rank makes all checks and continues after a failure; rank
 * zero prints the findings of all ranks.
 *
 * The checks are the phases of mpo_session_open themselves, with the policies surveyed instead of
 * loaded; so the exit code is that of the first failure of fit. Collective calls are made
 * by all ranks, whatever they found.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build_info.h"
#include "commands/commands.h"
#include "commands/report/log.h"
#include "commands/report/prompt.h"
#include "doctor_impl.h"

void doctor_note(struct doctor *doctor, enum doctor_check check, enum doctor_level level,
                 enum mpo_status status, const char *format, ...)
{
    if (doctor->finding_count == DOCTOR_FINDINGS_MAX)
        return;
    struct doctor_finding *finding = &doctor->finding[doctor->finding_count++];
    finding->check = check;
    finding->level = level;
    finding->rank = doctor->speaks_for_job ? DOCTOR_JOB : mpo_comm_job_rank();
    finding->failure.status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->failure.text, sizeof finding->failure.text, format, arguments);
    va_end(arguments);
}

/* A failure is a problem; success is nothing to note. */
static bool note_status(struct doctor *doctor, enum doctor_check check,
                        enum mpo_status status)
{
    if (status != MPO_OK)
        doctor_note(doctor, check, DOCTOR_PROBLEM, status, "%s", mpo_error_text());
    return status == MPO_OK;
}

/* ---- phases ---- */

/* If the number of ranks is invalid, files are still checked, with all
 * policies on each rank. */
static enum mpo_status examine_ranks(struct doctor *doctor)
{
    struct mpo_session *session = doctor->session;
    doctor->ranks_fit = note_status(doctor, DOCTOR_ranks, mpo_session_open_ranks(session));
    if (!doctor->ranks_fit)
        return mpo_session_open_groups(session, 1);
    return MPO_OK;
}

/* Options without an effect where the policies run. */
static void note_idle(void *self, enum mpo_report_level level, const char *text)
{
    if (level == MPO_REPORT_WARNING)
        doctor_note(self, DOCTOR_device, DOCTOR_WARNING, MPO_OK, "%s", text);
}

/* If one rank has no device to itself, all continue without one: choices that depend on the
 * device, such as the transport, must be the same on all ranks. The report says what each
 * rank found. */
static enum mpo_status examine_device(struct doctor *doctor)
{
    enum mpo_status status = MPO_OK;
    struct mpo_session *session = doctor->session;
    struct doctor_rank *own = &doctor->own;
    const struct mpo_device *device = &session->device;
    struct mpo_reporter before =
        mpo_report_to((struct mpo_reporter){.say = note_idle, .self = doctor});
    double all =
        note_status(doctor, DOCTOR_device, mpo_session_open_device(session)) ? 1.0 : 0.0;
    mpo_report_to(before);
    char run[48] = "";
    if (device->first < device->index)
        snprintf(run, sizeof run, " (devices %d to %d)", device->first, device->index);
    if (all > 0.0)
        doctor_note(doctor, DOCTOR_device, DOCTOR_OK, MPO_OK, "%s%s%s%s", device->kind,
                    device->name[0] != '\0' ? " " : "", device->name, run);
    snprintf(own->device, sizeof own->device, "%s", session->device.kind);
    snprintf(own->gpu_uuid, sizeof own->gpu_uuid, "%s", session->device.uuid);
    own->device_index = session->device.index;
    MPO_TRY(mpo_comm_min(session->comm, &all, 1));
    if (all == 0.0)
        session->device = (struct mpo_device){.kind = "none"};
cleanup:
    return status;
}

static enum mpo_status examine_prompts(struct doctor *doctor)
{
    enum mpo_status status = MPO_OK;
    struct mpo_session *session = doctor->session;
    if (doctor->serves)
        return MPO_OK;
    double all_read =
        note_status(doctor, DOCTOR_prompts, mpo_session_read_prompts(session)) ? 1 : 0;
    MPO_TRY(mpo_comm_min(session->comm, &all_read, 1));
    if (all_read > 0)
        note_status(doctor, DOCTOR_prompts,
                    mpo_comm_same(mpo_prompts_hash(session->prompts), "prompts"));
cleanup:
    return status;
}

static void note_failure(struct doctor *doctor, enum doctor_check check,
                         const struct mpo_failure *failure)
{
    if (failure->status != MPO_OK)
        doctor_note(doctor, check, DOCTOR_PROBLEM, failure->status, "%s", failure->text);
}

static void note_remarks(struct doctor *doctor, const struct mpo_remarks *remarks)
{
    char line[sizeof(struct mpo_failure)];
    for (int32_t i = 0; mpo_remarks_line(remarks, i, line, sizeof line); i++)
        doctor_note(doctor, DOCTOR_policies, DOCTOR_WARNING, MPO_OK, "%s", line);
}

/* What cannot be shown is none of doctor's problems. */
static void view_prompt(void *self, int32_t index, struct mpo_policy *policy)
{
    struct doctor *doctor = self;
    struct doctor_prompt *prompt = &doctor->own_prompt[doctor->own_prompt_count++];
    struct prompt_view view = {0};
    prompt->policy = index;
    if (prompt_view_make(policy, 0, &view) == MPO_OK && view.token_count > 0) {
        prompt->token_count = view.token_count;
        prompt->special_count = view.special_count;
        prompt_view_shorten(view.text, sizeof prompt->text, prompt->text);
    }
    prompt_view_free(&view);
}

/* Whether a failure of a policy that has all adapters is one of a policy before it. */
static bool is_told(const struct doctor *doctor, int32_t index)
{
    const struct mpo_policy_survey *local = doctor->survey.local;
    int32_t blend = mpo_plan_first_blend(doctor->config, &doctor->session->size);
    bool has_failed = false;
    for (int32_t i = 0; i < index; i++)
        has_failed |= local[i].load.status != MPO_OK || local[i].prompts.status != MPO_OK;
    return has_failed && local[index].policy >= blend;
}

static enum mpo_status examine_policies(struct doctor *doctor)
{
    enum mpo_status status = MPO_OK;
    struct mpo_session *session = doctor->session;
    struct mpo_policies_survey *survey = &doctor->survey;
    struct mpo_policies_survey_spec spec = mpo_plan_survey(session);
    size_t most = (size_t)mpo_plan_policy_count(doctor->config, &session->size);
    bool is_shorter = false;
    MPO_TRY(mpo_comm_agree(mpo_memory_take(most, sizeof *doctor->own_prompt, "prompts",
                                           (void **)&doctor->own_prompt)));
    if (!doctor->serves)
        spec.view = view_prompt;
    spec.viewer = doctor;
    spec.policies.hash_models = doctor->has_record && doctor->config->record.hash_models;
    session->survey = survey;
    MPO_TRY(mpo_policies_survey(&spec, session->comm, survey));
    if (survey->all_loaded && doctor->ranks_fit)
        MPO_TRY(mpo_context_fit(session, survey, &is_shorter));
    if (is_shorter) {
        mpo_policies_survey_release(survey);
        spec.room = mpo_plan_room(session);
        MPO_TRY(mpo_policies_survey(&spec, session->comm, survey));
    }
    for (int32_t i = 0; i < survey->local_count; i++) {
        if (is_told(doctor, i))
            continue;
        note_failure(doctor, DOCTOR_policies, &survey->local[i].load);
        note_failure(doctor, DOCTOR_context, &survey->local[i].prompts);
    }
    note_failure(doctor, DOCTOR_vocabulary, &survey->vocabulary);
    note_remarks(doctor, &survey->remarks);
cleanup:
    return status;
}

/* Needs the size of the vocabulary and a valid number of ranks. */
static void examine_exchange(struct doctor *doctor)
{
    struct mpo_exchange_plan *plan = &doctor->exchange;
    const struct mpo_comm *comm = doctor->session->comm;
    struct mpo_exchange_spec spec =
        mpo_plan_exchange(doctor->config, &doctor->session->placement,
                          &doctor->session->size, doctor->survey.vocab_size);
    if (!doctor->ranks_fit || spec.vocab_size == 0)
        return;
    spec.rows_on_device = mpo_plan_rows_on_device(doctor->session);
    if (!note_status(doctor, DOCTOR_exchange, mpo_exchange_survey(&spec, comm, plan)))
        return;
    if (plan->shared_refuses != NULL)
        doctor_note(
            doctor, DOCTOR_exchange, DOCTOR_WARNING, MPO_OK,
            "logits will be sent as messages, which is slower; to use shared memory, %s",
            plan->shared_refuses);
    else
        doctor_note(doctor, DOCTOR_exchange, DOCTOR_OK, MPO_OK, "%s %s", plan->transport,
                    mpo_pattern_name(plan->pattern));
}

static void examine_threads(struct doctor *doctor)
{
    const struct mpo_host *host = &doctor->own.host;
    int32_t threads = doctor->own.thread_count;
    int32_t ranks = mpo_comm_local_size(doctor->session->comm);
    const char *waiting = getenv("OMP_WAIT_POLICY");
    bool crowded = threads * ranks > host->core_count;
    if (crowded)
        doctor_note(doctor, DOCTOR_threads, DOCTOR_WARNING, MPO_OK,
                    "%s: %d ranks x %d threads on %d cores; lower run.threads or start "
                    "fewer ranks",
                    host->name, ranks, threads, host->core_count);
    if (crowded && (waiting == NULL || strcasecmp(waiting, "passive") != 0))
        doctor_note(doctor, DOCTOR_threads, DOCTOR_WARNING, MPO_OK,
                    "OMP_WAIT_POLICY is not passive: waiting threads slow down working "
                    "ranks; export OMP_WAIT_POLICY=passive before mpirun or srun");
    if (threads > host->usable_core_count)
        doctor_note(doctor, DOCTOR_threads, DOCTOR_WARNING, MPO_OK,
                    "%d threads are bound to %d of %d cores; use mpirun --bind-to none, or "
                    "srun --cpus-per-task=%d",
                    threads, host->usable_core_count, host->core_count, threads);
    doctor_note(doctor, DOCTOR_threads, DOCTOR_OK, MPO_OK, "%d each", threads);
}

/* Computed only if all its parts are known. */
static void examine_device_memory(struct doctor *doctor)
{
    struct doctor_rank *own = &doctor->own;
    const struct mpo_device *device = &doctor->session->device;
    const struct mpo_policies_survey *survey = &doctor->survey;
    if (device->total_bytes == 0 || survey->vocab_size == 0 || !doctor->ranks_fit)
        return;
    struct mpo_needs_device needs =
        mpo_plan_device(doctor->session, survey, &own->host, doctor->exchange.rank_bytes);
    own->device_bytes = mpo_needs_of_device(&needs);
    own->device_rows_bytes = needs.rows_bytes;
    own->device_library_bytes = needs.library_bytes;
    own->device_free_bytes = device->free_bytes;
    if (note_status(doctor, DOCTOR_memory, mpo_needs_check_device(&needs)))
        doctor_note(doctor, DOCTOR_memory, DOCTOR_OK, MPO_OK,
                    "%s, %s %d: a rank needs %llu MB of %llu MB", own->host.name,
                    device->kind, device->index, mpo_text_megabytes(own->device_bytes),
                    mpo_text_megabytes(own->device_free_bytes));
}

static void describe_rank(struct doctor *doctor)
{
    struct doctor_rank *own = &doctor->own;
    const struct mpo_session *session = doctor->session;
    char mpi[128] = "";
    mpo_comm_library_version(mpi, sizeof mpi);
    own->rank = mpo_comm_rank(session->comm);
    own->local_rank = mpo_comm_local_rank(session->comm);
    own->thread_count = session->thread_count;
    own->policy_count = doctor->survey.local_count;
    mpo_host_describe(&own->host);
    own->needs = mpo_needs_of_rank(
        doctor->survey.local, doctor->survey.local_count, &own->host,
        mpo_plan_host_rows(session, &doctor->survey, doctor->exchange.rank_bytes));
    if (session->prompts != NULL)
        own->needs.work_bytes += mpo_plan_warm_up_bytes(
            session->config, &session->size, mpo_prompts_count(session->prompts));
    snprintf(own->versions, sizeof own->versions, "mpo %s (%s), libllama %s, HDF5 %s, %s",
             MPO_VERSION, MPO_GIT_COMMIT, mpo_policy_engine_version(),
             mpo_record_library_version(), mpi);
}

/* ---- together ---- */

/* The same number of entries from every rank, padded with empty ones. */
struct rows {
    const void *own; /* [capacity] */
    size_t row_bytes;
    int32_t capacity;
};

/* out: [W, capacity], on rank zero. Collective. */
static enum mpo_status gather_rows(const struct mpo_comm *comm, const struct rows *rows,
                                   void **out)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = rows->row_bytes * (size_t)rows->capacity;
    if (mpo_comm_rank(comm) == 0)
        status = mpo_memory_take((size_t)mpo_comm_size(comm) * (size_t)rows->capacity,
                                 rows->row_bytes, "answers of all ranks", out);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_comm_gather(comm, rows->own, bytes, *out));
cleanup:
    return status;
}

/* The rows of all policies, rank after rank, on rank zero. Collective.
 * @param own  [own_count] of row_bytes each */
static enum mpo_status gather_policies(struct doctor *doctor, const void *own,
                                       int32_t own_count, size_t row_bytes, void **out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = doctor->session->comm;
    char *padded = NULL;
    int32_t first = 0;
    int32_t most = 0;
    size_t count = 0;
    mpo_placement_block(&doctor->session->placement, 0, &first, &most);
    MPO_TRY(mpo_comm_agree(
        mpo_memory_take((size_t)most, row_bytes, "policies", (void **)&padded)));
    memcpy(padded, own, (size_t)own_count * row_bytes);
    struct rows rows = {padded, row_bytes, most};
    MPO_TRY(gather_rows(comm, &rows, out));
    for (int32_t r = 0; *out != NULL && r < mpo_comm_size(comm); r++) {
        size_t from = (size_t)r * (size_t)most;
        memmove((char *)*out + count * row_bytes, (char *)*out + from * row_bytes,
                (size_t)doctor->rank[r].policy_count * row_bytes);
        count += (size_t)doctor->rank[r].policy_count;
    }
    doctor->policy_count = (int32_t)count;
cleanup:
    free(padded);
    return status;
}

static enum mpo_status gather_ranks(struct doctor *doctor)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = doctor->session->comm;
    const struct mpo_policies_survey *survey = &doctor->survey;
    struct doctor_prompt *padded = NULL;
    struct rows rank = {&doctor->own, sizeof doctor->own, 1};
    MPO_TRY(gather_rows(comm, &rank, (void **)&doctor->rank));
    MPO_TRY(gather_policies(doctor, survey->local, survey->local_count,
                            sizeof *survey->local, (void **)&doctor->policy));
    status = mpo_memory_take((size_t)survey->local_count, sizeof *padded, "prompts",
                             (void **)&padded);
    MPO_TRY(mpo_comm_agree(status));
    /* a policy that was not loaded was not seen */
    for (int32_t i = 0; i < doctor->own_prompt_count; i++)
        padded[doctor->own_prompt[i].policy - survey->local[0].policy] =
            doctor->own_prompt[i];
    MPO_TRY(gather_policies(doctor, padded, survey->local_count, sizeof *padded,
                            (void **)&doctor->prompt));
cleanup:
    free(padded);
    return status;
}

static enum mpo_status gather_findings(struct doctor *doctor)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = doctor->session->comm;
    struct doctor_finding *every = NULL;
    struct rows rows = {doctor->finding, sizeof *doctor->finding, DOCTOR_FINDINGS_MAX};
    MPO_TRY(gather_rows(comm, &rows, (void **)&every));
    int32_t total = every != NULL ? mpo_comm_size(comm) * DOCTOR_FINDINGS_MAX : 0;
    if (every != NULL)
        MPO_NEW(total, &doctor->all);
    for (int check = 0; check < DOCTOR_CHECK_COUNT; check++)
        for (int32_t i = 0; i < total; i++)
            if (every[i].check == check && every[i].level != DOCTOR_NONE)
                doctor->all[doctor->all_count++] = every[i];
cleanup:
    free(every);
    return status;
}

/* Rank zero: the first problem in flow order, which decides the exit code. */
static enum mpo_status first_problem(const struct doctor *doctor)
{
    for (int32_t i = 0; i < doctor->all_count; i++)
        if (doctor->all[i].level == DOCTOR_PROBLEM)
            return doctor->all[i].failure.status;
    return MPO_OK;
}

/* What a record to resume was made with is checked in its place. */
static enum mpo_status adopt_record(struct doctor *doctor)
{
    enum mpo_status status = MPO_OK;
    if (doctor->serves || !doctor->config->fit.resume)
        return MPO_OK;
    MPO_TRY(mpo_fit_adopt(doctor->session, doctor->config));
    MPO_TRY(mpo_comm_agree(mpo_plan_check_fit(doctor->config)));
    MPO_TRY(doctor_find_record(doctor));
cleanup:
    return status;
}

/* In flow order, except ranks, which the other checks need first. */
static enum mpo_status examine_job(struct doctor *doctor, int32_t *verdict)
{
    enum mpo_status status = MPO_OK;
    if (doctor->serves)
        doctor_examine_server(doctor);
    MPO_TRY(examine_ranks(doctor));
    MPO_TRY(adopt_record(doctor));
    MPO_TRY(examine_prompts(doctor));
    MPO_TRY(mpo_comm_agree(mpo_session_describe_policies(doctor->session)));
    MPO_TRY(examine_device(doctor));
    MPO_TRY(mpo_session_choose_threads(doctor->session));
    MPO_TRY(examine_policies(doctor));
    examine_exchange(doctor);
    describe_rank(doctor);
    examine_threads(doctor);
    doctor_examine_limits(doctor);
    examine_device_memory(doctor);
    doctor_compare_models(doctor);
    if (doctor->serves)
        MPO_TRY(doctor_examine_models(doctor));
    MPO_TRY(gather_ranks(doctor));
    if (mpo_comm_job_rank() == 0)
        doctor_examine_job(doctor);
    MPO_TRY(gather_findings(doctor));
    *verdict = first_problem(doctor);
    if (mpo_comm_job_rank() == 0)
        status = doctor_report(doctor, (enum mpo_status) * verdict);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_comm_broadcast(doctor->session->comm, verdict, sizeof *verdict, 0));
cleanup:
    return status;
}

static void close_doctor(struct doctor *doctor)
{
    free(doctor->all);
    free(doctor->prompt);
    free(doctor->own_prompt);
    free(doctor->policy);
    free(doctor->rank);
    mpo_policies_survey_release(&doctor->survey);
    mpo_session_close(&doctor->session);
    mpo_config_close(&doctor->config);
    free(doctor);
}

/* Local. */
static enum mpo_status make_session(struct doctor *doctor)
{
    enum mpo_status status = MPO_OK;
    struct mpo_session_size size = {0};
    MPO_CHECK(!doctor->config->doctor.serve, MPO_ERR_USAGE,
              "doctor.serve: expected it as the flag --serve, found it in the "
              "configuration");
    doctor->config->fit.resume |= doctor->config->doctor.resume;
    if (!doctor->serves) {
        if (!doctor->config->fit.resume)
            MPO_TRY(mpo_plan_check_fit(doctor->config));
        size = mpo_plan_fit(doctor->config);
    } else {
        MPO_TRY(mpo_command_size_serve(doctor->config, &size));
    }
    MPO_TRY(mpo_session_make("doctor", doctor->config, &size, &doctor->session));
cleanup:
    return status;
}

static enum mpo_status read_configuration(struct doctor *doctor, int argc,
                                          char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_words words = {0};
    MPO_TRY(mpo_comm_agree(mpo_config_as_serve("doctor", argc, argv, &words)));
    doctor->serves = strcmp(words.command, "doctor") != 0;
    MPO_TRY(mpo_session_configure(words.command, words.count, words.text, &doctor->config));
    mpo_command_tell_idle(doctor->config, words.command, doctor->serves ? "doctor" : "");
    MPO_TRY(mpo_comm_agree(make_session(doctor)));
cleanup:
    mpo_config_words_release(&words);
    return status;
}

enum mpo_status mpo_command_doctor(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct doctor *doctor = NULL;
    MPO_TRY(
        mpo_comm_agree(mpo_memory_take(1, sizeof *doctor, "the doctor", (void **)&doctor)));
    MPO_TRY(read_configuration(doctor, argc, argv));
    /* From here on failures are findings, including those that ranks agree
     * on by themselves. */
    struct mpo_reporter log = mpo_report_to((struct mpo_reporter){0});
    int32_t verdict = MPO_OK;
    status = examine_job(doctor, &verdict);
    if (status == MPO_OK)
        status = (enum mpo_status)verdict;
    else
        mpo_log_error("doctor stopped before its checks were complete: %s",
                      mpo_error_text());
    mpo_report_to(log);
cleanup:
    if (doctor != NULL)
        close_doctor(doctor);
    return status;
}
