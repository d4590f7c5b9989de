/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Who may call from a browser. A page of any site can send requests to this machine, and by a
 * name that its owner points here (DNS rebinding) it could read the answers too.
 */
#pragma once

#include <stdbool.h>

#include "mpo/status.h"

struct mpo_http_origins;

/**
 * Read the lists.
 *
 * @param hosts     names that Host may have besides those of loopback, or NULL
 * @param cors      origins, or NULL
 * @param has_keys  then * is refused in `cors`
 * @return MPO_ERR_CONFIG for an entry that is none
 */
enum mpo_status mpo_http_origins_open(const char *hosts, const char *cors, bool has_keys,
                                      struct mpo_http_origins **out);
void mpo_http_origins_close(struct mpo_http_origins **origins);

/** From now on hosts are checked: what is listened on is loopback. */
void mpo_http_origins_guard(struct mpo_http_origins *origins);

/** Is this a Host of ours? Its port does not matter: tunnels change it. */
bool mpo_http_origins_host(const struct mpo_http_origins *origins, const char *host);

/** Is this Origin the page that this server served itself, under this Host? */
bool mpo_http_origins_own(const char *origin, const char *host);

/** Is this Origin in `cors`? */
bool mpo_http_origins_listed(const struct mpo_http_origins *origins, const char *origin);
