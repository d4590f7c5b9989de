/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for other ranks, but not for ever.
 *
 * MPI notices a process that died and never one that hangs: a stopped rank, a dead file
 * system under a model, a lost node. So every wait of the program is a non-blocking call
 * and a loop of tests with a deadline. At the deadline rank zero asks all ranks to answer, or
 * where groups work apart a group's root its own: the *leader*.
 * Ranks that wait do so from inside their own loop, so a rank that does not answer is the
 * one that the others wait for. This costs nothing while all is well. The other ranks'
 * deadline is longer, so that the leader, which can name the rank, reports first; they
 * report when the leader itself hangs.
 *
 * Calls that have no non-blocking form (splitting communicators, windows, the end) are made
 * when all ranks are there, and run under an alarm. Such a process has nothing to save, so
 * the alarm's handler prints a message and exits; the launcher then ends the other ranks.
 *
 * The loop spins briefly, because the other rank is usually there, and then sleeps between
 * tests, which leaves the cores to ranks that share them. It spins for the length of
 * several sleeps, because a rank that sleeps too long makes the others sleep as well, and
 * for longer where it has a core of its own. Where Open MPI knows that ranks share cores, each of its tests yields.
 */
#include "comm_impl.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/timing.h"

/* How long to sleep between tests after spinning. */
#define SLEEP_NANOS 20000L

/* After a longer gap between two tests this rank itself was stopped: it has not waited. */
#define STILL_SECONDS 1.0

/* How often a waiting rank looks for the roll call, and how long rank zero waits for the
 * answers to it. */
#define LISTEN_SECONDS 0.01
#define ANSWER_SECONDS 1.0

/* Other ranks wait longer than their leader: by this factor, this time, and this time per
 * rank, so that they do not all report at once. */
#define PATIENCE_FACTOR  1.5
#define PATIENCE_SECONDS (2.0 * ANSWER_SECONDS)
#define PATIENCE_STAGGER 0.1

/* How long MPI_Abort may take in an alarm before the process exits without it. */
#define ABORT_SECONDS 3

#define DEADLINE_OPTIONS                                                                   \
    "--run.step_deadline (in set-up and in the first step: --run.setup_deadline)"

/* There is one alarm per process. */
static struct {
    struct sigaction before;
    bool is_set;
    char alarm_text[512];
} watch;

/* How long this rank waits before it gives up; INFINITY: for ever. */
static double seconds_of_patience(void)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    if (job->deadline <= 0.0)
        return INFINITY;
    if (job->rank == job->leader)
        return job->deadline;
    return PATIENCE_FACTOR * job->deadline + PATIENCE_SECONDS +
           PATIENCE_STAGGER * job->rank;
}

/* Without a roll call no rank can be named: the ranks are not connected yet. */
static enum mpo_status give_up_unconnected(const struct mpo_comm_event *event)
{
    char place[96] = "";
    mpo_comm_describe_place(place, sizeof place);
    mpo_error_raise(MPO_ERR_PEER, __FILE__, __LINE__,
                    "%s has not completed for %g s (%s), because another rank does "
                    "not take part in it. " MPO_COMM_HOSTS_ADVICE,
                    event->what, mpo_comm_job()->deadline, place);
    return mpo_comm_fail_here(MPO_ERR_PEER);
}

/* Name the ranks that did not answer and fail. When all did, the event itself is at
 * fault. */
static enum mpo_status give_up_on(const struct mpo_comm_event *event, const bool *answered)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    char place[96] = "";
    char who[512] = "";
    size_t length = 0;
    int32_t count = 0;
    mpo_comm_describe_place(place, sizeof place);
    for (int32_t rank = 0;
         rank < job->size && length < sizeof who - MPO_COMM_HOST_BYTES - 32; rank++) {
        if (answered[rank])
            continue;
        length += (size_t)snprintf(who + length, sizeof who - length, "%srank %d on %s",
                                   count++ > 0 ? ", " : "", rank, job->host[rank]);
    }
    if (count == 0)
        mpo_error_raise(MPO_ERR_PEER, __FILE__, __LINE__,
                        "%s has not completed for %g s (%s), although all ranks respond. "
                        "%s, or raise " DEADLINE_OPTIONS,
                        event->what, job->deadline, place, event->advice);
    else
        mpo_error_raise(MPO_ERR_PEER, __FILE__, __LINE__,
                        "%s %s not responded for %g s (%s). Check %s for a stopped process "
                        "or a stalled file system, or raise " DEADLINE_OPTIONS,
                        who, count == 1 ? "has" : "have", job->deadline, place,
                        count == 1 ? "that host" : "those hosts");
    return mpo_comm_fail_here(MPO_ERR_PEER);
}

static void pause_shortly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = SLEEP_NANOS}, NULL);
}

/* All but those that this rank leads answer to another. */
static enum mpo_status make_roll(bool **answered)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm_job *job = mpo_comm_job();
    MPO_NEW(job->size, answered);
    for (int32_t rank = 0; rank < job->size; rank++)
        (*answered)[rank] = rank < job->leader || rank >= job->leader + mpo_comm_led();
cleanup:
    return status;
}

/* The leader: ask all ranks that it leads, wait a moment for answers. */
static enum mpo_status call_the_roll(const struct mpo_comm_event *event)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm_job *job = mpo_comm_job();
    bool *answered = NULL; /* [W] */
    MPO_TRY(make_roll(&answered));
    answered[job->rank] = true;
    for (int32_t rank = 0; rank < job->size; rank++) {
        MPI_Request request = MPI_REQUEST_NULL;
        if (answered[rank])
            continue;
        MPI_Isend(NULL, 0, MPI_BYTE, rank, MPO_COMM_CALL, job->control, &request);
        MPI_Request_free(&request);
    }
    double until = mpo_timing_now() + ANSWER_SECONDS;
    while (mpo_timing_now() < until) {
        MPI_Status from;
        int arrived = 0;
        MPI_Iprobe(MPI_ANY_SOURCE, MPO_COMM_ANSWER, job->control, &arrived, &from);
        if (!arrived) {
            pause_shortly();
            continue;
        }
        MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, MPO_COMM_ANSWER, job->control,
                 MPI_STATUS_IGNORE);
        answered[from.MPI_SOURCE] = true;
    }
    status = give_up_on(event, answered);
cleanup:
    free(answered);
    return status;
}

/* Other ranks: answer the leader when it asks. @return true when it did: it is about to end
 * the job, so that this rank need not */
static bool listen_for_call(void)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    MPI_Request request = MPI_REQUEST_NULL;
    int called = 0;
    MPI_Iprobe(job->leader, MPO_COMM_CALL, job->control, &called, MPI_STATUS_IGNORE);
    if (!called)
        return false;
    MPI_Recv(NULL, 0, MPI_BYTE, job->leader, MPO_COMM_CALL, job->control,
             MPI_STATUS_IGNORE);
    MPI_Isend(NULL, 0, MPI_BYTE, job->leader, MPO_COMM_ANSWER, job->control, &request);
    MPI_Request_free(&request);
    return true;
}

static enum mpo_status miss_leader(const struct mpo_comm_event *event)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm_job *job = mpo_comm_job();
    bool *answered = NULL; /* [W] */
    MPO_NEW(job->size, &answered);
    for (int32_t rank = 0; rank < job->size; rank++)
        answered[rank] = rank != job->leader;
    status = give_up_on(event, answered);
cleanup:
    free(answered);
    return status;
}

/* When a wait began, and how long it may take. */
struct patience {
    const struct mpo_comm_event *event;
    double start;
    double limit;
    double previous; /* of the last test */
    double listened;
};

static enum mpo_status give_up(const struct mpo_comm_event *event)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    if (job->control == MPI_COMM_NULL)
        return give_up_unconnected(event);
    return job->rank == job->leader ? call_the_roll(event) : miss_leader(event);
}

/* What a waiting rank does between two tests. */
static enum mpo_status stay_patient(struct patience *wait)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm_job *job = mpo_comm_job();
    double now = mpo_timing_now();
    if (now - wait->previous > STILL_SECONDS)
        wait->start += now - wait->previous;
    wait->previous = now;
    if (now - wait->start > wait->limit)
        MPO_TRY(give_up(wait->event));
    if (job->control != MPI_COMM_NULL && job->size > 1 &&
        now - wait->listened > LISTEN_SECONDS) {
        wait->listened = now;
        MPO_TRY(mpo_comm_hear());
        mpo_comm_share_stop();
        if (job->rank != job->leader && listen_for_call())
            wait->limit += job->deadline;
    }
    if (now - wait->start > job->spin)
        pause_shortly();
cleanup:
    return status;
}

enum mpo_status mpo_comm_wait_for(const struct mpo_comm_event *event)
{
    enum mpo_status status = MPO_OK;
    bool done = false;
    MPO_TRY(mpo_comm_check());
    MPO_TRY(event->test(event->self, &done));
    double now = mpo_timing_now();
    struct patience wait = {event, now, seconds_of_patience(), now, now};
    while (!done) {
        MPO_TRY(stay_patient(&wait));
        MPO_TRY(event->test(event->self, &done));
    }
cleanup:
    return status;
}

struct requests {
    MPI_Request *request;
    int count;
};

static enum mpo_status are_complete(void *self, bool *done)
{
    enum mpo_status status = MPO_OK;
    struct requests *all = self;
    int complete = 0;
    MPO_TRY_MPI(MPI_Testall(all->count, all->request, &complete, MPI_STATUSES_IGNORE));
    *done = complete;
cleanup:
    return status;
}

static enum mpo_status wait_for_requests(MPI_Request *requests, int count)
{
    struct requests all = {requests, count};
    /* Where the network is sound, all ranks wait for each other: a bug of mpo. */
    return mpo_comm_wait_for(
        &(struct mpo_comm_event){.test = are_complete,
                                 .self = &all,
                                 .what = "a message between ranks",
                                 .advice = "Check the network between their hosts"});
}

enum mpo_status mpo_comm_wait(MPI_Request *requests, int count)
{
    enum mpo_status status = wait_for_requests(requests, count);
    if (status != MPO_OK)
        mpo_comm_cancel(requests, count);
    return status;
}

enum mpo_status mpo_comm_wait_collective(MPI_Request *request)
{
    return wait_for_requests(request, 1);
}

void mpo_comm_cancel(MPI_Request *requests, int count)
{
    for (int i = 0; i < count; i++) {
        if (requests[i] == MPI_REQUEST_NULL)
            continue;
        MPI_Cancel(&requests[i]);
        MPI_Request_free(&requests[i]);
    }
}

/* ---- calls that have no non-blocking form ---- */

static void on_second_alarm(int number)
{
    (void)number;
    _exit(mpo_status_exit_code(MPO_ERR_PEER));
}

/* MPI_Abort is not meant for signal handlers, but without it srun reports the exit code of
 * the other ranks, which die too. If it hangs, a second alarm exits without it. */
static void on_alarm(int number)
{
    struct sigaction action = {.sa_handler = on_second_alarm};
    sigset_t alarm_only;
    (void)number;
    ssize_t written = write(STDERR_FILENO, watch.alarm_text, strlen(watch.alarm_text));
    (void)written;
    sigaction(SIGALRM, &action, NULL);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &alarm_only, NULL);
    alarm(ABORT_SECONDS);
    MPI_Abort(MPI_COMM_WORLD, mpo_status_exit_code(MPO_ERR_PEER));
    _exit(mpo_status_exit_code(MPO_ERR_PEER));
}

/* A single rank waits for no other, however long MPI takes on a busy machine. A caller with
 * a failure handler keeps its own signal handlers, and has no deadline here: there is no
 * way out of MPI's call, so the handler could be called but nothing returned. */
void mpo_comm_alarm_set(const char *call, const char *advice)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    double seconds = seconds_of_patience();
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval timer = {0};
    if (job->size == 1 || !isfinite(seconds) || job->spec.on_failure != NULL)
        return;
    snprintf(watch.alarm_text, sizeof watch.alarm_text,
             "mpo: rank %d: %.100s has not returned for %.1f s, because "
             "another rank does not take part in it. %s, or raise "
             "--run.setup_deadline\n",
             job->rank, call, seconds, advice);
    sigaction(SIGALRM, &action, &watch.before);
    watch.is_set = true;
    timer.it_value.tv_sec = (time_t)seconds;
    timer.it_value.tv_usec = (suseconds_t)(1e6 * (seconds - floor(seconds)));
    setitimer(ITIMER_REAL, &timer, NULL);
}

void mpo_comm_alarm_clear(void)
{
    struct itimerval none = {0};
    if (!watch.is_set)
        return;
    setitimer(ITIMER_REAL, &none, NULL);
    sigaction(SIGALRM, &watch.before, NULL);
    watch.is_set = false;
}
