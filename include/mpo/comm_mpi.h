/**
 * MPI for the few files that talk it: src/comm and the transports of src/exchange.
 */
#pragma once

#include <mpi.h>

#include "mpo/comm.h"

/** Relay an MPI error as MPO_ERR_PEER with MPI's own text. */
#define MPO_TRY_MPI(call)                                                                  \
    do {                                                                                   \
        int mpi_code = (call);                                                             \
        if (mpi_code != MPI_SUCCESS) {                                                     \
            char mpi_text[MPI_MAX_ERROR_STRING] = "";                                      \
            int mpi_length = 0;                                                            \
            MPI_Error_string(mpi_code, mpi_text, &mpi_length);                             \
            MPO_FAIL(MPO_ERR_PEER, "MPI: %s in %s", mpi_text, #call);                      \
        }                                                                                  \
    } while (0)

/** Communicator of this rank's group; borrowed. MPI_COMM_NULL without MPI. */
MPI_Comm mpo_comm_group_mpi(const struct mpo_comm *comm);
