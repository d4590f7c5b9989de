/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that opens model files first. An engine ends the process on some files, or never
 * comes back from them, and what it makes of a file only the engine can tell. So before MPI
 * starts, the program forks a guard that does nothing but wait for requests; for each it
 * forks again, and the fork opens the files without their weights, within limits of memory
 * and processor time. A fork that ends in any other way than by answering was ended by a
 * file.
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
#include <unistd.h>
#include <xxhash.h>

#define REQUEST_BYTES ((size_t)32768)

/* Of one attempt. A vocabulary of 262 000 tokens takes about one second. */
#define PROCESSOR_SECONDS 6

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

static void limit(int resource, rlim_t most)
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

static void attempt(const struct request *request)
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
    while (*adapter != '\0' && *(adapter = next_text(adapter)) != '\0')
        more[spec.more_count++] = (struct mpo_policy_adapter){adapter, 1.0};
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, PROCESSOR_SECONDS);
    limit(RLIMIT_DATA, data_bytes() + MEMORY_BYTES);
    setenv("CUDA_VISIBLE_DEVICES", "", 1); /* a fork has no device */
    signal(SIGXCPU, SIG_DFL);
    mpo_guard_answer(mpo_policy_kinds[request->kind]->try_open(&spec));
}

/* ---- the guard ---- */

static void describe_end(const struct request *request, int ended,
                         struct mpo_failure *verdict)
{
    const char *model = next_text(request->text);
    const char *adapter = next_text(model);
    bool too_slow = WIFSIGNALED(ended) && WTERMSIG(ended) == SIGXCPU;
    char how[96] = "";
    verdict->status = MPO_ERR_DATA;
    if (too_slow)
        snprintf(how, sizeof how, "was not done with it after %d seconds",
                 PROCESSOR_SECONDS);
    else
        snprintf(how, sizeof how, "ended the process (%s)",
                 WIFSIGNALED(ended) ? strsignal(WTERMSIG(ended)) : "exit");
    snprintf(
        verdict->text, sizeof verdict->text,
        "policy '%.63s': the engine cannot open %.320s%s%.320s: it %s; convert or download "
        "the file again, or use another model",
        request->text, model, *adapter != '\0' ? " with " : "", adapter, how);
}

static void serve(int own)
{
    static struct request request;
    while (recv(own, &request, sizeof request, 0) > 0) {
        struct mpo_failure verdict = {0};
        int ended = 0;
        pid_t pid = fork();
        if (pid == 0) {
            verdict_channel = own;
            attempt(&request);
        }
        while (pid > 0 && waitpid(pid, &ended, 0) < 0 && errno == EINTR)
            continue;
        if (pid > 0 && WIFEXITED(ended) && WEXITSTATUS(ended) == 0)
            continue;
        if (pid > 0)
            describe_end(&request, ended, &verdict);
        send(own, &verdict, sizeof verdict, MSG_NOSIGNAL);
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
            serve(pair[1]);
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

/* A guard that is gone guards nothing, and the files are opened without it. */
static bool ask(const struct request *request, struct mpo_failure *verdict)
{
    ssize_t got = -1;
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
    if (has_passed(key) || !ask(&request, &verdict))
        return MPO_OK;
    MPO_TRY(mpo_failure_raise(&verdict));
    if (passed_count < PASSED_MAX)
        passed[passed_count++] = key;
cleanup:
    return status;
}
