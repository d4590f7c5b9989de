#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The options are those of results/measuring/measure.sh.
exec "$(dirname "${BASH_SOURCE[0]}")/../measuring/measure.sh" requests "$@"
