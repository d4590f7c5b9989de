#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two servers behind nginx and behind HAProxy, as launch/README.md configures them: tokens come
one at a time, a client that leaves frees its row, other names are refused, a page's own requests
are not, and while one server drains nobody is turned away.

usage: proxies.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from person import MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Server, hold_port, port_of  # noqa: E402
from waiting import PATIENCE_SECONDS, comes_to  # noqa: E402

CONFIG = os.path.join(SOURCE, "configs/table.yaml")
NAME = "mpo.example.org"
LONG = {"prompt": "the film", "max_tokens": 200000, "end_bias": -100, "stream": True}
SHORT = {"prompt": "the film", "max_tokens": 2, "seed": 3}
EVENTS = 40


def example(name):
    """The lines of launch/README.md under "# NAME"."""
    with open(os.path.join(SOURCE, "launch", "README.md"), encoding="utf-8") as file:
        text = file.read()
    block = re.search(rf"^    # {name}.*\n((?:    .*\n)+)", text, re.MULTILINE).group(1)
    return re.sub(r"^    ", "", block, flags=re.MULTILINE)


def configured(name, port, servers):
    text = example(name)
    for number, server in zip((8081, 8082), servers):
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{server.port}")
    return text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(
        "bind :80", f"bind 127.0.0.1:{port}")


def nginx(port, servers):
    path = os.path.join(WORK, "nginx.conf")
    temporary = "".join(f"{kind}_temp_path {WORK}/{kind};\n" for kind in (
        "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"daemon off; worker_processes 1; pid {WORK}/nginx.pid;\n"
                   + ("user root;\n" if os.geteuid() == 0 else "")
                   + f"error_log {WORK}/nginx.log;\nevents {{}}\nhttp {{ access_log off;\n{temporary}"
                   + configured("nginx.conf", port, servers) + "}\n")
    return [shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin"), "-c", path]


def haproxy(port, servers):
    path = os.path.join(WORK, "haproxy.cfg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(configured("haproxy.cfg", port, servers))
    return [shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"), "-f", path]


class Proxy:
    def __init__(self, maker, servers):
        self.held = hold_port()
        self.port = port_of(self.held)
        self.process = subprocess.Popen(maker(self.port, servers), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def __enter__(self):
        def is_ready():
            return self.process.poll() is not None or self.ask("GET", "/health")[0] == 200

        if not comes_to(is_ready) or self.process.poll() is not None:
            self.__exit__()  # its workers end with it by this signal alone
            raise AssertionError("the proxy is not ready")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def begin(self, method, path, body=None, host=NAME, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        connection.request(method, path, json.dumps(body) if body else None,
                           {"Host": host, **headers})
        return connection, connection.getresponse()

    def ask(self, *arguments, **headers):
        """(status, JSON)"""
        try:
            connection, response = self.begin(*arguments, **headers)
            with contextlib.closing(connection):
                return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""


def rows(servers):
    return sum(server.ask("/v1/mpo")["use"]["rows_live"] for server in servers)


def check_stream(name, proxy, servers):
    """The first tokens are here long before the last ones are drawn, and the row waits for a
    client that reads no more."""
    connection, response = proxy.begin("POST", "/v1/completions", LONG)
    first = response.readline()
    check(f"{name}: the first token is here while others are drawn",
          first.startswith(b"data: ") and rows(servers) == 1)
    check(f"{name}: one after another", all(response.readline() for _ in range(400)))
    response.close()
    connection.close()
    check(f"{name}: a client that leaves has no row", comes_to(lambda: rows(servers) == 0))


class Slow(http.server.BaseHTTPRequestHandler):
    """In a server's place: a stream of few and small events, each sent when the one before was read."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            self.wfile.write(b"10\r\ndata: %8d\n\n\r\n" % number)
            if not self.server.was_read.acquire(timeout=PATIENCE_SECONDS):
                break
        self.wfile.write(b"0\r\n\r\n")


def check_pieces(name, maker):
    """What arrives at once is an event, not a buffer."""
    count = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as slow:
        slow.was_read = threading.Semaphore(0)
        threading.Thread(target=slow.serve_forever, daemon=True).start()
        place = type("Place", (), {"port": slow.server_address[1]})
        with Proxy(maker, (place, place)) as proxy:
            connection, response = proxy.begin("POST", "/v1/completions", SHORT)
            while count < EVENTS and (line := response.readline()):
                if line.startswith(b"data: "):
                    count += 1
                    slow.was_read.release()
            connection.close()
        slow.shutdown()
    check(f"{name}: {count} events, each read before the next one was sent", count == EVENTS)


def check_names(name, proxy):
    check(f"{name}: the name of the server", proxy.ask("GET", "/v1/models")[0] == 200)
    check(f"{name}: no other", proxy.ask("GET", "/v1/models", host="evil.example.org")[0] == 403)
    check(f"{name}: its own page", proxy.ask(
        "POST", "/v1/completions", SHORT, Origin=f"https://{NAME}")[0] == 200)
    check(f"{name}: no other page", proxy.ask(
        "POST", "/v1/completions", SHORT, Origin="https://evil.example.org")[0] == 403)
    status, body = proxy.ask("POST", "/v1/completions", {**SHORT, "temperature": 9})
    check(f"{name}: errors are those of the server", status == 400 and b"temperature" in body)


def check_drain(name, proxy, servers):
    """Requests go on while one server drains and ends, and after that."""
    statuses = []
    enough = 100
    stops = threading.Event()

    def go_on():
        while not stops.is_set():
            statuses.append(proxy.ask("POST", "/v1/completions", SHORT)[0])
    clients = [threading.Thread(target=go_on) for _ in range(4)]
    for client in clients:
        client.start()
    comes_to(lambda: len(statuses) > enough)
    code = servers[0].end(signal.SIGTERM)
    ended = len(statuses)
    comes_to(lambda: len(statuses) > ended + 4 * enough)
    stops.set()
    for client in clients:
        client.join()
    lost = [status for status in statuses if status != 200]
    check(f"{name}: one drained with {code}; of {len(statuses)} requests these failed: {lost}",
          code == 0 and not lost and len(statuses) > ended + 4 * enough)


def try_proxy(name, maker):
    if maker(0, [])[0] is None:
        print(f"ok    SKIP {name} is not installed")
        return
    flags = ("--rows=4", "--context=400000", f"--hosts={NAME}", "--log-requests=false")
    with Server(MPO, WORK, CONFIG, *flags) as one, Server(MPO, WORK, CONFIG, *flags) as two, \
            Proxy(maker, (one, two)) as proxy:
        check_names(name, proxy)
        check_stream(name, proxy, (one, two))
        check_drain(name, proxy, (one, two))
    check_pieces(name, maker)


def test_nginx():
    try_proxy("nginx", nginx)


def test_haproxy():
    try_proxy("HAProxy", haproxy)


fresh()
run_tests(globals())
