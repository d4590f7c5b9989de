/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs for workers: each runs once, in another thread, and comes back once; one worker keeps
 * their order; what has not begun when they stop never does.
 */
#include <pthread.h>
#include <semaphore.h>

#include "runner.h"
#include "base/workers.h"

#define JOBS 1000

struct job {
    struct mpo_worker_job worker; /* first */
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

static void open_workers(int32_t thread_count, struct mpo_workers **out)
{
    assert_ok(mpo_workers_open(&(struct mpo_workers_spec){.name = "worker",
                                                          .thread_count = thread_count,
                                                          .notify = notice},
                               out));
}

static void run_job(struct mpo_worker_job *worker)
{
    struct job *job = (void *)worker;
    job->thread = pthread_self();
    job->runs++;
    if (job->gate != NULL)
        sem_wait(job->gate);
}

static void take_all(struct mpo_workers *workers, struct job *job, int32_t *taken)
{
    for (struct mpo_worker_job *one = mpo_workers_take(workers, false); one != NULL;
         one = mpo_workers_take(workers, false)) {
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
    struct mpo_workers *workers = NULL;
    int32_t taken = 0;
    (void)state;
    sem_init(&noticed, 0, 0);
    open_workers(2, &workers);
    assert_null(mpo_workers_take(workers, false));
    for (int32_t i = 0; i < JOBS; i++) {
        job[i].worker.run = run_job;
        mpo_workers_submit(workers, &job[i].worker);
        take_all(workers, job, &taken);
    }
    while (taken < JOBS) {
        sem_wait(&noticed); /* a notice for each that is done */
        take_all(workers, job, &taken);
    }
    assert_null(mpo_workers_take(workers, false));
    mpo_workers_close(&workers);
    sem_destroy(&noticed);
}

/* Two threads hold a job each, and a third waits. */
static void one_long_job_keeps_no_other_waiting_and_none_begins_after_the_end(void **state)
{
    static struct job job[JOBS];
    struct mpo_workers *workers = NULL;
    sem_t gate;
    int32_t taken = 0;
    (void)state;
    sem_init(&noticed, 0, 0);
    sem_init(&gate, 0, 0);
    open_workers(2, &workers);
    job[0] = (struct job){.worker.run = run_job, .gate = &gate};
    job[1] = (struct job){.worker.run = run_job};
    mpo_workers_submit(workers, &job[0].worker);
    mpo_workers_submit(workers, &job[1].worker);
    sem_wait(&noticed);
    take_all(workers, job, &taken);
    assert_true(job[1].is_taken && !job[0].is_taken);
    sem_post(&gate);
    sem_wait(&noticed);
    mpo_workers_stop(workers);
    job[2] = (struct job){.worker.run = run_job};
    mpo_workers_submit(workers, &job[2].worker);
    take_all(workers, job, &taken);
    assert_int_equal(taken, 2);
    assert_int_equal(job[2].runs, 0);
    mpo_workers_close(&workers);
    assert_null(workers);
    mpo_workers_close(&workers);
    sem_destroy(&gate);
    sem_destroy(&noticed);
}

static void one_worker_keeps_the_order_and_is_waited_for(void **state)
{
    static struct job job[JOBS];
    struct mpo_workers *workers = NULL;
    (void)state;
    sem_init(&noticed, 0, 0);
    open_workers(1, &workers);
    assert_null(mpo_workers_take(workers, true)); /* nothing is under way */
    for (int32_t i = 0; i < JOBS; i++) {
        job[i] = (struct job){.worker.run = run_job};
        mpo_workers_submit(workers, &job[i].worker);
    }
    for (int32_t i = 0; i < JOBS; i++) {
        assert_ptr_equal(mpo_workers_take(workers, true), &job[i].worker);
        assert_int_equal(job[i].runs, 1);
    }
    assert_null(mpo_workers_take(workers, true));
    mpo_workers_close(&workers);
    sem_destroy(&noticed);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_job_runs_once_and_comes_back),
        cmocka_unit_test(one_worker_keeps_the_order_and_is_waited_for),
        cmocka_unit_test(one_long_job_keeps_no_other_waiting_and_none_begins_after_the_end),
    };
    return run_cases("workers", tests);
}
