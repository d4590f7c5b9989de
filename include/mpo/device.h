/**
 * Devices and what this build has of each stage: the one registry of variants.
 */
#pragma once

#include "mpo/comm.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Settle on a device: "cpu", or "cuda" when it was built in and one is there.
 *  Local. @param choice  "auto", "cpu" or "cuda"
 *  @return MPO_ERR_DEVICE "this build has no cuda; it has: cpu" */
enum mpo_status mpo_device_choose(const char *choice, const char **device);

/** Devices in this build, separated by spaces, e.g. "cpu". */
const char *mpo_device_built(void);

#ifdef __cplusplus
}
#endif
