#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Help, manual page and completion against the list of options, read here from its file.

usage: help.py MPO WORK_FOLDER SOURCE_FOLDER
"""
import os
import re
import shlex
import shutil
import subprocess
import sys

MPO, WORK, SOURCE = sys.argv[1:4]
CONFIGURED = ("fit", "generate", "score", "evaluate", "serve", "doctor", "launch", "prompt",
              "config")
FAILURES = []


def check(name, condition, shown=""):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        print("      " + repr(shown)[-2000:])


def run(*arguments):
    return subprocess.run([MPO, *arguments], capture_output=True, text=True, timeout=600)


def option_rows():
    """The lines of the list, with what several sections have in common put in."""
    with open(os.path.join(SOURCE, "include/mpo/options.def"), encoding="utf-8") as file:
        text = file.read().replace("\\\n", "\0")
    common = {name: rows.split("\0") for name, rows in
              re.findall(r"^#define (MPO_\w+_OPTIONS?)\(section\)\0?(.*)$", text, re.M)}
    for line in text.splitlines():
        use = re.match(r"(MPO_\w+_OPTIONS?)\((\w+)\)$", line)
        for row in common[use[1]] if use else [line]:
            yield row.strip().replace("(section,", f"({use[2]},") if use else row


def read_variants():
    """{list: [name]} of what the registry lists."""
    with open(os.path.join(SOURCE, "src/registry.def"), encoding="utf-8") as file:
        rows = re.findall(r"^MPO_(\w+)\((\w+)[,)]", file.read(), re.M)
    names = {"PROMPT_FORMAT": "prompt_format", "POLICY_KIND": "policy_kind",
             "TRANSPORT": "transport", "DEVICE": "device", "ACCELERATOR": "device",
             "MIRROR_MAP": "mirror_map"}
    lists = {name: [] if name == "mirror_map" else ["auto"] for name in names.values()}
    for kind, name in rows:
        lists[names[kind]].append(name)
    return lists


def read_options():
    """{section: (scope, [(name, type, default, choices, sentence)])}, {command: [taken]}"""
    sections, taken, current, lists = {}, {}, None, read_variants()
    for line in option_rows():
        begin = re.match(r"MPO_SECTION_BEGIN\((\w+), (\w+), ", line)
        take = re.match(r"MPO_TAKES\((\w+), (\w+)\)$", line)
        option = re.match(r'MPO_OPTION(?:_AS\(\w+, \w+, "|\(\w+, )(\w+)"?, (\w+), '
                          r'(NULL|"[^"]*"), [^,]+, [^,]+, (\w+), "(.*)"\)$', line)
        choices = re.match(r"MPO_CHOICES_BEGIN\((\w+)\)$", line)
        choice = re.match(r'MPO_CHOICE\(\w+, "(.*)"\)$', line)
        if begin:
            current = sections.setdefault(begin[1], (begin[2], []))[1]
        elif take:
            taken.setdefault(take[1], []).append(take[2])
        elif choices:
            words = lists.setdefault(choices[1], [])
        elif choice:
            words.append(choice[1])
        elif option:
            name, kind, default, used, sentence = (
                value.strip('"').replace('\\"', '"') for value in option.groups())
            current.append((name, kind, default, "|".join(lists.get(used, [])), sentence))
        assert option or not line.startswith("MPO_OPTION"), line
    return sections, taken


OPTIONS, TAKEN = read_options()
SHARED = [section for section, (scope, _) in OPTIONS.items() if scope in ("SHARED", "LIST")]
DEFAULTS = {("refit", "--descent.steps"): "500", ("serve", "--run.step_deadline"): "60",
            ("serve", "--run.batch_invariant"): "false"}


def flag_name(section, name):
    if section not in SHARED:
        return "--" + name.replace("_", "-")
    return f"--{section}.{'NAME.' if section == 'policies' else ''}{name}"


def options_of(command):
    """[(flag, type, default, choices, sentence)] of a command."""
    sections = [command] + (SHARED if command in CONFIGURED else TAKEN.get(command, []))
    return [(flag, kind, DEFAULTS.get((command, flag), default), *rest)
            for section in sections for name, kind, default, *rest in OPTIONS[section][1]
            for flag in [flag_name(section, name)]]


def commands():
    listed = re.search("commands:\n(.*?)\n\n", run("help").stdout, re.S)[1]
    return re.findall(r"^  (\w+)", listed, re.M)


def test_help_lists_every_option():
    pages = {command: run("help", command).stdout for command in commands()}
    check("commands with options are commands", set(pages) >= {
        section for section in OPTIONS if section not in SHARED}, pages)
    for command, page in {"": run("help").stdout, **pages}.items():
        wide = [line for line in page.splitlines() if len(line) > 80]
        check(f"help {command} has 80 columns", page and not wide, wide)
    for command in set(pages) & set(OPTIONS):
        entries = {re.split(r"[=\[\s]", entry)[0]: " ".join(entry.split())
                   for entry in re.split(r"\n  (?=--)", pages[command])[1:]}
        for flag, kind, default, choices, sentence in options_of(command):
            entry = entries.pop(flag, "")
            shown = "required" if default == "NULL" else default
            right = sentence in entry and (shown == "" or f"[{shown}]" in entry) \
                and (kind not in ("CHOICE", "VARIANT") or entry.startswith(f"{flag}={choices} "))
            if not right:
                check(f"help {command} on {flag}", False, entry)
        check(f"help {command} has its options and --json alone", set(entries) <= {"--json"},
              list(entries))


def test_usage_errors_name_the_program_once():
    """The log begins a line with the program's name; the message must not repeat it."""
    for command in commands():
        for arguments in (["--no-such-option"], ["a", "b", "c"]):
            result = run(command, *arguments)
            line = result.stderr
            check(f"mpo {' '.join([command, *arguments])}",
                  result.returncode == 64 and line.count("\n") == 1
                  and re.match(r"mpo: (?!mpo)", line) and f"mpo {command}: " not in line
                  and re.search(rf"(mpo help|usage: mpo) {command}\b", line), line)


def test_the_manual_has_all():
    page = run("help", "--man").stdout.replace("\\-", "-").replace("\\fR", "") \
        .replace("\\(aq", "'").replace("\\(dq", '"')
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "CONFIGURATION",
                    "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"):
        check(f"the manual has {section}", f"\n.SH {section}\n" in "\n" + page)
    check("the manual has every command",
          all(f"\n.SS {command}\n" in page for command in commands()), page)
    missing = [flag for section in OPTIONS for flag in
               [flag_name(section, option[0]) for option in OPTIONS[section][1]]
               if f"\\fB{flag}" not in page]
    check("the manual has every option", not missing, missing)
    with open(os.path.join(SOURCE, "src/commands/help/manual.def"), encoding="utf-8") as file:
        prose = file.read()
    topics = set(re.findall(r'MPO_MANUAL_TOPIC\("([^"]+)"', prose))
    check("the manual has every topic", topics and all(f"\n.SH {topic}\n" in page for topic in topics), topics)
    unknown = set(re.findall(r"^MPO_MANUAL_COMMAND\((\w+)", prose, re.M)) - set(commands())
    check("prose of the manual belongs to commands", not unknown, unknown)
    lost = [text for text in re.findall(r',\s*"((?:[^"\\]|\\.)*)', prose)
            if text.replace('\\"', '"') not in page]
    check("the manual has all its prose", not lost, lost)
    check("the manual has every exit code",
          all(f"\\fB{code}\n" in page for code in (0, 64, 65, 66, 70, 73, 78, 85)))
    long = [line for line in page.splitlines() if line[:1] in ".'" and not re.match(
        r"\.(TH|SH|SS|B|I|RI|TP|PP|br)\b", line)]
    check("no text is taken for a request", not long, long)


def complete(line, wordbreaks=True):
    """What bash offers for the line, with the cursor at its end."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    script = f"""
        . ./mpo.bash
        {'' if wordbreaks else 'COMP_WORDBREAKS=${COMP_WORDBREAKS//=/}'}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        COMP_WORDS=({' '.join(shlex.quote(word) for word in words)})
        COMP_CWORD={len(words) - 1}
        _mpo mpo
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = subprocess.run(["bash", "--norc", "-uc", script], cwd=WORK, capture_output=True,
                            text=True, timeout=600)
    check(f"completing '{line}' has no error", result.stderr == "", result.stderr)
    return [word for word in result.stdout.split("\n") if word]


def test_completion():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(os.path.join(WORK, "a folder"))
    for name in ("my run.h5", "my.yaml"):
        open(os.path.join(WORK, name), "w", encoding="utf-8").close()
    with open(os.path.join(WORK, "mpo.bash"), "w", encoding="utf-8") as file:
        file.write(run("help", "--completion=bash").stdout)
    check("every command", complete("mpo ") == commands())
    check("the beginning of a command", complete("mpo ge") == ["generate"])
    check("help takes commands", complete("mpo help re") == ["recover", "refit"])
    check("files", sorted(complete("mpo fit m")) == ["mpo.bash", "my run.h5", "my.yaml"])
    for command in set(commands()) & set(OPTIONS):
        own = {flag + ("" if kind == "FLAG" else "=")
               for flag, kind, *_ in options_of(command) if ".NAME." not in flag}
        offered = set(complete(f"mpo {command} x --"))
        check(f"options of {command}", offered - {"--json"} == own, offered ^ own)
        for flag, kind, _, choices, _ in options_of(command):
            if kind in ("CHOICE", "VARIANT"):
                typed = flag.replace("NAME", "up")
                offered = complete(f"mpo {command} {typed}=")
                if offered != choices.split("|"):
                    check(f"choices of {command} {flag}", False, offered)
    check("a choice begun", complete("mpo fit my.yaml --run.device=cu") == ["cuda"])
    check("a choice as a word of its own",
          complete("mpo evaluate my.yaml --format ") == ["text", "tsv", "json"])
    check("a choice of a policy",
          complete("mpo fit my.yaml --policies.up.role=") == ["objective", "reference"])
    check("a path", sorted(complete("mpo fit my.yaml --record.file=my")) == ["my run.h5", "my.yaml"])
    check("a path as a word of its own", complete("mpo recover --output a") == ["a folder"])
    check("a text has none", complete("mpo generate my.yaml --prompt=m") == [])
    check("without = among the word breaks",
          complete("mpo fit my.yaml --run.device=c", False)
          == ["--run.device=cpu", "--run.device=cuda"])
    check("complete is told", subprocess.run(
        ["bash", "--norc", "-c", ". ./mpo.bash; complete -p mpo"], cwd=WORK, text=True,
        capture_output=True, timeout=600).stdout == "complete -F _mpo mpo\n")
    shutil.rmtree(WORK)


for test in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
    print(f"-- {test.__name__}", flush=True)
    test()
if FAILURES:
    print(f"{len(FAILURES)} checks failed: {FAILURES}")
    sys.exit(1)
