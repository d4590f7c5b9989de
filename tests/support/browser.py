# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium by chromedriver, spoken to in the WebDriver protocol: no package needed.

    with Browser(work, width=1280, height=800) as browser:
        browser.open("http://127.0.0.1:8080/")
        browser.click("#send")

Everything of the network, the console and reports of the content security policy is kept:
browser.requests(), browser.complaints().
"""
import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from server import hold_port, port_of
from waiting import PATIENCE_SECONDS

KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "Shift": "\ue008",
        "ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015",
        "Home": "\ue011", "End": "\ue010", "Space": " "}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def programs():
    """(chromium, chromedriver), None for one that is not installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") \
        or shutil.which("google-chrome")
    return chromium, shutil.which("chromedriver")


class Browser:
    """One window. Methods that name an element take a CSS selector."""

    def __init__(self, work, width=1280, height=800, scale=1):
        chromium, driver = programs()
        self.held = hold_port()
        self.port = port_of(self.held)
        self.sent = []
        with open(os.path.join(work, "chromedriver.log"), "wb") as log:
            self.driver = subprocess.Popen([driver, f"--port={self.port}"],
                                           stdout=log, stderr=subprocess.STDOUT)
        self.session = None
        try:
            self.begin(chromium, os.path.join(work, "profile"))
            self.resize(width, height, scale)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def begin(self, chromium, profile):
        arguments = ["--headless=new", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                     "--disable-background-networking", "--disable-component-update",
                     "--disable-sync", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        options = {"binary": chromium, "args": arguments}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        deadline = time.time() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
                break
            except (ConnectionError, urllib.error.URLError):
                if time.time() > deadline or self.driver.poll() is not None:
                    raise
                time.sleep(0.1)
        self.session = answer["sessionId"]

    def close(self):
        if self.session:
            try:
                self.call("DELETE", f"/session/{self.session}")
            except OSError:
                pass
            self.session = None
        self.driver.terminate()
        self.driver.wait()

    def call(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise AssertionError(f"{path}: {value['error']}: {value['message']}") from None

    def command(self, name, body=None, method="POST"):
        return self.call(method, f"/session/{self.session}/{name}", body)

    def devtools(self, name, **parameters):
        return self.command("goog/cdp/execute", {"cmd": name, "params": parameters})

    # ---- the window ----

    def open(self, address):
        self.command("url", {"url": address})

    def resize(self, width, height, scale=1):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=scale, mobile=width < 600)

    def media(self, **features):
        """media(prefers_color_scheme="dark", prefers_reduced_motion="reduce")"""
        listed = [{"name": name.replace("_", "-"), "value": value}
                  for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=listed)

    def picture(self, path):
        data = self.devtools("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as out:
            out.write(base64.b64decode(data))

    # ---- the page ----

    def run(self, script, *arguments):
        """The value of a script's `return`."""
        return self.command("execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector):
        return self.run("const e = document.querySelector(arguments[0]);"
                        "return e && e.textContent", selector)

    def find(self, selector):
        return self.command("element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.command(f"element/{self.find(selector)}/click")

    def type(self, selector, text):
        self.command(f"element/{self.find(selector)}/value", {"text": text})

    def press(self, *keys):
        """Keys where the focus is; "Shift+Tab" holds one."""
        actions = []
        for key in keys:
            held = [KEYS.get(part, part) for part in (key.split("+") if len(key) > 1 else [key])]
            actions += [{"type": "keyDown", "value": value} for value in held]
            actions += [{"type": "keyUp", "value": value} for value in reversed(held)]
        self.command("actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def hover(self, selector):
        origin = {ELEMENT: self.find(selector)}
        move = {"type": "pointerMove", "duration": 0, "origin": origin, "x": 0, "y": 0}
        self.command("actions", {"actions": [{"type": "pointer", "id": "mouse",
                                              "actions": [move]}]})

    def wait(self, script, *arguments, seconds=PATIENCE_SECONDS):
        """Until the script's value is true; it is returned. None when it never is."""
        deadline = time.time() + seconds
        while True:
            value = self.run(script, *arguments)
            if value:
                return value
            if time.time() > deadline:
                return None
            time.sleep(0.05)

    # ---- what it did ----

    def requests(self):
        """Every request since forget, as DevTools tell them: url, method, postData."""
        for line in self.command("se/log", {"type": "performance"}):
            event = json.loads(line["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                self.sent.append(event["params"]["request"])
        return self.sent

    def forget(self):
        """Leave out what was asked and complained of until now."""
        self.requests()
        self.sent.clear()
        self.complaints()

    def complaints(self):
        """Errors and warnings of the console since the last call, of the page's own making and of
        its policy; (source, message). Statuses that a server answered have the source `network`."""
        return [(line["source"], line["message"])
                for line in self.command("se/log", {"type": "browser"})
                if line["level"] in ("SEVERE", "WARNING")]
