#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mpo on a terminal, in a log and in a script: progress, colour, width, quiet, JSON.

usage: terminal.py MPO WORK_FOLDER
"""
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata

import h5py

MPO, WORK = sys.argv[1:3]
FAILURES = []

TABLE = """mpo-table 1
tokens a b </s>
row <s> {row}
row a {row}
row b {row}
"""
CONFIG = """run: {{seed: 1}}
prompts: {{file: prompts.txt}}
policies:
  - {{name: "{up}", model: up.table}}
  - {{name: "{down}", model: down.table}}
rollout: {{responses: 16, max_tokens: 64}}
descent: {{steps: 2500}}
record: {{file: out.h5, responses: false}}
"""
WIDE = "有益なモデル"  # six letters of two columns each


def write(name, text):
    with open(os.path.join(WORK, name), "w", encoding="utf-8") as file:
        file.write(text)


def fresh(up="up", down="down"):
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    write("prompts.txt", "a\nb\n" * 400)
    write("config.yaml", CONFIG.format(up=up, down=down))
    write("up.table", TABLE.format(row="0.6 0.38 0.02"))
    write("down.table", TABLE.format(row="0.1 0.86 0.04"))


def environment(**changes):
    given = dict(os.environ, TERM="xterm")
    for name in ("NO_COLOR", "COLUMNS"):
        given.pop(name, None)
    given.update(changes)
    return given


def run(*arguments):
    return subprocess.run([MPO, *arguments], cwd=WORK, env=environment(), capture_output=True,
                          text=True, timeout=600)


def on_terminal(*arguments, columns=80, interrupt_after=None, number=signal.SIGKILL,
                stdout_too=False, **changes):
    """(exit code, standard output, what the terminal got on standard error)"""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(os.path.join(WORK, "stdout"), "wb") as out:
        process = subprocess.Popen([MPO, *arguments], cwd=WORK, env=environment(**changes),
                                   stdin=subprocess.DEVNULL, stderr=slave,
                                   stdout=slave if stdout_too else out)
    os.close(slave)
    got = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        got += piece
        if interrupt_after is not None and interrupt_after in got:
            process.send_signal(number)
            interrupt_after = None
    os.close(master)
    code = process.wait(timeout=600)
    with open(os.path.join(WORK, "stdout"), encoding="utf-8") as out:
        return code, out.read(), got.decode("utf-8")


def columns_of(text):
    return sum(0 if unicodedata.combining(letter) else
               2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def screen(text, columns):
    """(lines that are left on the screen, every line that was shown): a terminal that knows
    what the log uses, and that fails on everything else."""
    lines, row, column, seen = [""], 0, 0, []
    text = re.sub("\033\\[[0-9;]*m", "", text)
    for token in re.findall("\033\\[[A-Z]|\r|\n|[^\033\r\n]+|\033", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\033[A":
            row -= 1
        elif token == "\033[K":
            lines[row] = "" if column == 0 else lines[row][:column]
        else:
            assert not token.startswith("\033"), repr(token)
            lines[row] = lines[row][:column] + token + lines[row][column + len(token):]
            column += len(token)
            seen.append(token)
    assert row >= 0
    return lines, seen


def check(name, condition, *shown):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        for text in shown:
            print("      " + repr(text)[-3000:])


def progress_lines(seen, name):
    return [line for line in seen if re.match(name + r" \d+/\d+  ", line)]


def moving(name, least, start, columns=80):
    """(exit code, output, lines that are left, live lines, text) of start(scale), which works for so
    much longer than usual. A line is drawn ten times a second: a fast machine is given more to do until
    so many were different."""
    for scale in (1, 4, 16, 64):
        code, out, text = start(scale)
        left, seen = screen(text, columns)
        live = progress_lines(seen, name)
        if code != 0 or len(set(live)) >= least:
            break
    return code, out, left, live, text


def test_fit_shows_a_live_line():
    for columns in (40, 80, 160):
        def fit(scale, columns=columns):
            fresh(up=WIDE, down="größe")
            return on_terminal("fit", "config.yaml", f"--descent.steps={2500 * scale}", columns=columns)

        code, out, left, live, text = moving("fit", 3, fit, columns)
        check(f"fit on {columns} columns moves", code == 0 and len(set(live)) >= 3, text)
        check(f"no line of {columns} columns is reached",
              max(columns_of(line) for line in live) < columns, live)
        check(f"what is left and done on {columns} columns",
              all(re.search(r"\d %  left (-|\d+):(--|\d\d)", line) for line in live), live)
        check(f"the live line is gone from {columns} columns", not progress_lines(left, "fit")
              and any("decode" in line for line in left), left)
        check("the result is whole", WIDE in out and "imbalance" in out, out)
        steps = [int(re.match(r"fit (\d+)/", line)[1]) for line in live]
        most = {int(re.match(r"fit \d+/(\d+) ", line)[1]) for line in live}
        check("steps only grow", steps == sorted(steps) and len(most) == 1 and steps[-1] <= max(most), steps)
    check("a wide terminal shows weights, imbalance and speed", any(
        WIDE + " 0." in line and "größe 0." in line and "imbalance " in line and "token/s" in line
        and "elapsed" in line for line in live), live)


def test_a_log_has_plain_lines():
    fresh()
    result = run("fit", "config.yaml", "--descent.steps=7")
    check("a log has one line a step", result.returncode == 0
          and len(re.findall(r"^step +\d/7 ", result.stderr, re.M)) == 7, result.stderr)
    check("a log has no control characters", re.search("[\033\r]", result.stderr) is None,
          result.stderr)
    shutil.rmtree(WORK)
    fresh()
    code, _, text = on_terminal("fit", "config.yaml", "--descent.steps=7", TERM="dumb")
    check("a dumb terminal is a log", code == 0 and "\033" not in text
          and len(re.findall(r"^step +\d/7 ", text, re.M)) == 7, text)


def test_a_step_moves_within():
    def fit(scale):
        fresh()
        return on_terminal("fit", "config.yaml", "--descent.steps=1", "--rollout.prompts_per_step=800",
                           f"--rollout.responses={128 * scale}", "--rollout.unit_prompts=2")

    code, _, _, live, _ = moving("fit", 3, fit)
    shares = [int(re.search(r"(\d+) %", line)[1]) for line in live]
    check("a long step moves before it ends", code == 0 and len(set(shares)) >= 3
          and all(line.startswith("fit 0/1") for line in live[:-1]), live)
    check("and never backwards", shares == sorted(shares), shares)


def test_other_commands_show_progress():
    fresh()
    for command, each, more in (("generate", "--n", ["--format=jsonl"]),
                                ("evaluate", "--responses", ["--replicates=100"])):
        flags = []

        def start(scale, command=command, flags=flags, each=each, more=more):
            flags[:] = [f"{each}={64 * scale}", *more]
            return on_terminal(command, "config.yaml", *flags, columns=60)

        code, out, left, live, text = moving(command, 2, start, 60)
        check(f"{command} shows progress", code == 0 and len(set(live)) >= 2
              and "left" in live[-1], text)
        check(f"{command} takes it away", not progress_lines(left, command)
              and any("token/s" in line for line in left), left)
        result = run(command, "config.yaml", *flags)
        check(f"{command} in a log has the closing line alone", result.returncode == 0
              and len(result.stderr.splitlines()) == 1 and "token/s" in result.stderr,
              result.stderr)
        check(f"{command} prints the same to a terminal's side", result.stdout == out)
    answers = run("generate", "config.yaml", "--n=8", "--format=jsonl").stdout

    def score(scale):
        write("answers.jsonl", answers * 16 * scale)
        return on_terminal("score", "config.yaml", "--input=answers.jsonl")

    code, out, left, live, text = moving("score", 2, score)
    check("score shows progress", code == 0 and len(set(live)) >= 2
          and not progress_lines(left, "score"), text)
    code, _, text = on_terminal("generate", "config.yaml", "--n=8", stdout_too=True)
    left, seen = screen(text, 80)
    check("results and the live line share a terminal", code == 0
          and len([line for line in left if line.startswith("### ")]) == 6400
          and not progress_lines(left, "generate"), text[-500:])


def test_whatever_ends_it_leaves_whole_lines():
    fresh()
    code, _, text = on_terminal("fit", "config.yaml", "--descent.steps=1000000",
                                interrupt_after=b"up 0.", columns=50)
    left, _ = screen(text, 50)
    check("a killed fit leaves the cursor on a fresh line", code == -signal.SIGKILL
          and left[-1] == "" and progress_lines(left[-2:-1], "fit"), left[-3:])
    fresh()
    os.symlink("/dev/full", os.path.join(WORK, "full"))
    with open(os.path.join(WORK, "full"), "w", encoding="utf-8") as full:
        master, slave = pty.openpty()
        process = subprocess.Popen([MPO, "generate", "config.yaml", "--n=16"], cwd=WORK,
                                   env=environment(), stdout=full, stderr=slave)
        os.close(slave)
        text = b""
        while True:
            try:
                text += os.read(master, 65536)
            except OSError:
                break
        os.close(master)
    left, _ = screen(text.decode(), 80)
    check("an error takes the live line away", process.wait(timeout=600) == 74
          and not progress_lines(left, "generate")
          and any(line.startswith("mpo: ") for line in left), left)


def test_ctrl_c_ends_a_streamed_response():
    fresh()
    endless = TABLE.format(row="0.6 0.3999999 0.0000001")
    write("up.table", endless)
    write("down.table", endless)
    code, _, text = on_terminal("generate", "config.yaml", "--prompt=a",
                                "--rollout.max_tokens=100000", interrupt_after=b"a",
                                number=signal.SIGINT, stdout_too=True)
    check("Ctrl-C ends a streamed response and leaves what was shown", code == 85
          and "stopped inside the response" in text and 0 < text.count("a") < 100000, text[-300:])


def test_colour_and_width_of_errors():
    fresh()
    deep = "a-folder-with-a-long-name/" * 4 + "bad.yaml"
    os.makedirs(os.path.dirname(os.path.join(WORK, deep)))
    write(deep, CONFIG.format(up="up", down="down").replace("steps: 2500", "stepz: 2500"))
    plain = run("fit", deep)
    check("an error in a log is one line that begins with the place", plain.returncode == 78
          and plain.stderr.startswith(f"mpo: {deep}:7:11: descent.stepz: ")
          and plain.stderr.count("\n") == 1, plain.stderr)
    for columns in (40, 80):
        code, _, text = on_terminal("fit", deep, columns=columns)
        left, _ = screen(text, columns)
        check(f"an error on {columns} columns is wrapped", code == 78 and len(left) > 2
              and all(columns_of(line) <= columns or line.split() == ["mpo:", deep + ":7:11:"]
                      for line in left), left)
        check(f"and nothing of it is cut on {columns} columns",
              " ".join(" ".join(left).split()) == " ".join(plain.stderr.split()), left)
        check("it is coloured", "\033[31mmpo: \033[0m" in text, text)
    _, _, text = on_terminal("fit", deep, NO_COLOR="1")
    check("NO_COLOR is obeyed", "\033[" not in text, text)
    code, _, text = on_terminal("fit", "config.yaml", "--descent.steps=300", NO_COLOR="1")
    check("NO_COLOR is no word against progress", code == 0 and "fit 0/300" in text
          and not re.search("\033\\[[0-9;]*m", text), text)


def test_quiet():
    fresh()
    write("pairs.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "a b"}\n')
    for arguments in (["fit", "config.yaml", "--descent.steps=5"],
                      ["generate", "config.yaml", "--limit=3"],
                      ["score", "config.yaml", "--input=pairs.jsonl", "--pairs"],
                      ["evaluate", "config.yaml", "--replicates=100"],
                      ["inspect", "out.h5", "--plot=out.svg"]):
        talks = run(*arguments)
        if arguments[0] == "fit":
            os.remove(os.path.join(WORK, "out.h5"))
        result = run(*arguments, "--quiet")
        check(f"{arguments[0]} --quiet says nothing", result.returncode == 0
              and result.stderr == "" and talks.stderr != "", result.stderr)
        check(f"{arguments[0]} --quiet prints its result", result.stdout == talks.stdout
              or arguments[0] == "fit", result.stdout)


def test_json_reads_back():
    fresh()
    result = json.loads(run("fit", "config.yaml", "--descent.steps=20", "--json").stdout)
    with h5py.File(os.path.join(WORK, "out.h5"), "r") as record:
        average = dict(zip(record["objective"].asstr()[:], record["average"][-1]))
        check("fit --json has the record's weights, all digits",
              result["average"] == average and result["steps"] == 20
              and result["weights"] == dict(zip(average, record["weights"][-1])), result)
        check("and its figures", result["averaged_gap"] == record["averaged_gap"][-1]
              and result["tokens"] == record["tokens"][:].sum()
              and result["value"] is None
              and abs(result["diagnostic"]["value"] - record["value"][:].mean()) < 1e-12, result)
    check("fit --json is --format=json", "at the average" not in json.dumps(result))
    for arguments, key in ((["version"], "transports"), (["inspect", "out.h5"], "series"),
                           (["recover", "out.h5"], "repaired"),
                           (["evaluate", "config.yaml", "--replicates=100"], "vectors")):
        short, full = run(*arguments, "--json"), run(*arguments, "--format=json")
        check(f"{arguments[0]} --json", short.returncode == 0 and short.stdout == full.stdout
              and key in json.loads(short.stdout), short.stderr)
    lines = run("generate", "config.yaml", "--limit=3", "--json").stdout.splitlines()
    check("generate --json is a line a response",
          [json.loads(line)["prompt_index"] for line in lines] == [0, 1, 2], lines)
    write("config.yaml", CONFIG.format(up="up", down="down").replace("responses: false",
                                                                    "responses: true"))
    run("fit", "config.yaml", "--descent.steps=20", "--force")
    result = json.loads(run("refit", "out.h5", "--json").stdout)
    check("refit --json", abs(sum(result["weights"].values()) - 1) < 1e-12
          and result["diagnostic"]["gap"] >= 0, result)
    points = json.loads(run("refit", "out.h5", "--frontier=4", "--json").stdout)["frontier"]
    table = run("refit", "out.h5", "--frontier=4").stdout.splitlines()
    check("the frontier is the same in JSON and TSV", len(points) == 5
          and [repr(point.get("diagnostic", point)["value_jackknife"]) for point in points]
          == [repr(float(line.split("\t")[2])) for line in table[1:]], points)


def test_version_names_what_was_built():
    facts = json.loads(run("--version", "--json").stdout)
    check("version --json", "cpu" in facts["devices"] and "table" in facts["policies"]
          and facts["transports"] == ["self", "shared", "nodes", "mpi"] and facts["git_commit"]
          and facts["hdf5"].count(".") == 2 and "MPI" in facts["mpi"], facts)
    text = run("--version").stdout
    check("version in words", text.startswith(f"mpo {facts['version']} ({facts['git_commit']})")
          and all(name in text for name in ("compiler", "sanitizers", "llama")), text)


STARTED = time.monotonic()
for test in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
    print(f"-- {test.__name__} ({time.monotonic() - STARTED:.1f} s)", flush=True)
    fresh()
    test()
shutil.rmtree(WORK, ignore_errors=True)
if FAILURES:
    print(f"{len(FAILURES)} checks failed: {FAILURES}")
    sys.exit(1)
