/**
 * What a kind of device provides. A new kind is one file and one row of registry.c.
 */
#pragma once

#include "mpo/device.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_device_ops {
    const char *kind;
    /** Choose by the rank on this host, make it the thread's device and describe it.
     *  @return MPO_ERR_DEVICE with the reason when there is none for this rank */
    enum mpo_status (*open)(int32_t local_rank, struct mpo_device *out);
};

extern const struct mpo_device_ops mpo_device_cuda_ops;

/** A kind of device by name, NULL when this build has none. (registry.c) */
const struct mpo_device_ops *mpo_registry_device(const char *kind);

/** The kind that `auto` tries before the CPU, NULL when this build has only the CPU.
 *  (registry.c) */
const struct mpo_device_ops *mpo_registry_accelerator(void);

#ifdef __cplusplus
}
#endif
