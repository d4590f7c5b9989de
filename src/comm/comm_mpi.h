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
 * Complete requests, or fail: at the deadline of mpo_comm_expect rank zero names the ranks
 * that do not respond (mpo_comm_fail), and a failure of another rank ends the wait. Every
 * wait of the program is this one. Allocates nothing.
 *
 * @return MPO_ERR_PEER where a failure handler keeps the process; requests stay as they are
 */
enum mpo_status mpo_comm_wait(MPI_Request *requests, int count);

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

/** MPO_TRY_MPI for a call that has only a blocking form: at the deadline an alarm ends this
 *  process, and with it the job, with exit code 75. Never in the token loop. */
#define MPO_TRY_MPI_ALARM(call)                                                            \
    do {                                                                                   \
        mpo_comm_alarm_set(#call);                                                         \
        int mpi_code = (call);                                                             \
        mpo_comm_alarm_clear();                                                            \
        MPO_CHECK_MPI(mpi_code, #call);                                                    \
    } while (0)
void mpo_comm_alarm_set(const char *call);
void mpo_comm_alarm_clear(void);

/** Communicator of this rank's group; borrowed. MPI_COMM_NULL without MPI. */
MPI_Comm mpo_comm_group_mpi(const struct mpo_comm *comm);

/** Communicator of this rank's group on this host, in the group's order; borrowed.
 *  MPI_COMM_NULL without MPI. */
MPI_Comm mpo_comm_host_mpi(const struct mpo_comm *comm);

/** True after a failure whose handler keeps the process: collective calls are no longer
 *  possible. Local. */
bool mpo_comm_has_failed(void);
