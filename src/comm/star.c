/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each hub listens, all learn where, and each rank connects with its hub and says its token and
 * its number first.
 */
#include "star.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/timing.h"

#define TOKEN_BYTES 16

/* To connect, on a network that is slow. */
#define CONNECT_SECONDS 10.0

/* What all learn of a rank; where it listens, if it is a hub. */
struct place {
    uint8_t token[TOKEN_BYTES];
    char host[256]; /* "": a Unix socket of an abstract name */
    uint16_t port;  /* 0: it does not listen */
    int32_t hub;
};

/* What a rank says first. */
struct greeting {
    uint8_t token[TOKEN_BYTES];
    int32_t rank;
};

struct star {
    int32_t rank;
    int32_t size;
    int32_t hub;
    int *socket;         /* [size] */
    struct place *place; /* [size] */
    int listener;        /* -1: none */
};

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

static bool listen_here(struct star *star, struct place *place)
{
    socklen_t bytes = 0;
    struct sockaddr_un address = unix_address(place, &bytes);
    star->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    place->port = 1;
    return star->listener >= 0 &&
           bind(star->listener, (const void *)&address, bytes) == 0 &&
           listen(star->listener, star->size) == 0;
}

static bool listen_on_network(struct star *star, struct place *place)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t bytes = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    star->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (star->listener < 0 ||
        bind(star->listener, (const void *)&address, sizeof address) != 0 ||
        listen(star->listener, star->size) != 0 ||
        getsockname(star->listener, (void *)&address, &bytes) != 0 ||
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

/* A host that is lost ends no connection by itself; and what is sent is short. */
static void tune_socket(int fd)
{
    const int yes = 1;
    const int seconds = 15;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static bool greet_hub(struct star *star, const struct place *place)
{
    struct greeting greeting = {.rank = star->rank};
    memcpy(greeting.token, place->token, TOKEN_BYTES);
    int fd = connect_to(place);
    star->socket[star->hub] = fd;
    if (fd < 0)
        return false;
    tune_socket(fd);
    return send(fd, &greeting, sizeof greeting, MSG_NOSIGNAL) == (ssize_t)sizeof greeting;
}

/* A stranger, or a rank that connects twice, is rejected. */
static void accept_line(struct star *star, const struct place *place)
{
    const struct timeval limit = {.tv_sec = 1};
    struct greeting greeting = {0};
    int fd = accept(star->listener, NULL, NULL);
    if (fd < 0)
        return;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t bytes = recv(fd, &greeting, sizeof greeting, MSG_WAITALL);
    bool is_known = bytes == (ssize_t)sizeof greeting &&
                    memcmp(greeting.token, place->token, TOKEN_BYTES) == 0 &&
                    greeting.rank >= 0 && greeting.rank < star->size &&
                    star->place[greeting.rank].hub == star->rank &&
                    greeting.rank != star->rank && star->socket[greeting.rank] < 0;
    if (!is_known) {
        close(fd);
        return;
    }
    tune_socket(fd);
    star->socket[greeting.rank] = fd;
}

static int32_t count_missing(const struct star *star)
{
    int32_t missing = 0;
    for (int32_t rank = 0; rank < star->size; rank++)
        missing += star->place[rank].hub == star->rank && rank != star->rank &&
                   star->socket[rank] < 0;
    return missing;
}

static bool accept_ranks(struct star *star)
{
    double until = mpo_timing_now() + CONNECT_SECONDS;
    while (count_missing(star) > 0 && mpo_timing_now() < until) {
        struct pollfd poller = {.fd = star->listener, .events = POLLIN};
        if (poll(&poller, 1, 100) > 0)
            accept_line(star, &star->place[star->rank]);
    }
    return count_missing(star) == 0;
}

/* A hub listens where all ranks can connect. */
static struct place choose_place(struct star *star, bool is_one_host)
{
    struct place place = {.hub = star->hub};
    bool has_token = star->hub == star->rank &&
                     getrandom(place.token, TOKEN_BYTES, 0) == (ssize_t)TOKEN_BYTES;
    bool listens = has_token && (is_one_host ? listen_here(star, &place)
                                             : listen_on_network(star, &place));
    if (!listens)
        place.port = 0;
    return place;
}

static bool connect_rank(struct star *star)
{
    if (star->hub < 0)
        return true;
    const struct place *place = &star->place[star->hub];
    if (place->port == 0)
        return false;
    return star->hub == star->rank ? accept_ranks(star) : greet_hub(star, place);
}

static enum mpo_status connect_ranks(struct star *star, const struct mpo_comm *comm,
                                     bool *are_connected)
{
    enum mpo_status status = MPO_OK;
    double is_one_host = mpo_comm_local_size(comm) == star->size;
    MPO_TRY(mpo_comm_min(comm, &is_one_host, 1));
    struct place own = choose_place(star, is_one_host > 0.0);
    MPO_TRY(mpo_comm_gather(comm, &own, sizeof own, star->place));
    MPO_TRY(
        mpo_comm_broadcast(comm, star->place, (size_t)star->size * sizeof *star->place, 0));
    double connected = connect_rank(star);
    MPO_TRY(mpo_comm_min(comm, &connected, 1));
    *are_connected = connected > 0.0;
cleanup:
    return status;
}

static void close_socket(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

enum mpo_status mpo_star_open(const struct mpo_comm *comm, int32_t hub, int *socket,
                              bool *are_connected)
{
    enum mpo_status status = MPO_OK;
    struct star star = {.rank = mpo_comm_rank(comm),
                        .size = mpo_comm_size(comm),
                        .hub = hub,
                        .socket = socket,
                        .listener = -1};
    *are_connected = false;
    for (int32_t rank = 0; rank < star.size; rank++)
        socket[rank] = -1;
    MPO_TRY(mpo_comm_agree(mpo_memory_take((size_t)star.size, sizeof *star.place,
                                           "places of ranks", (void **)&star.place)));
    MPO_TRY(connect_ranks(&star, comm, are_connected));
cleanup:
    close_socket(&star.listener);
    for (int32_t rank = 0; rank < star.size && !*are_connected; rank++)
        close_socket(&socket[rank]);
    free(star.place);
    return status;
}
