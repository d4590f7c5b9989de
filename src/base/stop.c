/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first request to stop sets one variable, which is all that a signal handler may
 * safely do; commands with steps look at it between steps. It is answered at once by one
 * line, with write(2) alone.
 *
 * Launchers often deliver one request twice in quick succession (to a process and to its
 * group), so a signal shortly after the first one is the same request. At a time limit
 * Slurm signals the step, then the job, and srun forwards its own signal: they may be a
 * second apart. For Ctrl-C the time is shorter.
 */
#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SAME_KEYS_SECONDS    0.1 /* SIGINT */
#define SAME_REQUEST_SECONDS 2.0 /* the others */

static const struct stop_signal {
    int number;
    const char *name;
} stop_signals[] = {
    {SIGINT, "SIGINT"},
    {SIGTERM, "SIGTERM"},
    {SIGUSR1, "SIGUSR1"},
    {SIGHUP, "SIGHUP"},
};
#define STOP_SIGNAL_COUNT (sizeof stop_signals / sizeof *stop_signals)

/* Stands for a signal's number. */
#define REQUEST 4096

static volatile sig_atomic_t caught;
static struct timespec caught_at;
static volatile sig_atomic_t is_heard; /* it came to another process, and soon here */
static const char *volatile answer;
static volatile sig_atomic_t is_from_parent;
static void (*volatile told)(void *argument);
static void *volatile told_argument;

static void give_answer(void)
{
    int error = errno;
    const char *text = answer;
    if (text != NULL && write(STDERR_FILENO, text, strlen(text)) < 0)
        answer = NULL; /* standard error is closed */
    errno = error;
}

static void call_told(void)
{
    int error = errno;
    void (*call)(void *argument) = told;
    if (call != NULL)
        call(told_argument);
    errno = error;
}

/* Launchers send to all ranks, so this one may have heard of it from another. */
static void note_heard(const siginfo_t *info)
{
    if (!is_heard || is_from_parent || info == NULL || info->si_pid != getppid())
        return;
    is_from_parent = 1;
    call_told();
}

static void note_signal(int number, siginfo_t *info, void *context)
{
    struct timespec now = {0};
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (caught == 0) {
        caught = number;
        caught_at = now;
        is_from_parent = info != NULL && info->si_pid == getppid();
        give_answer();
        call_told();
        return;
    }
    double since = (double)(now.tv_sec - caught_at.tv_sec) +
                   1e-9 * (double)(now.tv_nsec - caught_at.tv_nsec);
    bool is_of_keys = number == SIGINT && !is_heard;
    if (since < (is_of_keys ? SAME_KEYS_SECONDS : SAME_REQUEST_SECONDS)) {
        note_heard(info);
        return;
    }
    signal(number, SIG_DFL);
    raise(number);
}

void mpo_stop_catch(void)
{
    struct sigaction action = {.sa_sigaction = note_signal,
                               .sa_flags = SA_RESTART | SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < STOP_SIGNAL_COUNT; i++)
        sigaddset(&action.sa_mask, stop_signals[i].number);
    for (size_t i = 0; i < STOP_SIGNAL_COUNT; i++) {
        struct sigaction before;
        int number = stop_signals[i].number;
        bool is_ignored =
            sigaction(number, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
        if (number != SIGHUP || !is_ignored) /* nohup */
            sigaction(number, &action, NULL);
    }
}

void mpo_stop_say(const char *text)
{
    bool has_come = mpo_stop_is_caught(); /* before there was an answer */
    answer = text;
    if (has_come)
        give_answer();
}

void mpo_stop_tell(void (*tell)(void *argument), void *argument)
{
    told = NULL;
    told_argument = argument;
    told = tell;
}

bool mpo_stop_is_from_parent(void)
{
    return is_from_parent != 0;
}

void mpo_stop_request(void)
{
    if (caught == 0)
        caught = REQUEST;
}

void mpo_stop_forget(void)
{
    if (caught == REQUEST)
        caught = 0;
}

void mpo_stop_hear(int signal_number)
{
    if (caught != 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &caught_at);
    is_heard = 1;
    caught = signal_number;
    give_answer();
    call_told();
}

bool mpo_stop_is_caught(void)
{
    return caught != 0 && caught != REQUEST;
}

int mpo_stop_signal(void)
{
    return caught;
}

const char *mpo_stop_name(int signal_number)
{
    for (size_t i = 0; i < STOP_SIGNAL_COUNT; i++)
        if (stop_signals[i].number == signal_number)
            return stop_signals[i].name;
    return "a request";
}
