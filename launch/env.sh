# shellcheck shell=bash
# Settings for runs on one machine; source it: . launch/env.sh
# It also sets the array mpirun_options: mpirun "${mpirun_options[@]}" -n 2 build/mpo ...

# Threads that wait sleep instead of spinning: ranks that share cores would stall each other.
export OMP_WAIT_POLICY=passive

# Containers often forbid reading another process's memory, and Open MPI then complains.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# Open MPI refuses to run as root without these two; in a container root is the usual user.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# Open MPI binds two or fewer ranks to one core each, which leaves the other threads no core.
# It counts cores, not hardware threads, and refuses more ranks than those.
# shellcheck disable=SC2034
mpirun_options=(--bind-to none --oversubscribe)
