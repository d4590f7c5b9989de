/**
 * Requests to stop: Ctrl-C (SIGINT), SIGTERM and SIGUSR1 all mean "finish the step, write,
 * leave". The first one is noted and the program goes on; a second one ends the process at
 * once, as if nobody had caught it. What was acknowledged is safe either way.
 *
 * Schedulers send them: Slurm before a time limit (--signal=USR1) and on preemption
 * (SIGTERM). A command that heeds them returns MPO_REQUEUE.
 */
#pragma once

#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Heed the signals from now on; a command that has no steps never calls this. Local. */
void mpo_stop_catch(void);

/** The signal that asked to stop, 0 while there was none. Local. */
int mpo_stop_signal(void);

/** Its name, e.g. "SIGTERM"; "a request" for any other number. Local. */
const char *mpo_stop_name(int signal_number);

#ifdef __cplusplus
}
#endif
