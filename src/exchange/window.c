/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An MPI-3 shared window over ranks of one host, for the transports that have one.
 *
 * It is open for reading and writing all the time, in one passive epoch; memory barriers on
 * both sides of a barrier of the ranks make writes visible.
 *
 * Source: MPI 3.1, section 11.2.3 (shared memory windows) and 11.7 (unified model).
 */
#include "exchange_impl.h"

#include <stdlib.h>
#include <sys/statvfs.h>

#include "base/memory.h"

/* Open MPI's files of shared memory. Containers often have 64 MB of it. */
#define SHARED_FOLDER "/dev/shm"

enum mpo_status mpo_exchange_window_allocate(struct mpo_exchange_window *window,
                                             MPI_Comm comm)
{
    enum mpo_status status = MPO_OK;
    int size = 0;
    window->window = MPI_WIN_NULL;
    window->comm = comm;
    MPO_TRY_MPI(MPI_Comm_size(comm, &size));
    MPO_NEW(size, &window->base);
cleanup:
    return status;
}

enum mpo_status mpo_exchange_window_connect(struct mpo_exchange_window *window,
                                            size_t own_bytes)
{
    enum mpo_status status = MPO_OK;
    void *own = NULL;
    int size = 0;
    MPO_TRY_MPI_TOGETHER(window->comm,
                         MPI_Win_allocate_shared((MPI_Aint)own_bytes, 1, MPI_INFO_NULL,
                                                 window->comm, &own, &window->window));
    MPO_TRY_MPI(MPI_Comm_size(window->comm, &size));
    for (int rank = 0; rank < size; rank++) {
        MPI_Aint part = 0;
        int unit = 0;
        MPO_TRY_MPI(
            MPI_Win_shared_query(window->window, rank, &part, &unit, &window->base[rank]));
    }
    MPO_TRY_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, window->window));
cleanup:
    return status;
}

void mpo_exchange_window_close(struct mpo_exchange_window *window)
{
    if (window->base != NULL && window->window != MPI_WIN_NULL &&
        !mpo_comm_is_over(window->comm) && mpo_comm_meet(window->comm) == MPO_OK) {
        mpo_comm_alarm_set("MPI_Win_free", MPO_COMM_HOSTS_ADVICE);
        MPI_Win_unlock_all(window->window);
        MPI_Win_free(&window->window);
        mpo_comm_alarm_clear();
    }
    free(window->base);
    window->base = NULL;
}

enum mpo_status mpo_exchange_window_meet(struct mpo_exchange_window *window)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_MPI(MPI_Win_sync(window->window));
    MPO_TRY(mpo_comm_barrier(window->comm));
    MPO_TRY_MPI(MPI_Win_sync(window->window));
cleanup:
    return status;
}

void mpo_exchange_shared_room(const struct mpo_exchange_ops *ops,
                              const struct mpo_exchange_spec *spec,
                              const struct mpo_comm *comm, size_t *needed, size_t *free)
{
    struct statvfs about = {0};
    int32_t leader = mpo_comm_group_leader(comm, mpo_comm_group_rank(comm));
    int32_t rank_count = 0; /* of the group on this host */
    size_t bytes = 0;       /* of their window */
    for (int32_t rank = 0; rank < mpo_comm_group_size(comm); rank++) {
        if (mpo_comm_group_leader(comm, rank) != leader)
            continue;
        rank_count++;
        bytes += ops->in_window ? ops->keeps_bytes(spec, comm, rank) : 0;
    }
    /* A host may have only part of a group: rounded up. */
    size_t windows = (size_t)((mpo_comm_local_size(comm) + rank_count - 1) / rank_count);
    *needed = windows * bytes;
    *free =
        statvfs(SHARED_FOLDER, &about) == 0 ? about.f_bavail * about.f_frsize : SIZE_MAX;
}

/* If a window does not fit, MPI_Win_allocate_shared fails on one rank and the others wait
 * in it for ever, so all ranks check first and agree. */
const char *mpo_exchange_window_refuses(const struct mpo_exchange_ops *ops,
                                        const struct mpo_exchange_spec *spec,
                                        const struct mpo_comm *comm)
{
    size_t needed = 0;
    size_t free = 0;
    mpo_exchange_shared_room(ops, spec, comm, &needed, &free);
    int fits = needed <= free;
    const struct mpo_comm_reduction least = {MPI_INT, sizeof fits, MPI_MIN};
    bool agreed = mpo_comm_reduce_in(mpo_comm_group_mpi(comm), &fits, 1, &least) == MPO_OK;
    return agreed && fits ? NULL
                          : "its rows do not fit into " SHARED_FOLDER
                            " (in a container: --shm-size)";
}
