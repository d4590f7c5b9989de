/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that libllama computes in. OpenMP starts them with the first graph, and libgomp
 * ends the process by itself (exit 1) where one cannot be started. So as many are started
 * here first, all at once and with stacks of the same size, where a failure is an error like
 * any other; they end, and OpenMP starts its own at once, before the memory is used for
 * something else.
 */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include "llama_impl.h"

#include <ctype.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Where threads wait until all are there. */
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    bool is_open;
};

static void *wait_at_gate(void *argument)
{
    struct gate *gate = argument;
    pthread_mutex_lock(&gate->mutex);
    while (!gate->is_open)
        pthread_cond_wait(&gate->opened, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    return NULL;
}

static void open_gate(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->is_open = true;
    pthread_cond_broadcast(&gate->opened);
    pthread_mutex_unlock(&gate->mutex);
}

/* Stacks as OpenMP wants them: a number of kilobytes, or with a unit; else the system's. */
static void choose_stack(pthread_attr_t *attributes)
{
    const char *text = getenv("OMP_STACKSIZE");
    if (text == NULL)
        text = getenv("GOMP_STACKSIZE");
    if (text == NULL)
        return;
    char *end = NULL;
    const unsigned long long number = strtoull(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    const int unit = tolower((unsigned char)*end);
    const int shift = unit == 'b' ? 0 : unit == 'm' ? 20 : unit == 'g' ? 30 : 10;
    if (end != text && number > 0 && number <= SIZE_MAX >> shift)
        pthread_attr_setstacksize(attributes, (size_t)number << shift);
}

/* Start them and let them end. @return how many there were at once */
static int32_t try_threads(pthread_t *thread, int32_t count, int *error)
{
    struct gate gate = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                        .opened = PTHREAD_COND_INITIALIZER};
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    int32_t started = 0;
    pthread_attr_init(&attributes);
    choose_stack(&attributes);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the others */
    while (started < count && (*error = pthread_create(&thread[started], &attributes,
                                                       wait_at_gate, &gate)) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    open_gate(&gate);
    for (int32_t i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

static void do_nothing(void *argument)
{
    (void)argument;
}

/* Those of OpenMP, as libllama's parallel loops start them; they stay. */
static void start_openmp(int32_t thread_count)
{
    void (*parallel)(void (*body)(void *), void *argument, unsigned threads,
                     unsigned flags) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    memcpy(&parallel, &symbol, sizeof parallel);
    if (parallel != NULL)
        parallel(do_nothing, NULL, (unsigned)thread_count, 0);
}

enum mpo_status mpo_llama_threads_start(int32_t thread_count)
{
    enum mpo_status status = MPO_OK;
    pthread_t *thread = NULL;
    int error = 0;
    if (thread_count < 2)
        return MPO_OK;
    MPO_NEW(thread_count - 1, &thread);
    const int32_t started = try_threads(thread, thread_count - 1, &error);
    MPO_CHECK(error == 0, MPO_ERR_MEMORY,
              "libllama computes in %d threads of this rank, and only %d can be started "
              "(%s): raise the limits of address space and processes (ulimit -v, -d and "
              "-u), lower that of a stack (ulimit -s), or lower run.threads",
              thread_count, started + 1, strerror(error));
    start_openmp(thread_count);
cleanup:
    free(thread);
    return status;
}
