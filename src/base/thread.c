/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* pthread_setname_np */
#include "thread.h"

#include <signal.h>

#include "mpo/report.h"

enum mpo_status mpo_thread_start(pthread_t *thread, const char *name,
                                 void *(*run)(void *argument), void *argument)
{
    enum mpo_status status = MPO_OK;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    MPO_CHECK(error == 0, MPO_ERR_MEMORY,
              "no thread '%s' (error %d); raise the limit of processes", name, error);
    pthread_setname_np(*thread, name);
cleanup:
    return status;
}
