/**
 * What a transport provides. A new transport is one file and one row of the table in
 * exchange.c.
 */
#pragma once

#include "mpo/comm_mpi.h"
#include "mpo/exchange.h"

struct mpo_exchange_ops {
    const char *transport;

    /** NULL when the transport can serve this group, else the reason why not; the same on
     *  all ranks of the group. Collective over the group. */
    const char *(*refuses)(const struct mpo_exchange_spec *spec,
                           const struct mpo_comm *comm);
    /** Policies whose rows this rank keeps beside the policies' own memory. Local. */
    int32_t (*keeps_policies)(const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm);
    /** Allocate. Local. */
    enum mpo_status (*take_room)(struct mpo_exchange *exchange);
    /** Meet the other ranks; all of them have their room. Collective over the group. */
    enum mpo_status (*connect)(struct mpo_exchange *exchange);
    void (*close)(struct mpo_exchange *exchange);
    /** Fill all_logits and all_norms of the exchange at the root. */
    enum mpo_status (*rows)(struct mpo_exchange *exchange, int32_t row_count,
                            const float *const *logits, const double *log_norm);
};

struct mpo_exchange {
    const struct mpo_exchange_ops *ops;
    const struct mpo_comm *comm;
    struct mpo_exchange_spec spec;
    int32_t first_policy; /* this rank's block */
    int32_t local_count;
    const float **all_logits; /* [H, row_capacity] at the root, packed to [H, B] */
    double *all_norms;        /* [H, row_capacity] at the root, packed to [H, B] */
    void *self;               /* the transport's own */
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

/** What each rank wrote before this call, every rank sees after it. Collective over the
 *  window's ranks. */
enum mpo_status mpo_exchange_window_meet(struct mpo_exchange_window *window);

/** NULL when windows have room on every host of the group, else the reason why not.
 *  Collective over the group. */
const char *mpo_exchange_window_refuses(const struct mpo_exchange_spec *spec,
                                        const struct mpo_comm *comm);

/** Policies whose rows this rank puts into a window: all of its own but the root's, which
 *  are read where they are. Local. */
int32_t mpo_exchange_window_policies(const struct mpo_comm *comm, int32_t group_rank);

/** Bytes of shared memory that the groups of this host would take, and what is free. Local.
 */
void mpo_exchange_shared_room(const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm, size_t *needed, size_t *free);

extern const struct mpo_exchange_ops mpo_exchange_self_ops;
extern const struct mpo_exchange_ops mpo_exchange_shared_ops;
extern const struct mpo_exchange_ops mpo_exchange_nodes_ops;
extern const struct mpo_exchange_ops mpo_exchange_mpi_ops;
