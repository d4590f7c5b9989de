/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a transport provides: how rows of logits travel between the ranks of a group. A new
 * transport is one file with such a table, and one row of src/registry.def. The readable
 * example is src/exchange/self.c; src/exchange/mpi.c is the one with messages. Transports
 * that talk MPI find its waits in src/comm/comm_mpi.h, and shared windows and the messages
 * of normalisers in src/exchange/exchange_impl.h.
 *
 * Order of calls: refuses (of every transport in turn, until one serves) - keeps_bytes (at
 * any time) - allocate - connect - post and rows, once a position each - close.
 *
 * Arguments are checked before a transport sees them (src/exchange/exchange.c): the pattern
 * is never auto, a position has at most spec.row_capacity rows, and where the rows lie is
 * memory that the transport says it carries.
 *
 * Letters: P ranks of a group, H policies, B rows of a position, V tokens.
 */
#pragma once

#include "mpo/exchange.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Where rows lie that a transport carries. */
enum mpo_exchange_memory {
    MPO_EXCHANGE_HOST,
    MPO_EXCHANGE_DEVICE,
    MPO_EXCHANGE_ANY, /* either: it does not touch them */
};

/** Small messages between devices' memories, for transports that have them: they are put on
 *  a stream of the caller's, behind what is there, and not waited for. Arguments are those of
 *  mpo_exchange_device_gather, _deal and _wait. Not called on ranks without a slice. */
struct mpo_exchange_device_parts {
    enum mpo_status (*gather)(struct mpo_exchange *exchange,
                              const struct mpo_exchange_table *table);
    enum mpo_status (*deal)(struct mpo_exchange *exchange, void *memory, size_t bytes,
                            void *stream);
    enum mpo_status (*wait)(struct mpo_exchange *exchange, void *stream);
};

struct mpo_exchange_ops {
    const char *transport;
    bool in_window; /* keeps_bytes are shared memory of the host */
    enum mpo_exchange_memory memory;

    /** Version of the library it uses besides MPI, as text; NULL: it uses none. Local. */
    void (*library_version)(char *text, size_t bytes);

    /** NULL when the transport can serve this group with spec->pattern, else the reason, a
     *  literal, that completes "exchange.transport is x, but ..."; the same on all ranks of
     *  the group. Collective over the group. */
    const char *(*refuses)(const struct mpo_exchange_spec *spec,
                           const struct mpo_comm *comm);

    /** Bytes that a rank of the group keeps for rows, besides the policies' own memory.
     *  Local. */
    size_t (*keeps_bytes)(const struct mpo_exchange_spec *spec, const struct mpo_comm *comm,
                          int32_t group_rank);

    /** Allocate all that positions need and put it into exchange->self. Local: what fails
     *  on one rank is agreed on before any of them connects.
     *  @return MPO_ERR_MEMORY, MPO_ERR_DEVICE, MPO_ERR_PEER */
    enum mpo_status (*allocate)(struct mpo_exchange *exchange);

    /** Connect to the other ranks, after all have allocated. Collective over the group.
     *  @return MPO_ERR_PEER, MPO_ERR_DEVICE */
    enum mpo_status (*connect)(struct mpo_exchange *exchange);

    /** Release exchange->self, also one that was allocated in part or not at all, and one
     *  that was not connected. Collective over the group if it is connected. */
    void (*close)(struct mpo_exchange *exchange);

    /**
     * Start to move the rows; always called before `rows`, of the same rows. NULL: `rows`
     * does everything. Collective over the group. Allocates nothing.
     *
     * exchange->first_row says how many rows of this position each rank hosts.
     *
     * @param logits  [rows of this rank] pointers to [V] floats, valid until the position
     *                ends (mpo_exchange_rows)
     * @return MPO_ERR_PEER, MPO_ERR_DEVICE: no more positions follow
     */
    enum mpo_status (*post)(struct mpo_exchange *exchange, const float *const *logits);

    /**
     * Fill exchange->logits and exchange->log_norm with the other ranks' rows, on every
     * rank with a slice; this rank's own are there already. What the pointers lead to stays
     * as it is until the position ends. Collective over the group. Allocates nothing.
     *
     * @param logits    as in `post`
     * @param log_norm  [rows of this rank] their normalisers, nat
     * @return as `post`
     */
    enum mpo_status (*rows)(struct mpo_exchange *exchange, const float *const *logits,
                            const double *log_norm);

    const struct mpo_exchange_device_parts *parts; /* NULL: it has none */
};

/** One rank's part of an exchange, as a transport sees it. Arrays are allocated before the
 *  transport is. */
struct mpo_exchange {
    const struct mpo_comm *comm;   /* borrowed */
    struct mpo_exchange_spec spec; /* its pattern is never auto */
    int32_t size;                  /* P */
    int32_t rank;                  /* 0 .. P - 1 */
    int32_t first_policy;          /* this rank hosts first_policy .. + local_count - 1 */
    int32_t local_count;
    int32_t *first_block; /* [P + 1] where slices begin; the last: the end */
    int32_t *first_row;   /* [P + 1] rank r hosts the rows first_row[r] .. first_row[r + 1]
                             - 1 of the position: by policy, then B; H B in all, but for
                             those that are left out */
    const float **logits; /* [first_row[P]] each at the first token of this rank's slice;
                             NULL on a rank without one */
    double *log_norm;     /* [first_row[P]] nat; the same */
    void *self;           /* the transport's own; NULL at first */
    struct mpo_exchange_dispatch *common; /* src/exchange/exchange.c's own */
};

/** Rows of this position that a rank hosts. */
static inline int32_t mpo_exchange_rows_of(const struct mpo_exchange *exchange,
                                           int32_t rank)
{
    return exchange->first_row[rank + 1] - exchange->first_row[rank];
}

/** Tokens of a rank's slice. */
struct mpo_slice {
    int32_t first;
    int32_t count; /* 0: none */
};

/** The slice of a rank in a group of `size`; the pattern must not be auto. Local. */
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

/** Bytes of a token in a message: 2 for bf16 rows, else 4. Local. */
size_t mpo_exchange_token_bytes(const struct mpo_exchange_spec *spec);

/** Count what this rank moved (mpo_exchange_traffic). Local. */
void mpo_exchange_count_sent(struct mpo_exchange *exchange, int32_t messages, size_t bytes);
void mpo_exchange_count_received(struct mpo_exchange *exchange, int32_t messages,
                                 size_t bytes);

#ifdef __cplusplus
}
#endif
