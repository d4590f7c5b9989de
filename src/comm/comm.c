/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks and groups over Open MPI.
 *
 * Group g is ranks g*P .. g*P+P-1, so that with one rank per policy and the usual placement
 * (ranks fill a host before the next) a group stays on as few hosts as possible. Without
 * MPI every call degenerates to one rank; commands that need no ranks never start MPI.
 */
#include "comm_impl.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"

struct mpo_comm {
    MPI_Comm world;
    MPI_Comm group_comm;
    MPI_Comm host_comm;  /* this rank's group on this host */
    MPI_Comm local_comm; /* all ranks on this host */
    int32_t rank;
    int32_t size;
    int32_t group;
    int32_t group_count;
    int32_t group_rank;
    int32_t group_size;
    int32_t local_rank;
    int32_t local_size;
    int32_t *leader; /* [P] of each rank of the group: the first one on its host */
};

/* Messages between two ranks are cut, so that counts always fit MPI's int. */
#define MESSAGE_BYTES_MAX ((size_t)1 << 30)

/* Which ranks of the group share a host. */
static enum mpo_status find_leaders(struct mpo_comm *comm)
{
    enum mpo_status status = MPO_OK;
    int32_t leader = comm->group_rank;
    const size_t bytes = (size_t)comm->group_size * sizeof leader;
    MPO_TRY_MPI_TOGETHER(comm->group_comm,
                         MPI_Comm_split_type(comm->group_comm, MPI_COMM_TYPE_SHARED,
                                             comm->group_rank, MPI_INFO_NULL,
                                             &comm->host_comm));
    MPO_TRY(mpo_comm_broadcast_in(comm->host_comm, &leader, sizeof leader, 0));
    MPO_TRY(mpo_comm_gather_in(comm->group_comm, &leader, sizeof leader, comm->leader));
    MPO_TRY(mpo_comm_broadcast_in(comm->group_comm, comm->leader, bytes, 0));
cleanup:
    return status;
}

static enum mpo_status form_groups(struct mpo_comm *comm)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_duplicate(mpo_comm_job()->world, &comm->world));
    MPO_TRY_MPI_TOGETHER(comm->world, MPI_Comm_split(comm->world, comm->group,
                                                     comm->group_rank, &comm->group_comm));
    MPO_TRY_MPI_TOGETHER(comm->world,
                         MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank,
                                             MPI_INFO_NULL, &comm->local_comm));
    MPO_TRY_MPI(MPI_Comm_rank(comm->local_comm, &comm->local_rank));
    MPO_TRY_MPI(MPI_Comm_size(comm->local_comm, &comm->local_size));
    MPO_TRY(find_leaders(comm));
cleanup:
    return status;
}

/* Local: what may fail on one rank alone. */
static enum mpo_status describe_rank(int32_t group_size, struct mpo_comm **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_comm *comm = NULL;
    MPO_NEW(1, &comm);
    comm->world = MPI_COMM_NULL;
    comm->group_comm = MPI_COMM_NULL;
    comm->host_comm = MPI_COMM_NULL;
    comm->local_comm = MPI_COMM_NULL;
    comm->rank = mpo_comm_job_rank();
    comm->size = mpo_comm_job_size();
    comm->group_size = group_size;
    MPO_CHECK(group_size >= 1 && comm->size % group_size == 0, MPO_ERR_USAGE,
              "expected groups of a size that divides %d, the number of ranks, found %d",
              comm->size, group_size);
    comm->group = comm->rank / comm->group_size;
    comm->group_rank = comm->rank % comm->group_size;
    comm->group_count = comm->size / comm->group_size;
    comm->local_size = 1;
    MPO_NEW(comm->group_size, &comm->leader);
cleanup:
    *out = comm;
    return status;
}

enum mpo_status mpo_comm_open(int32_t group_size, struct mpo_comm **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(out);
    status = mpo_comm_agree(describe_rank(group_size, out));
    if (status == MPO_OK && mpo_comm_job()->world != MPI_COMM_NULL)
        status = mpo_comm_agree(form_groups(*out));
    if (status != MPO_OK)
        mpo_comm_close(out);
    return status;
}

/* Collective, except where nothing is any more: then nothing is freed. */
static void free_communicator(MPI_Comm *communicator)
{
    if (*communicator != MPI_COMM_NULL && !mpo_comm_is_over(*communicator))
        MPI_Comm_free(communicator);
}

void mpo_comm_close(struct mpo_comm **comm)
{
    if (comm == NULL || *comm == NULL)
        return;
    free_communicator(&(*comm)->local_comm);
    free_communicator(&(*comm)->host_comm);
    free_communicator(&(*comm)->group_comm);
    free_communicator(&(*comm)->world);
    free((*comm)->leader);
    free(*comm);
    *comm = NULL;
}

int32_t mpo_comm_rank(const struct mpo_comm *comm)
{
    return comm->rank;
}

int32_t mpo_comm_size(const struct mpo_comm *comm)
{
    return comm->size;
}

int32_t mpo_comm_group(const struct mpo_comm *comm)
{
    return comm->group;
}

int32_t mpo_comm_group_count(const struct mpo_comm *comm)
{
    return comm->group_count;
}

int32_t mpo_comm_group_rank(const struct mpo_comm *comm)
{
    return comm->group_rank;
}

int32_t mpo_comm_group_size(const struct mpo_comm *comm)
{
    return comm->group_size;
}

int32_t mpo_comm_local_rank(const struct mpo_comm *comm)
{
    return comm->local_rank;
}

int32_t mpo_comm_local_size(const struct mpo_comm *comm)
{
    return comm->local_size;
}

int32_t mpo_comm_group_leader(const struct mpo_comm *comm, int32_t group_rank)
{
    return comm->leader[group_rank];
}

bool mpo_comm_group_shares_host(const struct mpo_comm *comm)
{
    for (int32_t rank = 0; rank < comm->group_size; rank++)
        if (comm->leader[rank] != 0)
            return false;
    return true;
}

MPI_Comm mpo_comm_group_mpi(const struct mpo_comm *comm)
{
    return comm->group_comm;
}

MPI_Comm mpo_comm_host_mpi(const struct mpo_comm *comm)
{
    return comm->host_comm;
}

static enum mpo_status broadcast_bytes(MPI_Comm communicator, void *data, size_t bytes,
                                       int32_t root)
{
    enum mpo_status status = MPO_OK;
    if (communicator == MPI_COMM_NULL)
        return MPO_OK;
    MPO_TRY(mpo_comm_check());
    MPO_TRY(mpo_comm_broadcast_in(communicator, data, bytes, root));
cleanup:
    return status;
}

enum mpo_status mpo_comm_group_broadcast(const struct mpo_comm *comm, void *data,
                                         size_t bytes)
{
    return broadcast_bytes(comm->group_comm, data, bytes, 0);
}

enum mpo_status mpo_comm_broadcast(const struct mpo_comm *comm, void *data, size_t bytes,
                                   int32_t root)
{
    return broadcast_bytes(comm->world, data, bytes, root);
}

enum mpo_status mpo_comm_gather(const struct mpo_comm *comm, const void *data, size_t bytes,
                                void *out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_check());
    if (comm->world == MPI_COMM_NULL)
        memcpy(out, data, bytes);
    else
        MPO_TRY(mpo_comm_gather_in(comm->world, data, bytes, out));
cleanup:
    return status;
}

enum mpo_status mpo_comm_local_before(const struct mpo_comm *comm, int32_t value,
                                      int32_t *before)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_check());
    *before = 0; /* MPI does not say it on the first rank */
    if (comm->local_comm == MPI_COMM_NULL)
        goto cleanup;
    int32_t *room = (void *)mpo_comm_job()->room;
    MPI_Request request = MPI_REQUEST_NULL;
    *room = value;
    MPO_TRY_MPI(MPI_Iexscan(MPI_IN_PLACE, room, 1, MPI_INT32_T, MPI_SUM, comm->local_comm,
                            &request));
    MPO_TRY(mpo_comm_wait_collective(&request));
    if (comm->local_rank > 0)
        *before = *room;
cleanup:
    return status;
}

enum mpo_status mpo_comm_local_same(const struct mpo_comm *comm, uint64_t hash,
                                    int32_t *count)
{
    enum mpo_status status = MPO_OK;
    MPI_Comm same = MPI_COMM_NULL;
    MPO_TRY(mpo_comm_check());
    *count = 1;
    if (comm->local_comm == MPI_COMM_NULL)
        goto cleanup;
    int color = (int)((hash ^ hash >> 32) & INT_MAX);
    MPO_TRY_MPI_TOGETHER(comm->local_comm,
                         MPI_Comm_split(comm->local_comm, color, comm->local_rank, &same));
    MPO_TRY_MPI(MPI_Comm_size(same, count));
cleanup:
    if (same != MPI_COMM_NULL)
        MPI_Comm_free(&same);
    return status;
}

enum mpo_status mpo_comm_send(const struct mpo_comm *comm, int32_t from, int32_t to,
                              void *data, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    if (from == to || comm->world == MPI_COMM_NULL)
        return MPO_OK;
    MPO_TRY(mpo_comm_check());
    for (size_t done = 0; done < bytes; done += MESSAGE_BYTES_MAX) {
        size_t part = bytes - done < MESSAGE_BYTES_MAX ? bytes - done : MESSAGE_BYTES_MAX;
        char *at = (char *)data + done;
        MPI_Request request = MPI_REQUEST_NULL;
        if (comm->rank == from)
            MPO_TRY_MPI(MPI_Isend(at, (int)part, MPI_BYTE, to, 0, comm->world, &request));
        if (comm->rank == to)
            MPO_TRY_MPI(MPI_Irecv(at, (int)part, MPI_BYTE, from, 0, comm->world, &request));
        MPO_TRY(mpo_comm_wait(&request, 1));
    }
cleanup:
    return status;
}

static enum mpo_status reduce_values(const struct mpo_comm *comm, void *values,
                                     size_t count, const struct mpo_comm_reduction *how)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_check());
    if (comm->world != MPI_COMM_NULL)
        MPO_TRY(mpo_comm_reduce_in(comm->world, values, count, how));
cleanup:
    return status;
}

enum mpo_status mpo_comm_max(const struct mpo_comm *comm, double *values, int32_t count)
{
    return reduce_values(comm, values, (size_t)count,
                         &(struct mpo_comm_reduction){MPI_DOUBLE, sizeof *values, MPI_MAX});
}

enum mpo_status mpo_comm_min(const struct mpo_comm *comm, double *values, int32_t count)
{
    return reduce_values(comm, values, (size_t)count,
                         &(struct mpo_comm_reduction){MPI_DOUBLE, sizeof *values, MPI_MIN});
}

enum mpo_status mpo_comm_or(const struct mpo_comm *comm, uint8_t *bytes, size_t count)
{
    return reduce_values(comm, bytes, count,
                         &(struct mpo_comm_reduction){MPI_UINT8_T, 1, MPI_BOR});
}
