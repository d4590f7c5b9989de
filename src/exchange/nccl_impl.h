/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of the transport `nccl` share.
 *
 *   nccl.c        life, rows, errors and waits
 *   nccl_parts.c  small messages in the order of a stream's kernels
 */
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "exchange_impl.h"

struct nccl {
    ncclComm_t comm; /* NULL: none yet, or aborted */
    cudaStream_t stream;
    bool in_group;          /* of calls */
    float *received;        /* [H - own, row_capacity, slice], packed to B; device */
    uint16_t *halves;       /* bf16 rows: the same, as they come; device */
    void *packed;           /* [own, row_capacity, V], slices in order of ranks; device */
    const float **row;      /* [own, row_capacity] pinned */
    const float **sent_row; /* the same; device */
};

/** Raise unless a call of NCCL succeeds. */
#define MPO_TRY_NCCL(self, call)                                                           \
    do {                                                                                   \
        ncclResult_t nccl_result = (call);                                                 \
        if (nccl_result != ncclSuccess)                                                    \
            MPO_TRY(mpo_nccl_fail((self), nccl_result, #call));                            \
    } while (0)

/** Abort the communicator and raise what NCCL says. */
enum mpo_status mpo_nccl_fail(struct nccl *self, ncclResult_t result, const char *call);

/** Calls between these two are one group, on its stream after the second. */
enum mpo_status mpo_nccl_begin_group(struct nccl *self);
enum mpo_status mpo_nccl_end_group(struct nccl *self);

/** Wait until all on a stream has been done, as comm/comm_mpi.h waits. */
enum mpo_status mpo_nccl_wait(struct nccl *self, cudaStream_t stream);

extern const struct mpo_exchange_device_parts mpo_nccl_parts;
