/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that opens model files first. An engine ends the process on some files, or never
 * comes back from them, and what it makes of a file only the engine can tell. So before MPI
 * starts, the program forks a guard that does nothing but wait for requests; for each it
 * forks again, and the fork opens the files without their weights, within limits of memory,
 * processor time and, for a disk that stalls, time. A fork that ends in any other way than by
 * answering was ended by a file.
 *
 * It must begin before MPI: networks pin memory that a fork must not share, and MPI has
 * threads. The guard ends when the process that began it closes its end, or ends itself.
 *
 *     process            guard             fork
 *     files      ->      fork       ->     try_open
 *     verdict    <-                 <-     verdict, end
 *                <-      the fork's signal, if it left no verdict
 */
#include "policy_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define REQUEST_BYTES ((size_t)32768)

/* Of one attempt. A vocabulary of 262 000 tokens takes about one second. */
#define PROCESSOR_SECONDS 6

/* Of one attempt by the clock: a file system that does not answer uses no processor. A busy
 * machine or a slow network takes seconds. */
#define WALL_SECONDS 600

/* For a process that was killed to be gone; one that waits for a disk may never be. */
#define GONE_SECONDS 1

/* Of one attempt, beyond what the guard has: a file that sends the engine round in circles
 * makes it collect without end. */
#define MEMORY_BYTES ((rlim_t)1 << 30)

/* Sets of files that are known to pass. */
#define PASSED_MAX 64

/* What is asked: texts one after the other, each ended by a NUL. */
struct request {
    int32_t kind;
    int32_t bytes;
    char text[REQUEST_BYTES]; /* name, model, adapters, "" */
};

static int channel = -1; /* to the guard, -1: there is none */
static pid_t guard_pid;
static int32_t wall_seconds = WALL_SECONDS;

/* ---- the fork ---- */

static int verdict_channel = -1;

void mpo_guard_answer(enum mpo_status status)
{
    struct mpo_failure verdict = {0};
    mpo_failure_keep(&verdict, status);
    send(verdict_channel, &verdict, sizeof verdict, MSG_NOSIGNAL);
    _exit(0);
}

bool mpo_guard_is_fork(void)
{
    return verdict_channel >= 0;
}

static rlim_t data_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*s %*s %*s %*s %*s %llu", &pages) != 1)
        pages = 0;
    if (file != NULL)
        fclose(file);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void limit_resource(int resource, rlim_t most)
{
    struct rlimit now = {0};
    if (getrlimit(resource, &now) != 0 ||
        (now.rlim_cur != RLIM_INFINITY && now.rlim_cur <= most))
        return;
    now.rlim_cur = most;
    setrlimit(resource, &now);
}

static const char *next_text(const char *text)
{
    return text + strlen(text) + 1;
}

static void attempt_files(const struct request *request)
{
    static struct mpo_policy_adapter more[MPO_POLICY_ADAPTER_COUNT_MAX];
    const char *adapter = next_text(next_text(request->text));
    struct mpo_policy_spec spec = {
        .kind = mpo_policy_kinds[request->kind]->kind,
        .name = request->text,
        .model = next_text(request->text),
        .lora = adapter,
        .lora_scale = 1.0,
        .more = more,
        .system = "",
        .request = "",
        .chat_template = "raw",
        .temperature = 1.0,
    };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_UNBLOCK, &child, NULL);
    while (*adapter != '\0' && *(adapter = next_text(adapter)) != '\0')
        more[spec.more_count++] = (struct mpo_policy_adapter){adapter, 1.0};
    limit_resource(RLIMIT_CORE, 0);
    limit_resource(RLIMIT_CPU, PROCESSOR_SECONDS);
    limit_resource(RLIMIT_DATA, data_bytes() + MEMORY_BYTES);
    setenv("CUDA_VISIBLE_DEVICES", "", 1); /* a fork has no device */
    signal(SIGXCPU, SIG_DFL);
    mpo_guard_answer(mpo_policy_kinds[request->kind]->try_open(&spec));
}

/* ---- the guard ---- */

/* "m.gguf with a.gguf, b.gguf"; those for which there is no room are counted. */
static void list_files(const struct request *request, char *text, size_t capacity)
{
    const char *path = next_text(request->text);
    size_t length = (size_t)snprintf(text, capacity, "%.320s", path);
    const char *between = " with ";
    while (*(path = next_text(path)) != '\0') {
        int32_t left = 0;
        for (const char *one = path; *one != '\0'; one = next_text(one))
            left++;
        if (length + strlen(path) + sizeof " and 256 more" + 2 > capacity) {
            snprintf(text + length, capacity - length, " and %d more", left);
            return;
        }
        length += (size_t)snprintf(text + length, capacity - length, "%s%s", between, path);
        between = ", ";
    }
}

/* @param ended  of waitpid; -1: it did not end */
static void describe_end(const struct request *request, int ended,
                         struct mpo_failure *verdict)
{
    char files[720];
    bool is_stalled = ended == -1;
    bool too_slow = !is_stalled && WIFSIGNALED(ended) && WTERMSIG(ended) == SIGXCPU;
    char how[96] = "";
    list_files(request, files, sizeof files);
    verdict->status = is_stalled ? MPO_ERR_IO : MPO_ERR_DATA;
    if (is_stalled)
        snprintf(how, sizeof how, "did not finish within %d seconds of wall time",
                 wall_seconds);
    else if (too_slow)
        snprintf(how, sizeof how, "did not finish within %d seconds", PROCESSOR_SECONDS);
    else
        snprintf(how, sizeof how, "ended the process (%s)",
                 WIFSIGNALED(ended) ? strsignal(WTERMSIG(ended)) : "exit");
    snprintf(verdict->text, sizeof verdict->text,
             "policy '%.63s': the engine cannot open %s: it %s; %s", request->text, files,
             how,
             is_stalled ? "check whether the file system responds"
                        : "convert or download the file again, or use another model");
}

/* Wait for the fork. SIGCHLD is blocked.
 * @return whether it ended, and how */
static bool wait_for_end(pid_t pid, int32_t seconds, int *ended)
{
    sigset_t child;
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    const time_t deadline = now.tv_sec + seconds + 1;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (;;) {
        pid_t got = waitpid(pid, ended, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR))
            return got == pid;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= deadline)
            return false;
        sigtimedwait(&child, NULL, &(struct timespec){.tv_sec = deadline - now.tv_sec});
    }
}

static void watch_attempt(int own, const struct request *request, pid_t pid)
{
    struct mpo_failure verdict = {0};
    int ended = 0;
    bool has_ended = wait_for_end(pid, wall_seconds, &ended);
    if (has_ended && WIFEXITED(ended) && WEXITSTATUS(ended) == 0)
        return;
    if (!has_ended) {
        int killed = 0;
        kill(pid, SIGKILL);
        wait_for_end(pid, GONE_SECONDS, &killed);
        ended = -1;
    }
    describe_end(request, ended, &verdict);
    send(own, &verdict, sizeof verdict, MSG_NOSIGNAL);
}

static void serve_requests(int own)
{
    static struct request request;
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    while (recv(own, &request, sizeof request, 0) > 0) {
        pid_t pid = fork();
        if (pid == 0) {
            verdict_channel = own;
            attempt_files(&request);
        }
        if (pid > 0)
            watch_attempt(own, &request, pid);
        else
            send(own, &(struct mpo_failure){0}, sizeof(struct mpo_failure), MSG_NOSIGNAL);
    }
}

/* A reader of the program's output waits for all who may write to it. */
static void let_go_of_output(void)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int stream = 0; nothing >= 0 && stream <= 2; stream++)
        dup2(nothing, stream);
}

/* ---- the process ---- */

void mpo_policies_guard_begin(void)
{
    int pair[2] = {-1, -1};
    if (channel >= 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return;
    pid_t parent = getpid();
    guard_pid = fork();
    if (guard_pid == 0) {
        close(pair[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, "mpo guard");
        let_go_of_output();
        if (getppid() == parent)
            serve_requests(pair[1]);
        _exit(0);
    }
    close(pair[1]);
    channel = pair[0];
    if (guard_pid < 0)
        mpo_policies_guard_end();
}

void mpo_policies_guard_end(void)
{
    if (channel >= 0)
        close(channel);
    channel = -1;
    if (guard_pid > 0)
        while (waitpid(guard_pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    guard_pid = 0;
}

static bool add_text(struct request *request, const char *text)
{
    size_t bytes = strlen(text) + 1;
    if ((size_t)request->bytes + bytes > sizeof request->text)
        return false;
    memcpy(request->text + request->bytes, text, bytes);
    request->bytes += (int32_t)bytes;
    return true;
}

void mpo_guard_allow(int32_t seconds)
{
    wall_seconds = seconds;
}

/* A guard that is gone guards nothing, and the files are opened without it. A fork that was
 * killed may have answered just before. */
static bool ask_guard(const struct request *request, struct mpo_failure *verdict)
{
    ssize_t got = -1;
    while (recv(channel, verdict, sizeof *verdict, MSG_DONTWAIT) > 0)
        continue;
    if (send(channel, request, sizeof *request, MSG_NOSIGNAL) < 0)
        return false;
    do
        got = recv(channel, verdict, sizeof *verdict, 0);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof *verdict;
}

/* Whether the same files passed before: policies that differ by their prompts alone share
 * them. A file that was changed is another one. */
static uint64_t passed[PASSED_MAX];
static int32_t passed_count;

static uint64_t key_of(const struct request *request)
{
    uint64_t key = (uint64_t)request->kind;
    for (const char *path = next_text(request->text); *path != '\0';
         path = next_text(path)) {
        struct stat about = {0};
        stat(path, &about);
        const uint64_t version[] = {(uint64_t)about.st_dev, (uint64_t)about.st_ino,
                                    (uint64_t)about.st_size, (uint64_t)about.st_mtim.tv_sec,
                                    (uint64_t)about.st_mtim.tv_nsec};
        key = XXH64(path, strlen(path), key);
        key = XXH64(version, sizeof version, key);
    }
    return key;
}

static bool has_passed(uint64_t key)
{
    for (int32_t i = 0; i < passed_count; i++)
        if (passed[i] == key)
            return true;
    return false;
}

enum mpo_status mpo_guard_try(int32_t kind, const struct mpo_policy_spec *spec)
{
    enum mpo_status status = MPO_OK;
    static struct request request;
    struct mpo_failure verdict = {0};
    bool fits = true;
    if (channel < 0 || mpo_policy_kinds[kind]->try_open == NULL)
        return MPO_OK;
    request.kind = kind;
    request.bytes = 0;
    fits = add_text(&request, spec->name) && add_text(&request, spec->model) &&
           add_text(&request, spec->lora);
    for (int32_t i = 0; i < spec->more_count; i++)
        fits = fits && add_text(&request, spec->more[i].path);
    if (!fits || !add_text(&request, ""))
        return MPO_OK;
    uint64_t key = key_of(&request);
    if (has_passed(key) || !ask_guard(&request, &verdict))
        return MPO_OK;
    MPO_TRY(mpo_failure_raise(&verdict));
    if (passed_count < PASSED_MAX)
        passed[passed_count++] = key;
cleanup:
    return status;
}
