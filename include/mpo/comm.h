/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Ranks, groups and decisions: everything that all ranks must agree on.
 *
 * W ranks form R = W / P groups of P consecutive ranks; a group hosts all policies
 * (mpo/placement.h) and decodes whole work units by itself. The exchange moves rows inside a
 * group; comm moves decisions and results.
 *
 *     ranks      0 1 2 | 3 4 5        W = 6, P = 3, R = 2
 *     group        0   |   1          rank zero is the root of group 0
 *
 * Without MPI every call below still works, for one rank.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_comm;

/* ---- the job: the ranks that work together; a process has one at a time ---- */

struct mpo_comm_spec {
    /** Address of an MPI_Comm, e.g. &world: the ranks that work together, all of which make
     *  this call. It is duplicated, so no message of the caller is ever met. NULL:
     *  MPI_COMM_WORLD where MPI is up, else this process alone. */
    const void *communicator;

    /**
     * Called when this rank cannot continue, or learns that another cannot: once a job,
     * with the reason. The call that failed then returns the status, MPO_ERR_PEER where
     * another rank is the cause, and so does every later one: the job can only be ended.
     * What MPI was doing is left as it is, for a collective call cannot be called off: it
     * may end later, in memory that is kept for it, or never, and then MPI may no longer be
     * able to make or free communicators. End the process before long.
     *
     * NULL: the failure is reported (MPO_REPORT_FATAL), and the process ends with
     * MPI_Abort, or exit where there is one rank, and with the status's exit code.
     */
    void (*on_failure)(void *argument, enum mpo_status status, const char *text);
    void *argument; /* borrowed */
};

/**
 * Begin a job on ranks that run already. MPI, where it is up, stays the caller's; it needs
 * MPI_THREAD_FUNNELED or more (MPI_Init_thread; MPI_Init may give less), for policies compute
 * with threads that never call MPI. All calls come from one thread, with MPI_THREAD_FUNNELED
 * from the one that initialised MPI.
 *
 * Collective over the communicator. Every wait for another rank has the deadline of
 * mpo_comm_expect, half an hour before its first call. Some calls of MPI block and have no
 * other form (MPI_Comm_split, MPI_Win_allocate_shared, MPI_Win_free): all ranks meet right
 * before them, with the deadline. Should a rank stop within such a call, which takes
 * milliseconds, an alarm (SIGALRM, restored afterwards) ends the others where on_failure
 * is NULL. A handler cannot call off MPI's call, so with one they wait for ever.
 *
 * @return MPO_ERR_USAGE when a job has begun already, when there is a communicator without
 *         MPI, or one that this rank is no part of, and when MPI was initialised with
 *         MPI_THREAD_SINGLE or by another thread; MPO_ERR_PEER
 */
enum mpo_status mpo_comm_begin(const struct mpo_comm_spec *spec);

/** Whether a job has begun. Local. */
bool mpo_comm_has_begun(void);

/** End the job; nothing when there is none. Collective over its ranks, unless it failed. */
void mpo_comm_end(void);

/** Start MPI for this process, which leaves MPI to mpo, and begin a job on all of it.
 *  Failures are reported. Collective over all processes. @return MPO_ERR_USAGE when MPI was
 *  started in this process before; MPO_ERR_MEMORY; MPO_ERR_PEER */
enum mpo_status mpo_comm_start(int *argc, char ***argv);

/** End the job and MPI; nothing when MPI was not started. Collective over all processes. */
void mpo_comm_stop(void);

/**
 * Say what the ranks do from now on, and how long one may wait for another.
 *
 * A wait that lasts longer ends the job: one message names the ranks that do not answer,
 * their hosts and the step, and the exit code is 75 (MPO_ERR_PEER). Ranks other than zero
 * are more patient, so that rank zero reports it. Local; the same on all ranks.
 *
 * @param doing             e.g. "set-up", "fit"; a literal, borrowed
 * @param step              the step under way, -1 outside steps
 * @param deadline_seconds  0: wait for ever
 */
void mpo_comm_expect(const char *doing, int64_t step, double deadline_seconds);

/** This rank has a core of its own that it does not compute on, as beside a GPU: waits go on
 *  testing for 5 ms instead of 0.5 ms before they sleep between tests, which is up to 25 us
 *  late. Until the job ends. Local. */
void mpo_comm_own_core(void);

/** Say that groups do not wait for each other from now on, or that they do again: a group's root,
 *  in place of rank zero, waits least and names those of its group that do not answer. Local;
 *  the same on all ranks. */
void mpo_comm_work_apart(const struct mpo_comm *comm, bool are_apart);

/** The rank that a launcher (mpirun, srun --mpi=pmix) has given this process, from the
 *  environment; 0 without one. For a program that starts no MPI. Local.
 *  @param count  out, the number of ranks; 1 without a launcher, or where it does not tell */
int32_t mpo_comm_launched_rank(int32_t *count);

/** Number of ranks of the job, 1 when none has begun. Local. */
int32_t mpo_comm_job_size(void);

/** Rank in the job, 0 when none has begun. Local. */
int32_t mpo_comm_job_rank(void);

/** Name and version of the MPI library, one line. Local; MPI need not be up. */
void mpo_comm_library_version(char *text, size_t bytes);

/**
 * Form groups of P consecutive ranks. Errors are agreed on and reported.
 *
 * Collective over all ranks.
 *
 * @param group_size  P >= 1, a divisor of the number of ranks (mpo_placement_group_size)
 * @return MPO_ERR_USAGE when it is none
 */
enum mpo_status mpo_comm_open(int32_t group_size, struct mpo_comm **out);
void mpo_comm_close(struct mpo_comm **comm);

/** Places of this rank, and how many there are. Local. */
int32_t mpo_comm_rank(const struct mpo_comm *comm);        /* 0..W-1 */
int32_t mpo_comm_size(const struct mpo_comm *comm);        /* W */
int32_t mpo_comm_group(const struct mpo_comm *comm);       /* 0..R-1, this rank's group */
int32_t mpo_comm_group_count(const struct mpo_comm *comm); /* R */
int32_t mpo_comm_group_rank(const struct mpo_comm *comm);  /* 0..P-1 */
int32_t mpo_comm_group_size(const struct mpo_comm *comm);  /* P */
int32_t mpo_comm_local_rank(const struct mpo_comm *comm);  /* rank on this host */
int32_t mpo_comm_local_size(const struct mpo_comm *comm);  /* ranks on this host */

/** Whether all ranks of this one's group are on one host. Local. */
bool mpo_comm_group_shares_host(const struct mpo_comm *comm);

/** The first rank of the group on the host of one of its ranks. Local. */
int32_t mpo_comm_group_leader(const struct mpo_comm *comm, int32_t group_rank);

/**
 * Agree on the outcome of a set-up phase: every rank passes its own status and returns the
 * status of the lowest failing rank, or MPO_OK. Rank zero reports each distinct message
 * once, with the ranks that raised it.
 *
 * Collective over all ranks of the job; works before mpo_comm_open.
 */
enum mpo_status mpo_comm_agree(enum mpo_status status);

/** Raise unless this rank has the same hash as rank zero; call mpo_comm_agree next.
 * `what` is named in the message. Collective over all ranks of the job. */
enum mpo_status mpo_comm_same(uint64_t hash, const char *what);

/** Tell the other ranks of a stop signal that this one received, and learn of theirs: after
 *  it mpo_stop_signal is that signal here as well. Waits do it; loops that may not wait for
 *  long call it once a token. Local; does not block. */
void mpo_comm_share_stop(void);

/**
 * Call this once before the process ends because the job fails, where no failure handler is
 * set: at rank zero clients may be waiting for an answer. It should take less than a second.
 * Local. @param say  NULL: nothing
 */
void mpo_comm_last_words(void (*say)(void *argument), void *argument);

/**
 * End the process because the job fails, from another thread than that which calls MPI: the
 * text is reported, and the process exits with the status's code, for which the launcher ends
 * the others. Local.
 */
void mpo_comm_leave(enum mpo_status status, const char *text) __attribute__((noreturn));

/**
 * This rank cannot continue: tell the failure handler, or end the process (mpo_comm_spec).
 * The text gets the place, "in step 4 of fit". Other ranks learn of it in their waits.
 * Local.
 *
 * @param status  not MPO_OK; its text is that of the last failure, or where there was none
 *                the status's sentence
 * @return status
 */
enum mpo_status mpo_comm_fail(enum mpo_status status);

/** The same where there is no way back: the process ends whether the failure is handled or
 *  not. Local. */
void mpo_comm_abort(enum mpo_status status) __attribute__((noreturn));

/** Broadcast bytes from the root of this rank's group. Collective over the group. */
enum mpo_status mpo_comm_group_broadcast(const struct mpo_comm *comm, void *data,
                                         size_t bytes);

/** Broadcast bytes from a rank. Collective over all ranks. */
enum mpo_status mpo_comm_broadcast(const struct mpo_comm *comm, void *data, size_t bytes,
                                   int32_t root);

/** The sum of what lower ranks of this host pass, 0 on its first.
 *  Collective over all ranks. */
enum mpo_status mpo_comm_local_before(const struct mpo_comm *comm, int32_t value,
                                      int32_t *before);

/** How many ranks of this host pass the same hash, this one included. 31 bits of it are
 *  compared. Collective over all ranks. */
enum mpo_status mpo_comm_local_same(const struct mpo_comm *comm, uint64_t hash,
                                    int32_t *count);

/** Bytes from each rank to rank zero; out: [W, bytes], rank zero only. Collective. */
enum mpo_status mpo_comm_gather(const struct mpo_comm *comm, const void *data, size_t bytes,
                                void *out);

/** Bytes from one rank to another. Collective over these two ranks only. */
enum mpo_status mpo_comm_send(const struct mpo_comm *comm, int32_t from, int32_t to,
                              void *data, size_t bytes);

/** Element-wise maximum, minimum of doubles, result on every rank. Collective. */
enum mpo_status mpo_comm_max(const struct mpo_comm *comm, double *values, int32_t count);
enum mpo_status mpo_comm_min(const struct mpo_comm *comm, double *values, int32_t count);

/** Element-wise bitwise or of bytes, result on every rank. Collective. */
enum mpo_status mpo_comm_or(const struct mpo_comm *comm, uint8_t *bytes, size_t count);

#ifdef __cplusplus
}
#endif
