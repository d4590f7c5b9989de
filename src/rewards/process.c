/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reward program as a process.
 *
 * MPI runs by the time the configuration is known, and a fork would copy what networks have
 * pinned; vfork copies nothing, and runs no handlers of fork. Until the child has its own
 * program it shares this memory, so it makes system calls only, and signals wait.
 *
 * The child is a process group of its own, so that a Ctrl-C that asks for a stop after the
 * step leaves it alone, and so that all it started can be killed with it. The kernel kills it
 * when this process ends in any other way than by closing it.
 *
 * Programs in Python keep what they print to a pipe until 8 kB are full, and would wait for
 * more requests while we wait for their answers. PYTHONUNBUFFERED makes them write at once.
 */
#define _GNU_SOURCE /* pipe2, vfork */
#include "rewards_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/reason.h"
#include "base/timing.h"

#define SHELL "/bin/sh"

/* After the end of its input. */
#define MOMENT_SECONDS 1.0
#define LOOK_NANOS     5000000L

/* Waits are cut into pieces, because a signal may come just before one begins. */
#define PIECE_SECONDS 1.0

extern char **environ;

/* ---- start ---- */

/* This process's environment with one variable more; the array alone is owned. */
static enum mpo_status copy_environment(char ***out)
{
    enum mpo_status status = MPO_OK;
    static char unbuffered[] = "PYTHONUNBUFFERED=1";
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    MPO_NEW(count + 2, out);
    memcpy(*out, environ, count * sizeof **out);
    (*out)[count] = unbuffered;
cleanup:
    return status;
}

/* What the child needs, made before there is one. */
struct start {
    char *const *arguments;
    char *const *environment;
    int input; /* ends of the pipes that are the child's */
    int output;
    pid_t parent;
    sigset_t mask;
};

/* In the child, on the parent's memory. */
__attribute__((noreturn)) static void become_program(const struct start *start)
{
    struct sigaction usual = {.sa_handler = SIG_DFL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != start->parent || setpgid(0, 0) != 0 ||
        dup2(start->input, STDIN_FILENO) < 0 || dup2(start->output, STDOUT_FILENO) < 0)
        _exit(127);
#ifdef SYS_close_range
    syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0); /* those of MPI */
#endif
    sigaction(SIGPIPE, &usual, NULL); /* exec resets caught signals, not ignored ones */
    sigprocmask(SIG_SETMASK, &start->mask, NULL);
    execve(SHELL, start->arguments, start->environment);
    _exit(127);
}

static pid_t start_child(struct start *start)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &start->mask);
    pid_t pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
    if (pid == 0)
        become_program(start); /* NOLINT(clang-analyzer-unix.Vfork): system calls alone */
    int error = errno;
    sigprocmask(SIG_SETMASK, &start->mask, NULL);
    errno = error;
    return pid;
}

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

enum mpo_status mpo_rewards_process_open(const char *command,
                                         struct mpo_rewards_process *process)
{
    enum mpo_status status = MPO_OK;
    char *const arguments[] = {"sh", "-c", (char *)command, NULL};
    char **environment = NULL;
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    *process = (struct mpo_rewards_process){.input = -1, .output = -1};
    MPO_TRY(copy_environment(&environment));
    MPO_CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0,
              mpo_reason_status(errno, MPO_ERR_MEMORY), "rewards.command: a pipe: %s",
              strerror(errno));
    struct start start = {.arguments = arguments,
                          .environment = environment,
                          .input = in[0],
                          .output = out[1],
                          .parent = getpid()};
    fcntl(in[1], F_SETFL, O_NONBLOCK);
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    process->pid = start_child(&start);
    MPO_CHECK(process->pid > 0, MPO_ERR_MEMORY, "rewards.command: a process: %s",
              strerror(errno));
    process->input = in[1];
    process->output = out[0];
    in[1] = out[0] = -1;
cleanup:
    for (int i = 0; i < 2; i++) {
        close_end(&in[i]);
        close_end(&out[i]);
    }
    free(environment);
    return status;
}

/* ---- bytes in both directions ---- */

/* A program that has gone must not end this process by SIGPIPE, which is a library's guest
 * and leaves its handlers alone. */
static ssize_t write_quietly(int input, const char *bytes, size_t count)
{
    sigset_t pipe_only;
    sigset_t before;
    sigset_t pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    ssize_t sent = write(input, bytes, count);
    int error = errno;
    if (sent < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&pipe_only, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return sent;
}

/* A program that does not read any more says by its end what it makes of that. */
static void send_bytes(struct mpo_rewards_process *process,
                       struct mpo_rewards_traffic *traffic)
{
    ssize_t sent = write_quietly(process->input, traffic->unsent, traffic->unsent_bytes);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        sent = (ssize_t)traffic->unsent_bytes;
    if (sent < 0)
        sent = 0;
    traffic->unsent += sent;
    traffic->unsent_bytes -= (size_t)sent;
}

/* It stays a zombie, so its group cannot be another's yet. */
static bool has_ended(pid_t pid)
{
    siginfo_t about = {0};
    return waitid(P_PID, (id_t)pid, &about, WEXITED | WNOWAIT | WNOHANG) != 0 ||
           about.si_pid == pid;
}

/* Milliseconds of the next piece of a wait, rounded up; 0: the time has come. */
static int next_piece(double until)
{
    double left = until - mpo_timing_now();
    if (left <= 0.0)
        return 0;
    return (int)ceil(1e3 * fmin(left, PIECE_SECONDS));
}

enum mpo_status mpo_rewards_process_move(struct mpo_rewards_process *process,
                                         struct mpo_rewards_traffic *traffic, size_t *got)
{
    enum mpo_status status = MPO_OK;
    ssize_t arrived = -1;
    while (arrived < 0) {
        struct pollfd pipes[] = {
            {.fd = process->output, .events = POLLIN},
            {.fd = traffic->unsent_bytes > 0 ? process->input : -1, .events = POLLOUT}};
        int piece = next_piece(traffic->until);
        MPO_CHECK(piece > 0, MPO_ERR_PEER, "the reward program is late");
        MPO_CHECK(poll(pipes, 2, piece) >= 0 || errno == EINTR, MPO_ERR_IO,
                  "waiting for the reward program: %s", strerror(errno));
        if (pipes[1].revents != 0)
            send_bytes(process, traffic);
        else if (pipes[0].revents == 0 && has_ended(process->pid))
            arrived = 0; /* processes that it started may hold the pipe */
        if (pipes[0].revents != 0)
            arrived = read(process->output, traffic->room, traffic->room_bytes);
        MPO_CHECK(arrived >= 0 || pipes[0].revents == 0 || errno == EAGAIN ||
                      errno == EINTR,
                  MPO_ERR_IO, "reading from the reward program: %s", strerror(errno));
    }
    *got = (size_t)arrived;
cleanup:
    return status;
}

/* ---- end ---- */

void mpo_rewards_process_close(struct mpo_rewards_process *process, char *how,
                               size_t how_bytes)
{
    int ended = 0;
    pid_t waited = 0;
    close_end(&process->input);
    close_end(&process->output);
    if (process->pid <= 0)
        return;
    double until = mpo_timing_now() + MOMENT_SECONDS;
    while (!has_ended(process->pid) && mpo_timing_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NANOS}, NULL);
    bool ends_by_itself = has_ended(process->pid);
    kill(-process->pid, SIGKILL);
    do
        waited = waitpid(process->pid, &ended, 0);
    while (waited < 0 && errno == EINTR);
    process->pid = 0;
    if (how == NULL)
        return;
    if (!ends_by_itself)
        snprintf(how, how_bytes, "it closed its output and kept running");
    else if (waited > 0 && WIFSIGNALED(ended))
        snprintf(how, how_bytes, "signal %d (%s)", WTERMSIG(ended),
                 strsignal(WTERMSIG(ended)));
    else
        snprintf(how, how_bytes, "exit code %d%s", WEXITSTATUS(ended),
                 WEXITSTATUS(ended) == 127 ? ": sh finds no such command" : "");
}
