/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The job of this process, on a communicator of its own.
 *
 * Whoever starts MPI ends it: mpo_comm_start and mpo_comm_stop for the program, a caller of
 * mpo_comm_begin by itself. All communicators descend from a duplicate with
 * MPI_ERRORS_RETURN, so that an MPI error becomes a status with a text instead of an abort.
 * A job restores what it changes in the process (the timer slack, the alarm's handler).
 */
#include "comm_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/argument.h"
#include "base/memory.h"
#include "mpo/report.h"

/* Until the configuration is read. */
#define DEADLINE_SECONDS 1800.0

/* For sleeps in the wait loop; the kernel's default adds 50 us to each. */
#define TIMER_SLACK_NANOS 1000UL

/* How long a wait spins before it sleeps: about as long as a few sleeps, and on a core of its
 * own as long as another rank's decode may take longer. */
#define SPIN_SECONDS     500e-6
#define OWN_CORE_SECONDS 5e-3

#define NO_JOB                                                                             \
    {                                                                                      \
        .world = MPI_COMM_NULL, .control = MPI_COMM_NULL, .duplicate = MPI_COMM_NULL,      \
        .size = 1, .timer_slack = -1, .doing = "set-up", .step = -1,                       \
        .deadline = DEADLINE_SECONDS, .spin = SPIN_SECONDS                                 \
    }

static struct mpo_comm_job job = NO_JOB;

struct mpo_comm_job *mpo_comm_job(void)
{
    return &job;
}

bool mpo_comm_mpi_is_up(void)
{
    int initialized = 0;
    int finalized = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    return initialized && !finalized;
}

/* The communicator of a job, MPI_COMM_NULL for a process alone. */
static enum mpo_status choose_communicator(const struct mpo_comm_spec *spec, MPI_Comm *out)
{
    enum mpo_status status = MPO_OK;
    bool is_up = mpo_comm_mpi_is_up();
    int between = 0;
    *out = is_up ? MPI_COMM_WORLD : MPI_COMM_NULL;
    if (spec->communicator == NULL)
        return MPO_OK;
    MPO_CHECK(
        is_up, MPO_ERR_USAGE,
        "a communicator is given, but MPI is not initialised; call MPI_Init_thread first");
    *out = *(const MPI_Comm *)spec->communicator;
    MPO_CHECK(
        *out != MPI_COMM_NULL, MPO_ERR_USAGE,
        "the communicator is MPI_COMM_NULL; only ranks that belong to it can begin a job");
    MPO_TRY_MPI(MPI_Comm_test_inter(*out, &between));
    MPO_CHECK(!between, MPO_ERR_USAGE,
              "expected a communicator of one group, found an intercommunicator");
cleanup:
    return status;
}

/* What mpo/comm.h asks of MPI that is up. */
static enum mpo_status check_threads(void)
{
    enum mpo_status status = MPO_OK;
    int level = MPI_THREAD_SINGLE;
    int is_main = 0;
    MPO_TRY_MPI(MPI_Query_thread(&level));
    MPO_TRY_MPI(MPI_Is_thread_main(&is_main));
    MPO_CHECK(
        level >= MPI_THREAD_FUNNELED, MPO_ERR_USAGE,
        "expected MPI with MPI_THREAD_FUNNELED or more, because policies compute with "
        "threads of their own, found MPI_THREAD_SINGLE; call MPI_Init_thread in place "
        "of MPI_Init");
    MPO_CHECK(level > MPI_THREAD_FUNNELED || is_main, MPO_ERR_USAGE,
              "expected the thread that initialised MPI with MPI_THREAD_FUNNELED, found "
              "another; use mpo in that thread, or ask for MPI_THREAD_SERIALIZED");
cleanup:
    return status;
}

static enum mpo_status connect_ranks(MPI_Comm communicator)
{
    enum mpo_status status = MPO_OK;
    char own[MPO_COMM_HOST_BYTES] = "";
    MPO_TRY_MPI(MPI_Comm_rank(communicator, &job.rank));
    MPO_TRY_MPI(MPI_Comm_size(communicator, &job.size));
    gethostname(own, sizeof own - 1);
    MPO_NEW(job.size, &job.host);
    MPO_NEW(MPO_COMM_ROOM_BYTES, &job.room);
    MPO_TRY(mpo_comm_duplicate(communicator, &job.world));
    MPO_TRY_MPI(MPI_Comm_set_errhandler(job.world, MPI_ERRORS_RETURN));
    MPO_TRY_MPI(MPI_Comm_set_name(job.world, "mpo world")); /* for debuggers and tests */
    MPO_TRY(mpo_comm_duplicate(job.world, &job.control));
    MPO_TRY(mpo_comm_gather_in(job.world, own, sizeof own, job.host));
    MPO_TRY(
        mpo_comm_broadcast_in(job.world, job.host, (size_t)job.size * sizeof *job.host, 0));
cleanup:
    return status;
}

enum mpo_status mpo_comm_begin(const struct mpo_comm_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPI_Comm communicator = MPI_COMM_NULL;
    MPO_ARGUMENTS(spec);
    MPO_CHECK(!job.has_begun, MPO_ERR_USAGE,
              "this process has a job already, and can have only one at a time; end it, or "
              "close its session, first");
    MPO_TRY(choose_communicator(spec, &communicator));
    if (communicator != MPI_COMM_NULL)
        MPO_TRY(check_threads());
    job.has_begun = true;
    job.spec = *spec;
    job.spec.communicator = NULL; /* the caller's variable may go out of scope */
    job.timer_slack = prctl(PR_GET_TIMERSLACK, 0UL, 0UL, 0UL, 0UL);
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NANOS, 0UL, 0UL, 0UL);
    if (communicator != MPI_COMM_NULL)
        MPO_TRY(connect_ranks(communicator));
cleanup:
    if (status != MPO_OK && job.has_begun && communicator != MPI_COMM_NULL)
        mpo_comm_end();
    return status;
}

bool mpo_comm_has_begun(void)
{
    return job.has_begun;
}

void mpo_comm_end(void)
{
    if (!job.has_begun)
        return;
    /* Freeing is collective, and after a failure ranks are out of step. */
    if (job.control != MPI_COMM_NULL && !mpo_comm_is_over(job.control))
        MPI_Comm_free(&job.control);
    if (job.world != MPI_COMM_NULL && !mpo_comm_is_over(job.world))
        MPI_Comm_free(&job.world);
    if (job.timer_slack >= 0)
        prctl(PR_SET_TIMERSLACK, (unsigned long)job.timer_slack, 0UL, 0UL, 0UL);
    if (!job.has_failed) /* else MPI may still write there */
        free(job.room);
    free(job.host);
    job = (struct mpo_comm_job)NO_JOB;
}

/* Before MPI has started ranks cannot agree on an error: each process reports its own,
 * under srun only the first task. */
enum mpo_status mpo_comm_start(int *argc, char ***argv)
{
    enum mpo_status status = MPO_OK;
    int provided = 0;
    bool speaks = true;
    int was_started = 0;
    MPI_Initialized(&was_started); /* and still is, or was once: MPI starts once */
    MPO_CHECK(!was_started, MPO_ERR_USAGE,
              "MPI was started in this process already; mpo_comm_start is called once, and "
              "a program with MPI of its own calls mpo_comm_begin");
    MPO_TRY(mpo_comm_check_launch(&speaks));
    /* libllama and OpenMP have threads of their own; only the main one calls MPI. */
    int code = MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
    MPO_CHECK(code == MPI_SUCCESS, MPO_ERR_PEER,
              "MPI did not start; launch mpo with srun --mpi=pmix under Slurm, with mpirun "
              "elsewhere");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPO_TRY(mpo_comm_begin(&(struct mpo_comm_spec){0}));
cleanup:
    if (status != MPO_OK && speaks)
        mpo_report_failure(MPO_REPORT_ERROR, status, mpo_error_text(), mpo_error_trace());
    return status;
}

/* A rank that hangs is named here. Inside MPI_Finalize it would not be, and there mpirun may
 * crash or hang when ranks abort (PMIx 4.2: PMIx_server_finalize). */
static void meet_before_the_end(void)
{
    if (job.size > 1 && job.world != MPI_COMM_NULL && !job.has_failed)
        (void)mpo_comm_barrier(job.world); /* ends the process where it fails */
}

void mpo_comm_stop(void)
{
    if (!mpo_comm_mpi_is_up()) {
        mpo_comm_end();
        return;
    }
    meet_before_the_end();
    mpo_comm_alarm_set("MPI_Finalize", MPO_COMM_HOSTS_ADVICE);
    mpo_comm_end();
    MPI_Finalize();
    mpo_comm_alarm_clear();
}

int32_t mpo_comm_job_size(void)
{
    return job.size;
}

int32_t mpo_comm_job_rank(void)
{
    return job.rank;
}

void mpo_comm_expect(const char *doing, int64_t step, double deadline_seconds)
{
    job.doing = doing;
    job.step = step;
    job.deadline = deadline_seconds;
}

void mpo_comm_own_core(void)
{
    job.spin = OWN_CORE_SECONDS;
}

int32_t mpo_comm_led(void)
{
    return job.led > 0 ? job.led : job.size;
}

void mpo_comm_work_apart(const struct mpo_comm *comm, bool are_apart)
{
    job.leader = are_apart ? mpo_comm_rank(comm) - mpo_comm_group_rank(comm) : 0;
    job.led = are_apart ? mpo_comm_group_size(comm) : 0;
}

void mpo_comm_describe_place(char *text, size_t bytes)
{
    if (job.step < 0)
        snprintf(text, bytes, "%s", job.doing);
    else
        snprintf(text, bytes, "step %lld of %s", (long long)job.step + 1, job.doing);
}

void mpo_comm_library_version(char *text, size_t bytes)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(version, &length);
    version[strcspn(version, ",\n")] = '\0';
    snprintf(text, bytes, "%s", version);
}
