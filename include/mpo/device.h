/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Devices and what this build has of each stage: the one registry of variants.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/choices.h"
#include "mpo/comm.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The kind that every build has: rows and models are in the host's memory. */
#define MPO_DEVICE_CPU "cpu"

/** Maximum devices of a rank, the limit of policies.NAME.devices. */
#define MPO_DEVICE_RUN_MAX 16

/** The device of one rank. */
struct mpo_device {
    const char *kind;  /* MPO_DEVICE_CPU or "cuda", as the registry names it; "none" */
    int32_t index;     /* among those this rank can see; 0 for the CPU */
    int32_t first;     /* of the rank's run of devices, which ends with index: policies that
                          one device cannot hold are spread over several */
    char name[64];     /* the maker's name for it; "" for the CPU */
    char uuid[48];     /* "GPU-..." as nvidia-smi -L prints it; "" for the CPU */
    size_t free_bytes; /* the least of the run's devices */
    size_t total_bytes; /* the last one's */
};

/** Whether rows and models of a rank are in the host's memory; NULL is the CPU too.
 *  Local. */
bool mpo_device_is_cpu(const struct mpo_device *device);

/** A rank's request for devices. */
struct mpo_device_wish {
    const char *choice; /* MPO_AUTO or a kind */
    int32_t before;     /* devices requested by lower ranks of this host */
    int32_t count;      /* devices requested by this rank; 0 counts as 1 */

    /** Whether the policies can compute on this kind: MPO_ERR_DEVICE with the reason if
     *  not. NULL: they can. Not called for the CPU. */
    enum mpo_status (*check)(const void *asker, const char *kind);
    const void *asker; /* borrowed */
};

/**
 * Choose a run of devices and make the last one the calling thread's. A rank uses the
 * visible devices after those of lower ranks of its host; or all visible ones if their
 * number equals its request, because then the launcher has chosen.
 *
 * Collective over all ranks: `auto` is cuda when every rank has one, else the CPU with a
 * note that says why. A device requested by name is never replaced by another, and two
 * ranks with the same device are refused.
 *
 * @param out  after a failure "none", or the device that another rank has too
 * @return MPO_ERR_DEVICE when this build has no such device, this rank finds none, or the
 *         wish's check fails: other ranks may succeed, so call mpo_comm_agree next; on all
 *         ranks if some share a device
 */
enum mpo_status mpo_device_open(const struct mpo_device_wish *wish,
                                const struct mpo_comm *comm, struct mpo_device *out);

/** Make a device the calling thread's again, after a library may have changed it. Cheap if
 * unchanged. NULL and the CPU: no effect. Local. */
enum mpo_status mpo_device_use(const struct mpo_device *device);

/** Version of the accelerator's library and driver: "13.0 (driver 12.4)", "none" in a build
 *  for the CPU only. Local. */
void mpo_device_library_version(char *text, size_t bytes);

/** Devices in this build, separated by spaces, e.g. "cpu cuda". Local. */
const char *mpo_device_built(void);

#ifdef __cplusplus
}
#endif
