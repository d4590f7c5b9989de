/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The interface of a transport and of a pattern. A new transport is one file and one row of
 * src/registry.def; a new pattern is a choice in mpo/options.def and one row of the table in
 * exchange/pattern.c.
 */
#pragma once

#include "comm/comm_mpi.h"
#include "mpo/exchange.h"

/** The content of a message between two ranks of a group. */
enum mpo_exchange_tag {
    MPO_EXCHANGE_TAG_ROW = 1,
    MPO_EXCHANGE_TAG_NORM = 2,
    MPO_EXCHANGE_TAG_PART = 3,
    MPO_EXCHANGE_TAG_HOST = 4,
    MPO_EXCHANGE_TAG_EXCUSE = 5,
};

struct mpo_exchange_ops {
    const char *transport;
    bool in_window; /* what its ranks keep is shared memory of their host */
    enum mpo_exchange_memory {
        MPO_EXCHANGE_HOST,
        MPO_EXCHANGE_DEVICE,
        MPO_EXCHANGE_ANY
    } memory; /* that it carries rows in */

    /** The library it uses besides MPI; NULL: none. */
    void (*library_version)(char *text, size_t bytes);
    /** NULL when the transport can serve this group with spec->pattern, else the reason why
     *  not; the same on all ranks of the group. Collective over the group. */
    const char *(*refuses)(const struct mpo_exchange_spec *spec,
                           const struct mpo_comm *comm);
    /** Bytes of rows that a rank of the group keeps besides the policies' own memory.
     * Local.
     */
    size_t (*keeps_bytes)(const struct mpo_exchange_spec *spec, const struct mpo_comm *comm,
                          int32_t group_rank);
    /** Allocate. Local. */
    enum mpo_status (*take_room)(struct mpo_exchange *exchange);
    /** Connect to the other ranks, after all have allocated. Collective over the group. */
    enum mpo_status (*connect)(struct mpo_exchange *exchange);
    void (*close)(struct mpo_exchange *exchange);
    /** Start to move the rows, always called before `rows`; NULL: `rows` does everything.
     */
    enum mpo_status (*post)(struct mpo_exchange *exchange, int32_t row_count,
                            const float *const *logits);
    /** Fill logits and log_norm of the exchange with the other ranks' rows, on every rank
     *  with a slice; this rank's own are there already. */
    enum mpo_status (*rows)(struct mpo_exchange *exchange, int32_t row_count,
                            const float *const *logits, const double *log_norm);
};

struct mpo_exchange_pattern {
    /** The first block of a rank's slice; for rank = size: block_count. */
    int32_t (*first_block)(int32_t block_count, int32_t rank, int32_t size);
};

struct mpo_exchange {
    const struct mpo_exchange_ops *ops;
    const struct mpo_comm *comm;
    struct mpo_exchange_spec spec; /* its pattern is never auto */
    int32_t size;                  /* P */
    int32_t rank;                  /* 0..P-1 */
    int32_t first_policy;          /* this rank's block */
    int32_t local_count;
    int32_t *first_block; /* [P + 1] */
    const float **logits; /* [H, row_capacity] on ranks with a slice, packed to [H, B] */
    double *log_norm;     /* the same */
    MPI_Request *parts;   /* [2 P] of small messages */
    bool is_posted;       /* this position's rows are on their way */
    struct mpo_exchange_traffic traffic;
    void *self; /* the transport's own */
};

/** Shared memory of ranks of one host. */
struct mpo_exchange_window {
    MPI_Win window;
    MPI_Comm comm; /* borrowed */
    char **base;   /* [ranks of comm] each rank's part, as seen from here */
};

/** Local; close is NULL-safe in its members. */
enum mpo_status mpo_exchange_window_take_room(struct mpo_exchange_window *window,
                                              MPI_Comm comm);
/** Collective over the window's ranks. */
enum mpo_status mpo_exchange_window_connect(struct mpo_exchange_window *window,
                                            size_t own_bytes);
void mpo_exchange_window_close(struct mpo_exchange_window *window);

/** Everything written before this call is visible to all ranks after it. Collective over
 *  the window's ranks. */
enum mpo_status mpo_exchange_window_meet(struct mpo_exchange_window *window);

/** NULL if windows fit on every host of the group, else the reason. Collective over the
 *  group. */
const char *mpo_exchange_window_refuses(const struct mpo_exchange_ops *ops,
                                        const struct mpo_exchange_spec *spec,
                                        const struct mpo_comm *comm);

/** Tokens of a rank's slice. */
struct mpo_slice {
    int32_t first;
    int32_t count; /* 0: none */
};

/** The slice of a rank in a group of `size`; the pattern must not be auto. */
struct mpo_slice mpo_exchange_slice(const struct mpo_exchange_spec *spec, int32_t rank,
                                    int32_t size);
struct mpo_slice mpo_exchange_slice_of(const struct mpo_exchange *exchange, int32_t rank);

/** Tokens of messages of row_count rows of each policy: those that come to a rank, of its
 *  slice of the others' rows, and those that it sends, of its rows for their slices. Local.
 */
struct mpo_exchange_tokens {
    size_t received;
    size_t sent;
};
struct mpo_exchange_tokens mpo_exchange_count_tokens(const struct mpo_exchange_spec *spec,
                                                     const struct mpo_comm *comm,
                                                     int32_t rank, int32_t row_count);

/** Bytes of a token in a message. Local. */
size_t mpo_exchange_token_bytes(const struct mpo_exchange_spec *spec);

/** Post this rank's small messages that carry normalisers, to and from all ranks with
 *  slices; requests has room for 2 (P - 1) more. Local. */
enum mpo_status mpo_exchange_post_norms(struct mpo_exchange *exchange, int32_t row_count,
                                        const double *log_norm, MPI_Request *requests,
                                        int *posted);

void mpo_exchange_count_sent(struct mpo_exchange *exchange, int32_t messages, size_t bytes);
void mpo_exchange_count_received(struct mpo_exchange *exchange, int32_t messages,
                                 size_t bytes);

/** How a pattern cuts, NULL for auto. */
const struct mpo_exchange_pattern *mpo_exchange_pattern_find(enum mpo_pattern pattern);

/** The spec with the pattern chosen by auto: the faster one, as measured. */
struct mpo_exchange_spec mpo_exchange_settle(const struct mpo_exchange_spec *spec,
                                             int32_t group_size);

/** Bytes of shared memory that the groups of this host would need, and what is free. Local.
 */
void mpo_exchange_shared_room(const struct mpo_exchange_ops *ops,
                              const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm, size_t *needed, size_t *free);

#define MPO_TRANSPORT(name, built)                                                         \
    extern const struct mpo_exchange_ops mpo_exchange_##name##_ops;
#include "registry.def"

/** The transports of this build in the order in which `auto` tries them, ended by NULL.
 *  (src/registry.c) */
extern const struct mpo_exchange_ops *const mpo_exchange_transports[];
