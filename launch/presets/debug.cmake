# SPDX-License-Identifier: Apache-2.0
# Debugging: no optimisation, all checks of the compiler, libllama where it is.
#
#     cmake -C launch/presets/debug.cmake -S . -B build-debug -G Ninja
set(CMAKE_BUILD_TYPE Debug CACHE STRING "Build type")
set(CMAKE_EXPORT_COMPILE_COMMANDS ON CACHE BOOL "For clangd and clang-tidy")
set(MPO_TESTS ON CACHE BOOL "Build the tests")
set(MPO_WERROR ON CACHE BOOL "Treat warnings as errors")
