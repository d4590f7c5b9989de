/**
 * What the files of this folder share: the watch over waits (comm_wait.c).
 */
#pragma once

#include "mpo/comm_mpi.h"

/** Make the watch's communicator and learn the hosts. Collective over all ranks. */
enum mpo_status mpo_comm_watch_open(void);
void mpo_comm_watch_close(void);
