/**
 * The exchange: rows of logits from the ranks that host the policies to the group's root,
 * and the drawn token ids back to everybody.
 *
 * Four transports, each one file under src/exchange:
 *   self    one rank: the root reads the policies' own memory, nothing is copied
 *   shared  ranks of one host: each row is copied once, into an MPI-3 shared window
 *   nodes   several ranks on each of several hosts: a window on each, one message from each
 *           host to the root's
 *   mpi     any hosts: each row is one message to the root
 * All give the root the same bytes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Rows of all H policies at one position of B batch rows, on the group's root. */
struct mpo_rows {
    int32_t row_count;          /* B */
    const float *const *logits; /* [H, B] pointers to [V] floats: logits[h * B + b] */
    const double *log_norm;     /* [H, B] log sum_v exp(logit / temperature), nat */
};

struct mpo_exchange;

struct mpo_exchange_spec {
    const char *transport; /* "auto", "self", "shared", "nodes", "mpi" */
    int32_t policy_count;  /* H */
    int32_t row_capacity;  /* rows of one position at most */
    int32_t vocab_size;    /* V */
};

/** Collective over the group; allocates all it will need.
 *  @return MPO_ERR_CONFIG when the transport cannot serve this group */
enum mpo_status mpo_exchange_open(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm, struct mpo_exchange **out);
void mpo_exchange_close(struct mpo_exchange **exchange);

/** Transports of this build by index, in the order in which auto tries them; NULL after the
 *  last. Local. */
const char *mpo_exchange_transport_built(int32_t index);

/** What opening would come to. */
struct mpo_exchange_plan {
    const char *transport;
    const char *shared_refuses; /* why it is not `shared` on one host, NULL when it is or
                                   could not be */
    size_t rank_bytes;          /* for rows, on this rank */
    size_t shared_bytes;        /* of shared memory, on this host by all groups */
    size_t shared_free_bytes;
};

/** Collective over the group; opens nothing. @return as mpo_exchange_open */
enum mpo_status mpo_exchange_survey(const struct mpo_exchange_spec *spec,
                                    const struct mpo_comm *comm,
                                    struct mpo_exchange_plan *out);

/** Bytes that rows of some policies take where they are handed over. Local. */
size_t mpo_exchange_rows_bytes(const struct mpo_exchange_spec *spec, int32_t policy_count);

/** The transport in use, e.g. "shared". */
const char *mpo_exchange_transport(const struct mpo_exchange *exchange);

/**
 * Bring this position's rows of all policies to the group's root.
 *
 * Collective over the group. Allocates nothing. The rows stay valid at the root until the
 * next call of mpo_exchange_tokens, which every position must make.
 *
 * @param row_count  B, the same on all ranks of the group
 * @param logits     [local policies, B] pointers to [V] floats: logits[k * B + b]
 * @param log_norm   [local policies, B] nat
 * @param out        the rows at the root; elsewhere row_count is 0
 */
enum mpo_status mpo_exchange_rows(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits, const double *log_norm,
                                  struct mpo_rows *out);

/** Broadcast the root's drawn tokens [count]. Collective over the group. */
enum mpo_status mpo_exchange_tokens(struct mpo_exchange *exchange, int32_t *tokens,
                                    int32_t count);

#ifdef __cplusplus
}
#endif
