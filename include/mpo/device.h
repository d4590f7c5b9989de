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

/** The device of one rank. */
struct mpo_device {
    const char *kind; /* "cpu" or "cuda", as the registry names it */
    int32_t index;    /* among those this rank can see; 0 for the CPU */
    char name[64];    /* what its maker calls it; "" for the CPU */
    char uuid[48];    /* "GPU-..." as nvidia-smi -L prints it; "" for the CPU */
    size_t free_bytes;
    size_t total_bytes;
};

/**
 * Settle on a device and make it the calling thread's. Of several that a rank can see it
 * takes the one of its rank on the host, of one that one.
 *
 * Collective over all ranks: `auto` is cuda when every rank has one, else the CPU with a
 * note that says why. A device that is asked for by name is never replaced by another.
 *
 * @param choice  "auto", "cpu" or "cuda"
 * @return MPO_ERR_DEVICE when this build has no such device, or this rank finds none; other
 *         ranks may succeed, so follow it by mpo_comm_agree
 */
enum mpo_status mpo_device_open(const char *choice, const struct mpo_comm *comm,
                                struct mpo_device *out);

/** Devices in this build, separated by spaces, e.g. "cpu cuda". */
const char *mpo_device_built(void);

#ifdef __cplusplus
}
#endif
