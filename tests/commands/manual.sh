#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The manual page without a warning of groff, and, where it is there, of mandoc.
#
#     manual.sh MPO
set -eu

command -v groff >/dev/null || { echo "SKIP: needs groff"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
page=$folder/mpo.1
"$1" help --man >"$page"
warnings=$(groff -man -Tutf8 -ww "$page" 2>&1 >/dev/null)
[ -z "$warnings" ] || { echo "$warnings"; exit 1; }
groff -man -Tutf8 -P-cbou "$page" | grep -q -- "--rollout.responses=N" || { echo "no option is shown"; exit 1; }
if command -v mandoc >/dev/null; then
    mandoc -Tlint -Wwarning "$page" || exit 1
else
    echo "no mandoc: groff alone has read the page"
fi
