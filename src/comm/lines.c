/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rank zero listens, tells all where, and takes a connection from each; a rank says its token
 * and its number first. The lines live beside MPI and are never used inside a step.
 */
#include "lines.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/thread.h"
#include "base/timing.h"
#include "mpo/report.h"

#define TOKEN_BYTES 16

/* To connect, on a network that is slow. */
#define CONNECT_SECONDS 10.0

/* Where rank zero listens, as it tells the others. */
struct place {
    uint8_t token[TOKEN_BYTES];
    char host[256]; /* "": a Unix socket of an abstract name */
    uint16_t port;  /* 0: no rank listens */
};

/* What a rank says first. */
struct greeting {
    uint8_t token[TOKEN_BYTES];
    int32_t rank;
};

struct mpo_lines {
    int32_t rank;
    int32_t size;
    int *socket;  /* [size] at rank zero, by rank; [1] elsewhere; -1: none */
    int listener; /* while they are made */
    int stop;     /* an event that ends the watcher; -1: none */
    pthread_t watcher;
    bool has_watcher;
    void (*gone)(void *argument, int32_t rank);
    void *argument;
    pthread_mutex_t lock;
    bool is_ignored;
    double woken; /* when the others were, for the round trip; 0: never */
    int64_t wake_count;
    int64_t *answer_count; /* [size] at rank zero: wakes that a rank has answered */
    int32_t awake;         /* ranks that have answered the last one */
    double round_trip;     /* seconds */
};

/* ---- making them ---- */

static struct sockaddr_un unix_address(const struct place *place, socklen_t *bytes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[2 * TOKEN_BYTES + 1] = "";
    for (int32_t i = 0; i < TOKEN_BYTES; i++)
        snprintf(name + 2 * i, 3, "%02x", place->token[i]);
    /* an abstract name begins with a NUL */
    int length =
        snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "mpo-%s", name);
    *bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    return address;
}

static bool listen_here(struct mpo_lines *lines, struct place *place)
{
    socklen_t bytes = 0;
    struct sockaddr_un address = unix_address(place, &bytes);
    lines->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    place->port = 1;
    return lines->listener >= 0 &&
           bind(lines->listener, (const void *)&address, bytes) == 0 &&
           listen(lines->listener, lines->size) == 0;
}

static bool listen_on_network(struct mpo_lines *lines, struct place *place)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t bytes = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    lines->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (lines->listener < 0 ||
        bind(lines->listener, (const void *)&address, sizeof address) != 0 ||
        listen(lines->listener, lines->size) != 0 ||
        getsockname(lines->listener, (void *)&address, &bytes) != 0 ||
        gethostname(place->host, sizeof place->host - 1) != 0)
        return false;
    place->port = ntohs(address.sin_port);
    return true;
}

static int connect_to(const struct place *place)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char port[8] = "";
    int fd = -1;
    if (place->host[0] == '\0') {
        socklen_t bytes = 0;
        struct sockaddr_un address = unix_address(place, &bytes);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (const void *)&address, bytes) == 0)
            return fd;
    } else {
        snprintf(port, sizeof port, "%u", place->port);
        if (getaddrinfo(place->host, port, &hints, &found) != 0)
            return -1;
        const struct timeval limit = {.tv_sec = (time_t)CONNECT_SECONDS};
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0)
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        bool is_connected = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0;
        freeaddrinfo(found);
        if (is_connected)
            return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* A host that is lost ends no connection by itself. */
static void keep_alive(int fd)
{
    const int yes = 1;
    const int seconds = 15;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
}

static bool greet_root(struct mpo_lines *lines, const struct place *place)
{
    struct greeting greeting = {.rank = lines->rank};
    memcpy(greeting.token, place->token, TOKEN_BYTES);
    int fd = connect_to(place);
    lines->socket[0] = fd;
    if (fd < 0)
        return false;
    keep_alive(fd);
    return send(fd, &greeting, sizeof greeting, MSG_NOSIGNAL) == (ssize_t)sizeof greeting;
}

/* A stranger, or a rank that connects twice, is rejected. */
static void accept_line(struct mpo_lines *lines, const struct place *place)
{
    const struct timeval limit = {.tv_sec = 1};
    struct greeting greeting = {0};
    int fd = accept(lines->listener, NULL, NULL);
    if (fd < 0)
        return;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t bytes = recv(fd, &greeting, sizeof greeting, MSG_WAITALL);
    bool is_known = bytes == (ssize_t)sizeof greeting &&
                    memcmp(greeting.token, place->token, TOKEN_BYTES) == 0 &&
                    greeting.rank > 0 && greeting.rank < lines->size &&
                    lines->socket[greeting.rank] < 0;
    if (!is_known) {
        close(fd);
        return;
    }
    keep_alive(fd);
    lines->socket[greeting.rank] = fd;
}

static bool accept_lines(struct mpo_lines *lines, const struct place *place)
{
    double until = mpo_timing_now() + CONNECT_SECONDS;
    int32_t missing = lines->size - 1;
    while (missing > 0 && mpo_timing_now() < until) {
        struct pollfd poller = {.fd = lines->listener, .events = POLLIN};
        if (poll(&poller, 1, 100) > 0)
            accept_line(lines, place);
        missing = 0;
        for (int32_t rank = 1; rank < lines->size; rank++)
            missing += lines->socket[rank] < 0;
    }
    return missing == 0;
}

/* All or none. Collective over all ranks. */
static enum mpo_status connect_ranks(struct mpo_lines *lines, const struct mpo_comm *comm,
                                     bool *are_connected)
{
    enum mpo_status status = MPO_OK;
    struct place place = {0};
    bool here = mpo_comm_local_size(comm) == mpo_comm_size(comm);
    double here_everywhere = here;
    MPO_TRY(mpo_comm_min(comm, &here_everywhere, 1));
    if (lines->rank == 0) {
        bool has_token = getrandom(place.token, TOKEN_BYTES, 0) == (ssize_t)TOKEN_BYTES;
        bool listens =
            has_token && (here_everywhere > 0.0 ? listen_here(lines, &place)
                                                : listen_on_network(lines, &place));
        if (!listens)
            place.port = 0;
    }
    MPO_TRY(mpo_comm_broadcast(comm, &place, sizeof place, 0));
    double connected = place.port != 0;
    if (connected > 0.0)
        connected =
            lines->rank == 0 ? accept_lines(lines, &place) : greet_root(lines, &place);
    MPO_TRY(mpo_comm_min(comm, &connected, 1));
    *are_connected = connected > 0.0;
cleanup:
    return status;
}

static enum mpo_status make_lines(const struct mpo_comm *comm, struct mpo_lines **out)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(1, out);
    struct mpo_lines *lines = *out;
    lines->rank = mpo_comm_rank(comm);
    lines->size = mpo_comm_size(comm);
    lines->listener = -1;
    lines->stop = -1;
    pthread_mutex_init(&lines->lock, NULL);
    MPO_NEW(lines->size, &lines->socket);
    MPO_NEW(lines->size, &lines->answer_count);
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
    if (mpo_comm_size(comm) == 1)
        return MPO_OK;
    MPO_TRY(mpo_comm_agree(make_lines(comm, out)));
    MPO_TRY(connect_ranks(*out, comm, &are_connected));
    if (are_connected)
        goto cleanup;
    if (mpo_comm_rank(comm) == 0)
        mpo_report(MPO_REPORT_WARNING,
                   "no sockets between the ranks' hosts (a firewall?): waiting "
                   "ranks use some processor time, and a lost rank is noticed only "
                   "after its deadline");
    mpo_lines_close(out);
cleanup:
    if (*out != NULL && (*out)->listener >= 0) {
        close((*out)->listener);
        (*out)->listener = -1;
    }
    return status;
}

void mpo_lines_close(struct mpo_lines **lines)
{
    struct mpo_lines *self = *lines;
    if (self == NULL)
        return;
    if (self->has_watcher) {
        const uint64_t one = 1;
        ssize_t written = write(self->stop, &one, sizeof one);
        (void)written;
        pthread_join(self->watcher, NULL);
    }
    for (int32_t rank = 0; self->socket != NULL && rank < self->size; rank++)
        if (self->socket[rank] >= 0)
            close(self->socket[rank]);
    if (self->listener >= 0)
        close(self->listener);
    if (self->stop >= 0)
        close(self->stop);
    pthread_mutex_destroy(&self->lock);
    free(self->answer_count);
    free(self->socket);
    free(self);
    *lines = NULL;
}

/* ---- rank zero ---- */

/* Bytes of a rank that is awake. @return false when it is gone */
static bool hear_rank(struct mpo_lines *lines, int32_t rank)
{
    char byte[64];
    ssize_t bytes = recv(lines->socket[rank], byte, sizeof byte, MSG_DONTWAIT);
    if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR))
        return false;
    pthread_mutex_lock(&lines->lock);
    if (bytes > 0) {
        lines->answer_count[rank] += bytes;
        lines->awake += lines->answer_count[rank] == lines->wake_count;
        if (lines->awake == lines->size - 1)
            lines->round_trip = mpo_timing_now() - lines->woken;
    }
    pthread_mutex_unlock(&lines->lock);
    return true;
}

static void tell_gone(struct mpo_lines *lines, int32_t rank)
{
    pthread_mutex_lock(&lines->lock);
    bool tells = !lines->is_ignored;
    lines->is_ignored = true;
    pthread_mutex_unlock(&lines->lock);
    if (tells)
        lines->gone(lines->argument, rank);
}

static void *watch_ranks(void *argument)
{
    struct mpo_lines *lines = argument;
    struct pollfd *poller = calloc((size_t)lines->size, sizeof *poller);
    if (poller == NULL)
        return NULL;
    poller[0] = (struct pollfd){.fd = lines->stop, .events = POLLIN};
    for (int32_t rank = 1; rank < lines->size; rank++)
        poller[rank] = (struct pollfd){.fd = lines->socket[rank], .events = POLLIN};
    while (poller[0].revents == 0) {
        if (poll(poller, (nfds_t)lines->size, -1) < 0)
            continue;
        for (int32_t rank = 1; rank < lines->size; rank++)
            if (poller[rank].revents != 0 && !hear_rank(lines, rank)) {
                poller[rank].fd = -1;
                tell_gone(lines, rank);
            }
    }
    free(poller);
    return NULL;
}

enum mpo_status mpo_lines_watch(struct mpo_lines *lines,
                                void (*gone)(void *argument, int32_t rank), void *argument)
{
    enum mpo_status status = MPO_OK;
    lines->gone = gone;
    lines->argument = argument;
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
    for (int32_t rank = 1; rank < lines->size; rank++) {
        ssize_t sent = send(lines->socket[rank], &byte, 1, MSG_NOSIGNAL);
        (void)sent; /* the watcher sees who is gone */
    }
}

int32_t mpo_lines_silent_rank(const struct mpo_lines *lines, double seconds)
{
    struct mpo_lines *self = (struct mpo_lines *)lines;
    int32_t silent = -1;
    pthread_mutex_lock(&self->lock);
    bool is_late = self->woken > 0.0 && mpo_timing_now() - self->woken >= seconds;
    for (int32_t rank = 1; is_late && rank < self->size && silent < 0; rank++)
        if (self->answer_count[rank] < self->wake_count)
            silent = rank;
    pthread_mutex_unlock(&self->lock);
    return silent;
}

double mpo_lines_round_trip(const struct mpo_lines *lines)
{
    struct mpo_lines *self = (struct mpo_lines *)lines;
    pthread_mutex_lock(&self->lock);
    double seconds = self->round_trip;
    pthread_mutex_unlock(&self->lock);
    return seconds;
}

/* ---- the other ranks ---- */

enum mpo_status mpo_lines_sleep(struct mpo_lines *lines, double seconds)
{
    enum mpo_status status = MPO_OK;
    double until = mpo_timing_now() + seconds;
    const char answer = 1;
    char byte = 0;
    for (;;) {
        struct pollfd poller = {.fd = lines->socket[0], .events = POLLIN};
        double left = until - mpo_timing_now();
        int limit = seconds > 0.0 ? (left > 0.0 ? (int)(1e3 * left) + 1 : 0) : -1;
        int ready = poll(&poller, 1, limit);
        if (ready < 0 && errno == EINTR)
            continue;
        MPO_CHECK(ready != 0, MPO_ERR_PEER,
                  "rank 0 has not responded for %.0f s; check its host, or raise "
                  "--run.step_deadline",
                  seconds);
        ssize_t bytes = recv(lines->socket[0], &byte, 1, 0);
        if (bytes < 0 && errno == EINTR)
            continue;
        MPO_CHECK(bytes > 0, MPO_ERR_PEER, "rank 0 is gone");
        ssize_t sent = send(lines->socket[0], &answer, 1, MSG_NOSIGNAL);
        (void)sent; /* if rank zero is gone, the next wait says so */
        break;
    }
cleanup:
    return status;
}
