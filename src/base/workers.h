/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A few threads for what would keep another one busy, such as long texts that become tokens. They
 * know nothing of a job, which is its owner's; all calls are those of the owner's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"

#define MPO_WORKERS_MAX 8

struct mpo_workers;

/** The first member of what a job is about. */
struct mpo_worker_job {
    void (*run)(struct mpo_worker_job *job); /* in another thread */
    struct mpo_worker_job *next;             /* the list's that has it */
};

struct mpo_workers_spec {
    const char *name;     /* of the threads, as mpo_thread_start has it */
    int32_t thread_count; /* 1 .. MPO_WORKERS_MAX; one runs the jobs in their order */
    /** A job is done: called in a thread of the workers, no lock held. */
    void (*notify)(void *argument);
    void *argument;
};

/** Local. @return MPO_ERR_MEMORY */
enum mpo_status mpo_workers_open(const struct mpo_workers_spec *spec,
                                 struct mpo_workers **out);

/** After mpo_workers_stop the owner frees the jobs that are left, and then this. NULL-safe.
 *  Local. */
void mpo_workers_close(struct mpo_workers **workers);

/** Hand a job over, first come, first served. Local. */
void mpo_workers_submit(struct mpo_workers *workers, struct mpo_worker_job *job);

/** A job that is done, in the order in which they were; NULL: none. With `waits`, while any is
 *  under way, it waits for one. Local. */
struct mpo_worker_job *mpo_workers_take(struct mpo_workers *workers, bool waits);

/** Let no further job begin, and wait for those that run. Local. */
void mpo_workers_stop(struct mpo_workers *workers);
