#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# results/reviews/measure.sh [--only REGEX] [--rounds N] [--seeds N] [--tables]: see results/measuring/measure.sh
exec "$(dirname "${BASH_SOURCE[0]}")/../measuring/measure.sh" reviews "$@"
