#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run mpo on this machine, one rank per policy; the ranks share its cores evenly.  Commands
# that need no ranks (mpo help --ranks lists those that do) run as one process.
#
#     launch/local.sh fit configs/table.yaml
#     RANKS=6 launch/local.sh fit my.yaml --record.file=run.h5
#
# All arguments go to mpo.  Environment:
#   RANKS   number of ranks (default: as many as the configuration has policies)
#   MPO     the program (default: build/mpo)
set -euo pipefail

# shellcheck source=launch/env.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"

refuse() { echo "local.sh: $*" >&2; exit 64; }

command -v "${mpo[0]}" >/dev/null || {
    echo "local.sh: there is no program ${mpo[0]}; build it (launch/quickstart.sh), or set MPO" >&2
    exit 69
}
# The program knows which of its commands use ranks; the others run once, and so does help.
commands=$("${mpo[@]}" help --ranks)
grep -qxF -- "${1:-}" <<<"$commands" || exec "${mpo[@]}" "$@"
for argument in "$@"; do
    case $argument in --help | -h) exec "${mpo[@]}" "$@" ;; esac
done
ranks=${RANKS:-}
found=
for argument in "$@"; do
    # A record has a configuration in it, too.
    if [ -n "$ranks" ] || ! [ -f "$argument" ] || ! grep -Iq . "$argument"; then
        continue
    fi
    if names=$("${mpo[@]}" config "$argument" --get=policies 2>/dev/null); then
        ranks=$(wc -l <<<"$names")
    else
        found=${found:-$argument}
    fi
done
if [ -z "$ranks" ] && [ -n "$found" ]; then
    "${mpo[@]}" config "$found" >&2 || true # says what is wrong with it
    refuse "$found is no configuration with policies to count; mend it, or set RANKS, e.g. RANKS=2"
fi
# Without a configuration there is nothing to spread: mpo says what is wrong.
[ -n "$ranks" ] || exec "${mpo[@]}" "$@"
[[ $ranks =~ ^[1-9][0-9]*$ ]] \
    || refuse "RANKS is '$ranks', expected a number of ranks, e.g. RANKS=2"
exec mpirun "${mpirun_options[@]}" -n "$ranks" "${mpo[@]}" "$@"
