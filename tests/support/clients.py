# SPDX-License-Identifier: Apache-2.0
"""Python packages of clients, for the tests of the server (launch/setup.sh --clients)."""
import importlib.util
import os
import sys


def need(mpo, *packages):
    """Goes on where the packages are there; starts the script again with the Python that has
    them; or says SKIP. To be called before the script does anything."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return
    python = os.path.join(os.path.dirname(os.path.abspath(mpo)), "deps/clients-venv/bin/python")
    if os.path.exists(python) and "MPO_TEST_CLIENTS" not in os.environ:
        os.environ["MPO_TEST_CLIENTS"] = "1"
        os.execv(python, [python, *sys.argv])
    print(f"SKIP: needs the Python packages {', '.join(missing)}; run launch/setup.sh --clients")
    sys.exit(77)
