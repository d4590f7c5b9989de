/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The exchange: rows of logits from the ranks that host the policies to those that reduce
 * them, their results to the group's root, and the root's decisions to all ranks.
 *
 * The vocabulary is cut into slices, whole blocks of MPO_ROWS_BLOCK tokens, one slice a
 * rank in order of ranks; a rank gets its slice of the rows of all H policies. Who gets how
 * much is the pattern:
 *   gather    the root gets everything, the others nothing: few messages, one rank works
 *   alltoall  slices as even as possible: all ranks work, the bytes a rank sends and gets
 *             stay the same as policies and ranks are added
 *
 *     rows [H, B, V]            gather           alltoall
 *       rank 0  policy a     0: a b c  V      0: a b c  V/3     then the sums of blocks,
 *       rank 1  policy b     1: -             1: a b c  V/3     small messages, to the
 *       rank 2  policy c     2: -             2: a b c  V/3     root
 *
 * Five transports carry the rows, each one file under src/exchange:
 *   self    one rank: the root reads the policies' own memory, nothing is copied
 *   shared  ranks of one host: each row is copied once, into an MPI-3 shared window
 *   nodes   several ranks on each of several hosts: a window on each, and one message from
 *           host to host, of all that the receiving one's ranks reduce
 *   mpi     any hosts: each slice of a row is one message
 *   nccl    devices: each rank's slices are one message from device to device
 * All transports and both patterns end in the same bytes.
 *
 * Rows that the mixture has rounded to bf16 (mpo_mixture_round) are floats whose low 16
 * bits are 0. `mpi` and `nccl` send the other 16, half the bytes, and their receivers get
 * the same floats. `self` and `shared` read rows in memory and save nothing; messages of
 * `nodes` between hosts have whole floats.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/choices.h"
#include "mpo/comm.h"
#include "mpo/placement.h"
#include "mpo/rows.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_exchange;

struct mpo_exchange_spec {
    const char *transport; /* MPO_AUTO or a name */
    enum mpo_pattern pattern;
    struct mpo_placement placement; /* of the H policies */
    int32_t row_capacity;           /* rows of one position at most */
    int32_t
        usual_rows; /* of most positions, by which the pattern auto is chosen for devices;
                           0: row_capacity */
    int32_t vocab_size;  /* V */
    bool rows_on_device; /* rows lie in a device's memory, in all calls */
    bool bf16_rows;      /* rows are as mpo_mixture_round leaves them */
};

/** Whether this build has the spec's transport and pattern. Local.
 *  @return as mpo_exchange_open */
enum mpo_status mpo_exchange_check(const struct mpo_exchange_spec *spec);

/** Collective over the group; allocates all it will need.
 *  @return MPO_ERR_CONFIG when transport or pattern cannot serve this group, MPO_ERR_DEVICE
 *          when this build has no such transport */
enum mpo_status mpo_exchange_open(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm, struct mpo_exchange **out);

/** Collective over the group, which shares windows. */
void mpo_exchange_close(struct mpo_exchange **exchange);

/** True if rows can stay in devices' memory; policies and mixture are then opened so. The
 *  same on all ranks of the group. Local.
 *  @param transport  as in the spec */
bool mpo_exchange_carries_device_rows(const char *transport, const struct mpo_comm *comm);

/** Transports of this build by index, in the order in which auto tries them; NULL after the
 *  last. Local. */
const char *mpo_exchange_transport_built(int32_t index);

/** The version of NCCL, e.g. "2.27.3", "none" in a build without. Local. */
void mpo_exchange_library_version(char *text, size_t bytes);

/** The result of a survey: what opening would need. */
struct mpo_exchange_plan {
    const char *transport;
    enum mpo_pattern pattern;
    const char *shared_refuses; /* why it is not `shared` on one host; NULL: it is, or the
                                   hosts differ */
    size_t rank_bytes;          /* for rows, on this rank */
    size_t shared_bytes;        /* of shared memory, on this host by all groups */
    size_t shared_free_bytes;
};

/** Collective over the group; opens nothing. @return as mpo_exchange_open */
enum mpo_status mpo_exchange_survey(const struct mpo_exchange_spec *spec,
                                    const struct mpo_comm *comm,
                                    struct mpo_exchange_plan *out);

/** Bytes of the rows of some policies in the policies' own memory. Local. */
size_t mpo_exchange_rows_bytes(const struct mpo_exchange_spec *spec, int32_t policy_count);

/** Upper bound, over all transports, of the bytes that a rank keeps for rows of some
 *  policies, received or to be sent. Local. */
size_t mpo_exchange_most_bytes(const struct mpo_exchange_spec *spec, int32_t policy_count);

/** Which rank hosts which policies; borrowed. Local. */
const struct mpo_placement *mpo_exchange_placement(const struct mpo_exchange *exchange);

/** The transport in use, e.g. "shared", and the pattern, never auto. Local. */
const char *mpo_exchange_transport(const struct mpo_exchange *exchange);
enum mpo_pattern mpo_exchange_pattern(const struct mpo_exchange *exchange);

/** Where slices begin: rank r of the group has blocks first[r] .. first[r + 1] - 1. [P +
 * 1], borrowed. The root's is never empty. Local. */
const int32_t *mpo_exchange_slices(const struct mpo_exchange *exchange);

/** Where a group's ranks are. */
struct mpo_exchange_site {
    int32_t group_size; /* P */
    bool shares_host;   /* all of them are on one */
};

/** Tokens of a rank's slice in a job that is not running. Local. */
int32_t mpo_exchange_plan_tokens(const struct mpo_exchange_spec *spec, int32_t group_rank,
                                 const struct mpo_exchange_site *site);

/** Ranks that have slices, and this one's place among them. Local. */
int32_t mpo_exchange_size(const struct mpo_exchange *exchange); /* P */
int32_t mpo_exchange_rank(const struct mpo_exchange *exchange); /* 0: the root */

/** What this rank moved since the exchange was opened. A broadcast counts once at the root
 *  and once at each receiver. Rows in a shared window count as bytes where they are written
 *  and read, not as messages; rows received into a window are not counted again. */
struct mpo_exchange_traffic {
    int64_t sent_messages;
    int64_t sent_bytes;
    int64_t received_messages;
    int64_t received_bytes;
};
struct mpo_exchange_traffic mpo_exchange_traffic(const struct mpo_exchange *exchange);

/**
 * Name rows that the next position does not have, because a policy's figures are not needed
 * there: they are not moved, and in struct mpo_rows they are NULL. Without this call a
 * position has all H B rows.
 *
 * Local; the same on all ranks of the group. Holds until mpo_exchange_rows returns.
 *
 * @param absent  [H, B] absent[h * B + b]; borrowed for as long
 */
void mpo_exchange_leave_out(struct mpo_exchange *exchange, const bool *absent);

/**
 * Start to move this position's rows if the transport can do so beside other work;
 * normalisers need not be known yet. Optional.
 *
 * Collective over the group; mpo_exchange_rows of the same rows must be the next call.
 * Allocates nothing.
 *
 * @param row_count, logits  as in mpo_exchange_rows
 * @return MPO_ERR_USAGE for a row_count that is negative or above spec.row_capacity
 */
enum mpo_status mpo_exchange_post(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits);

/**
 * Bring to each rank its slice of this position's rows of all policies.
 *
 * Collective over the group. Allocates nothing. Every position ends in a message of
 * the root to all others (mpo_exchange_broadcast): the root may send it as soon as every
 * rank has sent what it made of its rows (by mpo_exchange_parts), and the rows stay
 * valid until then.
 *
 * @param row_count  B, at most spec.row_capacity (MPO_ERR_USAGE), the same on all ranks of
 *                   the group
 * @param logits     [local policies, B] pointers to [V] floats: logits[k * B + b], but
 *                   without those that were left out
 * @param log_norm   nat, of the same rows
 * @param out        this rank's slice
 */
enum mpo_status mpo_exchange_rows(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits, const double *log_norm,
                                  struct mpo_rows *out);

/** Bring parts of a table to the root, in place: rank r has elements start[r] ..
 *  start[r + 1] - 1 of it. Collective over the group. Allocates nothing. */
enum mpo_status mpo_exchange_parts(struct mpo_exchange *exchange, double *table,
                                   const size_t *start);

/** A table in devices' memory of which every rank with a slice has a part. */
struct mpo_exchange_table {
    void *memory;        /* at the root the whole table, elsewhere the rank's part alone */
    const size_t *start; /* [P + 1] in bytes where parts begin, the last: the end */
    void *stream;        /* the caller's; of CUDA a cudaStream_t */
};

/** Whether the three below are there: the transport goes between devices by itself, and
 *  more ranks than the root have slices. The same on all ranks of the group. Local. */
bool mpo_exchange_has_device_parts(const struct mpo_exchange *exchange);

/** Bring the parts to the root, by messages behind what is on the streams; nothing has come
 *  before mpo_exchange_device_wait. Collective over the ranks of the group that have slices.
 *  Allocates nothing.
 *  @return MPO_ERR_PEER, MPO_ERR_DEVICE, as the two below */
enum mpo_status mpo_exchange_device_gather(struct mpo_exchange *exchange,
                                           const struct mpo_exchange_table *table);

/** Bring the root's bytes to all of them in the same way. Collective as before. */
enum mpo_status mpo_exchange_device_deal(struct mpo_exchange *exchange, void *memory,
                                         size_t bytes, void *stream);

/** Wait for all that is on the stream, with the deadline of all waits. Collective as before:
 *  what is waited for needs the others. */
enum mpo_status mpo_exchange_device_wait(struct mpo_exchange *exchange, void *stream);

/** Broadcast bytes from the root. Collective over the group. Allocates nothing. */
enum mpo_status mpo_exchange_broadcast(struct mpo_exchange *exchange, void *data,
                                       size_t bytes);

#ifdef __cplusplus
}
#endif
