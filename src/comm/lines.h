/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Lines: a silent socket from every rank to its group's root, beside MPI (star.h).
 *
 *     end of file             that process is gone: known at once
 *     a byte from the root    wake up: a message of MPI comes next
 *     a byte to the root      awake: how long a round trip takes; a piece of work is done; a
 *                             signal to stop came here; the line ends as it should
 *
 * Where they cannot be made (a firewall) a warning says so, and ranks wait by MPI as always.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/comm.h"

struct mpo_lines;

/**
 * Connect every rank with its group's root. A group of one rank needs none.
 *
 * Collective over all ranks; a failure to connect is a warning.
 *
 * @param out  NULL: there are none
 * @return MPO_ERR_MEMORY; MPO_ERR_PEER
 */
enum mpo_status mpo_lines_open(const struct mpo_comm *comm, struct mpo_lines **out);
void mpo_lines_close(struct mpo_lines **lines);

/* ---- the group's root ---- */

struct mpo_lines_watch {
    double patience_seconds; /* that a rank may take to wake up; 0: for ever */
    /** The first rank is gone, or does not wake up. Called once, in the watcher's thread. */
    void (*lost)(void *argument, const char *text);
    void *argument;
};

/** Watch the others in a thread of its own, which also calls mpo_stop_hear for their signals.
 *  @return MPO_ERR_MEMORY */
enum mpo_status mpo_lines_watch(struct mpo_lines *lines,
                                const struct mpo_lines_watch *watch);

/** No more reports of lost ranks: the ranks are about to end as they should. */
void mpo_lines_ignore(struct mpo_lines *lines);

/** End the watcher; nothing more is reported or heard. NULL-safe, and at any rank. */
void mpo_lines_unwatch(struct mpo_lines *lines);

/** Wake all others. */
void mpo_lines_wake(struct mpo_lines *lines);

/** Seconds of the last round trip over all ranks; 0: there was none. Any thread. */
double mpo_lines_round_trip(const struct mpo_lines *lines);

/** Pieces of work that every other rank has told to be done. Any thread. */
int64_t mpo_lines_done(void *lines);

/* ---- the other ranks ---- */

/**
 * Sleep until the root wakes this one.
 *
 * @param seconds  at most; 0: for ever
 * @return MPO_ERR_PEER when the root is gone, or has been silent for so long
 */
enum mpo_status mpo_lines_sleep(struct mpo_lines *lines, double seconds);

/** Tell the root that a piece of work is done here. Any thread. */
void mpo_lines_tell_done(void *lines);

/** Tell the root of the signal to stop that came here; for mpo_stop_tell. */
void mpo_lines_tell_stop(void *lines);
