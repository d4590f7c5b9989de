/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Stars: sockets from ranks to a *hub*, another rank, beside MPI. MPI cannot wait without
 * using a core, does not say that a process is gone, and belongs to one thread; a socket
 * blocks, ends with its process, and any thread may have it.
 *
 * On one host they are Unix sockets, else TCP with a random token.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/comm.h"

/**
 * Connect ranks with their hubs. A hub has no hub but itself.
 *
 * Collective over all ranks. All are connected or none, which is no failure: a firewall may be
 * between their hosts.
 *
 * @param hub            of this rank; itself: it is one; -1: it takes no part
 * @param socket         [W] out, the caller's to close: at a hub those of its ranks, elsewhere
 *                       that of the hub; -1: none
 * @param are_connected  out
 * @return MPO_ERR_MEMORY; MPO_ERR_PEER
 */
enum mpo_status mpo_star_open(const struct mpo_comm *comm, int32_t hub, int *socket,
                              bool *are_connected);
