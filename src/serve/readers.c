/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two lists under one lock: jobs that wait, and jobs that are done.
 */
#include "readers.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/thread.h"

/* One that tokenises the longest text keeps nobody waiting who comes with another. */
#define THREAD_COUNT 2

struct list {
    struct mpo_readers_job *first;
    struct mpo_readers_job *last;
};

struct mpo_readers {
    void (*notify)(void *argument);
    void *argument;
    pthread_mutex_t lock;
    pthread_cond_t asked;
    struct list waiting;
    struct list done;
    bool stops;
    pthread_t thread[THREAD_COUNT];
    int32_t thread_count; /* that run */
};

static void append_job(struct list *list, struct mpo_readers_job *job)
{
    job->next = NULL;
    if (list->last != NULL)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
}

static struct mpo_readers_job *remove_first(struct list *list)
{
    struct mpo_readers_job *job = list->first;
    if (job == NULL)
        return NULL;
    list->first = job->next;
    if (list->first == NULL)
        list->last = NULL;
    return job;
}

static void *run_jobs(void *argument)
{
    struct mpo_readers *readers = argument;
    pthread_mutex_lock(&readers->lock);
    while (!readers->stops) {
        struct mpo_readers_job *job = remove_first(&readers->waiting);
        if (job == NULL) {
            pthread_cond_wait(&readers->asked, &readers->lock);
            continue;
        }
        pthread_mutex_unlock(&readers->lock);
        job->run(job);
        pthread_mutex_lock(&readers->lock);
        append_job(&readers->done, job);
        pthread_mutex_unlock(&readers->lock);
        readers->notify(readers->argument);
        pthread_mutex_lock(&readers->lock);
    }
    pthread_mutex_unlock(&readers->lock);
    return NULL;
}

enum mpo_status mpo_readers_open(void (*notify)(void *argument), void *argument,
                                 struct mpo_readers **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_readers *readers = NULL;
    MPO_NEW(1, &readers);
    readers->notify = notify;
    readers->argument = argument;
    pthread_mutex_init(&readers->lock, NULL);
    pthread_cond_init(&readers->asked, NULL);
    for (; readers->thread_count < THREAD_COUNT; readers->thread_count++)
        MPO_TRY(mpo_thread_start(&readers->thread[readers->thread_count], "mpo-reader",
                                 run_jobs, readers));
cleanup:
    if (status != MPO_OK)
        mpo_readers_close(&readers);
    *out = readers;
    return status;
}

void mpo_readers_stop(struct mpo_readers *readers)
{
    pthread_mutex_lock(&readers->lock);
    readers->stops = true;
    pthread_cond_broadcast(&readers->asked);
    pthread_mutex_unlock(&readers->lock);
    for (; readers->thread_count > 0; readers->thread_count--)
        pthread_join(readers->thread[readers->thread_count - 1], NULL);
}

void mpo_readers_close(struct mpo_readers **readers)
{
    struct mpo_readers *self = *readers;
    if (self == NULL)
        return;
    mpo_readers_stop(self);
    pthread_cond_destroy(&self->asked);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *readers = NULL;
}

void mpo_readers_submit(struct mpo_readers *readers, struct mpo_readers_job *job)
{
    pthread_mutex_lock(&readers->lock);
    append_job(&readers->waiting, job);
    pthread_cond_signal(&readers->asked);
    pthread_mutex_unlock(&readers->lock);
}

struct mpo_readers_job *mpo_readers_take(struct mpo_readers *readers)
{
    pthread_mutex_lock(&readers->lock);
    struct mpo_readers_job *job = remove_first(&readers->done);
    pthread_mutex_unlock(&readers->lock);
    return job;
}
