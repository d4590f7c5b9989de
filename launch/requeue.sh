#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run a job step inside a batch job, and requeue the job when the step asks for it.
#
#     exec launch/requeue.sh srun ... mpo fit my.yaml --resume       # last line of the script
#
# SIGUSR1, which Slurm sends with --signal=B:USR1@180, is passed on to the step: mpo finishes
# its step, flushes and exits with 85.  On 85 the job is requeued; also on 75 (a deadline
# passed), and on 138 and 143 (the signal came before mpo was ready for it).  Environment:
#   MPO_RESTARTS   maximum restarts (default 100), so that a job without progress ends
set -euo pipefail

# For a task of an array; for one of them SLURM_JOB_ID is the number of the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-${SLURM_JOB_ID:?requeue.sh is for batch jobs of Slurm}}

say() { echo "requeue.sh: $*" >&2; }

# A job that Slurm is ending itself, e.g. after scancel, is not in this state any more; one
# that is preempted with some time to stop still is.
is_running() { [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; }

requeue() {
    if ! is_running; then
        say "exit code $1: Slurm is ending job $job; submit it again to continue"
    elif [ "${SLURM_RESTART_COUNT:-0}" -ge "${MPO_RESTARTS:-100}" ]; then
        say "exit code $1 after ${SLURM_RESTART_COUNT:-0} restarts: not requeued; MPO_RESTARTS allows no more"
    elif scontrol requeue "$job"; then
        say "exit code $1: job $job is requeued"
    else
        say "exit code $1: job $job cannot be requeued; submit it again to continue"
    fi
}

"$@" &
step=$!
# A signal ends `wait` before the step has ended.  Preemption sends SIGTERM to the ranks, and
# to this shell, which must outlive them.
signalled=yes
trap 'signalled=yes; kill -USR1 "$step" 2>/dev/null || true' USR1
trap 'signalled=yes' TERM
while [ $signalled = yes ]; do
    signalled=no
    code=0
    wait "$step" || code=$?
done
case $code in
    75 | 85 | 138 | 143) requeue "$code" ;;
esac
exit "$code"
