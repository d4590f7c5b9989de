/**
 * What the files of this folder share: the look at the launch (comm/launch.c) and the
 * watch over waits (comm/wait.c).
 */
#pragma once

#include "comm_mpi.h"

/** Judge by the environment how this process was launched, before MPI_Init. Local.
 *  @return MPO_ERR_USAGE when srun started it without PMIx; only one task then speaks */
enum mpo_status mpo_comm_check_launch(void);

/** Make the watch's communicator and learn the hosts. Collective over all ranks. */
enum mpo_status mpo_comm_watch_open(void);
void mpo_comm_watch_close(void);
