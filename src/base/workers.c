/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two lists under one lock: jobs that wait, and jobs that are done.
 */
#include "workers.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "memory.h"
#include "thread.h"

struct list {
    struct mpo_worker_job *first;
    struct mpo_worker_job *last;
};

struct mpo_workers {
    struct mpo_workers_spec spec;
    pthread_mutex_t lock;
    pthread_cond_t asked;
    pthread_cond_t finished;
    struct list waiting;
    struct list done;
    int32_t running; /* jobs that are in neither list */
    bool stops;
    pthread_t thread[MPO_WORKERS_MAX];
    int32_t thread_count; /* that run */
};

static void append_job(struct list *list, struct mpo_worker_job *job)
{
    job->next = NULL;
    if (list->last != NULL)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
}

static struct mpo_worker_job *remove_first(struct list *list)
{
    struct mpo_worker_job *job = list->first;
    if (job == NULL)
        return NULL;
    list->first = job->next;
    if (list->first == NULL)
        list->last = NULL;
    return job;
}

static void *run_jobs(void *argument)
{
    struct mpo_workers *workers = argument;
    pthread_mutex_lock(&workers->lock);
    while (!workers->stops) {
        struct mpo_worker_job *job = remove_first(&workers->waiting);
        if (job == NULL) {
            pthread_cond_wait(&workers->asked, &workers->lock);
            continue;
        }
        workers->running++;
        pthread_mutex_unlock(&workers->lock);
        job->run(job);
        pthread_mutex_lock(&workers->lock);
        workers->running--;
        append_job(&workers->done, job);
        pthread_cond_signal(&workers->finished);
        pthread_mutex_unlock(&workers->lock);
        workers->spec.notify(workers->spec.argument);
        pthread_mutex_lock(&workers->lock);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

enum mpo_status mpo_workers_open(const struct mpo_workers_spec *spec,
                                 struct mpo_workers **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_workers *workers = NULL;
    assert(spec->thread_count >= 1 && spec->thread_count <= MPO_WORKERS_MAX);
    MPO_NEW(1, &workers);
    workers->spec = *spec;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->asked, NULL);
    pthread_cond_init(&workers->finished, NULL);
    for (; workers->thread_count < spec->thread_count; workers->thread_count++)
        MPO_TRY(mpo_thread_start(&workers->thread[workers->thread_count], spec->name,
                                 run_jobs, workers));
cleanup:
    if (status != MPO_OK)
        mpo_workers_close(&workers);
    *out = workers;
    return status;
}

void mpo_workers_stop(struct mpo_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    workers->stops = true;
    pthread_cond_broadcast(&workers->asked);
    pthread_mutex_unlock(&workers->lock);
    for (; workers->thread_count > 0; workers->thread_count--)
        pthread_join(workers->thread[workers->thread_count - 1], NULL);
}

void mpo_workers_close(struct mpo_workers **workers)
{
    struct mpo_workers *self = *workers;
    if (self == NULL)
        return;
    mpo_workers_stop(self);
    pthread_cond_destroy(&self->finished);
    pthread_cond_destroy(&self->asked);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *workers = NULL;
}

void mpo_workers_submit(struct mpo_workers *workers, struct mpo_worker_job *job)
{
    pthread_mutex_lock(&workers->lock);
    append_job(&workers->waiting, job);
    pthread_cond_signal(&workers->asked);
    pthread_mutex_unlock(&workers->lock);
}

struct mpo_worker_job *mpo_workers_take(struct mpo_workers *workers, bool waits)
{
    pthread_mutex_lock(&workers->lock);
    while (waits && workers->done.first == NULL &&
           (workers->running > 0 || workers->waiting.first != NULL))
        pthread_cond_wait(&workers->finished, &workers->lock);
    struct mpo_worker_job *job = remove_first(&workers->done);
    pthread_mutex_unlock(&workers->lock);
    return job;
}
