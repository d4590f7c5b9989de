#!/usr/bin/env bash
# Run mpo on this machine, one rank a policy; the ranks share its cores evenly.
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

# Entries of the list `policies:`, when each begins on a line of its own.
count_policies() {
    awk '/^[^ #-]/ { inside = /^policies:/ }
         inside && /^ *- / { match($0, / *- /); indent = indent ? indent : RLENGTH
                             count += RLENGTH == indent }
         END { print count + 0 }' "$1"
}

refuse() { echo "local.sh: $*" >&2; exit 64; }

ranks=${RANKS:-}
found=
for argument in "$@"; do
    # A record has a configuration in it, too.
    if [ -z "${RANKS:-}" ] && ! [[ $ranks =~ [1-9] ]] \
        && [ -f "$argument" ] && grep -Iq . "$argument"; then
        found=${found:-$argument}
        ranks=$(count_policies "$argument")
    fi
done
# Without a configuration there is nothing to spread: help, a record, or a name that mpo will
# say is wrong.
[ -n "$ranks" ] || exec "${mpo[@]}" "$@"
if ! [[ $ranks =~ ^[1-9][0-9]*$ ]]; then
    [ -n "$found" ] || refuse "RANKS is '$ranks', expected a number of ranks, e.g. RANKS=2"
    refuse "$found has no list of policies with a line for each; set RANKS, e.g. RANKS=2"
fi
exec mpirun "${mpirun_options[@]}" -n "$ranks" "${mpo[@]}" "$@"
