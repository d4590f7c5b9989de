/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver's library as far as mpo asks it, loaded by LD_PRELOAD: the device is part
 * HOSTSIM_PART of a GPU, or a whole one. All devices of a process are parts of one GPU.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda_runtime_api.h"

int cuDeviceGet(int *device, int index);
int cuDeviceGetUuid(cudaUUID_t *uuid, int device);
int cuDeviceGetUuid_v2(cudaUUID_t *uuid, int device);

int cuDeviceGet(int *device, int index)
{
    *device = index;
    return 0;
}

int cuDeviceGetUuid(cudaUUID_t *uuid, int device)
{
    memset(uuid, 0x77, sizeof *uuid);
    uuid->bytes[0] = (char)device;
    return 0;
}

int cuDeviceGetUuid_v2(cudaUUID_t *uuid, int device)
{
    const char *part = getenv("HOSTSIM_PART");
    cuDeviceGetUuid(uuid, device);
    if (part != NULL)
        uuid->bytes[15] = (char)atoi(part);
    return 0;
}
