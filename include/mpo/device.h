/**
 * Devices and what this build has of each stage: the one registry of variants.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Devices of a rank at most, as many as policies.NAME.devices may ask for. */
#define MPO_DEVICE_RUN_MAX 16

/** The device of one rank. */
struct mpo_device {
    const char *kind;  /* "cpu" or "cuda", as the registry names it; "none" */
    int32_t index;     /* among those this rank can see; 0 for the CPU */
    int32_t first;     /* of the rank's run of devices, which ends with index: policies that
                          one device cannot hold are spread over several */
    char name[64];     /* what its maker calls it; "" for the CPU */
    char uuid[48];     /* "GPU-..." as nvidia-smi -L prints it; "" for the CPU */
    size_t free_bytes; /* the least of the run's devices */
    size_t total_bytes; /* the last one's */
};

/** What a rank asks for. */
struct mpo_device_wish {
    const char *choice; /* "auto", "cpu" or "cuda" */
    int32_t before;     /* devices that lower ranks of this host ask for */
    int32_t count;      /* devices that this one asks for, 0 as 1 */

    /** Whether what shall compute there can: MPO_ERR_DEVICE with the reason when not. NULL:
     *  it can. Not asked about the CPU. */
    enum mpo_status (*check)(const void *asker, const char *kind);
    const void *asker; /* borrowed */
};

/**
 * Settle on a run of devices and make the last of them the calling thread's. Of those that
 * a rank can see it takes the ones after those of lower ranks of its host; all of them when
 * they are as many as it asks for, because then the launcher has chosen.
 *
 * Collective over all ranks: `auto` is cuda when every rank has one, else the CPU with a
 * note that says why. A device that is asked for by name is never replaced by another, and
 * two ranks with one device are refused.
 *
 * @param out  after a failure "none", or the device that another rank has too
 * @return MPO_ERR_DEVICE when this build has no such device, this rank finds none, or the
 *         wish's check fails: other ranks may succeed, so follow it by mpo_comm_agree; on
 *         all ranks when some share a device
 */
enum mpo_status mpo_device_open(const struct mpo_device_wish *wish,
                                const struct mpo_comm *comm, struct mpo_device *out);

/** Make a device the calling thread's again, after a library that may have changed it.
 * Cheap when it still is. NULL and the CPU: nothing. Local. */
enum mpo_status mpo_device_use(const struct mpo_device *device);

/** What this build talks to its accelerator by: "13.0 (driver 12.4)", "none" in a build for
 *  the CPU only. Local. */
void mpo_device_library_version(char *text, size_t bytes);

/** Devices in this build, separated by spaces, e.g. "cpu cuda". */
const char *mpo_device_built(void);

#ifdef __cplusplus
}
#endif
