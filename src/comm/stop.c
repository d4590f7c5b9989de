/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request to stop that came to one rank alone.
 *
 * Launchers send a signal to all ranks, a person often to one. That rank may lead no group,
 * and other groups do not learn of it before the end of their units. So it tells rank zero,
 * and rank zero tells all others, once each. Ranks look for such a message while they wait,
 * and leaders between two tokens, but seldom: all the time they spend on it is a clock that
 * is read.
 */
#include "comm_impl.h"

#include "base/stop.h"
#include "base/timing.h"

#define LISTEN_SECONDS 0.01

/* The number lives as long as the job, so nothing waits for the send to complete. */
static void tell_rank(struct mpo_comm_job *job, int32_t rank)
{
    MPI_Request request = MPI_REQUEST_NULL;
    if (MPI_Isend(&job->stop_signal, 1, MPI_INT32_T, rank, MPO_COMM_STOP, job->control,
                  &request) == MPI_SUCCESS)
        MPI_Request_free(&request);
}

static void tell_of_stop(struct mpo_comm_job *job)
{
    job->stop_signal = mpo_stop_signal();
    for (int32_t rank = 1; job->rank == 0 && rank < job->size; rank++)
        tell_rank(job, rank);
    if (job->rank != 0)
        tell_rank(job, 0);
}

static void listen_for_stop(const struct mpo_comm_job *job)
{
    MPI_Status from;
    int has_come = 0;
    int32_t number = 0;
    if (MPI_Iprobe(MPI_ANY_SOURCE, MPO_COMM_STOP, job->control, &has_come, &from) !=
            MPI_SUCCESS ||
        !has_come)
        return;
    if (MPI_Recv(&number, 1, MPI_INT32_T, from.MPI_SOURCE, MPO_COMM_STOP, job->control,
                 MPI_STATUS_IGNORE) == MPI_SUCCESS)
        mpo_stop_hear(number);
}

void mpo_comm_share_stop(void)
{
    struct mpo_comm_job *job = mpo_comm_job();
    if (job->control == MPI_COMM_NULL || job->has_failed || job->stop_signal != 0)
        return;
    if (!mpo_stop_is_caught()) {
        const double now = mpo_timing_now();
        if (now - job->listened_for_stop < LISTEN_SECONDS)
            return;
        job->listened_for_stop = now;
        listen_for_stop(job);
    }
    if (mpo_stop_is_caught())
        tell_of_stop(job);
}
