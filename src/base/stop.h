/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Requests to stop: Ctrl-C (SIGINT), SIGTERM, SIGUSR1 and SIGHUP all mean "finish the step,
 * write, leave". The first one is noted and the program continues; a second one ends the
 * process at once. Acknowledged steps are safe in both cases.
 *
 * Schedulers send them: Slurm before a time limit (--signal=USR1) and on preemption
 * (SIGTERM). A command that handles them returns MPO_REQUEUE.
 */
#pragma once

#include <stdbool.h>

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Handle the signals from now on; commands without steps do not call this. Local. */
void mpo_stop_catch(void);

/** Write this to standard error at once when the first signal comes, or now if it came; NULL:
 *  nothing. The text is kept by reference and ends with a line end. Local. */
void mpo_stop_say(const char *text);

/** Call this when the first signal comes, from its handler, or is heard of, in that thread; again
 *  when it turns out to come from the parent. It must be safe in a handler. NULL: nothing.
 *  Local. */
void mpo_stop_tell(void (*tell)(void *argument), void *argument);

/** Whether the signal came from the process that started this one, as when mpirun ends a job:
 *  it kills a second later. Local. */
bool mpo_stop_is_from_parent(void);

/** Ask without a signal. Safe in a signal's handler. Local. */
void mpo_stop_request(void);

/** Forget what was asked without a signal. Local. */
void mpo_stop_forget(void);

/** Take a signal that came to another process of the job for one that came here. Any thread.
 *  Local. */
void mpo_stop_hear(int signal_number);

/** True after a signal to this rank or to another, and not after a request without one.
 *  Local. */
bool mpo_stop_is_caught(void);

/** The signal that requested the stop; 0: none so far. Local. */
int mpo_stop_signal(void);

/** Its name, e.g. "SIGTERM"; "a request" for any other number. Local. */
const char *mpo_stop_name(int signal_number);

#ifdef __cplusplus
}
#endif
