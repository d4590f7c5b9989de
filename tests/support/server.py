# SPDX-License-Identifier: Apache-2.0
"""A `mpo serve` of a test: started on a free port, asked over HTTP, ended."""
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

START_SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """with Server(MPO, WORK, CONFIG, "--rows=2") as server: server.ask("/v1/mpo")

    `launch` are the arguments of a launcher in place of mpo, the program the last of them."""

    def __init__(self, mpo, work, config, *flags, port=0, key=None, launch=()):
        self.port = port or free_port()
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
        deadline = time.time() + START_SECONDS
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
        return urllib.request.urlopen(request, timeout=START_SECONDS)

    def ask(self, path, body=None):
        with self.open(path, body) as response:
            return json.load(response)

    def uses(self, **wanted):
        """Whether its figures in use come to be these within START_SECONDS."""
        return self.comes_to(lambda: wanted.items() <= self.ask("/v1/mpo")["use"].items())

    def refuses(self):
        """Whether it comes to say, within START_SECONDS, that it stops."""
        def is_stopping():
            try:
                self.ask("/health")
            except urllib.error.HTTPError as error:
                return error.code == 503
            return False

        return self.comes_to(is_stopping)

    @staticmethod
    def comes_to(condition):
        deadline = time.time() + START_SECONDS
        while not condition():
            if time.time() > deadline:
                return False
            time.sleep(0.02)
        return True
