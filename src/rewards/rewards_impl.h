/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The parts of the rewards.
 *
 *     process.c   the program as a process: starting, waiting for its pipes, its end
 *     rewards.c   requests and answers in JSON
 *     scale.c     zero and one
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "mpo/rewards.h"

/** A running program. */
struct mpo_rewards_process {
    pid_t pid;  /* its group too; 0: none */
    int input;  /* we write, it reads; -1: closed */
    int output; /* it writes, we read */
};

/** Start a command of sh. The process is to be closed, whatever is returned. Local.
 *  @return MPO_ERR_MEMORY where a limit leaves no room for it */
enum mpo_status mpo_rewards_process_open(const char *command,
                                         struct mpo_rewards_process *process);

/** Close its input, give it a moment, kill what is left of its group, and wait for it. Local.
 *  @param how  "exit code 1", "signal 9 (Killed)"; NULL: not wanted */
void mpo_rewards_process_close(struct mpo_rewards_process *process, char *how,
                               size_t how_bytes);

/** Bytes on their way in both directions. */
struct mpo_rewards_traffic {
    const char *unsent;
    size_t unsent_bytes;
    char *room; /* for what arrives */
    size_t room_bytes;
    double until; /* of mpo_timing_now; INFINITY: for ever */
};

/**
 * Wait until the program takes bytes or has written some, and move them. Local.
 *
 * @param got  out; bytes in the room, 0: it has closed its output
 * @return MPO_ERR_PEER at the time to wait until; MPO_ERR_IO
 */
enum mpo_status mpo_rewards_process_move(struct mpo_rewards_process *process,
                                         struct mpo_rewards_traffic *traffic, size_t *got);
