/*
 * Waiting for other ranks, but not for ever.
 *
 * MPI notices a process that died and never one that hangs: a stopped rank, a dead file
 * system under a model, a lost node. So every wait of the program is a non-blocking call
 * and a loop of tests with a deadline. When it passes on rank zero, rank zero calls the
 * roll: ranks that wait themselves answer from inside their loop, and whoever does not
 * answer is the one that everybody waits for. That costs nothing while all is well; the
 * last step that all ranks completed is known without a message, because steps are
 * collective. The others' deadline is longer, so that rank zero, which can name the
 * culprit, speaks first; they speak when rank zero itself hangs.
 *
 * Calls that have no non-blocking form (making communicators and windows, the end) run
 * under an alarm. There is nothing to save in such a process, so its handler says what
 * stood still and leaves; the launcher then ends the others.
 *
 * The loop spins for a moment, because the peer is usually there, and then sleeps between
 * tests: spinning would take the cores from ranks that share them. The moment is several
 * sleeps long, for a rank that oversleeps sends its peers to sleep as well; Open MPI yields
 * by itself in every test where it knows that ranks share cores.
 */
#include "comm_impl.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/timing.h"

#define HOST_BYTES 64

/* Before the configuration says otherwise. */
#define DEADLINE_SECONDS 1800.0

/* Spinning, then sleeping this long between tests. */
#define SPIN_SECONDS 500e-6
#define SLEEP_NANOS  20000L

/* A rank whose own loop stood still for longer, because it was stopped, has not waited. */
#define STILL_SECONDS 1.0

/* A waiting rank looks for the roll call this often; rank zero waits this long for answers.
 */
#define LISTEN_SECONDS 0.01
#define ANSWER_SECONDS 1.0

/* Others wait longer than rank zero by this factor and this time, one after another. */
#define PATIENCE_FACTOR  1.5
#define PATIENCE_SECONDS (2.0 * ANSWER_SECONDS)
#define PATIENCE_STAGGER 0.1

/* MPI_Abort in a process that stands still has this long. */
#define ABORT_SECONDS 3

enum control_tag { TAG_CALL = 1, TAG_ANSWER = 2 };

/* One wait of the process at a time, like errno's one error. */
static struct {
    MPI_Comm control;         /* roll calls alone */
    char (*host)[HOST_BYTES]; /* [W] */
    const char *doing;        /* a literal */
    const char *culprit;      /* of the wait under way, a literal */
    int64_t step;             /* -1 outside steps */
    double deadline;          /* seconds; 0: none */
    char alarm_text[256];
} watch = {
    .control = MPI_COMM_NULL, .doing = "set-up", .step = -1, .deadline = DEADLINE_SECONDS};

void mpo_comm_expect(const char *doing, int64_t step, double deadline_seconds)
{
    watch.doing = doing;
    watch.step = step;
    watch.deadline = deadline_seconds;
}

/* How long this rank waits before it speaks; INFINITY for ever. */
static double patience(void)
{
    int32_t rank = mpo_comm_job_rank();
    if (watch.deadline <= 0.0)
        return INFINITY;
    if (rank == 0)
        return watch.deadline;
    return PATIENCE_FACTOR * watch.deadline + PATIENCE_SECONDS + PATIENCE_STAGGER * rank;
}

/* "in step 12 of fit (11 are complete)", counted as fit prints them; "in set-up". */
static void describe_place(char *text, size_t bytes)
{
    if (watch.step < 0)
        snprintf(text, bytes, "in %s", watch.doing);
    else if (watch.step == 0)
        snprintf(text, bytes, "in step 1, the first of %s", watch.doing);
    else
        snprintf(text, bytes, "in step %lld of %s (%lld are complete)",
                 (long long)watch.step + 1, watch.doing, (long long)watch.step);
}

/* Name who did not answer and end the job. */
static _Noreturn void give_up_on(const bool *answered, int32_t size)
{
    char place[128] = "";
    char who[512] = "";
    size_t length = 0;
    int32_t count = 0;
    describe_place(place, sizeof place);
    for (int32_t rank = 0; rank < size && length < sizeof who - HOST_BYTES - 32; rank++) {
        if (answered[rank])
            continue;
        length += (size_t)snprintf(who + length, sizeof who - length, "%srank %d on %s",
                                   count++ > 0 ? ", " : "", rank, watch.host[rank]);
    }
    mpo_error_raise(MPO_ERR_PEER, __FILE__, __LINE__,
                    "no answer for %g s %s from %s; look there for what stands still; "
                    "longer waits: --run.setup_deadline, --run.step_deadline",
                    watch.deadline, place, count > 0 ? who : watch.culprit);
    mpo_comm_abort(MPO_ERR_PEER);
}

static void pause_shortly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = SLEEP_NANOS}, NULL);
}

/* Rank zero: ask everybody, wait a moment for answers. */
static _Noreturn void call_the_roll(void)
{
    int32_t size = mpo_comm_job_size();
    bool *answered = calloc((size_t)size, sizeof *answered);
    if (answered == NULL)
        mpo_comm_abort(MPO_ERR_MEMORY);
    answered[0] = true;
    for (int32_t rank = 1; rank < size; rank++) {
        MPI_Request request = MPI_REQUEST_NULL;
        MPI_Isend(NULL, 0, MPI_BYTE, rank, TAG_CALL, watch.control, &request);
        MPI_Request_free(&request);
    }
    double until = mpo_timing_now() + ANSWER_SECONDS;
    while (mpo_timing_now() < until) {
        MPI_Status from;
        int arrived = 0;
        MPI_Iprobe(MPI_ANY_SOURCE, TAG_ANSWER, watch.control, &arrived, &from);
        if (!arrived) {
            pause_shortly();
            continue;
        }
        MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, TAG_ANSWER, watch.control,
                 MPI_STATUS_IGNORE);
        answered[from.MPI_SOURCE] = true;
    }
    give_up_on(answered, size);
}

/* Others: answer rank zero when it calls. @return true when it did: it is about to end the
 * job, and there is nothing left to complain about */
static bool listen_for_call(void)
{
    MPI_Request request = MPI_REQUEST_NULL;
    int called = 0;
    MPI_Iprobe(0, TAG_CALL, watch.control, &called, MPI_STATUS_IGNORE);
    if (!called)
        return false;
    MPI_Recv(NULL, 0, MPI_BYTE, 0, TAG_CALL, watch.control, MPI_STATUS_IGNORE);
    MPI_Isend(NULL, 0, MPI_BYTE, 0, TAG_ANSWER, watch.control, &request);
    MPI_Request_free(&request);
    return true;
}

static _Noreturn void miss_rank_zero(void)
{
    int32_t size = mpo_comm_job_size();
    bool *answered = calloc((size_t)size, sizeof *answered);
    for (int32_t rank = 1; answered != NULL && rank < size; rank++)
        answered[rank] = true;
    if (answered == NULL)
        mpo_comm_abort(MPO_ERR_MEMORY);
    give_up_on(answered, size);
}

enum mpo_status mpo_comm_wait_for(const struct mpo_comm_event *event)
{
    enum mpo_status status = MPO_OK;
    bool done = false;
    MPO_TRY(event->test(event->self, &done));
    watch.culprit = event->culprit;
    double start = mpo_timing_now();
    double limit = patience();
    double listened = start;
    double previous = start;
    while (!done) {
        double now = mpo_timing_now();
        if (now - previous > STILL_SECONDS)
            start += now - previous;
        previous = now;
        if (now - start > limit && mpo_comm_job_rank() == 0)
            call_the_roll();
        if (now - start > limit)
            miss_rank_zero();
        if (mpo_comm_job_rank() != 0 && now - listened > LISTEN_SECONDS) {
            listened = now;
            if (listen_for_call())
                limit += watch.deadline;
        }
        if (now - start > SPIN_SECONDS)
            pause_shortly();
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

enum mpo_status mpo_comm_wait(MPI_Request *requests, int count)
{
    struct requests all = {requests, count};
    return mpo_comm_wait_for(&(struct mpo_comm_event){
        are_complete, &all, "a message, though all ranks wait (a bug in mpo)"});
}

/* ---- calls that have no non-blocking form ---- */

static void on_second_alarm(int number)
{
    (void)number;
    _exit(mpo_status_exit_code(MPO_ERR_PEER));
}

/* MPI_Abort is not made for a signal handler, but only it tells srun the code: srun takes
 * the others' death for the job's otherwise. Should it hang, a second alarm leaves without
 * it. */
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

void mpo_comm_alarm_set(const char *call)
{
    double seconds = patience();
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval timer = {0};
    if (!isfinite(seconds))
        return;
    snprintf(watch.alarm_text, sizeof watch.alarm_text,
             "mpo: rank %d: %.100s did not return within %.1f s: a rank stands still; "
             "longer waits: --run.setup_deadline\n",
             mpo_comm_job_rank(), call, seconds);
    sigaction(SIGALRM, &action, NULL);
    timer.it_value.tv_sec = (time_t)seconds;
    timer.it_value.tv_usec = (suseconds_t)(1e6 * (seconds - floor(seconds)));
    setitimer(ITIMER_REAL, &timer, NULL);
}

void mpo_comm_alarm_clear(void)
{
    struct itimerval none = {0};
    setitimer(ITIMER_REAL, &none, NULL);
}

/* ---- life ---- */

enum mpo_status mpo_comm_watch_open(void)
{
    enum mpo_status status = MPO_OK;
    char own[HOST_BYTES] = "";
    MPI_Request request = MPI_REQUEST_NULL;
    /* Else the kernel adds 50 us to every sleep of the wait loop. */
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    gethostname(own, sizeof own - 1);
    MPO_NEW(mpo_comm_job_size(), &watch.host);
    MPO_TRY_MPI_ALARM(MPI_Comm_dup(MPI_COMM_WORLD, &watch.control));
    MPO_TRY_MPI(MPI_Iallgather(own, HOST_BYTES, MPI_BYTE, watch.host, HOST_BYTES, MPI_BYTE,
                               MPI_COMM_WORLD, &request));
    MPO_TRY(mpo_comm_wait(&request, 1));
cleanup:
    return status;
}

void mpo_comm_watch_close(void)
{
    if (watch.control != MPI_COMM_NULL)
        MPI_Comm_free(&watch.control);
    free(watch.host);
    watch.host = NULL;
}
