#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the documentation and the sources say of each other is true.

    docs.py SOURCE_FOLDER

- every file that src/README.md and tests/README.md name exists
- every policy kind, transport, device, mirror map and command is in src/README.md
- no comment names a file that is not in the repository
- no command includes another command's header
- the library prints nothing; who still does is listed below, with the reason
- the folders of src/ include each other in no circle
- no source file is longer than 500 lines
- a static function of src/ has a name of two words or more, so that a backtrace reads
- every folder of src/ has a row in the table of src/README.md, and includes only folders
  above it that its row names
- every function of include/mpo says who calls it: Local, Collective, At the root or Rank
  zero only

The lists of exceptions may only shrink: what is printed as not needed any more can go.
"""
import ast
import glob
import io
import os
import re
import subprocess
import sys
import tokenize

ROOT = os.path.abspath(sys.argv[1])
READMES = ("src/README.md", "tests/README.md", ".github/CONTRIBUTING.md", "src/CHANGELOG.md")
C_FILES = (".c", ".h", ".cu", ".cuh", ".cpp", ".def", ".in")
SHELL_FILES = (".sh", ".sbatch", ".cmake", "CMakeLists.txt", ".ci/run", "Containerfile", ".yaml",
               ".githooks/pre-commit")
# What a name must end with to be taken for one of our files.
OURS = r"(?:c|h|cu|cuh|cpp|py|sh|sbatch|md|def|cmake)"
NAMED = re.compile(r"(?<![\w./{}$*<-])((?:[\w*-]+/)*[\w*-]+\.%s)\b(?![\w/{(-])" % OURS)

# Files of others that comments may name.
FOREIGN = {
    "mpi.h", "nccl.h", "cuda_runtime.h", "cuda_runtime_api.h", "llama.h", "ggml.h",
    "gguf.h", "llama.cpp", "convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "stdint.h",
}
# Lines that a source file may have, and what counts as one.
LINES_MAX = 500
LONG_FILES = (".c", ".h", ".cu", ".cuh", ".cpp", ".def", ".py", ".sh", ".sbatch", "CMakeLists.txt")
# Files that a README names and that are to come.
AWAITED = set()
# Shared by commands, below src/commands/.
SHARED_COMMAND_FOLDERS = {"report"}
# command folder: (the other's header, why it is still there)
INCLUDES_A_COMMAND = {}
# library file: why it prints
PRINTS = {
    "src/base/report.c": "the last words of a process that ends, where nobody listens",
}
PRINTING = re.compile(r"\b(?:printf|puts|putchar|vprintf|mpo_log_(?:error|warning|note))\s*\((?!.*format)"
                      r"|\bfprintf\(std(?:out|err)|\bfputs\([^;]*, std(?:out|err)\)")

# Who calls a function, in its comment.
CALLERS = re.compile(r"\b(?:Local|Collective|[Aa]t the root|Rank zero only|On all ranks)\b")

FOREIGN_FLAGS = ("model_args", "include_path")  # of lm_eval

FAILURES = []


def check(name, problems):
    """One line for what holds, and what does not."""
    problems = sorted(set(problems))
    print(("ok    " if not problems else "FAIL  ") + name)
    for line in problems:
        print("      " + line)
    FAILURES.extend([name] if problems else [])


def tracked():
    """What git knows, or what lies there in a copy without git."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others",
                             "--exclude-standard"], capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [name for name in listed.stdout.splitlines()
                if os.path.exists(os.path.join(ROOT, name))]
    names = glob.glob("**", root_dir=ROOT, recursive=True, include_hidden=True)
    return [name for name in names if os.path.isfile(os.path.join(ROOT, name))
            and not name.startswith(("build", ".git/"))]


FILES = tracked()
# Folders a name may be relative to, besides that of the file that has it.
BASES = ("", "src/", "include/", "tests/", "launch/", "tests/commands/", "tests/support/",
         "tests/slurm/", "src/commands/", "tests/hostsim/")


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as stream:
        return stream.read()


def exists(name, folder=""):
    """A file, a folder or a pattern, from the root, from a folder, or a bare name anywhere."""
    pattern = re.compile(re.escape(name.rstrip("/")).replace(r"\*", "[^/]*") + r"(/.*)?$")
    folder = folder + "/" if folder else ""
    if any(pattern.match(file[len(base):]) for base in (*BASES, folder)
           for file in FILES if file.startswith(base)):
        return True
    return "/" not in name and any(pattern.match(os.path.basename(file)) for file in FILES)


# ---- comments ----


def comments_of_c(text):
    """(line, text) of comments; strings are skipped."""
    token = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*', re.S)
    for found in token.finditer(text):
        if found[0].startswith("/"):
            yield text.count("\n", 0, found.start()) + 1, found[0]


def comments_of_python(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            yield node.body[0].lineno, ast.get_docstring(node)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def comments_of_lines(text):
    for number, line in enumerate(text.splitlines(), 1):
        found = re.search(r"(?:^|\s)#(?!!)(.*)", line)
        if found:
            yield number, found[1]


def comments(name):
    if name.endswith(C_FILES):
        return comments_of_c(read(name))
    if name.endswith(".py"):
        return comments_of_python(read(name))
    if name.endswith(SHELL_FILES):
        return comments_of_lines(read(name))
    return ()


# ---- the checks ----


def readmes_name_files_that_exist():
    problems = []
    for readme in READMES:
        if readme not in FILES:
            print(f"note  there is no {readme} yet")
            continue
        quoted = re.findall(r"`([^`\n]+)`", read(readme))
        words = [word.rstrip(":,;.") for text in quoted for word in text.split()]
        for word in words:
            is_path = re.fullmatch(r"[\w.*-]+(?:/[\w.*-]+)*/?", word) and (
                NAMED.fullmatch(word) or word.split("/")[0] in (
                    "src", "tests", "include", "launch", "configs", "results"))
            if not is_path or exists(word, os.path.dirname(readme)):
                continue
            if word in AWAITED:
                print(f"still {readme} names {word}, which is to come")
            else:
                problems.append(f"{readme}: {word}")
    check("every file that the READMEs name exists", problems)


def registry():
    """{kind of name: names} from the list of variants and the table of commands."""
    variants = read("src/registry.def")

    def named(macro):
        return set(re.findall(r"^MPO_%s\((\w+)" % macro, variants, re.M))

    table = re.search(r"mpo_commands\[\] = \{(.*?)\n\};", read("src/commands/commands.c"), re.S)
    return {
        "prompt format": named("PROMPT_FORMAT"),
        "policy kind": named("POLICY_KIND"),
        "transport": named("TRANSPORT"),
        "device": named("DEVICE") | named("ACCELERATOR"),
        "mirror map": named("MIRROR_MAP"),
        "command": set(re.findall(r'^    \{"([a-z-]+)"', table[1], re.M)),
    }


def the_readme_of_src_knows_every_registered_name():
    if READMES[0] not in FILES:
        print(f"note  there is no {READMES[0]} yet")
        return
    text = read(READMES[0])
    for kind, names in registry().items():
        assert names, kind
    check("every registered name is in src/README.md", [
        f"{kind} {name}" for kind, names in registry().items() for name in names
        if not re.search(r"\b%s\b" % re.escape(name), text)])


def comments_name_files_that_exist():
    problems = []
    for name in FILES:
        for line, text in comments(name):
            problems += [f"{name}:{line} names {found[1]}" for found in NAMED.finditer(text)
                         if not is_other(found[1]) and not exists(found[1], os.path.dirname(name))]
    check("no comment names a file that is not in the repository", problems)


def is_other(name):
    """Others' files, and those that a user or a test makes."""
    return os.path.basename(name) in FOREIGN or name.startswith(("build/", "my."))


def not_needed(names):
    for name in sorted(names):
        print(f"note  {name} is in a list of exceptions and needs none: take it out")


def includes(name):
    return re.findall(r'^\s*#\s*include "([^"]+)"', read(name), re.M)


def is_source(name):
    return name.startswith("src/") and name.endswith((".c", ".h", ".cu", ".cuh"))


def no_command_includes_another():
    problems, needed = [], set()
    for name in filter(is_source, FILES):
        if not name.startswith("src/commands/"):
            continue
        own = name.split("/")[2]
        for header in includes(name):
            parts = header.split("/")
            if parts[0] != "commands" or len(parts) < 3 or parts[1] in (
                    own, *SHARED_COMMAND_FOLDERS):
                continue
            if own in INCLUDES_A_COMMAND and INCLUDES_A_COMMAND[own][0] == header:
                needed.add(own)
                print(f"still {name} includes {header}: {INCLUDES_A_COMMAND[own][1]}")
            else:
                problems.append(f"{name} includes {header}")
    not_needed(INCLUDES_A_COMMAND.keys() - needed)
    check("no command includes another command's header", problems)


def only_commands_print():
    problems, needed = [], set()
    for name in filter(is_source, FILES):
        if name.startswith("src/commands/") or name == "src/main.c":
            continue
        code = re.sub(r"/\*.*?\*/|//[^\n]*", lambda found: "\n" * found[0].count("\n"), read(name),
                      flags=re.S)
        lines = [number for number, line in enumerate(code.splitlines(), 1) if PRINTING.search(line)]
        if lines and name in PRINTS:
            needed.add(name)
            print(f"still {name} prints, line {', '.join(map(str, lines))}: {PRINTS[name]}")
        else:
            problems += [f"{name}:{number} prints" for number in lines]
    not_needed(PRINTS.keys() - needed)
    check("the library prints nothing", problems)


# Public headers that have no folder of their name: whose sources implement them.
HEADER_OWNERS = {"choices": "base", "exponents": "estimator", "limits": "base", "placement": "policy",
                 "report": "base", "rng": "base", "rows": "exchange", "status": "base",
                 "texts": "policy", "timing": "base", "version": "base"}


def folder_of(name):
    """src/mixture/cuda/cuda.cu, mpo/mixture.h and mpo/backend/mixture_ops.h are of mixture;
    commands are one folder."""
    parts = name.replace("include/", "").replace("src/", "").split("/")
    if len(parts) == 1:
        return None
    if parts[0] != "mpo":
        return parts[0]
    own = os.path.splitext(parts[-1])[0].removesuffix("_ops")
    return HEADER_OWNERS.get(own, own)


def folder_graph():
    """{folder: {folder it includes: a file that does}}"""
    folders = {folder_of(name) for name in filter(is_source, FILES)} - {None}
    graph = {folder: {} for folder in folders}
    for name in FILES:
        own = folder_of(name) if is_source(name) or name.startswith("include/mpo/") else None
        for header in includes(name) if own in folders else ():
            other = folder_of(header)
            if other in folders and other != own:
                graph[own].setdefault(other, name)
    return graph


def folders_have_no_circle():
    graph = folder_graph()
    state, problems = {}, []

    def visit(folder, path):
        state[folder] = "open"
        for other in graph[folder]:
            if state.get(other) == "open":
                circle = path[path.index(other):] + [other]
                problems.append(" -> ".join(circle) + ": " + ", ".join(
                    graph[a][b] for a, b in zip(circle, circle[1:])))
            elif other not in state:
                visit(other, path + [other])
        state[folder] = "done"

    for folder in sorted(graph):
        if folder not in state:
            visit(folder, [folder])
    check("the folders of src/ include each other in no circle", problems)


def private_headers_stay_private():
    """registry.c alone sees the insides of the stages."""
    check("no folder includes another's private header", [
        f"{name} includes {header}" for name in filter(is_source, FILES) for header in includes(name)
        if header.endswith("_impl.h") and "/" in header and folder_of(header) != folder_of(name)
        and name != "src/registry.c"])


def no_source_file_is_too_long():
    lengths = {name: read(name).count("\n") for name in FILES if name.endswith(LONG_FILES)}
    check(f"no source file is longer than {LINES_MAX} lines", [
        f"{name} has {lines}: split it along a seam, what has a noun of its own"
        for name, lines in lengths.items() if lines > LINES_MAX])


def static_functions_have_two_words():
    problems = []
    for name in filter(is_source, FILES):
        names = re.findall(r"^static\b[^;={}()]*?\b(\w+)\((?!\*)", read(name), re.M)
        problems += [f"{name}: {function}" for function in names if "_" not in function]
    check("a static function has a name of two words or more", problems)


def every_folder_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)` \|", read(READMES[0]), re.M))
    folders = {name.split("/")[1] for name in filter(is_source, FILES) if name.count("/") > 1}
    check("every folder of src/ has a row in src/README.md",
          [f"{name} has no row" for name in folders - rows])


def folders_include_what_their_rows_name():
    graph, above, problems = folder_graph(), [], []
    for name, cell in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", read(READMES[0]), re.M):
        words = set(re.findall(r"\w+", cell)) - {"all", "above", "except"}
        named = set(above) - words if cell.startswith("all above") else words
        problems += [f"{name} names {other}, which is not above it" for other in named - set(above)]
        problems += [f"{name} includes {other}: {file}" for other, file in
                     graph.get(name, {}).items() if other not in named]
        above.append(name)
    check("folders include what their rows in src/README.md name", problems)


def prototypes(text):
    """(name, the comment of its paragraph) of every function that a header declares. A
    paragraph begins with a comment and has no empty line."""
    text = re.sub(r"^ *#(?:[^\n]*\\\n)*[^\n]*\n", "", text, flags=re.M)
    for paragraph in re.split(r"\n\s*\n(?! \*)", text):
        said = ""
        for part in re.finditer(r"/\*.*?\*/|\b(mpo_\w+)\((?=[^;{]*\)[^;{]*;)", paragraph, re.S):
            if part[1] is None:
                said = part[0] if part[0].startswith("/**") else said
            else:
                yield part[1], said


def functions_say_who_calls_them():
    problems = []
    for name in FILES:
        if not re.fullmatch(r"include/mpo/\w+\.h", name):
            continue
        for function, said in prototypes(read(name)):
            words = " ".join(said.replace("*", " ").split())
            if not CALLERS.search(words):
                problems.append(f"{name}: {function}")
    check("every function of include/mpo says who calls it", problems)


def flags_have_hyphens():
    """The names of options as commands show them; the other spelling is understood too, and
    tested in tests/unit/config."""
    old = re.compile(r"(?<![\w-])--(?!" + "|".join(FOREIGN_FLAGS) + r")[a-z]+(?:_[a-z]+)+\b(?!\.)")
    check("flags are written with hyphens", [
        f"{name}: {found[0]}" for name in FILES
        if name.endswith((".md", ".py", ".sh", ".sbatch", ".def", ".yaml", ".yml", ".c", ".h"))
        and not name.startswith("tests/unit/config/") for found in old.finditer(read(name))])


def main():
    readmes_name_files_that_exist()
    the_readme_of_src_knows_every_registered_name()
    comments_name_files_that_exist()
    no_command_includes_another()
    only_commands_print()
    folders_have_no_circle()
    private_headers_stay_private()
    no_source_file_is_too_long()
    static_functions_have_two_words()
    every_folder_has_a_row()
    folders_include_what_their_rows_name()
    functions_say_who_calls_them()
    flags_have_hyphens()
    sys.exit(f"{len(FAILURES)} failed" if FAILURES else 0)


main()
