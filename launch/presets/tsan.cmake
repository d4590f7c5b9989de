# SPDX-License-Identifier: Apache-2.0
# ThreadSanitizer over the program's own code. Neither libllama nor MPI is built with it, so
# what it says of their threads is not ours; the simulated devices of tests/hostsim have a
# build with it that the ordinary round runs.
#
#     cmake -C launch/presets/tsan.cmake -S . -B build-tsan -G Ninja
#     ctest --test-dir build-tsan -L unit -LE hostsim
set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type")
set(CMAKE_C_FLAGS "-fsanitize=thread -g -DMPO_NO_CLONES" CACHE STRING "Flags of the C compiler")
set(CMAKE_EXE_LINKER_FLAGS "-fsanitize=thread" CACHE STRING "Flags of the linker")
set(MPO_LLAMA OFF CACHE BOOL "Build the llama policy")
set(MPO_TESTS ON CACHE BOOL "Build the tests")
