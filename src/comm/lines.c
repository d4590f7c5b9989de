/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines live beside MPI and are never used inside a step. The root's watcher reads them; a
 * rank that follows reads its own while it sleeps.
 */
#include "lines.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/stop.h"
#include "base/thread.h"
#include "base/timing.h"
#include "mpo/report.h"
#include "star.h"

/* What a rank says to its root; a signal's number is added to the last. */
enum said {
    SAYS_AWAKE = 1,
    SAYS_ENDS = 2,
    SAYS_DONE = 3,
    SAYS_STOP = 128,
};

/* How often the watcher looks for ranks that do not answer, in parts of their patience. */
#define LOOK_SHARE 0.25

struct mpo_lines {
    int32_t root;  /* of the group, in the job */
    int32_t count; /* ranks of the group, consecutive from the root on */
    int32_t size;  /* of the job */
    int *socket;   /* [size] of the other ranks at the root, elsewhere of the root */
    int stop;      /* an event that ends the watcher; -1: none */
    pthread_t watcher;
    bool has_watcher;
    struct mpo_lines_watch watch;
    pthread_mutex_t lock;
    bool is_ignored;
    double woken; /* when the others were, for the round trip; 0: never */
    int64_t wake_count;
    int64_t *answer_count; /* [count] at the root: wakes that a rank has answered */
    int64_t *done_count;   /* [count] at the root: pieces of work that a rank has done */
    int32_t awake;         /* ranks that have answered the last one */
    double round_trip;     /* seconds */
};

/* ---- making them ---- */

static enum mpo_status make_lines(const struct mpo_comm *comm, struct mpo_lines **out)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(1, out);
    struct mpo_lines *lines = *out;
    lines->root = mpo_comm_rank(comm) - mpo_comm_group_rank(comm);
    lines->count = mpo_comm_group_size(comm);
    lines->size = mpo_comm_size(comm);
    lines->stop = -1;
    pthread_mutex_init(&lines->lock, NULL);
    MPO_NEW(lines->size, &lines->socket);
    MPO_NEW(lines->count, &lines->answer_count);
    MPO_NEW(lines->count, &lines->done_count);
    for (int32_t rank = 0; rank < lines->size; rank++)
        lines->socket[rank] = -1;
cleanup:
    return status;
}

enum mpo_status mpo_lines_open(const struct mpo_comm *comm, struct mpo_lines **out)
{
    enum mpo_status status = MPO_OK;
    bool are_connected = false;
    *out = NULL;
    if (mpo_comm_group_size(comm) == 1)
        return MPO_OK;
    MPO_TRY(mpo_comm_agree(make_lines(comm, out)));
    MPO_TRY(mpo_star_open(comm, (*out)->root, (*out)->socket, &are_connected));
    if (are_connected)
        goto cleanup;
    if (mpo_comm_rank(comm) == 0)
        mpo_report(MPO_REPORT_WARNING,
                   "no sockets between the ranks' hosts (a firewall?): waiting "
                   "ranks use some processor time, and a lost rank is noticed only "
                   "after its deadline");
    mpo_lines_close(out);
cleanup:
    if (status != MPO_OK)
        mpo_lines_close(out);
    return status;
}

void mpo_lines_unwatch(struct mpo_lines *lines)
{
    const uint64_t one = 1;
    if (lines == NULL || !lines->has_watcher)
        return;
    ssize_t written = write(lines->stop, &one, sizeof one);
    (void)written;
    pthread_join(lines->watcher, NULL);
    lines->has_watcher = false;
}

/* The root is not waited for: it may have gone. Safe in a signal's handler. */
static void say_to_root(const struct mpo_lines *lines, int what)
{
    const unsigned char byte = (unsigned char)what;
    int socket = lines->socket[lines->root];
    ssize_t sent = socket >= 0 ? send(socket, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    (void)sent; /* if the root is gone, the next wait says so */
}

void mpo_lines_close(struct mpo_lines **lines)
{
    struct mpo_lines *self = *lines;
    if (self == NULL)
        return;
    mpo_lines_unwatch(self);
    if (self->socket != NULL)
        say_to_root(self, SAYS_ENDS); /* a root has no socket to itself */
    for (int32_t rank = 0; self->socket != NULL && rank < self->size; rank++)
        if (self->socket[rank] >= 0)
            close(self->socket[rank]);
    if (self->stop >= 0)
        close(self->stop);
    pthread_mutex_destroy(&self->lock);
    free(self->done_count);
    free(self->answer_count);
    free(self->socket);
    free(self);
    *lines = NULL;
}

/* ---- the root ---- */

/* The rank has answered so many wakes. */
static void note_answers(struct mpo_lines *lines, int32_t member, int32_t count)
{
    pthread_mutex_lock(&lines->lock);
    lines->answer_count[member] += count;
    lines->awake += lines->answer_count[member] == lines->wake_count;
    if (lines->awake == lines->count - 1)
        lines->round_trip = mpo_timing_now() - lines->woken;
    pthread_mutex_unlock(&lines->lock);
}

static void note_done(struct mpo_lines *lines, int32_t member, int32_t count)
{
    pthread_mutex_lock(&lines->lock);
    lines->done_count[member] += count;
    pthread_mutex_unlock(&lines->lock);
}

/* What a rank says. @return false when it is gone */
static bool hear_rank(struct mpo_lines *lines, int32_t member)
{
    unsigned char byte[64];
    int32_t answers = 0;
    int32_t done = 0;
    ssize_t bytes =
        recv(lines->socket[lines->root + member], byte, sizeof byte, MSG_DONTWAIT);
    if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR))
        return false;
    for (ssize_t i = 0; i < bytes; i++) {
        answers += byte[i] == SAYS_AWAKE;
        done += byte[i] == SAYS_DONE;
        if (byte[i] == SAYS_ENDS)
            mpo_lines_ignore(lines);
        if (byte[i] > SAYS_STOP)
            mpo_stop_hear(byte[i] - SAYS_STOP);
    }
    if (answers > 0)
        note_answers(lines, member, answers);
    if (done > 0)
        note_done(lines, member, done);
    return true;
}

/* Of the first rank alone: its loss ends the job. */
static void tell_lost(struct mpo_lines *lines, const char *text)
{
    pthread_mutex_lock(&lines->lock);
    bool tells = !lines->is_ignored;
    lines->is_ignored = true;
    pthread_mutex_unlock(&lines->lock);
    if (tells)
        lines->watch.lost(lines->watch.argument, text);
}

static void tell_gone(struct mpo_lines *lines, int32_t member)
{
    char text[128] = "";
    snprintf(text, sizeof text,
             "rank %d was lost while serving; its host's log may say why",
             lines->root + member);
    tell_lost(lines, text);
}

/* A rank that was woken long ago and has not said that it is awake; -1: none. */
static int32_t find_silent(struct mpo_lines *lines)
{
    int32_t silent = -1;
    pthread_mutex_lock(&lines->lock);
    bool is_late = lines->woken > 0.0 &&
                   mpo_timing_now() - lines->woken >= lines->watch.patience_seconds;
    for (int32_t member = 1; is_late && member < lines->count && silent < 0; member++)
        if (lines->answer_count[member] < lines->wake_count)
            silent = member;
    pthread_mutex_unlock(&lines->lock);
    return silent;
}

static void look_for_silent(struct mpo_lines *lines)
{
    char text[192] = "";
    int32_t silent = lines->watch.patience_seconds > 0.0 ? find_silent(lines) : -1;
    if (silent < 0)
        return;
    snprintf(
        text, sizeof text,
        "rank %d has not responded for %.0f s; check its host for a stopped process, or "
        "raise --run.step_deadline",
        lines->root + silent, lines->watch.patience_seconds);
    tell_lost(lines, text);
}

static void *watch_ranks(void *argument)
{
    struct mpo_lines *lines = argument;
    double patience = lines->watch.patience_seconds;
    int limit = patience > 0.0 ? (int)ceil(1e3 * LOOK_SHARE * patience) : -1;
    struct pollfd *poller = calloc((size_t)lines->count, sizeof *poller);
    if (poller == NULL)
        return NULL;
    poller[0] = (struct pollfd){.fd = lines->stop, .events = POLLIN};
    for (int32_t member = 1; member < lines->count; member++)
        poller[member] =
            (struct pollfd){.fd = lines->socket[lines->root + member], .events = POLLIN};
    while (poller[0].revents == 0) {
        if (poll(poller, (nfds_t)lines->count, limit) < 0)
            continue;
        for (int32_t member = 1; member < lines->count; member++)
            if (poller[member].revents != 0 && !hear_rank(lines, member)) {
                poller[member].fd = -1;
                tell_gone(lines, member);
            }
        look_for_silent(lines);
    }
    free(poller);
    return NULL;
}

enum mpo_status mpo_lines_watch(struct mpo_lines *lines,
                                const struct mpo_lines_watch *watch)
{
    enum mpo_status status = MPO_OK;
    lines->watch = *watch;
    lines->stop = eventfd(0, EFD_CLOEXEC);
    MPO_CHECK(lines->stop >= 0, MPO_ERR_MEMORY, "no event to end a thread (errno %d)",
              errno);
    MPO_TRY(mpo_thread_start(&lines->watcher, "mpo-watch", watch_ranks, lines));
    lines->has_watcher = true;
cleanup:
    return status;
}

void mpo_lines_ignore(struct mpo_lines *lines)
{
    pthread_mutex_lock(&lines->lock);
    lines->is_ignored = true;
    pthread_mutex_unlock(&lines->lock);
}

void mpo_lines_wake(struct mpo_lines *lines)
{
    const char byte = 1;
    pthread_mutex_lock(&lines->lock);
    lines->woken = mpo_timing_now();
    lines->wake_count++;
    lines->awake = 0;
    pthread_mutex_unlock(&lines->lock);
    for (int32_t member = 1; member < lines->count; member++) {
        ssize_t sent = send(lines->socket[lines->root + member], &byte, 1, MSG_NOSIGNAL);
        (void)sent; /* the watcher sees who is gone */
    }
}

double mpo_lines_round_trip(const struct mpo_lines *lines)
{
    struct mpo_lines *self = (struct mpo_lines *)lines;
    pthread_mutex_lock(&self->lock);
    double seconds = self->round_trip;
    pthread_mutex_unlock(&self->lock);
    return seconds;
}

int64_t mpo_lines_done(void *argument)
{
    struct mpo_lines *lines = argument;
    int64_t least = INT64_MAX;
    pthread_mutex_lock(&lines->lock);
    for (int32_t member = 1; member < lines->count; member++)
        if (lines->done_count[member] < least)
            least = lines->done_count[member];
    pthread_mutex_unlock(&lines->lock);
    return least;
}

/* ---- the other ranks ---- */

void mpo_lines_tell_done(void *lines)
{
    say_to_root(lines, SAYS_DONE);
}

void mpo_lines_tell_stop(void *argument)
{
    say_to_root(argument, SAYS_STOP + mpo_stop_signal());
}

enum mpo_status mpo_lines_sleep(struct mpo_lines *lines, double seconds)
{
    enum mpo_status status = MPO_OK;
    double until = mpo_timing_now() + seconds;
    const int socket = lines->socket[lines->root];
    char byte = 0;
    for (;;) {
        struct pollfd poller = {.fd = socket, .events = POLLIN};
        double left = until - mpo_timing_now();
        int limit = seconds > 0.0 ? (left > 0.0 ? (int)(1e3 * left) + 1 : 0) : -1;
        int ready = poll(&poller, 1, limit);
        if (ready < 0 && errno == EINTR)
            continue;
        MPO_CHECK(ready != 0, MPO_ERR_PEER,
                  "rank %d has not responded for %.0f s; check its host, or raise "
                  "--run.step_deadline",
                  lines->root, seconds);
        ssize_t bytes = recv(socket, &byte, 1, 0);
        if (bytes < 0 && errno == EINTR)
            continue;
        MPO_CHECK(bytes > 0, MPO_ERR_PEER, "rank %d is gone", lines->root);
        say_to_root(lines, SAYS_AWAKE);
        break;
    }
cleanup:
    return status;
}
