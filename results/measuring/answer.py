#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Answer `rewards.command`: the rewards of a demonstration, one JSON line for each response.

    answer.py DEMO      run in the root of the checkout, with the environment of measure.sh
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path("results", sys.argv[1]).resolve()))

from rows import OBJECTIVES, score  # noqa: E402

for text in sys.stdin:
    line = json.loads(text)
    # A reward that counts the end token too is shifted on both ends of its scale.
    values = score({**line, "tokens": line["token_count"], "ended": False})
    answer = {objective.row: values[objective.name] for objective in OBJECTIVES}
    print(json.dumps({"id": line["id"], **answer}), flush=True)
