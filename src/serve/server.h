/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The server of rank zero: the HTTP thread, what it serves, and how it ends. Each request goes
 * to the group that dispatch.h chooses.
 *
 *     mpo_server_open     bind, read the keys, start the thread: /health says "loading"
 *     mpo_server_ready    from now on requests are taken
 *     mpo_server_close    flush, stop the thread
 *
 * The first signal drains: requests that run may finish within serve.drain seconds, new ones
 * get 503. Rank zero only; all calls are the main thread's.
 */
#pragma once

#include "link.h"
#include "metrics.h"
#include "mpo/config.h"

struct mpo_server;

/** What the server serves once it is loaded; borrowed until the server is closed. */
struct mpo_server_engine {
    const struct mpo_serve_catalog *catalog;
    struct mpo_link *const *link; /* [group_count] */
    int32_t group_count;
    struct mpo_metrics *metrics;
    const char *fingerprint;
    int32_t rank_count;
    int32_t client_count;
};

/**
 * @param config  borrowed until the server is closed
 * @return as mpo_http_open, before any model is loaded
 */
enum mpo_status mpo_server_open(const struct mpo_config *config, struct mpo_server **out);

/** Clients whose requests are counted apart: one for each key; 1 without keys. */
int32_t mpo_server_client_count(const struct mpo_server *server);

/** Where clients connect: "http://127.0.0.1:8080". Borrowed. */
const char *mpo_server_url(const struct mpo_server *server);

/** The port; 0: a Unix socket. */
int32_t mpo_server_port(const struct mpo_server *server);

/** Tell the HTTP thread of events: the notify of struct mpo_link_spec. Any thread. */
void mpo_server_notify(void *server);

/** @return MPO_ERR_MEMORY */
enum mpo_status mpo_server_ready(struct mpo_server *server,
                                 const struct mpo_server_engine *engine);

/** The job fails because a rank is gone or stuck: clients are informed, and the process ends
 *  with 75 within a second, under mpirun two later. Any thread; `lost` of mpo_lines_watch and of a courier. */
void mpo_server_lose_rank(void *server, const char *text);

/** Let what is written go out, half a second at most, then end the thread. NULL-safe. */
void mpo_server_close(struct mpo_server **server);
