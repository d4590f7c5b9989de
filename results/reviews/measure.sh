#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Reproduce everything in results/reviews: fits, samples, rewards, tables and plots.
#
#     results/reviews/measure.sh [--reuse]
#
#   --reuse   keep the records and samples that an earlier call left in build/results/reviews
#
# Needs a built mpo and the demo's model: launch/quickstart.sh makes both.  About half an hour
# on two cores.  The Python packages go into build/python, nowhere else.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$root/build
[ -x "$build/mpo" ] || { echo "measure.sh: no $build/mpo; run launch/quickstart.sh first" >&2; exit 66; }
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"

stamp=$build/python/installed-$(sha256sum "$here/requirements.txt" | cut -c1-16)
if [ ! -e "$stamp" ]; then
    echo "-- installing the Python packages of requirements.txt" >&2
    rm -rf "$build/python"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check \
        --target "$build/python" -r "$here/requirements.txt"
    touch "$stamp"
fi

PYTHONPATH=$build/python:$root/configs/reviews/training python3 "$here/measure.py" \
    --root "$root" --mpirun "mpirun ${mpirun_options[*]}" "$@"
gnuplot -c "$here/rewards.gp" "$here/table.tsv" "$here/plot.svg"
gnuplot -c "$here/proposals.gp" "$here/proposals.tsv" "$here/proposals.svg"
