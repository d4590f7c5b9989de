# SPDX-License-Identifier: Apache-2.0
"""A `mpo serve` of a test: started on a free port, asked over HTTP, ended. Scripts that use it
have tests/commands in their path."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

from waiting import PATIENCE_SECONDS, are_gone, comes_to


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


def connect(server, body):
    """A client that reads nothing: its socket. Its room is more than loopback's packets have: with less,
    what was not read for long comes on when the kernel asks again, seconds later."""
    data = json.dumps(body).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
    client.connect(("127.0.0.1", server.port))
    key = f"Authorization: Bearer {server.key}\r\n" if server.key else ""
    client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                   b"%sContent-Length: %d\r\n\r\n" % (key.encode(), len(data)) + data)
    return client


class Stream(threading.Thread):
    """A request that is open while something happens to the server. From the line `held` on it reads
    nothing until go_on: what it asked for cannot end meanwhile. `key` is another one than the
    server's."""

    def __init__(self, server, body, held=None, key=None):
        super().__init__()
        self.held = held
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.may_go_on = threading.Event()
        self.server = server
        self.body = body
        self.lines = 0
        self.last = b""
        self.error = None
        self.status = None
        self.start()

    def run(self):
        try:
            with self.server.open("/v1/completions", self.body, **self.headers) as response:
                self.status = response.status
                for line in response:
                    self.lines += 1
                    self.last = line if line.strip() else self.last
                    if self.lines == self.held:
                        self.may_go_on.wait()
        except urllib.error.HTTPError as error:
            self.status = error.code
            self.last = error.read()
        except (OSError, http.client.HTTPException) as error:
            self.error = error

    def wait_for_lines(self, count):
        comes_to(lambda: self.lines >= count or not self.is_alive())

    def go_on(self):
        self.may_go_on.set()
        self.join()


class Job(Server):
    """A server on several ranks; `program` is (mpo, mpiexec)."""

    def __init__(self, program, work, config, ranks, *flags):
        mpo, mpiexec = program
        super().__init__(mpiexec, work, config, *flags, launch=[
            "--oversubscribe", "--bind-to", "none", "-n", str(ranks), mpo])

    def rank_processes(self):
        """{rank: process id}; forks of a rank have another parent."""
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True,
                                text=True, check=False).stdout.split()
        ranks = {}
        for process in map(int, listed):
            with open(f"/proc/{process}/environ", "rb") as environment:
                for entry in environment.read().split(b"\0"):
                    if entry.startswith(b"OMPI_COMM_WORLD_RANK="):
                        ranks[int(entry.split(b"=")[1])] = process
        return ranks

    def wait(self):
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def lose_rank(self, rank, number, streams):
        """Send a rank the signal that ends or stops it. Yields (name, condition, found) of what
        has to come of it, for the job and for the clients of these streams."""
        ranks = self.rank_processes()
        os.kill(ranks[rank], number)
        code = self.wait()
        wanted = 137 if number == signal.SIGKILL else 75
        yield f"exit code {wanted}", code == wanted, code
        yield "no process is left", are_gone(ranks.values()), ranks
        if number == signal.SIGSTOP and rank != 0:
            with open(self.log_path, encoding="utf-8") as log:
                text = log.read()
            yield ("it is named", re.search(rf"rank {rank}\b[^,\n]* has not responded", text)
                   is not None, text[-1500:])
        for stream in streams:
            stream.join()
            found = (stream.status, stream.last[-300:], stream.error)
            if rank == 0:
                yield "the client's connection ends", stream.last != b"data: [DONE]\n", found
            else:
                yield "the client hears of it", b'"peer_lost"' in stream.last, found
