# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Settings for runs of mpo; source it: . launch/env.sh
# Besides the environment it sets
#   MPO_HOME         the source tree that this file is in
#   mpo              array: the program; MPO sets another one, with its prefix, e.g.
#                    MPO="apptainer exec mpo.sif mpo" (default: build/mpo)
#   mpirun_options   array: mpirun "${mpirun_options[@]}" -n 2 "${mpo[@]}" fit my.yaml
#   srun_options     array: srun "${srun_options[@]}" "${mpo[@]}" fit my.yaml
# Values that are already set are kept.  What depends on the cluster is in launch/README.md.

MPO_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export MPO_HOME
# shellcheck disable=SC2034
if [ -n "${MPO:-}" ]; then
    read -r -a mpo <<<"$MPO"
else
    mpo=("${MPO_BUILD_DIR:-$MPO_HOME/build}/mpo")
fi

# ---- threads ----

# Always: waiting threads sleep instead of spinning, else ranks that share cores stall each
# other.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

# ---- Open MPI ----

# In containers, which often forbid reading another process's memory; costs nothing
# elsewhere, since ranks of one host exchange rows through a shared window.
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}

# As root, the usual user of a container: Open MPI refuses to run without these two.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# mpirun looks for ssh even where all ranks are on this host, and ends without it.
if ! command -v ssh >/dev/null && ! command -v rsh >/dev/null; then
    export OMPI_MCA_plm_rsh_agent=${OMPI_MCA_plm_rsh_agent:-/bin/false}
fi

# With mpirun: Open MPI binds two or fewer ranks to one core each, which leaves the other
# threads no core; it counts cores, not hardware threads, and refuses more ranks than those.
# shellcheck disable=SC2034
mpirun_options=(--bind-to none --oversubscribe)

# ---- Slurm ----

# pmix: how Open MPI's ranks find each other, and how a lost one ends the step.
# kill-on-bad-exit=0: the first rank that leaves with 85 (requeue me) is no reason to kill the
# others, whose codes would hide it; some clusters have it on.
# wait: ranks end together, so a rank that is a minute late hangs.
# shellcheck disable=SC2034
srun_options=(--mpi=pmix --kill-on-bad-exit=0 --wait=60)

# In batch scripts: since Slurm 22.05 srun does not take sbatch's --cpus-per-task by itself.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK=${SRUN_CPUS_PER_TASK:-$SLURM_CPUS_PER_TASK}
fi

# ---- NCCL ----

# With GPUs: one line when something is wrong; INFO to see which network was chosen.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}

# ---- UCX ----

# With an Open MPI built on UCX: do not warn of UCX_ variables that a module has set.
export UCX_WARN_UNUSED_ENV_VARS=${UCX_WARN_UNUSED_ENV_VARS:-n}
