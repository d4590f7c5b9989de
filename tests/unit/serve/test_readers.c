/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs for the readers: each runs once, in another thread, and comes back once; what has not
 * begun when they stop never does.
 */
#include <pthread.h>
#include <semaphore.h>

#include "runner.h"
#include "serve/readers.h"

#define JOBS 1000

struct job {
    struct mpo_readers_job readers; /* first */
    int32_t runs;
    sem_t *gate; /* NULL: none */
    bool is_taken;
    pthread_t thread;
};

static sem_t noticed;

static void notice(void *argument)
{
    (void)argument;
    sem_post(&noticed);
}

static void run_job(struct mpo_readers_job *readers)
{
    struct job *job = (void *)readers;
    job->thread = pthread_self();
    job->runs++;
    if (job->gate != NULL)
        sem_wait(job->gate);
}

static void take_all(struct mpo_readers *readers, struct job *job, int32_t *taken)
{
    for (struct mpo_readers_job *one = mpo_readers_take(readers); one != NULL;
         one = mpo_readers_take(readers)) {
        struct job *found = (void *)one;
        assert_true(found >= job && found < job + JOBS && !found->is_taken);
        assert_int_equal(found->runs, 1);
        assert_false(pthread_equal(found->thread, pthread_self()));
        found->is_taken = true;
        (*taken)++;
    }
}

static void each_job_runs_once_and_comes_back(void **state)
{
    static struct job job[JOBS];
    struct mpo_readers *readers = NULL;
    int32_t taken = 0;
    (void)state;
    sem_init(&noticed, 0, 0);
    assert_ok(mpo_readers_open(notice, NULL, &readers));
    assert_null(mpo_readers_take(readers));
    for (int32_t i = 0; i < JOBS; i++) {
        job[i].readers.run = run_job;
        mpo_readers_submit(readers, &job[i].readers);
        take_all(readers, job, &taken);
    }
    while (taken < JOBS) {
        sem_wait(&noticed); /* a notice for each that is done */
        take_all(readers, job, &taken);
    }
    assert_null(mpo_readers_take(readers));
    mpo_readers_close(&readers);
    sem_destroy(&noticed);
}

/* Two threads hold a job each, and a third waits. */
static void one_long_job_keeps_no_other_waiting_and_none_begins_after_the_end(void **state)
{
    static struct job job[JOBS];
    struct mpo_readers *readers = NULL;
    sem_t gate;
    int32_t taken = 0;
    (void)state;
    sem_init(&noticed, 0, 0);
    sem_init(&gate, 0, 0);
    assert_ok(mpo_readers_open(notice, NULL, &readers));
    job[0] = (struct job){.readers.run = run_job, .gate = &gate};
    job[1] = (struct job){.readers.run = run_job};
    mpo_readers_submit(readers, &job[0].readers);
    mpo_readers_submit(readers, &job[1].readers);
    sem_wait(&noticed);
    take_all(readers, job, &taken);
    assert_true(job[1].is_taken && !job[0].is_taken);
    sem_post(&gate);
    sem_wait(&noticed);
    mpo_readers_stop(readers);
    job[2] = (struct job){.readers.run = run_job};
    mpo_readers_submit(readers, &job[2].readers);
    take_all(readers, job, &taken);
    assert_int_equal(taken, 2);
    assert_int_equal(job[2].runs, 0);
    mpo_readers_close(&readers);
    assert_null(readers);
    mpo_readers_close(&readers);
    sem_destroy(&gate);
    sem_destroy(&noticed);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_job_runs_once_and_comes_back),
        cmocka_unit_test(one_long_job_keeps_no_other_waiting_and_none_begins_after_the_end),
    };
    return run_cases("readers", tests);
}
