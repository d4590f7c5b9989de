#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""It builds where people build: without a driver, with an older toolkit, without a GPU.

usage: build_hosts.py link  SOURCE_FOLDER WORK_FOLDER BUILD_FOLDER LLAMA_FOLDER
       build_hosts.py apart SOURCE_FOLDER WORK_FOLDER BUILD_FOLDER LLAMA_FOLDER BIGRAM_GGUF_TOOL
       build_hosts.py nvcc  SOURCE_FOLDER WORK_FOLDER
       build_hosts.py setup SOURCE_FOLDER WORK_FOLDER

Needs neither CUDA nor a device. `link` links a program against the installed library and a
libllama that is linked with a libggml-cuda whose libcuda is gone; `apart` puts backends beside
libllama that a program is to load, or not; `nvcc` configures with a compiler that says which
toolkit it is of and refuses what that did not know; `setup` lets launch/setup.sh build a
libllama of two files, and looks for what its backend would find when it is loaded.
"""
import os
import re
import shutil
import struct
import subprocess
import sys

MODE, SOURCE, WORK = sys.argv[1:4]
FAILURES = []
STATES = 260  # of the smallest bigram model

NVCC = """#!/bin/bash
# A compiler of CUDA %(version)s that hands everything to the host's.
case " $* " in
    *" --version "*)
        echo "nvcc: NVIDIA (R) Cuda compiler driver"
        echo "Cuda compilation tools, release %(version)s, V%(version)s.99"
        exit ;;
esac
for known in "$@"; do
    for arch in $(grep -oE '(compute|sm)_[0-9]+' <<<"$known"); do
        if [ "${arch##*_}" -gt %(newest)d ]; then
            echo "nvcc fatal   : Unsupported gpu architecture '$arch'" >&2
            exit 1
        fi
    done
done
wanted=(-D__NVCC__ -D__CUDACC__ -D__CUDACC_VER_MAJOR__=%(major)s -D__CUDACC_VER_MINOR__=%(minor)s
    -D__CUDACC_VER_BUILD__=99 -D__device__= -D__global__=)
while [ $# -gt 0 ]; do
    case $1 in
        --keep-dir|-gencode|-arch) shift ;;
        -x) shift; wanted+=(-x c++) ;;
        *.cu) wanted+=(-x c++ "$1" -x none) ;;
        --keep|--generate-code=*|-gencode=*|-arch=*|-forward-unknown-to-host-compiler|-Xcompiler=*|-v|-MD) ;;
        -MT|-MF) shift ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
libraries="-L%(toolkit)s/lib64"
printf '\n#$ %%s\n' "LIBRARIES= $libraries" "c++ a.o $libraries -lcudart_static -o a.out" >&2 # CMake reads them
exec c++ "${wanted[@]}"
"""

# libllama without the backend for CUDA, or that backend alone, as llama.cpp has the choice.
LLAMA = """
cmake_minimum_required(VERSION 3.20)
project(small C)
include(GNUInstallDirs)
if(NOT GGML_CUDA)
    add_library(llama SHARED llama.c)
    install(TARGETS llama)
elseif(NOT GGML_BACKEND_DL OR NOT DEFINED GGML_CPU OR GGML_CPU)
    message(FATAL_ERROR "expected a library apart, and none for the CPU, which could not be GGML_NATIVE")
else()
    add_subdirectory(ggml/src/ggml-cuda)
endif()
"""

BACKEND = """
add_library(ggml-cuda MODULE cuda.c)
target_link_libraries(ggml-cuda PRIVATE %(toolkit)s/lib64/libcudart.so
    %(toolkit)s/math/libcublas.so %(toolkit)s/lib64/stubs/libcuda.so)
install(TARGETS ggml-cuda LIBRARY DESTINATION ${CMAKE_INSTALL_BINDIR})
file(WRITE ${CMAKE_BINARY_DIR}/for "${CMAKE_CUDA_ARCHITECTURES}")
install(FILES ${CMAKE_BINARY_DIR}/for DESTINATION .)
"""

# A backend with the CPU for its devices, which libllama has already.
DEVICES = """
#include <stddef.h>
struct reg {
    int version;
    const char *(*name)(void *);
    size_t (*count)(void *);
    void *(*get)(void *, size_t);
    void *(*address)(void *, const char *);
};
struct reg *ggml_backend_reg_by_name(const char *name);
void *ggml_backend_dev_by_type(int type);
static const char *name(void *self) { return "CUDA"; }
static size_t count(void *self) { return %(count)d; }
static void *get(void *self, size_t index) { return ggml_backend_dev_by_type(0); }
static void *address(void *self, const char *name) { return NULL; }
struct reg *ggml_backend_init(void)
{
    static struct reg reg = {0, name, count, get, address};
    reg.version = ggml_backend_reg_by_name("CPU")->version;
    return &reg;
}
"""


def check(name, condition, what=""):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        print(what)


def write(text, *path, mode=0o644):
    path = os.path.join(WORK, *path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def run(*command, **settings):
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("CUDAARCHS", "CUDACXX", "CMAKE_PREFIX_PATH")}
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=600, env={**environment, **settings},
                          check=False)


def must(*command, **settings):
    result = run(*command, **settings)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {result.returncode}\n{result.stdout}")
    return result.stdout


def make_library(code, path, *more):
    """A shared library of one line of C."""
    path = os.path.join(WORK, path)
    name = os.path.basename(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    must("cc", "-shared", "-fPIC", "-o", path, write(code, "code", name + ".c"), "-Wl,--no-as-needed",
         *more)
    return path


# ---- link ----

def make_driverless_llama(llama_folder):
    """The llama package of this build, with a backend for CUDA that needs the driver's library.
    @return the package's folder, the backend, the driver's folder"""
    driver = make_library("int cuMemCreate(void) { return 0; }", "driver/libcuda.so.1",
                          "-Wl,-soname,libcuda.so.1")
    backend = make_library("int cuMemCreate(void); int backend(void) { return cuMemCreate(); }",
                           "backend/libggml-cuda.so", driver)
    package = write(f'include("{llama_folder}/llama-config.cmake")\n'
                    "set_property(TARGET llama APPEND PROPERTY INTERFACE_LINK_LIBRARIES\n"
                    f'    -Wl,--no-as-needed "{backend}")\n', "llama", "llama-config.cmake")
    away = os.path.join(WORK, "away")
    os.rename(os.path.dirname(driver), away)
    return os.path.dirname(package), backend, away


def build_programs(build, package, *targets):
    """Programs of tests/package. @return their folder, that of the installed mpo, the last build"""
    prefix = os.path.join(WORK, "prefix")
    must("cmake", "--install", build, "--prefix", prefix)
    programs = os.path.join(WORK, "programs")
    must("cmake", "-S", os.path.join(SOURCE, "tests", "package"), "-B", programs,
         f"-DCMAKE_PREFIX_PATH={prefix}", f"-Dllama_DIR={package}")
    return programs, prefix, run("cmake", "--build", programs, "--target", *targets)


def link(build, llama_folder):
    package, backend, driver = make_driverless_llama(llama_folder)
    plain = run("cc", "-o", os.path.join(WORK, "plain"),
                write("int main(void) { return 0; }", "code", "plain.c"), "-Wl,--no-as-needed", backend)
    check("the linker asks for the driver's library", "libcuda.so.1" in plain.stdout, plain)
    programs, prefix, linked = build_programs(build, package, "sample")
    check("a program links without the driver", linked.returncode == 0, linked.stdout[-3000:])
    sample = [os.path.join(programs, "sample"), os.path.join(SOURCE, "configs", "table.yaml"), "the film"]
    check("and starts where the driver is",
          linked.returncode == 0 and run(*sample, LD_LIBRARY_PATH=driver).returncode == 0)
    absent = run("sh", "-c", '"$@"', "sh", *sample)
    check("and nowhere else", absent.returncode == 127 and "libcuda.so.1" in absent.stdout, absent)
    described = [folder for folder, _, files in os.walk(prefix) if "mpo.pc" in files]
    flags = must("pkg-config", "--libs", "mpo", PKG_CONFIG_PATH=":".join(described)).split()
    check("pkg-config says how", "-Wl,--allow-shlib-undefined" in flags, flags)


# ---- apart ----

def copy_llama(llama_folder):
    """The llama package of this build with copies of its libraries.
    @return the package's folder, that of the libraries"""
    beside = os.path.join(WORK, "beside")
    os.makedirs(beside)
    libraries = os.path.join(llama_folder, "..", "..")
    for name in os.listdir(libraries):
        if re.match(r"lib(llama|ggml)[^/]*\.so", name) and "cuda" not in name:
            shutil.copy(os.path.join(libraries, name), beside, follow_symlinks=False)
    package = write(f'include("{llama_folder}/llama-config.cmake")\n'
                    "foreach(one llama ggml::ggml ggml::ggml-base ggml::ggml-cpu)\n"
                    "    if(TARGET ${one})\n"
                    "        get_target_property(file ${one} IMPORTED_LOCATION)\n"
                    "        get_filename_component(file ${file} NAME)\n"
                    "        set_target_properties(${one} PROPERTIES IMPORTED_LOCATION\n"
                    f'            "{beside}/${{file}}")\n'
                    "    endif()\nendforeach()\n", "llama", "llama-config.cmake")
    return os.path.dirname(package), beside


def make_models(tool):
    """A configuration of three bigram models. @return its path"""
    lines = ["prompts: {file: prompts.txt}", "run: {threads: 1, device: cpu}", "policies:"]
    for k in range(3):
        raw = write("", f"p{k}.f32")
        with open(raw, "wb") as file:
            file.write(struct.pack(f"<{STATES ** 2}f", *[i * (k + 7) % 5 for i in range(STATES ** 2)]))
        must(tool, os.path.join(WORK, f"p{k}.gguf"), raw)
        lines.append(f"  - {{name: p{k}, model: p{k}.gguf, template: raw}}")
    write("ab\n", "prompts.txt")
    return write("\n".join(lines) + "\n", "config.yaml")


def apart(build, llama_folder, tool):
    package, beside = copy_llama(llama_folder)
    programs, _, built = build_programs(build, package, "sample", "backend")
    check("programs are built", built.returncode == 0, built.stdout[-3000:])
    backend, sample = os.path.join(programs, "backend"), os.path.join(programs, "sample")
    module = os.path.join(beside, "libggml-cuda.so")

    def ask(name, code, words, **settings):
        found = run(backend, "cuda", **settings)
        check(name, found.returncode == code and all(word in found.stdout for word in words), found)

    ask("a libllama without a backend is said to have none", 69,
        ["this libllama has no cuda", module, "MPO_LLAMA_CUDA=ON", "run.device=cpu"])
    driver = make_library("int cuMemCreate(void) { return 0; }", "driver/libcuda.so.1",
                          "-Wl,-soname,libcuda.so.1")
    make_library("int cuMemCreate(void);\n"
                 "void *ggml_backend_init(void) { return cuMemCreate() ? ggml_backend_init : 0; }",
                 module, driver)
    away = os.path.join(WORK, "away")
    os.rename(os.path.dirname(driver), away)
    ask("a backend without its driver is refused with what is missing", 69,
        [f"{module} cannot be loaded: libcuda.so.1", "driver of a GPU", "run.device=cpu"])
    check("the cpu is not", run(backend, "cpu").returncode == 0)
    config = make_models(tool)
    drawn = run(sample, config, "ab")
    check("and computes without the driver", drawn.returncode == 0, drawn)
    loaded = ":".join(os.path.join(beside, name) for name in sorted(os.listdir(beside))
                      if re.fullmatch(r"lib\w+(-\w+)?\.so\.0", name))
    for command in (["version"], ["doctor", config], ["generate", config, "--weights=uniform"]):
        done = run(os.path.join(build, "mpo"), *command, LD_PRELOAD=loaded)
        check(f"mpo {command[0]} ends as elsewhere", done.returncode == 0, done)
    ask("a library of something else is refused", 69, ["found another library", module],
        LD_LIBRARY_PATH=away)
    for count in (0, 1):
        os.remove(module)
        make_library(DEVICES % {"count": count}, module)
        ask(f"a backend that finds {count} devices is asked", 69 if count == 0 else 0,
            ["finds no device of kind cuda"] if count == 0 else ["yes"])
    os.rename(module, os.path.join(WORK, "libggml-cuda.so"))
    found = run("sh", "-c", 'cd "$0" && exec "$@"', WORK, backend, "cuda")
    check("one in the working folder is not loaded", found.returncode == 69, found)


# ---- nvcc ----

def configure(version, newest, *more, **settings):
    """(exit code, what was said, architectures) with a toolkit of this version, which knows no
    architecture newer than `newest`."""
    major, minor = version.split(".")
    toolkit = os.path.join(WORK, f"toolkit-{version}")
    compiler = write(NVCC % {"version": version, "major": major, "minor": minor, "newest": newest,
                             "toolkit": toolkit}, toolkit, "bin", "nvcc", mode=0o755)
    write(f"#define CUDART_VERSION {int(major) * 1000 + int(minor) * 10}\n", toolkit, "include",
          "cuda_runtime.h")
    write("", toolkit, "nvvm", "libdevice", "empty")
    make_library("int cudart;", os.path.join(toolkit, "lib64", "libcudart.so"))
    for name in ("libcudart_static.a", "libcudadevrt.a"):
        write("!<arch>\n", toolkit, "lib64", name)
    tree = os.path.join(WORK, f"build-{version}")
    shutil.rmtree(tree, ignore_errors=True)
    result = run("cmake", "-S", SOURCE, "-B", tree, "-G", "Ninja", "-DMPO_CUDA=ON", "-DMPO_NCCL=OFF",
                 "-DMPO_LLAMA=OFF", "-DMPO_HTTP=OFF", "-DMPO_TESTS=OFF", *more,
                 **{"CUDACXX": compiler, "PATH": os.path.join(WORK, "no_gpu") + ":" + os.environ["PATH"],
                    **settings})
    archs = None
    if result.returncode == 0:
        with open(os.path.join(tree, "CMakeCache.txt"), encoding="utf-8") as cache:
            archs = re.search(r"^CMAKE_CUDA_ARCHITECTURES:\w+=(.*)$", cache.read(), re.M)[1]
    return result.returncode, result.stdout, archs


def nvcc():
    write("#!/bin/sh\nexit 9\n", "no_gpu", "nvidia-smi", mode=0o755)
    old = "80-real;86-real;89-real;90"
    new = "80-real;86-real;89-real;90-real;100-real;120"
    for version, newest, expected in (("12.1", 90, old), ("12.7", 90, old), ("12.8", 120, new)):
        code, said, archs = configure(version, newest)
        check(f"CUDA {version} is asked for what it knows", code == 0 and archs == expected,
              f"{archs}\n{said[-1500:]}")
    code, said, archs = configure("12.6", 90, CUDAARCHS="90")
    check("CUDAARCHS is heard", code == 0 and archs == "90", f"{archs}\n{said[-1500:]}")
    code, said, archs = configure("12.6", 90, "-DCMAKE_CUDA_ARCHITECTURES=86")
    check("so is CMAKE_CUDA_ARCHITECTURES", code == 0 and archs == "86", f"{archs}\n{said[-1500:]}")
    code, said, _ = configure("11.8", 90)
    check("an older toolkit is refused by its version",
          code != 0 and "12.1 or later" in said and "11.8" in said, said[-1500:])
    code, said, _ = configure("12.6", 90, CUDAARCHS="native")
    check("native without a GPU is refused with what to set",
          code != 0 and "set CUDAARCHS" in re.sub(r"\s+", " ", said), said[-1500:])


# ---- setup ----

def prepare_setup():
    """A build folder in which all is there but libllama, whose sources are one file."""
    with open(os.path.join(SOURCE, "launch", "setup.sh"), encoding="utf-8") as file:
        pinned = dict(re.findall(r"^(\w+_version)=(\S+)$", file.read(), re.M))
    patch = must("sha256sum", os.path.join(SOURCE, "launch", "jinja.patch"))[:16]
    llama = pinned["llama_version"]
    write("", "build", "deps", "llama-src", f"unpacked-{llama}")
    write("", "build", "deps", "jinja", f"ready-{llama}-{patch}")
    write("", "build", "deps", "llhttp", f"ready-{pinned['llhttp_version']}")
    toolkit = os.path.join(WORK, "toolkit")
    make_library("int cudart;", "toolkit/lib64/libcudart.so")
    make_library("int cublas;", "toolkit/math/libcublas.so")
    make_library("int cuda;", "toolkit/lib64/stubs/libcuda.so", "-Wl,-soname,libcuda.so.1")
    source = ("build", "deps", "llama-src", "vendor", "llama.cpp")
    cuda = (*source, "ggml", "src", "ggml-cuda")
    write("int llama;", *source, "llama.c")
    write(LLAMA, *source, "CMakeLists.txt")
    write("extern int cudart, cublas, cuda; int *all[] = {&cudart, &cublas, &cuda};", *cuda, "cuda.c")
    write(BACKEND % {"toolkit": toolkit}, *cuda, "CMakeLists.txt")
    write("#!/bin/sh\necho 'install ok installed'\n", "tools", "dpkg-query", mode=0o755)


def set_up(gpu="", **settings):
    """(exit code, what was said, architectures) on a machine with such a GPU, or with none."""
    write(f"#!/bin/sh\n[ -n '{gpu}' ] || exit 9\ncase $1 in -L) ;; *) echo {gpu} ;; esac\n", "tools",
          "nvidia-smi", mode=0o755)
    result = run(os.path.join(SOURCE, "launch", "setup.sh"), MPO_BUILD_DIR=os.path.join(WORK, "build"),
                 **{"PATH": os.path.join(WORK, "tools") + ":" + os.environ["PATH"],
                    "MPO_LLAMA_CUDA": "ON", **settings})
    built = os.path.join(WORK, "build", "deps", "llama", "for")
    archs = None
    if os.path.exists(built):
        with open(built, encoding="utf-8") as file:
            archs = file.read()
    return result.returncode, result.stdout, archs


def setup():
    prepare_setup()
    code, said, _ = set_up()
    check("a machine without a GPU is told to set CUDAARCHS",
          code == 69 and "set CUDAARCHS" in said and "building" not in said, said)
    code, said, _ = set_up(CUDAARCHS="native")
    check("also where it says native", code == 69 and "set CUDAARCHS" in said, said)
    code, said, archs = set_up(CUDAARCHS="90")
    check("with it libllama is built for those", (code, archs) == (0, "90"), said)
    lib = os.path.join(WORK, "build", "deps", "llama", "lib")
    check("its backend is a library apart", sorted(os.listdir(lib)) == ["libggml-cuda.so", "libllama.so"],
          os.listdir(lib))
    check("and not again", "building" not in set_up(CUDAARCHS="90")[1])
    code, said, archs = set_up(CUDAARCHS="80;90")
    check("but for others", (code, archs) == (0, "80;90") and "building" in said, said)
    library = os.path.join(lib, "libggml-cuda.so")
    path = re.search(r"R(?:UN)?PATH.*\[(.*)\]", must("readelf", "-d", library))[1].split(":")
    toolkit = os.path.join(WORK, "toolkit")
    check("it looks beside itself, and where CUDA's libraries were, but not among the stubs",
          path == ["$ORIGIN", f"{toolkit}/lib64", f"{toolkit}/math"], path)
    found = must("ldd", library)
    check("and finds them so", f"{toolkit}/lib64/libcudart.so" in found and
          f"{toolkit}/math/libcublas.so" in found and "stubs" not in found, found)
    code, said, archs = set_up(gpu="9.0")
    check("a GPU is what it is built for", (code, archs) == (0, "") and "building" in said, said)
    check("once", "building" not in set_up(gpu="9.0")[1])
    check("and another one again", "building" in set_up(gpu="8.0")[1])
    code, said, archs = set_up(MPO_LLAMA_NATIVE="OFF")
    check("for any machine it needs no GPU", (code, archs) == (0, ""), said)


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    {"link": link, "apart": apart, "nvcc": nvcc, "setup": setup}[MODE](*sys.argv[4:])
    if FAILURES:
        sys.exit(f"{len(FAILURES)} failed")


main()
