#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A host of its own on this machine: takes the place of ssh where mpirun starts its daemons.
#
#     MPO_TEST_HOSTS=FOLDER mpirun --mca plm rsh --mca plm_rsh_agent tests/support/host.sh \
#         --host a:2,b:2 -n 4 ...
#
# Open MPI then takes a and b for hosts: their ranks talk TCP, and MPI_COMM_TYPE_SHARED ends
# at their border. Files of shared memory are named after the machine, which is one, so each
# host has a folder for them. Tests learn their host from MPO_TEST_HOST.
set -eu
host=$1
shift
folder=${MPO_TEST_HOSTS:?expected the folder for files of shared memory}/$host
mkdir -p "$folder"
# Daemons of one machine would make and remove each other's session folders. mpirun names
# its own folder on a daemon's command line, if its environment sets one.
export OMPI_MCA_orte_tmpdir_base="$folder"
command=$(printf '%s' "$*" | sed -E "s#(-mca orte_tmpdir_base) \"[^\"]*\"#\1 \"$folder\"#")
export OMPI_MCA_btl_vader_backing_directory="$folder"
export OMPI_MCA_osc_sm_backing_directory="$folder"
export MPO_TEST_HOST="$host"

# Open MPI does not know that these hosts share cores: waiting ranks would spin.
export OMPI_MCA_mpi_yield_when_idle=1
exec sh -c "$command"
