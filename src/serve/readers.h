/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A few threads for what would keep the HTTP thread busy: long bodies and their tokens. They
 * know no requests; a job is its owner's. All calls are the HTTP thread's.
 */
#pragma once

#include <stdbool.h>

#include "mpo/status.h"

struct mpo_readers;

/** The first member of what a job is about. */
struct mpo_readers_job {
    void (*run)(struct mpo_readers_job *job); /* in another thread */
    struct mpo_readers_job *next;             /* the list's that has it */
};

/** Local.
 *  @param notify  a job is done: called in a thread of the readers, no lock held */
enum mpo_status mpo_readers_open(void (*notify)(void *argument), void *argument,
                                 struct mpo_readers **out);

/** After mpo_readers_stop the owner frees the jobs that are left, and then this. NULL-safe.
 *  Local. */
void mpo_readers_close(struct mpo_readers **readers);

/** Hand a job over, first come, first served. Local. */
void mpo_readers_submit(struct mpo_readers *readers, struct mpo_readers_job *job);

/** A job that is done, NULL: none. Never waits. Local. */
struct mpo_readers_job *mpo_readers_take(struct mpo_readers *readers);

/** Let no further job begin, and wait for those that run. Local. */
void mpo_readers_stop(struct mpo_readers *readers);
