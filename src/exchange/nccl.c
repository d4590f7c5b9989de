/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport `nccl`: rows go from device to device, and no host memory holds one.
 *
 *     post     pack: a kernel for each receiver makes one message of its slices, unless
 *              they lie side by side as they are;
 *              group: a message to and from each rank that needs one
 *     rows     normalisers by MPI meanwhile; then wait for the group and, of bf16 rows,
 *              whose messages have 2 bytes per token, unpack: a kernel makes floats of them
 *
 * All of it runs on a stream of the transport's own, so that the mixture normalises the
 * rows while they travel. What ranks make of slices is smaller and goes along the mixture's
 * stream (nccl_parts.c). Packing moves each float twice through the device's memory, but a
 * position is then one message per pair of ranks: a launch costs NCCL more than a row costs
 * the device.
 *
 * NCCL has no deadline. Its calls wait for other ranks where ranks join and at the first
 * message between two of them, which connects the two; both happen when the exchange opens,
 * under an alarm. After that a group of calls is put on the stream at once, and every wait is
 * that of comm/comm_mpi.h, which names the rank that does not respond and checks NCCL's
 * asynchronous errors on each poll. (Of a non-blocking communicator NCCL starts a thread for
 * each group of calls.) A communicator is aborted and never destroyed, for destroying it
 * waits for the other ranks. At the end nothing is under way: a position ends when all ranks
 * have received what they need.
 *
 * Source: NCCL user guide, "Fault Tolerance" and "Group Calls".
 */
#include "nccl_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "pack.h"
#include "device/device_cuda.h"

#define NCCL_ADVICE "Run with NCCL_DEBUG=INFO to see why"

/* Inside a group of calls an abort would wait for the group's end. */
static void abort_comm(struct nccl *self)
{
    if (self->in_group)
        ncclGroupEnd();
    self->in_group = false;
    if (self->comm == NULL)
        return;
    mpo_comm_alarm_set("ncclCommAbort", NCCL_ADVICE);
    ncclCommAbort(self->comm);
    mpo_comm_alarm_clear();
    self->comm = NULL;
}

/* After another rank's failure the job may be retried; after this rank's it may not. */
static enum mpo_status status_of(ncclResult_t result)
{
    return result == ncclRemoteError || result == ncclSystemError ? MPO_ERR_PEER
                                                                  : MPO_ERR_DEVICE;
}

enum mpo_status mpo_nccl_fail(struct nccl *self, ncclResult_t result, const char *call)
{
    enum mpo_status status = MPO_OK;
    char reason[256] = "";
    const char *last = ncclGetLastError(self->comm);
    snprintf(reason, sizeof reason, "%s",
             last != NULL && *last != '\0' ? last : "no details");
    abort_comm(self);
    MPO_FAIL(status_of(result),
             "NCCL: %s failed: %s (%s); NCCL_DEBUG=INFO shows more; "
             "exchange.transport=shared or mpi work without NCCL",
             call, ncclGetErrorString(result), reason);
cleanup:
    return status;
}

enum mpo_status mpo_nccl_begin_group(struct nccl *self)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_NCCL(self, ncclGroupStart());
    self->in_group = true;
cleanup:
    return status;
}

enum mpo_status mpo_nccl_end_group(struct nccl *self)
{
    enum mpo_status status = MPO_OK;
    self->in_group = false;
    MPO_TRY_NCCL(self, ncclGroupEnd());
cleanup:
    return status;
}

/* ---- waits ---- */

struct awaited {
    struct nccl *nccl;
    cudaStream_t stream;
};

/* What was put on the stream has been done. */
static enum mpo_status is_drained(void *pointer, bool *done)
{
    enum mpo_status status = MPO_OK;
    const struct awaited *awaited = pointer;
    struct nccl *self = awaited->nccl;
    ncclResult_t state = ncclSuccess;
    MPO_TRY_NCCL(self, ncclCommGetAsyncError(self->comm, &state));
    if (state != ncclSuccess)
        MPO_TRY(mpo_nccl_fail(self, state, "an earlier call"));
    cudaError_t stream = cudaStreamQuery(awaited->stream);
    *done = stream == cudaSuccess;
    if (stream != cudaSuccess && stream != cudaErrorNotReady) {
        abort_comm(self);
        MPO_TRY_CUDA(stream);
    }
cleanup:
    return status;
}

enum mpo_status mpo_nccl_wait(struct nccl *self, cudaStream_t stream)
{
    struct awaited awaited = {self, stream};
    return mpo_comm_wait_for(&(struct mpo_comm_event){.test = is_drained,
                                                      .self = &awaited,
                                                      .what = "an NCCL call",
                                                      .advice = NCCL_ADVICE});
}

/* ---- life ---- */

static const char *nccl_refuses(const struct mpo_exchange_spec *spec,
                                const struct mpo_comm *comm)
{
    (void)spec;
    return mpo_comm_group_size(comm) > 1 ? NULL : "a group has one rank only";
}

static struct mpo_exchange_tokens tokens_at_most(const struct mpo_exchange_spec *spec,
                                                 const struct mpo_comm *comm, int32_t rank)
{
    return mpo_exchange_count_tokens(spec, comm, rank, spec->row_capacity);
}

static size_t nccl_keeps_bytes(const struct mpo_exchange_spec *spec,
                               const struct mpo_comm *comm, int32_t rank)
{
    struct mpo_exchange_tokens tokens = tokens_at_most(spec, comm, rank);
    size_t halves = spec->bf16_rows ? tokens.received : 0;
    return tokens.sent * mpo_exchange_token_bytes(spec) + tokens.received * sizeof(float) +
           halves * sizeof(uint16_t);
}

static enum mpo_status allocate_rows(size_t bytes, void **out)
{
    return mpo_device_cuda_take(bytes, "the exchange's rows of logits",
                                "set exchange.pattern to alltoall", out);
}

static enum mpo_status nccl_allocate(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_exchange_spec *spec = &exchange->spec;
    const struct mpo_comm *comm = exchange->comm;
    struct nccl *self = NULL;
    struct mpo_exchange_tokens tokens = tokens_at_most(spec, comm, exchange->rank);
    size_t own = (size_t)exchange->local_count * (size_t)spec->row_capacity;
    MPO_NEW(1, &self);
    exchange->self = self;
    MPO_TRY_CUDA(cudaStreamCreateWithFlags(&self->stream, cudaStreamNonBlocking));
    MPO_TRY(allocate_rows(tokens.received * sizeof(float), (void **)&self->received));
    if (spec->bf16_rows)
        MPO_TRY(allocate_rows(tokens.received * sizeof(uint16_t), (void **)&self->halves));
    MPO_TRY(allocate_rows(tokens.sent * mpo_exchange_token_bytes(spec), &self->packed));
    MPO_TRY(allocate_rows(own * sizeof *self->row, (void **)&self->sent_row));
    MPO_TRY_CUDA(cudaMallocHost((void **)&self->row, own * sizeof *self->row));
cleanup:
    return status;
}

/* The root sends its failure in place of its id, because the others wait for it. */
struct introduction {
    ncclResult_t result;
    ncclUniqueId id;
};

/* The first message to and from each rank that may send or get rows, of one token: a rank
 * hosts a policy, so it has rows. */
static enum mpo_status greet_ranks(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    bool receives = mpo_exchange_slice_of(exchange, exchange->rank).count > 0;
    MPO_TRY(mpo_nccl_begin_group(self));
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        if (rank == exchange->rank)
            continue;
        if (mpo_exchange_slice_of(exchange, rank).count > 0)
            MPO_TRY_NCCL(self, ncclSend(self->packed, 1, ncclBfloat16, rank, self->comm,
                                        self->stream));
        if (receives)
            MPO_TRY_NCCL(self, ncclRecv(self->received, 1, ncclBfloat16, rank, self->comm,
                                        self->stream));
    }
    MPO_TRY(mpo_nccl_end_group(self));
cleanup:
    return status;
}

/* Calls that wait for other ranks inside NCCL. */
static enum mpo_status join_ranks(struct mpo_exchange *exchange, ncclUniqueId id)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    mpo_comm_alarm_set("ncclCommInitRankConfig", NCCL_ADVICE);
    ncclResult_t result =
        ncclCommInitRankConfig(&self->comm, exchange->size, id, exchange->rank, &config);
    mpo_comm_alarm_clear();
    if (result != ncclSuccess)
        MPO_TRY(mpo_nccl_fail(self, result, "ncclCommInitRankConfig"));
    mpo_comm_alarm_set("the first group of NCCL's calls", NCCL_ADVICE);
    status = greet_ranks(exchange);
    mpo_comm_alarm_clear();
    if (status == MPO_OK)
        status = mpo_nccl_wait(self, self->stream);
cleanup:
    return status;
}

static enum mpo_status nccl_connect(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct introduction first = {ncclSuccess, {{0}}};
    if (exchange->rank == 0)
        first.result = ncclGetUniqueId(&first.id);
    MPO_TRY(mpo_comm_group_broadcast(exchange->comm, &first, sizeof first));
    if (first.result != ncclSuccess)
        MPO_TRY(mpo_nccl_fail(exchange->self, first.result,
                              "ncclGetUniqueId on the first of them"));
    MPO_TRY(mpo_comm_meet(mpo_comm_group_mpi(exchange->comm)));
    MPO_TRY(mpo_comm_return(mpo_comm_group_mpi(exchange->comm),
                            join_ranks(exchange, first.id)));
cleanup:
    return status;
}

static void nccl_close(struct mpo_exchange *exchange)
{
    struct nccl *self = exchange->self;
    if (self == NULL)
        return;
    abort_comm(self);
    cudaFreeHost((void *)self->row);
    cudaFree((void *)self->sent_row);
    cudaFree(self->packed);
    cudaFree(self->halves);
    cudaFree(self->received);
    if (self->stream != NULL)
        cudaStreamDestroy(self->stream);
    free(self);
    exchange->self = NULL;
}

/* ---- rows ---- */

/* Whether the slices of another rank are a message as they lie in the policies' memory:
 * floats of one row, or of whole rows side by side. */
static bool lie_packed(const struct mpo_exchange *exchange, int32_t rank,
                       const float *const *logits)
{
    int32_t vocab_size = exchange->spec.vocab_size;
    int32_t rows = mpo_exchange_rows_of(exchange, exchange->rank);
    bool are_whole = mpo_exchange_slice_of(exchange, rank).count == vocab_size;
    bool are = !exchange->spec.bf16_rows && (rows == 1 || are_whole);
    for (int32_t i = 1; are && i < rows; i++)
        are = logits[i] == logits[i - 1] + vocab_size;
    return are;
}

/* Where the slice of another rank begins among the packed ones: those of this rank's own
 * are left out. */
static void *packed_for(const struct mpo_exchange *exchange, int32_t rank, size_t rows)
{
    const struct nccl *self = exchange->self;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, rank);
    struct mpo_slice own = mpo_exchange_slice_of(exchange, exchange->rank);
    int32_t before = slice.first - (own.first < slice.first ? own.count : 0);
    return (char *)self->packed +
           (size_t)before * rows * mpo_exchange_token_bytes(&exchange->spec);
}

static bool must_pack(const struct mpo_exchange *exchange, int32_t rank,
                      const float *const *logits)
{
    return rank != exchange->rank && mpo_exchange_slice_of(exchange, rank).count > 0 &&
           !lie_packed(exchange, rank, logits);
}

static enum mpo_status pack_rows(struct mpo_exchange *exchange, const float *const *logits)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    size_t rows = (size_t)mpo_exchange_rows_of(exchange, exchange->rank);
    bool any = false;
    for (int32_t rank = 0; rows > 0 && rank < exchange->size; rank++)
        any = any || must_pack(exchange, rank, logits);
    if (!any)
        return MPO_OK; /* an empty grid must not be launched */
    memcpy(self->row, logits, rows * sizeof *logits);
    MPO_TRY_CUDA(cudaMemcpyAsync((void *)self->sent_row, self->row, rows * sizeof *logits,
                                 cudaMemcpyHostToDevice, self->stream));
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        struct mpo_slice slice = mpo_exchange_slice_of(exchange, rank);
        struct mpo_exchange_pack pack = {self->sent_row,
                                         (int32_t)rows,
                                         slice.first,
                                         slice.count,
                                         exchange->spec.bf16_rows,
                                         packed_for(exchange, rank, rows)};
        if (must_pack(exchange, rank, logits))
            MPO_TRY(mpo_exchange_cuda_pack(&pack, self->stream));
    }
cleanup:
    return status;
}

/* Tokens in one rank's slice of another rank's rows. */
static size_t message_tokens(const struct mpo_exchange *exchange, int32_t from, int32_t to)
{
    return (size_t)mpo_exchange_rows_of(exchange, from) *
           (size_t)mpo_exchange_slice_of(exchange, to).count;
}

/* The message for another rank: its slices of this rank's rows. */
static const void *message_for(const struct mpo_exchange *exchange, int32_t rank,
                               const float *const *logits)
{
    if (lie_packed(exchange, rank, logits))
        return logits[0] + mpo_exchange_slice_of(exchange, rank).first;
    return packed_for(exchange, rank,
                      (size_t)mpo_exchange_rows_of(exchange, exchange->rank));
}

/* The messages between this rank and one other, inside a group of calls; *room is where the
 * next one goes. */
static enum mpo_status send_and_receive(struct mpo_exchange *exchange, int32_t rank,
                                        const float *const *logits, char **room)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    size_t sent = message_tokens(exchange, exchange->rank, rank);
    size_t received = message_tokens(exchange, rank, exchange->rank);
    size_t token = mpo_exchange_token_bytes(&exchange->spec);
    ncclDataType_t type = exchange->spec.bf16_rows ? ncclBfloat16 : ncclFloat;
    if (sent > 0) {
        MPO_TRY_NCCL(self, ncclSend(message_for(exchange, rank, logits), sent, type, rank,
                                    self->comm, self->stream));
        mpo_exchange_count_sent(exchange, 1, sent * token);
    }
    if (received > 0) {
        MPO_TRY_NCCL(self, ncclRecv(*room, received, type, rank, self->comm, self->stream));
        mpo_exchange_count_received(exchange, 1, received * token);
        *room += received * token;
    }
cleanup:
    return status;
}

static enum mpo_status nccl_post(struct mpo_exchange *exchange, const float *const *logits)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    char *room = exchange->spec.bf16_rows ? (char *)self->halves : (char *)self->received;
    if (exchange->first_row[exchange->size] == 0)
        return MPO_OK;
    MPO_TRY(pack_rows(exchange, logits));
    MPO_TRY(mpo_nccl_begin_group(self));
    for (int32_t rank = 0; rank < exchange->size; rank++)
        if (rank != exchange->rank)
            MPO_TRY(send_and_receive(exchange, rank, logits, &room));
    MPO_TRY(mpo_nccl_end_group(self));
cleanup:
    return status;
}

/* Convert what other ranks sent to floats. */
static enum mpo_status unpack_rows(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    size_t count = 0;
    for (int32_t rank = 0; rank < exchange->size; rank++)
        if (rank != exchange->rank)
            count += message_tokens(exchange, rank, exchange->rank);
    const struct mpo_exchange_unpack unpack = {self->halves, count, self->received};
    if (!exchange->spec.bf16_rows || count == 0)
        return MPO_OK;
    MPO_TRY(mpo_exchange_cuda_unpack(&unpack, self->stream));
cleanup:
    return status;
}

/* Point the table at what other ranks sent. */
static void point_at_received(struct mpo_exchange *exchange)
{
    const struct nccl *self = exchange->self;
    const float *row = self->received;
    size_t length = (size_t)mpo_exchange_slice_of(exchange, exchange->rank).count;
    for (int32_t rank = 0; length > 0 && rank < exchange->size; rank++) {
        if (rank == exchange->rank)
            continue;
        for (int32_t i = exchange->first_row[rank]; i < exchange->first_row[rank + 1];
             i++, row += length)
            exchange->logits[i] = row;
    }
}

static enum mpo_status nccl_rows(struct mpo_exchange *exchange, const float *const *logits,
                                 const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct nccl *self = exchange->self;
    int posted = 0;
    (void)logits;
    MPO_TRY(mpo_exchange_post_norms(exchange, log_norm, exchange->common->parts, &posted));
    MPO_TRY(mpo_comm_wait(exchange->common->parts, posted));
    MPO_TRY(unpack_rows(exchange));
    MPO_TRY(mpo_nccl_wait(self, self->stream));
    point_at_received(exchange);
cleanup:
    return status;
}

/* NCCL writes 2.27.3 as 22703. */
static void nccl_library_version(char *text, size_t bytes)
{
    int found = 0;
    ncclGetVersion(&found);
    snprintf(text, bytes, "%d.%d.%d", found / 10000, found % 10000 / 100, found % 100);
}

const struct mpo_exchange_ops mpo_exchange_nccl_ops = {
    .transport = "nccl",
    .library_version = nccl_library_version,
    .memory = MPO_EXCHANGE_DEVICE,
    .refuses = nccl_refuses,
    .keeps_bytes = nccl_keeps_bytes,
    .allocate = nccl_allocate,
    .connect = nccl_connect,
    .close = nccl_close,
    .post = nccl_post,
    .rows = nccl_rows,
    .parts = &mpo_nccl_parts,
};
