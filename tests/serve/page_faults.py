#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page of serve when something is wrong, and for everybody: stop, keys, a lost or busy server,
narrow windows, the keyboard, contrast.

usage: page_faults.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import os
import re
import signal
import threading
import urllib.error

from window import (BANNER, CONFIG, DONE, ENDLESS, HOSTILE, MPO, READY, SOURCE, WORK, Page, Server,
                    chat, check, keep_seed, run_in_browser, set_value, shown, weights, write)


def test_stop_and_hostile_text():
    with Server(MPO, WORK, os.path.join(WORK, "long.yaml")) as server, Page(server) as browser:
        browser.wait(READY)
        set_value(browser, "#length", ENDLESS)
        browser.type("#prompt", "a")
        browser.press("Enter")
        grows = "return document.querySelector('.response .text')?.textContent.length > 2000"
        check("a long response streams", browser.wait(grows))
        browser.click("#stop")
        check("it can be stopped", browser.wait(DONE))
        check("what came is kept, and said", "stopped" in browser.text(".meta") and browser.run(grows))
        check("the server's row is free again", server.uses(rows_live=0))
        check("text is no markup", HOSTILE in browser.text(".response .text")
              and browser.run("return document.title !== 'broken' && !document.querySelector('img')"))
        browser.click("[name=view][value=tokens] + span")
        check("nor in tokens", browser.run("return !document.querySelector('img')"))
        browser.type("#prompt", "a")
        browser.press("Enter")
        browser.wait("return document.querySelectorAll('.turn:last-child .t').length > 20")
        browser.press("Escape")
        check("Escape stops too", browser.wait(DONE))


# ---- when something is wrong ----


def test_keys():
    write("keys", "me:secret-one\n")
    os.chmod(os.path.join(WORK, "keys"), 0o600)
    with Server(MPO, WORK, CONFIG, "--key-file=keys", key="secret-one") as server:
        with Page(server, expect=["401"]) as browser:
            opened = "return document.querySelector('#key-dialog').open"
            check("a key is asked for", browser.wait(opened))
            browser.type("#key", "wrong")
            browser.press("Enter")
            check("a wrong one is refused", browser.wait(
                opened + " && document.querySelector('#key-why').textContent.includes('does not know')"))
            browser.type("#key", "secret-one")
            browser.press("Enter")
            check("the right one is taken", browser.wait(READY) and not browser.run(opened))
            keep_seed(browser, 5)
            chat(browser, "the film")
            check("and used", shown(browser))
            browser.open(server.address + "/")
            check("it is kept for the tab", browser.wait(READY))
        with Page(server, "/#key=secret-one") as browser:
            check("a key in the address is taken", browser.wait(READY))
            check("out of the address", "secret" not in browser.run("return location.href"))


def test_lost_server():
    config = os.path.join(WORK, "long.yaml")
    server = Server(MPO, WORK, config)
    server.wait_until_ready()
    with Page(server, expect=["ERR_"]) as browser:
        browser.wait(READY)
        set_value(browser, "#length", ENDLESS)
        browser.type("#prompt", "a")
        browser.press("Enter")
        browser.wait("return document.querySelector('.response .text')?.textContent.length > 1000")
        server.end()
        check("a lost connection is said, its text kept", browser.wait(DONE)
              and "connection was lost" in browser.text(".note") and browser.text(".response .text"))
        banner = browser.wait(BANNER)
        check("a lost server too, and what to do", banner and "does not answer" in banner
              and f"127.0.0.1:{server.port}" in banner)
        browser.type("#prompt", "a")
        browser.press("Enter")
        check("a prompt is not lost on it", browser.wait(
            "return document.querySelector('.turn:last-child .note.error')") and browser.wait(DONE))
        with Server(MPO, WORK, config, port=server.port):
            check("the page comes back with it", browser.wait(READY))
            check("and the conversation is there", browser.run(
                "return document.querySelectorAll('.turn').length") == 2)


def test_busy_and_stopping():
    with Server(MPO, WORK, os.path.join(WORK, "long.yaml"), "--rows=1", "--queue=1") as server, \
            Page(server, expect=["429", "503", "ERR_"]) as browser:
        browser.wait(READY)
        body = {"messages": [{"role": "user", "content": "a"}], "stream": True,
                "max_tokens": ENDLESS}
        streams = []

        def occupy():
            try:
                streams.append(server.open("/v1/chat/completions", body))
            except (urllib.error.URLError, ConnectionError):
                pass

        # One has the row, whose client reads nothing, and one waits for it.
        for place in ("requests_running", "requests_waiting"):
            threading.Thread(target=occupy, daemon=True).start()
            check(f"{place} is 1", server.uses(**{place: 1}))
        browser.type("#prompt", "a")
        browser.press("Enter")
        note = browser.wait("return document.querySelector('.note.error')?.textContent")
        check(f"a busy server is said, and when to try again: {note}",
              note and re.search(r"busy.*Try again in \d+ s", note))
        server.process.send_signal(signal.SIGTERM)
        check("it stops", server.refuses())
        browser.type("#prompt", "a")
        browser.press("Enter")
        banner = browser.wait(BANNER)
        check(f"so is one that stops: {banner}", banner and "stopping" in banner)


# ---- for whom it is ----


def test_narrow():
    with Server(MPO, WORK, CONFIG) as server, Page(server, size=(360, 740)) as browser:
        browser.wait(READY)
        keep_seed(browser, 5)
        browser.click("#side")
        browser.click("[name=view][value=tokens] + span")
        chat(browser, "the film was")
        outside = """return [...document.querySelectorAll('body *')].filter((e) => {
            const box = e.getBoundingClientRect();
            return box.width > 1 && (box.right > innerWidth + 0.5 || box.left < -0.5)
                && getComputedStyle(e).position !== 'absolute' && !e.closest('code, .skip');
            }).map((e) => e.id || e.className || e.tagName)"""
        check("nothing is wider than 360 px", browser.run(outside) == [])
        browser.click(".flow .t")
        check("nor is the tip", not browser.run("return document.querySelector('#tip').hidden")
              and browser.run(outside) == [])
        browser.press("Escape")
        browser.click("#panel-toggle")
        browser.wait("return document.querySelector('.slider').getBoundingClientRect().width > 200")
        check("nor the weights", browser.run(outside) == [])
        check("the page itself does not scroll", browser.run(
            "return document.documentElement.scrollHeight <= innerHeight"))


def test_keyboard():
    with Server(MPO, WORK, CONFIG, "--weights=0.2,0.5,0.3") as server, Page(server) as browser:
        browser.wait(READY)
        keep_seed(browser, 5)
        focused = "return document.activeElement.id || document.activeElement.className"
        browser.press("Tab", "Enter")
        check("the first tab leads to the message", browser.run(focused) == "prompt")
        browser.press("t", "h", "e", "Shift+Enter", "f", "i", "l", "m")
        check("Shift and Enter begin a line", browser.run(
            "return document.querySelector('#prompt').value") == "the\nfilm")
        browser.press("Enter")
        check("Enter sends", browser.wait(DONE))
        visited = []
        for _ in range(60):
            browser.press("Tab")
            visited.append(browser.run(focused + " || document.activeElement.tagName"))
            ring = browser.run("const e = document.activeElement; return e === document.body || "
                               "getComputedStyle(e.closest('.choice') || e).outlineStyle !== 'none'"
                               " || e.id === 'prompt'")
            if not ring:
                check(f"{visited[-1]} shows that it has the focus", False)
        needed = {"side", "clear", "lock", "model", "copy-model", "copy-curl", "temperature-range",
                  "temperature", "length", "seed-new", "seed", "prompt", "quiet"}
        check(f"every control is reached by Tab {needed - set(visited) or ''}", needed <= set(visited))
        browser.run("document.querySelector('.slider input[type=range]').focus()")
        before = weights(browser)[0]
        browser.press("ArrowRight", "ArrowRight", "Shift+ArrowRight")
        check("arrow keys move a weight by 0.01, with Shift by 0.001",
              abs(weights(browser)[0] - before - 0.021) < 1e-9)
        check("buttons and fields have names", browser.run("""
            return [...document.querySelectorAll('button, input, textarea')].every((e) =>
                e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)"""))


def luminance(colour):
    lit = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * lit[0] + 0.7152 * lit[1] + 0.0722 * lit[2]


def contrast(one, other):
    lights = sorted([luminance(one), luminance(other)])
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def rgba(text):
    """`rgb(1, 2, 3)` or `color(srgb 0.1 0.2 0.3 / 0.5)` as four numbers up to 1."""
    found = [float(x) for x in re.findall(r"[\d.]+(?:e-?\d+)?", text)]
    scale = 1.0 if text.startswith("color") else 255.0
    return [x / scale for x in found[:3]] + [found[3] if len(found) > 3 else 1.0]


def test_light_and_dark():
    with Server(MPO, WORK, CONFIG) as server, Page(server) as browser:
        browser.wait(READY)
        backs = []
        for scheme in ("light", "dark"):
            browser.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            read = browser.run("""
                const style = (e) => getComputedStyle(e);
                const box = document.createElement("div");
                box.className = "response running";
                document.querySelector("#turns").append(box);
                const tints = [];
                for (let k = 0; k < 7; k++) {
                  const t = document.createElement("span");
                  t.className = `t p${k}`;
                  t.style.setProperty("--strength", 1);
                  box.append(t);
                  tints.push(style(t).backgroundColor);
                }
                const result = { tints, back: style(document.body).backgroundColor,
                  card: style(box).backgroundColor, ink: style(document.body).color,
                  dim: style(document.querySelector("#empty")).color };
                box.remove();
                return result;""")
            ink, card, back, dim = (rgba(read[name])[:3] for name in ("ink", "card", "back", "dim"))
            backs.append(back)
            least = [contrast(dim, back), contrast(dim, card)]
            for tint in map(rgba, read["tints"]):
                mixed = [tint[3] * t + (1 - tint[3]) * c for t, c in zip(tint, card)]
                least.append(contrast(ink, mixed))
            check(f"{scheme}: text has a contrast of {min(least):.2f}, 4.5 is needed", min(least) >= 4.5)
        check("dark is dark", luminance(backs[1]) < 0.05 < 0.8 < luminance(backs[0]))


def test_files():
    with Server(MPO, WORK, CONFIG) as server:
        with open(os.path.join(SOURCE, "src/serve/page.def"), encoding="utf-8") as file:
            paths = re.findall(r'^MPO_PAGE\("([^"]+)"', file.read(), re.M)
        for path in paths:
            with server.open(path) as response:
                name = path[1:] or "index.html"
                with open(os.path.join(SOURCE, "src/serve/page", name), "rb") as file:
                    check(f"{path} is built in", response.read() == file.read())
                check("with its policy", "default-src 'self'" in response.headers[
                    "Content-Security-Policy"] and response.headers["X-Content-Type-Options"] == "nosniff")
    with Server(MPO, WORK, CONFIG, "--page=false") as server:
        try:
            server.open("/")
            check("the page can be switched off", False)
        except urllib.error.HTTPError as error:
            check("the page can be switched off", error.code == 404)


if __name__ == "__main__":
    run_in_browser(globals())
