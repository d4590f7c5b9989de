# SPDX-License-Identifier: Apache-2.0
# AddressSanitizer and UndefinedBehaviorSanitizer, as launch/test.sh --sanitize builds it.
#
#     cmake -C launch/presets/asan.cmake -S . -B build-asan -G Ninja
#     ASAN_OPTIONS=detect_leaks=0 ctest --test-dir build-asan -L unit
#
# Open MPI keeps memory until the process ends: only tests without MPI can look for leaks.
set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type")
set(MPO_SANITIZE ON CACHE BOOL "Build with sanitizers")
set(MPO_TESTS ON CACHE BOOL "Build the tests")
set(MPO_WERROR ON CACHE BOOL "Treat warnings as errors")
