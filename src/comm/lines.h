/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Lines: a silent socket from every rank to rank zero, beside MPI. MPI cannot wait without
 * using a core, and does not say that a process is gone; a socket does both.
 *
 *     end of file           that process is gone: known at once
 *     a byte from zero      wake up: a message of MPI comes next
 *     a byte to zero        awake: how long a round trip takes
 *
 * On one host the lines are Unix sockets, else TCP with a random token. Where they cannot be
 * made (a firewall) a warning says so, and ranks wait by MPI as always.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/comm.h"

struct mpo_lines;

/**
 * Connect every rank with rank zero. One rank needs none.
 *
 * Collective over all ranks; a failure to connect is a warning.
 *
 * @param out  NULL: there are none
 * @return MPO_ERR_MEMORY; MPO_ERR_PEER
 */
enum mpo_status mpo_lines_open(const struct mpo_comm *comm, struct mpo_lines **out);
void mpo_lines_close(struct mpo_lines **lines);

/* ---- rank zero ---- */

/** Call `gone` in a thread of its own when the first other rank is gone. The thread blocks all
 *  signals. @return MPO_ERR_MEMORY */
enum mpo_status mpo_lines_watch(struct mpo_lines *lines,
                                void (*gone)(void *argument, int32_t rank), void *argument);

/** No more reports of lost ranks: the ranks are about to end as they should. */
void mpo_lines_ignore(struct mpo_lines *lines);

/** Wake all others. */
void mpo_lines_wake(struct mpo_lines *lines);

/** A rank that was woken so many seconds ago and has not said that it is awake; -1: none. Any
 *  thread. */
int32_t mpo_lines_silent_rank(const struct mpo_lines *lines, double seconds);

/** Seconds of the last round trip over all ranks; 0: there was none. Any thread. */
double mpo_lines_round_trip(const struct mpo_lines *lines);

/* ---- the other ranks ---- */

/**
 * Sleep until rank zero wakes this one.
 *
 * @param seconds  at most; 0: for ever
 * @return MPO_ERR_PEER when rank zero is gone, or has been silent for so long
 */
enum mpo_status mpo_lines_sleep(struct mpo_lines *lines, double seconds);
