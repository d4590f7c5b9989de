/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The interface of a kind of device. A new kind is one file and one row
 * of src/registry.def.
 */
#pragma once

#include "mpo/device.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_device_ops {
    const char *kind;
    /** Its library and its driver, e.g. "13.0 (driver 12.4)". */
    void (*library_version)(char *text, size_t bytes);
    /** Open `count` >= 1 devices after the `before` ones of other ranks, make the last one
     *  current and describe it.
     *  @return MPO_ERR_DEVICE with the reason when there are not enough for this rank */
    enum mpo_status (*open)(int32_t before, int32_t count, struct mpo_device *out);
    /** The unique identifier that the maker gave an opened device. */
    enum mpo_status (*uuid)(int32_t index, char *text, size_t bytes);
    /** Make it the thread's device again. */
    enum mpo_status (*use)(const struct mpo_device *device);
};

#define MPO_ACCELERATOR(name, built)                                                       \
    extern const struct mpo_device_ops mpo_device_##name##_ops;
#include "registry.def"

/** Raise on every rank, with one text, when two ranks have the same device. A rank without
 *  one has no UUID. Collective over all ranks. (device/shared.c)
 *  @return MPO_ERR_DEVICE with a table of the ranks that share */
enum mpo_status mpo_device_check_shared(const struct mpo_device *own,
                                        const struct mpo_comm *comm);

/** A kind of device by name, NULL when this build has none. (registry.c) */
const struct mpo_device_ops *mpo_registry_device(const char *kind);

/** The kind that `auto` tries before the CPU, NULL without one. (src/registry.c) */
const struct mpo_device_ops *mpo_registry_accelerator(void);

#ifdef __cplusplus
}
#endif
