/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* pthread_setname_np */
#include "thread.h"

#include <signal.h>

#include "mpo/report.h"

/* What a chat template may need (src/policy/llama/jinja_limits.h). Where the main thread's stack has
 * no limit, glibc gives others 2 MB. */
#define STACK_BYTES ((size_t)8 << 20)

enum mpo_status mpo_thread_start(pthread_t *thread, const char *name,
                                 void *(*run)(void *argument), void *argument)
{
    enum mpo_status status = MPO_OK;
    sigset_t all;
    sigset_t before;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int error = pthread_create(thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    MPO_CHECK(error == 0, MPO_ERR_MEMORY,
              "no thread '%s' (error %d); raise the limit of processes", name, error);
    pthread_setname_np(*thread, name);
cleanup:
    return status;
}
