/*
 * Transport `shared`: ranks of one host publish their rows in an MPI-3 shared window, and
 * the root reads them there. Each row of another rank is copied once; the root's own rows
 * are not copied at all.
 *
 *     window of a rank:  [local policies, row_capacity] doubles,
 *                        then as many rows of V floats
 *
 * One barrier a position says "published". The root's reads are over before it broadcasts
 * the drawn tokens, and nobody publishes again without those, so no second barrier is
 * needed.
 *
 * Source: MPI 3.1, section 11.2.3 (shared memory windows) and 11.7 (unified model).
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "mpo/comm_mpi.h"
#include "mpo/memory.h"

struct shared {
    MPI_Win window;
    char **base; /* [P] each rank's part of the window, as seen from here */
};

/* Open MPI's files of shared memory. Containers often have 64 MB of it. */
#define SHARED_FOLDER "/dev/shm"

void mpo_exchange_shared_room(const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm, size_t *needed, size_t *free)
{
    struct statvfs about = {0};
    int32_t first = 0;
    int32_t own = 0;
    mpo_comm_policy_block(comm, 0, &first, &own);
    size_t groups = (size_t)(mpo_comm_local_size(comm) / mpo_comm_group_size(comm));
    *needed =
        (groups > 0 ? groups : 1) * mpo_exchange_rows_bytes(spec, spec->policy_count - own);
    *free =
        statvfs(SHARED_FOLDER, &about) == 0 ? about.f_bavail * about.f_frsize : SIZE_MAX;
}

/* Where it does not fit, MPI_Win_allocate_shared fails on one rank and the others wait in
 * it for ever, so the group's root looks first and tells the others. */
static bool fits(const struct mpo_exchange_spec *spec, const struct mpo_comm *comm)
{
    size_t needed = 0;
    size_t free = 0;
    mpo_exchange_shared_room(spec, comm, &needed, &free);
    uint8_t fits = needed <= free;
    return mpo_comm_group_broadcast(comm, &fits, sizeof fits) == MPO_OK && fits != 0;
}

static const char *shared_refuses(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm)
{
    if (mpo_comm_group_size(comm) == 1)
        return "a group has one rank only";
    if (!mpo_comm_group_shares_host(comm))
        return "the ranks of a group span several hosts";
    return fits(spec, comm) ? NULL
                            : "its rows do not fit into " SHARED_FOLDER
                              " (in a container: --shm-size)";
}

/* The root's own rows are read where they are. */
static int32_t shared_keeps_policies(const struct mpo_exchange_spec *spec,
                                     const struct mpo_comm *comm)
{
    (void)spec;
    int32_t first = 0;
    int32_t own = 0;
    mpo_comm_policy_block(comm, mpo_comm_group_rank(comm), &first, &own);
    return mpo_comm_group_rank(comm) == 0 ? 0 : own;
}

static size_t norms_bytes(const struct mpo_exchange *exchange, int32_t local_count)
{
    return (size_t)local_count * (size_t)exchange->spec.row_capacity * sizeof(double);
}

static size_t row_bytes(const struct mpo_exchange *exchange)
{
    return (size_t)exchange->spec.vocab_size * sizeof(float);
}

static enum mpo_status shared_take_room(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct shared *self = NULL;
    MPO_NEW(1, &self);
    exchange->self = self;
    self->window = MPI_WIN_NULL;
    MPO_NEW(mpo_comm_group_size(exchange->comm), &self->base);
cleanup:
    return status;
}

static enum mpo_status shared_connect(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct shared *self = exchange->self;
    MPI_Comm group = mpo_comm_group_mpi(exchange->comm);
    int32_t size = mpo_comm_group_size(exchange->comm);
    bool is_root = mpo_comm_group_rank(exchange->comm) == 0;
    size_t rows = (size_t)exchange->local_count * (size_t)exchange->spec.row_capacity;
    size_t bytes =
        norms_bytes(exchange, exchange->local_count) + rows * row_bytes(exchange);
    void *own = NULL;
    MPO_TRY_MPI_ALARM(MPI_Win_allocate_shared(is_root ? 0 : (MPI_Aint)bytes, 1,
                                              MPI_INFO_NULL, group, &own, &self->window));
    for (int32_t rank = 0; rank < size; rank++) {
        MPI_Aint part = 0;
        int unit = 0;
        MPO_TRY_MPI(
            MPI_Win_shared_query(self->window, rank, &part, &unit, &self->base[rank]));
    }
    /* One passive epoch for the whole run; MPI_Win_sync is the memory barrier inside it. */
    MPO_TRY_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, self->window));
cleanup:
    return status;
}

static void shared_close(struct mpo_exchange *exchange)
{
    struct shared *self = exchange->self;
    if (self == NULL)
        return;
    if (self->window != MPI_WIN_NULL) {
        mpo_comm_alarm_set("MPI_Win_free");
        MPI_Win_unlock_all(self->window);
        MPI_Win_free(&self->window);
        mpo_comm_alarm_clear();
    }
    free(self->base);
    free(self);
    exchange->self = NULL;
}

static void publish(struct mpo_exchange *exchange, int32_t row_count,
                    const float *const *logits, const double *log_norm)
{
    struct shared *self = exchange->self;
    char *own = self->base[mpo_comm_group_rank(exchange->comm)];
    char *rows = own + norms_bytes(exchange, exchange->local_count);
    int32_t count = exchange->local_count * row_count;
    memcpy(own, log_norm, (size_t)count * sizeof *log_norm);
    for (int32_t i = 0; i < count; i++)
        memcpy(rows + (size_t)i * row_bytes(exchange), logits[i], row_bytes(exchange));
}

/* Point the root's table at one rank's published rows. */
static void collect(struct mpo_exchange *exchange, int32_t rank, int32_t row_count)
{
    const struct shared *self = exchange->self;
    int32_t first = 0;
    int32_t local_count = 0;
    mpo_comm_policy_block(exchange->comm, rank, &first, &local_count);
    const char *rows = self->base[rank] + norms_bytes(exchange, local_count);
    size_t at = (size_t)first * (size_t)row_count;
    size_t count = (size_t)local_count * (size_t)row_count;
    memcpy(exchange->all_norms + at, self->base[rank], count * sizeof(double));
    for (size_t i = 0; i < count; i++)
        exchange->all_logits[at + i] = (const float *)(rows + i * row_bytes(exchange));
}

static enum mpo_status shared_rows(struct mpo_exchange *exchange, int32_t row_count,
                                   const float *const *logits, const double *log_norm)
{
    enum mpo_status status = MPO_OK;
    struct shared *self = exchange->self;
    bool is_root = mpo_comm_group_rank(exchange->comm) == 0;
    if (!is_root)
        publish(exchange, row_count, logits, log_norm);
    MPI_Request request = MPI_REQUEST_NULL;
    MPO_TRY_MPI(MPI_Win_sync(self->window));
    MPO_TRY_MPI(MPI_Ibarrier(mpo_comm_group_mpi(exchange->comm), &request));
    MPO_TRY(mpo_comm_wait(&request, 1));
    MPO_TRY_MPI(MPI_Win_sync(self->window));
    if (!is_root)
        return MPO_OK;
    size_t own = (size_t)exchange->local_count * (size_t)row_count;
    memcpy(exchange->all_logits, logits, own * sizeof *logits);
    memcpy(exchange->all_norms, log_norm, own * sizeof *log_norm);
    for (int32_t rank = 1; rank < mpo_comm_group_size(exchange->comm); rank++)
        collect(exchange, rank, row_count);
cleanup:
    return status;
}

const struct mpo_exchange_ops mpo_exchange_shared_ops = {
    .transport = "shared",
    .refuses = shared_refuses,
    .keeps_policies = shared_keeps_policies,
    .take_room = shared_take_room,
    .connect = shared_connect,
    .close = shared_close,
    .rows = shared_rows,
};
