/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>

#include "mpo/status.h"

/**
 * Start a thread that takes no signal: signals are the main thread's.
 *
 * @param name  what top and debuggers show; at most 15 characters
 * @return MPO_OK, or MPO_ERR_MEMORY where the limit of processes is reached
 * Local.
 */
enum mpo_status mpo_thread_start(pthread_t *thread, const char *name,
                                 void *(*run)(void *argument), void *argument);
