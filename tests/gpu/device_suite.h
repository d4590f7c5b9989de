/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the programs of tests that need a CUDA device, or a simulated one, begin with.
 */
#pragma once

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/** Whether there is a device to test; says why not. The suite then ends with 77. */
static inline bool device_suite_has_device(void)
{
    int devices = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    bool found = error == cudaSuccess && devices > 0;
    if (!found)
        printf("SKIP: no CUDA device here (%s)\n", cudaGetErrorString(error));
    return found;
}

/** The largest vocabulary of the cases that `small`, `usual` or `large` asks for. */
static inline int32_t device_suite_vocabulary(int argc, char *const *argv, int32_t usual)
{
    const char *asked = argc > 1 ? argv[1] : "usual";
    return strcmp(asked, "small") == 0   ? 2100
           : strcmp(asked, "large") == 0 ? INT32_MAX
                                         : usual;
}
