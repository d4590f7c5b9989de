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
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Entries of the list `policies:`, when each begins on a line of its own.
count_policies() {
    awk '/^[^ #-]/ { inside = /^policies:/ }
         inside && /^ *- / { match($0, / *- /); indent = indent ? indent : RLENGTH
                             count += RLENGTH == indent }
         END { print count + 0 }' "$1"
}

ranks=${RANKS:-}
for argument in "$@"; do
    if [ -z "$ranks" ] && [ -f "$argument" ]; then
        ranks=$(count_policies "$argument")
    fi
done
if ! [[ $ranks =~ ^[1-9][0-9]*$ ]]; then
    echo "local.sh: no configuration with a list of policies among the arguments; set RANKS, e.g. RANKS=2" >&2
    exit 64
fi
exec mpirun "${mpirun_options[@]}" -n "$ranks" "${mpo[@]}" "$@"
