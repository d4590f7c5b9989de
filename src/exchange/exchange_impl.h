/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of the exchange share; what a transport provides is in
 * mpo/backend/exchange_ops.h. A new pattern is a choice in mpo/options.def and one row of
 * the table in exchange/pattern.c.
 *
 *   exchange.c  the choice of a transport, rows, normalisers
 *   parts.c     other small messages
 *   pattern.c   who reduces which slice
 *   window.c    shared memory of ranks of one host, for `shared` and `nodes`
 */
#pragma once

#include "mpo/backend/exchange_ops.h"

#include "comm/comm_mpi.h"

/** The content of a message between two ranks of a group. */
enum mpo_exchange_tag {
    MPO_EXCHANGE_TAG_ROW = 1,
    MPO_EXCHANGE_TAG_NORM = 2,
    MPO_EXCHANGE_TAG_PART = 3,
    MPO_EXCHANGE_TAG_HOST = 4,
};

struct mpo_exchange_pattern {
    /** The first block of a rank's slice; for rank = size: block_count. */
    int32_t (*first_block)(int32_t block_count, int32_t rank, int32_t size);
};

/** What exchange.c keeps for all transports. */
struct mpo_exchange_dispatch {
    const struct mpo_exchange_ops *ops;
    MPI_Request *parts; /* [2 P] of small messages, free between the calls of a position */
    bool is_posted;     /* this position's rows are on their way */
    const bool *absent; /* [H, B] rows that this position does not have; NULL: none */
    struct mpo_exchange_traffic traffic;
};

/** Shared memory of ranks of one host. */
struct mpo_exchange_window {
    MPI_Win window;
    MPI_Comm comm; /* borrowed */
    char **base;   /* [ranks of comm] each rank's part, as seen from here */
};

/** Local; close is NULL-safe in its members. */
enum mpo_status mpo_exchange_window_allocate(struct mpo_exchange_window *window,
                                             MPI_Comm comm);
/** Collective over the window's ranks. */
enum mpo_status mpo_exchange_window_connect(struct mpo_exchange_window *window,
                                            size_t own_bytes);
void mpo_exchange_window_close(struct mpo_exchange_window *window);

/** Everything written before this call is visible to all ranks after it. Collective over
 *  the window's ranks. */
enum mpo_status mpo_exchange_window_meet(struct mpo_exchange_window *window);

/** NULL if windows fit on every host of the group, else the reason.
 *  Collective over the group. */
const char *mpo_exchange_window_refuses(const struct mpo_exchange_ops *ops,
                                        const struct mpo_exchange_spec *spec,
                                        const struct mpo_comm *comm);

/** Post this rank's small messages that carry normalisers, to and from all ranks with
 *  slices; requests has room for 2 (P - 1) more. Local. */
enum mpo_status mpo_exchange_post_norms(struct mpo_exchange *exchange,
                                        const double *log_norm, MPI_Request *requests,
                                        int *posted);

/** How a pattern cuts, NULL for auto. */
const struct mpo_exchange_pattern *mpo_exchange_pattern_find(enum mpo_pattern pattern);

/** The spec with the pattern chosen by auto: the faster one, as measured on hosts and as
 *  modelled on devices. */
struct mpo_exchange_spec mpo_exchange_choose(const struct mpo_exchange_spec *spec,
                                             const struct mpo_exchange_site *site);

/** Bytes of shared memory that the groups of this host would need, and
 *  what is free. Local. */
void mpo_exchange_shared_room(const struct mpo_exchange_ops *ops,
                              const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm, size_t *needed, size_t *free);

#define MPO_TRANSPORT(name, built)                                                         \
    extern const struct mpo_exchange_ops mpo_exchange_##name##_ops;
#include "registry.def"

/** The transports of this build in the order in which `auto` tries them, ended by
 *  NULL. (src/registry.c) */
extern const struct mpo_exchange_ops *const mpo_exchange_transports[];

/** Their names: "self shared nodes mpi". Local. */
const char *mpo_exchange_transports_built(void);
