/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collective calls of MPI, each with its wait.
 *
 * They cannot be called off. Where a failure handler keeps the process, MPI may write the
 * result long after the wait was given up and its caller has returned. So MPI gets memory of
 * the job instead of the caller's, in parts that fit, and a job that failed never frees it.
 * Messages between two ranks can be called off (mpo_comm_cancel) and go to their own place.
 */
#include "comm_impl.h"

#include <math.h>
#include <string.h>

#include "base/timing.h"

/* How long a rank that failed waits for the others to return. */
#define RETURN_SECONDS 1.0

enum mpo_status mpo_comm_duplicate(MPI_Comm communicator, MPI_Comm *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_comm_job *job = mpo_comm_job();
    MPI_Request request = MPI_REQUEST_NULL;
    MPO_TRY_MPI(MPI_Comm_idup(communicator, &job->duplicate, &request));
    MPO_TRY(mpo_comm_wait_collective(&request));
    *out = job->duplicate;
cleanup:
    return status;
}

static size_t smaller_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

enum mpo_status mpo_comm_barrier(MPI_Comm communicator)
{
    enum mpo_status status = MPO_OK;
    MPI_Request request = MPI_REQUEST_NULL;
    MPO_TRY_MPI(MPI_Ibarrier(communicator, &request));
    MPO_TRY(mpo_comm_wait_collective(&request));
cleanup:
    return status;
}

/* Twice: a rank that comes when the others have given up finds the first one complete, and
 * no other rank at the second. */
enum mpo_status mpo_comm_meet(MPI_Comm communicator)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_barrier(communicator));
    MPO_TRY(mpo_comm_barrier(communicator));
cleanup:
    return status;
}

/* Ranks on their way back from another library. */
struct homecoming {
    MPI_Request request;
    double until;
    bool is_complete;
};

static enum mpo_status have_returned(void *self, bool *done)
{
    enum mpo_status status = MPO_OK;
    struct homecoming *all = self;
    int complete = 0;
    MPO_TRY_MPI(MPI_Test(&all->request, &complete, MPI_STATUS_IGNORE));
    all->is_complete = complete;
    *done = complete || mpo_timing_now() > all->until;
cleanup:
    return status;
}

enum mpo_status mpo_comm_return(MPI_Comm communicator, enum mpo_status own)
{
    enum mpo_status status = MPO_OK;
    struct mpo_error error;
    struct homecoming all = {MPI_REQUEST_NULL, INFINITY, false};
    const struct mpo_comm_event event = {.test = have_returned,
                                         .self = &all,
                                         .what = "a call of another rank",
                                         .advice = MPO_COMM_HOSTS_ADVICE};
    mpo_error_keep(&error);
    if (own != MPO_OK)
        all.until = mpo_timing_now() + RETURN_SECONDS;
    MPO_TRY_MPI(MPI_Ibarrier(communicator, &all.request));
    MPO_TRY(mpo_comm_wait_for(&event));
    mpo_error_restore(&error);
    status = all.is_complete ? own : mpo_comm_fail(own);
cleanup:
    return status;
}

enum mpo_status mpo_comm_broadcast_in(MPI_Comm communicator, void *data, size_t bytes,
                                      int32_t root)
{
    enum mpo_status status = MPO_OK;
    char *room = mpo_comm_job()->room;
    size_t part = 0;
    for (size_t done = 0; done < bytes; done += part) {
        MPI_Request request = MPI_REQUEST_NULL;
        part = smaller_size(bytes - done, MPO_COMM_ROOM_BYTES);
        memcpy(room, (char *)data + done, part);
        MPO_TRY_MPI(MPI_Ibcast(room, (int)part, MPI_BYTE, root, communicator, &request));
        MPO_TRY(mpo_comm_wait_collective(&request));
        memcpy((char *)data + done, room, part);
    }
cleanup:
    return status;
}

enum mpo_status mpo_comm_reduce_in(MPI_Comm communicator, void *values, size_t count,
                                   const struct mpo_comm_reduction *how)
{
    enum mpo_status status = MPO_OK;
    char *room = mpo_comm_job()->room;
    char *value = values;
    size_t part = 0;
    for (size_t done = 0; done < count; done += part) {
        MPI_Request request = MPI_REQUEST_NULL;
        part = smaller_size(count - done, MPO_COMM_ROOM_BYTES / how->bytes);
        memcpy(room, value + done * how->bytes, part * how->bytes);
        MPO_TRY_MPI(MPI_Iallreduce(MPI_IN_PLACE, room, (int)part, how->type, how->operation,
                                   communicator, &request));
        MPO_TRY(mpo_comm_wait_collective(&request));
        memcpy(value + done * how->bytes, room, part * how->bytes);
    }
cleanup:
    return status;
}

enum mpo_status mpo_comm_gather_in(MPI_Comm communicator, const void *data, size_t bytes,
                                   void *out)
{
    enum mpo_status status = MPO_OK;
    char *room = mpo_comm_job()->room; /* [ranks, part], then this rank's own part */
    int rank = 0;
    int size = 1;
    size_t part = 0;
    MPO_TRY_MPI(MPI_Comm_rank(communicator, &rank));
    MPO_TRY_MPI(MPI_Comm_size(communicator, &size));
    for (size_t done = 0; done < bytes; done += part) {
        MPI_Request request = MPI_REQUEST_NULL;
        part = smaller_size(bytes - done, MPO_COMM_ROOM_BYTES / ((size_t)size + 1));
        char *own = room + (size_t)size * part;
        memcpy(own, (const char *)data + done, part);
        MPO_TRY_MPI(MPI_Igather(own, (int)part, MPI_BYTE, room, (int)part, MPI_BYTE, 0,
                                communicator, &request));
        MPO_TRY(mpo_comm_wait_collective(&request));
        for (int from = 0; rank == 0 && from < size; from++)
            memcpy((char *)out + (size_t)from * bytes + done, room + (size_t)from * part,
                   part);
    }
cleanup:
    return status;
}
