#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make the tables and plots of a demonstration, step by step.
#
#     results/measuring/measure.sh DEMO [--only REGEX] [--rounds N] [--seeds N] [--tables] [--speed [ROUNDS]]
#
#   DEMO      a folder of results/ with a rows.py: reviews or requests
#   --only    rows whose names match; the tables are of all rows that are there
#   --rounds  only so many parts of each row: 1 makes a first table of few responses
#   --seeds   only the fits up to this seed
#   --tables  run nothing, write tables and plots of what is there
#   --speed   token/s alone, on a machine with nothing else to do
#
# What is in build/results/DEMO is kept: call it again after an interruption.  Needs a built
# mpo and the demo's model: launch/quickstart.sh makes both.  The Python packages go into
# build/python, nowhere else.
set -euo pipefail

demo=${1:?measure.sh: expected the name of a demonstration: reviews or requests}
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$root/build
[ -e "$root/results/$demo/rows.py" ] || { echo "measure.sh: no results/$demo/rows.py" >&2; exit 66; }
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
[ -n "${MPO:-}" ] || [ -x "${mpo[0]}" ] \
    || { echo "measure.sh: no ${mpo[0]}; run launch/quickstart.sh first" >&2; exit 66; }

stamp=$build/python/installed-$(sha256sum "$here/requirements.txt" | cut -c1-16)
if [ ! -e "$stamp" ]; then
    echo "-- installing the Python packages of requirements.txt" >&2
    rm -rf "$build/python"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check \
        --target "$build/python" -r "$here/requirements.txt"
    touch "$stamp"
fi

PYTHONPATH=$build/python:$root/results/$demo:$root/configs/reviews/training \
    python3 "$here/measure.py" "$demo" --root "$root" --mpo "${mpo[*]}" "$@"
if [ -e "$root/results/$demo/plot.gp" ]; then
    gnuplot -c "$root/results/$demo/plot.gp" "$root/results/$demo/table.tsv" "$root/results/$demo/plot.svg"
fi
gnuplot -c "$here/fits.gp" "$root/results/$demo/fits.tsv" "$root/results/$demo/fits.svg"
