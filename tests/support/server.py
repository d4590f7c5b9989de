# SPDX-License-Identifier: Apache-2.0
"""A `mpo serve` of a test: started on a free port, asked over HTTP, ended. Scripts that use it
have tests/commands in their path."""
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from waiting import PATIENCE_SECONDS, comes_to


def hold_port():
    """A socket that has a free port of loopback, which nobody else is given while it is open.
    A server that reuses addresses can listen there all the same."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def port_of(held):
    return held.getsockname()[1]


class Server:
    """with Server(MPO, WORK, CONFIG, "--rows=2") as server: server.ask("/v1/mpo")

    `launch` are the arguments of a launcher in place of mpo, the program the last of them."""

    def __init__(self, mpo, work, config, *flags, port=0, key=None, launch=()):
        self.held = None if port else hold_port()  # for a server after it, too
        self.port = port or port_of(self.held)
        self.address = f"http://127.0.0.1:{self.port}"
        self.key = key
        self.log_path = os.path.join(work, f"serve.{self.port}.log")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [mpo, *launch, "serve", config, f"--port={self.port}", *flags], stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, cwd=work)

    def __enter__(self):
        self.wait_until_ready()
        return self

    def __exit__(self, *_):
        self.end()

    def wait_until_ready(self):
        deadline = time.time() + PATIENCE_SECONDS
        while True:
            try:
                return self.ask("/health")
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None or time.time() > deadline:
                    self.end()
                    with open(self.log_path, encoding="utf-8") as log:
                        raise AssertionError("mpo serve is not ready:\n" + log.read()) from None
                time.sleep(0.05)

    def end(self, number=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait()

    def open(self, path, body=None, **headers):
        """The response; raises urllib.error.HTTPError for what is no success."""
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.address + path, data, headers=headers)
        return urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)

    def ask(self, path, body=None):
        with self.open(path, body) as response:
            return json.load(response)

    def uses(self, **wanted):
        """Its figures in use, once they are these; None where they do not come to be."""
        def found():
            use = self.ask("/v1/mpo")["use"]
            return use if wanted.items() <= use.items() else None

        return comes_to(found)

    def refuses(self):
        """What /health answers once it says that the server stops; None where it does not."""
        def said():
            try:
                self.ask("/health")
            except urllib.error.HTTPError as error:
                return json.load(error) if error.code == 503 else None
            except (urllib.error.URLError, ConnectionError):
                pass  # it had connected and asked nothing when draining began
            return None

        return comes_to(said)
