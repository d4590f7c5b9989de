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

/** Start MPI for this process. Collective over all processes. */
enum mpo_status mpo_comm_start(int *argc, char ***argv);

/** End MPI; nothing when it was not started. Collective over all processes. */
void mpo_comm_stop(void);

/**
 * Say what the ranks do from now on, and how long one may wait for another.
 *
 * A wait that lasts longer ends the job: one message names the ranks that do not answer,
 * their hosts and the step, and the exit code is 75 (MPO_ERR_PEER). Ranks other than zero
 * are more patient, so that rank zero speaks. Local; the same on all ranks.
 *
 * @param doing             e.g. "set-up", "fit"; a literal, borrowed
 * @param step              the step under way, -1 outside steps
 * @param deadline_seconds  0: wait for ever
 */
void mpo_comm_expect(const char *doing, int64_t step, double deadline_seconds);

/** Number of ranks of this job, 1 when MPI was not started. Local. */
int32_t mpo_comm_job_size(void);

/** Rank in this job, 0 when MPI was not started. Local. */
int32_t mpo_comm_job_rank(void);

/** Name and version of the MPI library, one line. Local; MPI need not be up. */
void mpo_comm_library_version(char *text, size_t bytes);

/**
 * Form groups of P consecutive ranks. Errors are agreed on and printed.
 *
 * Collective over all ranks.
 *
 * @param group_size  P >= 1, of which the number of ranks is a multiple
 *                    (mpo_placement_group_size)
 */
enum mpo_status mpo_comm_open(int32_t group_size, struct mpo_comm **out);
void mpo_comm_close(struct mpo_comm **comm);

int32_t mpo_comm_rank(const struct mpo_comm *comm);        /* 0..W-1 */
int32_t mpo_comm_size(const struct mpo_comm *comm);        /* W */
int32_t mpo_comm_group(const struct mpo_comm *comm);       /* 0..R-1, this rank's group */
int32_t mpo_comm_group_count(const struct mpo_comm *comm); /* R */
int32_t mpo_comm_group_rank(const struct mpo_comm *comm);  /* 0..P-1 */
int32_t mpo_comm_group_size(const struct mpo_comm *comm);  /* P */
int32_t mpo_comm_local_rank(const struct mpo_comm *comm);  /* rank on this host */
int32_t mpo_comm_local_size(const struct mpo_comm *comm);  /* ranks on this host */
bool mpo_comm_group_shares_host(const struct mpo_comm *comm);

/** The first rank of the group on the host of one of its ranks. Local. */
int32_t mpo_comm_group_leader(const struct mpo_comm *comm, int32_t group_rank);

/**
 * Agree on the outcome of a set-up phase: every rank passes its own status and returns the
 * status of the lowest failing rank, or MPO_OK. Rank zero prints each distinct message
 * once, with the ranks that raised it.
 *
 * Collective over all ranks of the job; works before mpo_comm_open.
 */
enum mpo_status mpo_comm_agree(enum mpo_status status);

/** Raise unless this rank has the same hash as rank zero; follow it by mpo_comm_agree.
 * `what` is named in the message. Collective over all ranks of the job. */
enum mpo_status mpo_comm_same(uint64_t hash, const char *what);

/** Print this rank's error text and end the whole job with the status's exit code. A
 * failure inside the step loop has no other way out: leaving otherwise would mask the code.
 */
void mpo_comm_abort(enum mpo_status status) __attribute__((noreturn));

/** Broadcast bytes from the root of this rank's group. Collective over the group. */
enum mpo_status mpo_comm_group_broadcast(const struct mpo_comm *comm, void *data,
                                         size_t bytes);

/** Broadcast bytes from a rank. Collective over all ranks. */
enum mpo_status mpo_comm_broadcast(const struct mpo_comm *comm, void *data, size_t bytes,
                                   int32_t root);

/** The sum of what lower ranks of this host pass, 0 on its first. Collective over all
 *  ranks. */
enum mpo_status mpo_comm_local_before(const struct mpo_comm *comm, int32_t value,
                                      int32_t *before);

/** How many ranks of this host pass the same hash, this one included. 31 bits of it are
 *  compared. Collective over all ranks. */
enum mpo_status mpo_comm_local_same(const struct mpo_comm *comm, uint64_t hash,
                                    int32_t *count);

/** Bytes from each rank to rank zero; out: [W, bytes], rank zero only. Collective. */
enum mpo_status mpo_comm_gather(const struct mpo_comm *comm, const void *data, size_t bytes,
                                void *out);

/** Bytes from one rank to another; both call it, nobody else. */
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
