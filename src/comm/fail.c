/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank that cannot continue.
 *
 * Inside the step loop ranks are no longer in step, so they cannot agree on an error. The
 * program prints the message and calls MPI_Abort, because any other way out would hide the
 * exit code. A caller with a failure handler keeps its process: the rank sends its message
 * to all others, which receive it in their waits; each of them calls its handler and
 * returns. Communicators are not freed then, because freeing them is collective.
 */
#include "comm_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mpo/report.h"

/* An error text with its place, host and rank. */
#define TEXT_BYTES (MPO_ERROR_TEXT_BYTES + 512)

static void add_place(char text[TEXT_BYTES])
{
    const struct mpo_comm_job *job = mpo_comm_job();
    char place[128] = "";
    mpo_comm_describe_place(place, sizeof place);
    if (job->size > 1)
        snprintf(text, TEXT_BYTES, "%s (in %s, on %s)", mpo_error_text(), place,
                 job->host[job->rank]);
    else
        snprintf(text, TEXT_BYTES, "%s (in %s)", mpo_error_text(), place);
}

static _Noreturn void end_process(enum mpo_status status, const char *text)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    char line[TEXT_BYTES + 32] = "";
    int code = mpo_status_exit_code(status);
    if (job->size > 1)
        snprintf(line, sizeof line, "rank %d: %s", job->rank, text);
    else
        snprintf(line, sizeof line, "%s", text);
    mpo_report_failure(MPO_REPORT_FATAL, status, line, mpo_error_trace());
    fflush(NULL);
    if (job->last_words != NULL)
        job->last_words(job->last_argument);
    if (job->size > 1)
        MPI_Abort(job->world != MPI_COMM_NULL ? job->world : MPI_COMM_WORLD, code);
    exit(code);
}

/* The notice lives as long as the job, so nothing waits for the sends to complete. */
static void tell_others(enum mpo_status status, const char *text)
{
    struct mpo_comm_job *job = mpo_comm_job();
    job->notice.status = (int32_t)status;
    snprintf(job->notice.text, sizeof job->notice.text, "%s", text);
    for (int32_t rank = 0; rank < job->size; rank++) {
        MPI_Request request = MPI_REQUEST_NULL;
        if (rank == job->rank)
            continue;
        MPI_Isend(&job->notice, (int)sizeof job->notice, MPI_BYTE, rank, MPO_COMM_NOTICE,
                  job->control, &request);
        MPI_Request_free(&request);
    }
}

static enum mpo_status fail_with(enum mpo_status status, const char *text, bool is_told)
{
    struct mpo_comm_job *job = mpo_comm_job();
    if (job->has_failed)
        return status;
    if (job->spec.on_failure == NULL)
        end_process(status, text);
    job->has_failed = true;
    if (!is_told && job->control != MPI_COMM_NULL)
        tell_others(status, text);
    job->spec.on_failure(job->spec.argument, status, text);
    return status;
}

/* Not by MPI_Abort: another thread may be inside MPI, and mpirun (PMIx 4.2) crashes when ranks
 * abort while it ends the job for one that is gone. It ends the others for this exit too. */
void mpo_comm_leave(enum mpo_status status, const char *text)
{
    mpo_report_failure(MPO_REPORT_FATAL, status, text, "");
    fflush(NULL);
    _exit(mpo_status_exit_code(status));
}

void mpo_comm_last_words(void (*say)(void *argument), void *argument)
{
    struct mpo_comm_job *job = mpo_comm_job();
    job->last_words = say;
    job->last_argument = argument;
}

void mpo_comm_explain(enum mpo_status status)
{
    if (mpo_error_text()[0] == '\0')
        mpo_error_raise(status, __FILE__, __LINE__, "%s", mpo_status_sentence(status));
}

enum mpo_status mpo_comm_fail(enum mpo_status status)
{
    char text[TEXT_BYTES] = "";
    mpo_comm_explain(status);
    add_place(text);
    return fail_with(status, text, false);
}

enum mpo_status mpo_comm_fail_here(enum mpo_status status)
{
    char text[TEXT_BYTES] = "";
    snprintf(text, sizeof text, "%s", mpo_error_text());
    return fail_with(status, text, false);
}

void mpo_comm_abort(enum mpo_status status)
{
    char text[TEXT_BYTES] = "";
    mpo_comm_explain(status);
    add_place(text);
    fail_with(status, text, false);
    end_process(status, text);
}

enum mpo_status mpo_comm_check(void)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(!mpo_comm_job()->has_failed, MPO_ERR_PEER,
              "the job has already failed; close its session");
cleanup:
    return status;
}

bool mpo_comm_is_over(MPI_Comm communicator)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    if (communicator == MPI_COMM_NULL)
        return job->has_failed;
    return job->has_failed || !job->has_begun || !mpo_comm_mpi_is_up();
}

enum mpo_status mpo_comm_hear(void)
{
    enum mpo_status status = MPO_OK;
    struct mpo_comm_job *job = mpo_comm_job();
    struct mpo_comm_notice notice = {0};
    MPI_Status from;
    int has_come = 0;
    if (job->spec.on_failure == NULL) /* that rank's MPI_Abort ends this process */
        return MPO_OK;
    MPO_TRY_MPI(
        MPI_Iprobe(MPI_ANY_SOURCE, MPO_COMM_NOTICE, job->control, &has_come, &from));
    if (!has_come)
        return MPO_OK;
    MPO_TRY_MPI(MPI_Recv(&notice, (int)sizeof notice, MPI_BYTE, from.MPI_SOURCE,
                         MPO_COMM_NOTICE, job->control, MPI_STATUS_IGNORE));
    mpo_error_raise(MPO_ERR_PEER, __FILE__, __LINE__, "rank %d on %s failed: %s",
                    from.MPI_SOURCE, job->host[from.MPI_SOURCE], notice.text);
    status = fail_with(MPO_ERR_PEER, mpo_error_text(), true);
cleanup:
    return status;
}
