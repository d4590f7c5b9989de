#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A reward program, for configs/reviews_rewards.yaml: a line in, a line out (rewards.command).

    sentiment   s / sqrt(s^2 + 15), s = 2 (words of praise - words of blame), in (-1, 1)
    concise     minus the number of tokens

The adapters were trained on VADER, whose scale `sentiment` has; this list of words is shorter and
needs no package. Output is not buffered: mpo sets PYTHONUNBUFFERED.
"""

import json
import re
import sys

PRAISE = set("""
    admire amazing beautiful beautifully best brilliant brilliantly captivating charm charming
    delight delightful enjoy enjoyable enjoyed entertaining excellent exceptional excited exciting
    fantastic fun fine gorgeous great happy heartwarming hilarious incredible inspiring joy like
    liked love loved lovely masterful masterpiece perfect perfectly powerful pleasure recommend
    remarkable strong stunning superb sweet talent talented thrilling touching treat warm warmth
    well win wonderful wonderfully worth""".split())
BLAME = set("""
    annoying awful bad badly bland bore bored boring confusing dead disappointed disappointing
    disappointment dull fail failed fails flat forgettable hate hated lack lacks lost mediocre mess
    miss painful pain poor poorly predictable sad slow stupid terrible tired tiresome ugly
    unfortunately waste wasted weak worse worst wrong""".split())


def rewards(response, token_count):
    words = re.findall(r"[a-z']+", response.lower())
    s = 2 * (sum(word in PRAISE for word in words) - sum(word in BLAME for word in words))
    return {"sentiment": s / (s * s + 15) ** 0.5, "concise": -token_count}


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        given = rewards(request["prefill"] + " " + request["response"], request["token_count"])
        print(json.dumps({"id": request["id"], **given}))
