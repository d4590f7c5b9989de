/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The port: where it is, who gets in, and what happens when there is no room.
 *
 * Without descriptors accept fails, the client stays in the kernel's queue, and the queue
 * stays readable: the longest idle connection is closed for it, and if there is none, the
 * queue is left alone for a moment.
 */
#define _GNU_SOURCE /* accept4 */
#include "http_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/reason.h"

#define BACKLOG       1024
#define ACCEPTS_MAX   64
#define EXTRA_MAX     64
#define AGAIN_MICROS  100000
#define UNSENT_BYTES  131072
#define DEFAULT_PLACE "127.0.0.1"

/* ---- a Unix socket ---- */

/* The file of a socket without a listener was left by a process that was killed. */
static enum mpo_status remove_stale_socket(const struct sockaddr_un *place)
{
    enum mpo_status status = MPO_OK;
    struct stat about;
    int probe = -1;
    if (lstat(place->sun_path, &about) != 0 || !S_ISSOCK(about.st_mode))
        return MPO_OK; /* bind says what is wrong */
    probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    MPO_CHECK(probe >= 0, mpo_reason_status(errno, MPO_ERR_MEMORY), "a socket: %s%s",
              strerror(errno), mpo_reason_advice(errno));
    if (connect(probe, (const struct sockaddr *)place, sizeof *place) != 0 &&
        errno == ECONNREFUSED)
        unlink(place->sun_path);
cleanup:
    if (probe >= 0)
        close(probe);
    return status;
}

static enum mpo_status bind_file(struct mpo_http *http, const char *file)
{
    enum mpo_status status = MPO_OK;
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    struct stat about;
    MPO_CHECK(*file != '\0' && strlen(file) < sizeof place.sun_path, MPO_ERR_CONFIG,
              "address unix:%s: expected a file name of 1 to %zu bytes", file,
              sizeof place.sun_path - 1);
    snprintf(place.sun_path, sizeof place.sun_path, "%s", file);
    MPO_TRY(remove_stale_socket(&place));
    http->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    MPO_CHECK(http->listener >= 0, mpo_reason_status(errno, MPO_ERR_MEMORY),
              "a socket: %s%s", strerror(errno), mpo_reason_advice(errno));
    fchmod(http->listener, 0600); /* what bind makes has this mode */
    MPO_CHECK(
        bind(http->listener, (struct sockaddr *)&place, sizeof place) == 0,
        mpo_reason_status(errno, MPO_ERR_OUTPUT),
        "address unix:%s: %s%s; another server may use it: choose another file or stop "
        "that one",
        file, strerror(errno), mpo_reason_advice(errno));
    http->is_unix = true;
    if (lstat(file, &about) == 0) {
        http->file_device = about.st_dev;
        http->file_inode = about.st_ino;
    }
    MPO_CHECK(asprintf(&http->url, "unix:%s", file) > 0, MPO_ERR_MEMORY, "no memory");
cleanup:
    return status;
}

/* ---- a port ---- */

static bool is_loopback(const struct sockaddr *place)
{
    if (place->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)place)->sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)place)->sin6_addr);
}

/* The first of the addresses of one family that can be listened on; errno otherwise. */
static int bind_any(const struct addrinfo *first, int family, const struct addrinfo **out)
{
    int error = EADDRNOTAVAIL;
    const int on = 1;
    for (const struct addrinfo *at = first; at != NULL; at = at->ai_next) {
        if (at->ai_family != family)
            continue;
        int end = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (end >= 0 && setsockopt(end, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
            bind(end, at->ai_addr, at->ai_addrlen) == 0) {
            *out = at;
            return end;
        }
        error = errno;
        if (end >= 0)
            close(end);
    }
    errno = error;
    return -1;
}

static enum mpo_status say_bind_failed(const char *address, int32_t port, int error)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(error != EADDRNOTAVAIL, MPO_ERR_CONFIG,
              "address %s: expected an address of this host, or 0.0.0.0 for all", address);
    MPO_CHECK(
        error != EADDRINUSE, MPO_ERR_OUTPUT,
        "port %d of %s is taken by another process; choose another port, or 0 for any "
        "that is free",
        (int)port, address);
    MPO_FAIL(mpo_reason_status(error, MPO_ERR_OUTPUT), "port %d of %s: %s%s", (int)port,
             address, strerror(error), mpo_reason_advice(error));
cleanup:
    return status;
}

static enum mpo_status write_url(struct mpo_http *http)
{
    enum mpo_status status = MPO_OK;
    struct sockaddr_storage bound = {0};
    socklen_t bytes = sizeof bound;
    char host[INET6_ADDRSTRLEN] = "";
    char port[8] = "";
    getsockname(http->listener, (struct sockaddr *)&bound, &bytes);
    int error = getnameinfo((struct sockaddr *)&bound, bytes, host, sizeof host, port,
                            sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    MPO_CHECK(error == 0, MPO_ERR_INTERNAL, "the bound address: %s", gai_strerror(error));
    http->port = (int32_t)strtol(port, NULL, 10);
    bool is_six = strchr(host, ':') != NULL;
    MPO_CHECK(asprintf(&http->url, "%s://%s%s%s:%s", http->tls == NULL ? "http" : "https",
                       is_six ? "[" : "", host, is_six ? "]" : "", port) > 0,
              MPO_ERR_MEMORY, "no memory");
cleanup:
    return status;
}

/* Without keys anyone who can reach the port may use the machine. */
static enum mpo_status bind_port(struct mpo_http *http, const char *address)
{
    enum mpo_status status = MPO_OK;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    const struct addrinfo *bound = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", (int)http->spec.port);
    int error = getaddrinfo(address, port, &hints, &found);
    MPO_CHECK(error == 0, MPO_ERR_CONFIG,
              "address %s: expected a name or number of this host, or unix:FILE: %s",
              address, gai_strerror(error));
    http->listener = bind_any(found, AF_INET, &bound);
    if (http->listener < 0 && errno == EADDRNOTAVAIL)
        http->listener = bind_any(found, AF_INET6, &bound);
    if (http->listener < 0)
        MPO_TRY(say_bind_failed(address, http->spec.port, errno));
    if (is_loopback(bound->ai_addr))
        mpo_http_origins_guard(http->rules.origins);
    else
        MPO_CHECK(http->rules.keys != NULL || http->spec.allow_open, MPO_ERR_CONFIG,
                  "address %s can be reached from other hosts: expected a "
                  "key_file; or set allow_open, if anyone there may use this "
                  "server",
                  address);
    MPO_TRY(write_url(http));
cleanup:
    if (found != NULL)
        freeaddrinfo(found);
    return status;
}

enum mpo_status mpo_http_listen(struct mpo_http *http)
{
    enum mpo_status status = MPO_OK;
    const char *address = http->spec.address == NULL ? DEFAULT_PLACE : http->spec.address;
    if (strncmp(address, "unix:", 5) == 0)
        MPO_TRY(bind_file(http, address + 5));
    else
        MPO_TRY(bind_port(http, address));
    /* a port can be bound twice, with SO_REUSEADDR, until one of them listens */
    if (listen(http->listener, BACKLOG) != 0)
        MPO_TRY(say_bind_failed(address, http->spec.port, errno));
cleanup:
    return status;
}

/* ---- accepting ---- */

static void name_peer(const struct sockaddr_storage *peer, char *out, socklen_t bytes)
{
    const void *number = &((const struct sockaddr_in *)peer)->sin_addr;
    if (peer->ss_family == AF_INET6)
        number = &((const struct sockaddr_in6 *)peer)->sin6_addr;
    if (peer->ss_family == AF_UNIX ||
        inet_ntop(peer->ss_family, number, out, bytes) == NULL)
        snprintf(out, bytes, "unix");
}

/* Room for one more connection, if need be by closing the longest idle one. */
static bool make_room(struct mpo_http *http)
{
    struct mpo_http_connection *longest = TAILQ_FIRST(&http->idle);
    if (http->count < http->spec.limits.connections)
        return true;
    if (longest == NULL)
        return false;
    mpo_http_connection_close(longest);
    return http->count < http->spec.limits.connections;
}

static void admit_client(struct mpo_http *http, int end,
                         const struct sockaddr_storage *peer)
{
    const int on = 1;
    const int unsent = UNSENT_BYTES;
    char name[INET6_ADDRSTRLEN];
    bool has_room = make_room(http);
    if (!has_room && http->extra_count >= EXTRA_MAX) {
        close(end);
        return;
    }
    name_peer(peer, name, sizeof name);
    if (!http->is_unix) {
        setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        /* so that a slow client is known by what is unsent here, not in the kernel */
        setsockopt(end, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    }
    mpo_http_connection_open(http, end, name, !has_room);
}

/* Without a descriptor accept fails before it checks the queue. */
static bool has_client(int listener)
{
    struct pollfd queue = {.fd = listener, .events = POLLIN};
    return poll(&queue, 1, 0) > 0;
}

/* Descriptors or memory have run out: close a connection to make a place, or pause the
 * listener until its timer. @return whether to try again at once */
static bool free_descriptor(struct mpo_http *http)
{
    const struct timeval pause = {.tv_usec = AGAIN_MICROS};
    struct mpo_http_connection *longest = TAILQ_FIRST(&http->idle);
    if (!has_client(http->listener))
        return false;
    if (longest != NULL) {
        mpo_http_connection_close(longest);
        return true;
    }
    event_del(&http->accept);
    evtimer_add(&http->accept_again, &pause);
    return false;
}

/* Errors of accept that concern one client only, or an interrupted call. */
static bool is_passing(int error)
{
    return error != EAGAIN && error != EMFILE && error != ENFILE && error != ENOBUFS &&
           error != ENOMEM;
}

void mpo_http_accept_waiting(struct mpo_http *http)
{
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t bytes = sizeof peer;
        int end = accept4(http->listener, (struct sockaddr *)&peer, &bytes,
                          SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (end >= 0)
            admit_client(http, end, &peer);
        else if (!is_passing(errno) && (errno == EAGAIN || !free_descriptor(http)))
            return;
    }
}

static void on_accept(evutil_socket_t listener, short what, void *argument)
{
    (void)listener;
    (void)what;
    mpo_http_accept_waiting(argument);
}

static void on_accept_again(evutil_socket_t socket, short what, void *argument)
{
    struct mpo_http *http = argument;
    (void)socket;
    (void)what;
    if (http->listener >= 0)
        event_add(&http->accept, NULL);
}

enum mpo_status mpo_http_listen_begin(struct mpo_http *http)
{
    enum mpo_status status = MPO_OK;
    evtimer_assign(&http->accept_again, http->base, on_accept_again, http);
    event_assign(&http->accept, http->base, http->listener, EV_READ | EV_PERSIST, on_accept,
                 http);
    MPO_CHECK(event_add(&http->accept, NULL) == 0, MPO_ERR_MEMORY,
              "no memory for an event");
cleanup:
    return status;
}

static void remove_own_socket(const struct mpo_http *http)
{
    const char *file = http->url == NULL ? "" : http->url + strlen("unix:");
    struct stat about;
    if (lstat(file, &about) == 0 && about.st_dev == http->file_device &&
        about.st_ino == http->file_inode)
        unlink(file);
}

void mpo_http_listen_end(struct mpo_http *http)
{
    if (http->listener < 0)
        return;
    if (http->base != NULL && event_initialized(&http->accept)) {
        event_del(&http->accept);
        event_del(&http->accept_again);
    }
    if (http->is_unix)
        remove_own_socket(http);
    close(http->listener);
    http->listener = -1;
}
