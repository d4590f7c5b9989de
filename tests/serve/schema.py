#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""schemathesis, unmodified, on /openapi.json: no answer of another status, type or form than
described, no server error, nothing accepted that the description forbids. The one check that is
left out is that whatever fits a schema is accepted: what two fields say of each other, and
which texts are names of models, no schema says.

usage: schema.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import os
import subprocess
import sys

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from clients import need  # noqa: E402

need(sys.argv[1], "schemathesis")

from person import MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Server  # noqa: E402

CONFIG = os.path.join(SOURCE, "configs/table.yaml")


def test_description():
    with Server(MPO, WORK, CONFIG, "--log-requests=false") as server:
        result = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", server.address + "/openapi.json",
             "--phases", "coverage,fuzzing", "--max-examples", "15",
             "--generation-deterministic", "--exclude-checks", "positive_data_acceptance"],
            cwd=WORK, check=False, capture_output=True, text=True, timeout=1200)
        check("schemathesis finds nothing", result.returncode == 0, result)
        check("and leaves nothing in use", server.uses(requests_running=0, rows_live=0))


fresh()
run_tests(globals())
