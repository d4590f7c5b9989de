#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Serve on this machine, one rank per policy, and start again when a rank is lost.
#
#     launch/serve.sh my.yaml --port=8080
#
# All arguments go to `mpo serve`.  Ctrl-C, SIGTERM and SIGHUP let running requests finish
# (serve.drain) and end with 0: mpirun kills its ranks a second after SIGTERM, so it is sent
# SIGUSR1 instead.  After exit code 75 or 137, a lost or killed rank, the server starts again,
# at most MPO_RESTARTS times in ten minutes.  Environment: that of launch/local.sh, and
#   MPO_RESTARTS   restarts in ten minutes (default 5)
set -euo pipefail

folder=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
most=${MPO_RESTARTS:-5}
stopped=no
starts=()

say() { echo "serve.sh: $*" >&2; }

stop() {
    stopped=yes
    kill -USR1 "$server" 2>/dev/null || true
}

# In a session of its own, so that Ctrl-C on the terminal reaches this script alone.
run() {
    local again=yes
    code=0
    setsid "$folder/local.sh" serve "$@" &
    server=$!
    trap stop INT TERM HUP
    while [ $again = yes ]; do
        code=0
        wait "$server" || code=$?
        again=no
        if kill -0 "$server" 2>/dev/null; then again=yes; fi
    done
}

while :; do
    run "$@"
    [ $stopped = no ] || { [ $code != 85 ] || code=0; exit $code; }
    case $code in
        75 | 137) ;;
        *) exit $code ;;
    esac
    now=$(date +%s)
    recent=()
    for start in "${starts[@]+"${starts[@]}"}"; do
        [ $((now - start)) -ge 600 ] || recent+=("$start")
    done
    starts=("${recent[@]+"${recent[@]}"}" "$now")
    if [ ${#starts[@]} -gt "$most" ]; then
        say "exit code $code: started $most times in ten minutes, not again"
        exit $code
    fi
    say "exit code $code: starting again"
done
