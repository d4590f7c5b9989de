# SPDX-License-Identifier: Apache-2.0
# The mixture and, where NCCL is found, the exchange on NVIDIA GPUs; -DNCCL_ROOT=FOLDER says
# where NCCL is. libllama is built for GPUs by MPO_LLAMA_CUDA=ON launch/setup.sh.
#
#     cmake -C launch/presets/cuda.cmake -S . -B build-cuda -G Ninja
set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type")
set(MPO_CUDA ON CACHE BOOL "Build the mixture for CUDA devices")
set(MPO_NCCL AUTO CACHE STRING "Exchange rows between devices")
set(MPO_TESTS ON CACHE BOOL "Build the tests")
find_program(MPO_NVCC nvcc HINTS $ENV{CUDAToolkit_ROOT}/bin $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
if(MPO_NVCC)
    set(CMAKE_CUDA_COMPILER ${MPO_NVCC} CACHE FILEPATH "CUDA compiler")
endif()
