/* SPDX-License-Identifier: Apache-2.0 */
/**
 * MPI, for the few files that call it: src/comm and the transports of src/exchange.
 */
#pragma once

#include <mpi.h>

#include "mpo/comm.h"

/** Raise MPO_ERR_PEER with MPI's own text unless `code` is MPI_SUCCESS. */
#define MPO_CHECK_MPI(code, call_text)                                                     \
    do {                                                                                   \
        if ((code) != MPI_SUCCESS) {                                                       \
            char mpi_text[MPI_MAX_ERROR_STRING] = "";                                      \
            int mpi_length = 0;                                                            \
            MPI_Error_string((code), mpi_text, &mpi_length);                               \
            MPO_FAIL(MPO_ERR_PEER, "MPI: %s failed: %s", call_text, mpi_text);             \
        }                                                                                  \
    } while (0)

/** Relay an MPI error as MPO_ERR_PEER with MPI's own text. */
#define MPO_TRY_MPI(call)                                                                  \
    do {                                                                                   \
        int mpi_code = (call);                                                             \
        MPO_CHECK_MPI(mpi_code, #call);                                                    \
    } while (0)

/**
 * Complete messages, or fail: at the deadline of mpo_comm_expect rank zero names the ranks
 * that do not respond (mpo_comm_fail), and a failure of another rank ends the wait. Every
 * wait of the program is of this kind. Allocates nothing.
 *
 * @return MPO_ERR_PEER where a failure handler keeps the process; the messages are cancelled
 */
enum mpo_status mpo_comm_wait(MPI_Request *requests, int count);

/** Cancel messages that are no longer waited for, so that MPI writes no longer into their
 *  memory. Local. */
void mpo_comm_cancel(MPI_Request *requests, int count);

/** Collective calls with their wait, in memory that outlives a failure
 *  (comm/collective.c). All are collective over the communicator's ranks. */
enum mpo_status mpo_comm_barrier(MPI_Comm communicator);
enum mpo_status mpo_comm_broadcast_in(MPI_Comm communicator, void *data, size_t bytes,
                                      int32_t root);

struct mpo_comm_reduction {
    MPI_Datatype type;
    size_t bytes; /* of a value */
    MPI_Op operation;
};
enum mpo_status mpo_comm_reduce_in(MPI_Comm communicator, void *values, size_t count,
                                   const struct mpo_comm_reduction *how);

/** out: [ranks, bytes], on rank zero of the communicator only. */
enum mpo_status mpo_comm_gather_in(MPI_Comm communicator, const void *data, size_t bytes,
                                   void *out);

/** An event to wait for that is not a request of MPI. */
struct mpo_comm_event {
    /** Tests whether it is complete, and fails if it never will be; does not block. */
    enum mpo_status (*test)(void *self, bool *done);
    void *self;
    const char *what; /* for the message of a deadline while all ranks respond; literals */
    const char *advice; /* what to check then: "Check ..." */
};

/** mpo_comm_wait for such an event. */
enum mpo_status mpo_comm_wait_for(const struct mpo_comm_event *event);

/** A duplicate of a communicator, made while others are waited for as everywhere.
 *  @param out  set only on success */
enum mpo_status mpo_comm_duplicate(MPI_Comm communicator, MPI_Comm *out);

/** Wait until all ranks of a communicator of the job are about to make the same call.
 *  Collective over its ranks. */
enum mpo_status mpo_comm_meet(MPI_Comm communicator);

/** After mpo_comm_meet and calls of another library that wait for ranks inside it: wait until
 *  all ranks are back. Where this rank has failed and another does not come, which may wait
 *  for this one where it hears nothing, this rank ends the job (mpo_comm_fail). Collective
 *  over the communicator's ranks.
 *  @return own, whatever the others came to */
enum mpo_status mpo_comm_return(MPI_Comm communicator, enum mpo_status own);

#define MPO_COMM_HOSTS_ADVICE                                                              \
    "Check the hosts for a stopped process or a stalled file system"

/** MPO_TRY_MPI for a collective call that has only a blocking form, once all ranks of the
 *  communicator are there. Against a rank that stops within the call there is an alarm,
 *  which ends this process, and with it the job, with exit code 75; where a failure handler
 *  keeps the process there is none. Never in the token loop. */
#define MPO_TRY_MPI_TOGETHER(communicator, call)                                           \
    do {                                                                                   \
        MPO_TRY(mpo_comm_meet(communicator));                                              \
        mpo_comm_alarm_set(#call, MPO_COMM_HOSTS_ADVICE);                                  \
        int mpi_code = (call);                                                             \
        mpo_comm_alarm_clear();                                                            \
        MPO_CHECK_MPI(mpi_code, #call);                                                    \
    } while (0)
/** @param advice  what to check when it does not return; a sentence without its stop */
void mpo_comm_alarm_set(const char *call, const char *advice);
void mpo_comm_alarm_clear(void);

/** Communicator of this rank's group; borrowed. MPI_COMM_NULL without MPI. */
MPI_Comm mpo_comm_group_mpi(const struct mpo_comm *comm);

/** Communicator of this rank's group on this host, in the group's order; borrowed.
 *  MPI_COMM_NULL without MPI. */
MPI_Comm mpo_comm_host_mpi(const struct mpo_comm *comm);

/** True when nothing collective is possible any more, and what belongs to a communicator is left
 *  as it is: after a failure whose handler keeps the process, or once a caller has ended the
 *  job or MPI before it closed what it had opened. Local.
 *  @param communicator  MPI_COMM_NULL, of a process alone: a failure counts only */
bool mpo_comm_is_over(MPI_Comm communicator);
