# SPDX-License-Identifier: Apache-2.0
# The fuzz targets, as launch/test.sh --fuzz builds them.
#
#     cmake -C launch/presets/fuzz.cmake -S . -B build-fuzz -G Ninja \
#         -DMPO_JINJA_DIR=$PWD/build/deps/jinja
#     cmake --build build-fuzz --target fuzz && tests/fuzz/run.sh build-fuzz 60
set(CMAKE_C_COMPILER clang CACHE STRING "C compiler")
set(CMAKE_CXX_COMPILER clang++ CACHE STRING "C++ compiler")
set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type")
set(MPO_FUZZ ON CACHE BOOL "Build the fuzz targets")
set(MPO_LLAMA OFF CACHE BOOL "Build the llama policy")
set(MPO_TESTS OFF CACHE BOOL "Build the tests")
set(MPO_WERROR ON CACHE BOOL "Treat warnings as errors")
