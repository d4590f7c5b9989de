# SPDX-License-Identifier: Apache-2.0
# Tests of the build with CUDA, included by tests/CMakeLists.txt: a build of its own where there
# is an nvcc, and what building asks of a host, which needs neither CUDA nor a device.

if(MPO_CUDA)
    add_executable(device_position EXCLUDE_FROM_ALL bench/device_position.c)
    target_link_libraries(device_position PRIVATE mpo_test_support CUDA::cudart_static)
    set(suites mixture_cuda mixture_select rounding_cuda mixture_slices)
    if(TARGET NCCL::nccl)
        list(APPEND suites exchange_cuda)
        add_executable(nccl_group EXCLUDE_FROM_ALL bench/nccl_group.c)
        target_link_libraries(nccl_group PRIVATE mpo_test_support NCCL::nccl
            CUDA::cudart_static)
    endif()
    if(MPO_LLAMA_HAS_BACKEND_SAMPLERS)
        list(APPEND suites capture_cuda)
    endif()
    foreach(name IN LISTS suites)
        mpo_add_test_program(gpu/test_${name}.c program)
        target_link_libraries(${program} PRIVATE CUDA::cudart_static)
        add_test(NAME "${name} on a device" COMMAND ${program} large)
        set_tests_properties("${name} on a device" PROPERTIES LABELS gpu TIMEOUT 600
            SKIP_RETURN_CODE 77)
    endforeach()
endif()
find_package(CUDAToolkit QUIET)
mpo_add_script_test("the program builds with CUDA, kernels within their budget"
    ../gpu/cuda_build.py gpu 1800 2 build "${CUDAToolkit_NVCC_EXECUTABLE}"
    ${PROJECT_SOURCE_DIR} ${work}/cuda)
mpo_add_script_test("a build with CUDA runs where there is no device"
    ../gpu/cuda_build.py gpu 600 1 absent "${CUDAToolkit_NVCC_EXECUTABLE}"
    ${PROJECT_SOURCE_DIR} ${work}/cuda)
mpo_add_script_test("a device gives the figures of the CPU"
    ../gpu/cuda_build.py gpu 1200 1 device "${CUDAToolkit_NVCC_EXECUTABLE}"
    ${PROJECT_SOURCE_DIR} ${work}/cuda)
if(MPO_LLAMA AND NOT MPO_SANITIZE)
    mpo_add_script_test("a position of random models is timed" ../gpu/positions.py gpu 120 1
        $<TARGET_FILE:mpo> ${work}/positions $<TARGET_FILE:bigram_gguf_tool>
        --shape=small --device=cpu --tokens=4)
    mpo_add_script_test("a program links where there is no driver" ../gpu/build_hosts.py gpu
        120 1 link ${PROJECT_SOURCE_DIR} ${work}/driverless ${PROJECT_BINARY_DIR} ${llama_DIR})
    mpo_add_script_test("libllama's backend for CUDA is loaded where it can be"
        ../gpu/build_hosts.py gpu 120 1 apart ${PROJECT_SOURCE_DIR} ${work}/apart
        ${PROJECT_BINARY_DIR} ${llama_DIR} $<TARGET_FILE:bigram_gguf_tool>)
endif()
mpo_add_script_test("older toolkits are asked for what they know" ../gpu/build_hosts.py gpu
    120 1 nvcc ${PROJECT_SOURCE_DIR} ${work}/toolkits)
mpo_add_script_test("libllama's backend for CUDA finds its libraries" ../gpu/build_hosts.py
    gpu 120 1 setup ${PROJECT_SOURCE_DIR} ${work}/setup)
mpo_add_script_test("the script for a GPU skips what it cannot show" ../gpu/rehearsal.py gpu
    300 1 ${PROJECT_SOURCE_DIR} ${work}/rehearsal ${work}/cuda/build ${PROJECT_BINARY_DIR})
mpo_add_script_test("the time model of GPUs is computed as by hand" ../gpu/time_model.py gpu
    60 1 ${PROJECT_SOURCE_DIR})
set_tests_properties("the program builds with CUDA, kernels within their budget" PROPERTIES
    FIXTURES_SETUP cuda_build)
set_tests_properties("a build with CUDA runs where there is no device"
    "the script for a GPU skips what it cannot show"
    "a device gives the figures of the CPU" PROPERTIES FIXTURES_REQUIRED cuda_build)
