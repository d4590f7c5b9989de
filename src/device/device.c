/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of a device. `auto` takes an accelerator when every rank finds one; a device
 * requested by name that is unavailable is an error, never a silent fall-back. Two ranks
 * must not use the same device, however it was chosen (device/shared.c).
 */
#include "device_impl.h"

#include <stdio.h>
#include <string.h>

#include "mpo/report.h"

#include "base/argument.h"

static const struct mpo_device none = {.kind = "none"};
static const struct mpo_device cpu = {.kind = MPO_DEVICE_CPU};

bool mpo_device_is_cpu(const struct mpo_device *device)
{
    return device == NULL || strcmp(device->kind, cpu.kind) == 0;
}

static enum mpo_status open_one(const struct mpo_device_ops *ops,
                                const struct mpo_device_wish *wish, struct mpo_device *out)
{
    enum mpo_status status = MPO_OK;
    if (wish->check != NULL)
        MPO_TRY(wish->check(wish->asker, ops->kind));
    MPO_TRY(ops->open(wish->before, wish->count > 1 ? wish->count : 1, out));
cleanup:
    return status;
}

/* Either every rank uses an accelerator or none: a job runs on one kind of device. */
static enum mpo_status finish_choice(enum mpo_status opened, const struct mpo_comm *comm,
                                     struct mpo_device *out)
{
    double everywhere = opened == MPO_OK ? 1.0 : 0.0;
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_min(comm, &everywhere, 1));
    if (everywhere == 0.0) {
        mpo_report(MPO_REPORT_NOTE, "run.device is auto: using the cpu, because %s",
                   opened == MPO_OK ? "another rank has none" : mpo_error_text());
        *out = cpu;
    }
cleanup:
    return status;
}

enum mpo_status mpo_device_open(const struct mpo_device_wish *wish,
                                const struct mpo_comm *comm, struct mpo_device *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(wish, comm, out);
    MPO_ARGUMENTS(wish->choice);
    const char *choice = wish->choice;
    bool any = mpo_is_auto(choice);
    const struct mpo_device_ops *ops =
        any ? mpo_registry_accelerator() : mpo_registry_device(choice);
    *out = cpu;
    if (strcmp(choice, cpu.kind) == 0 || (any && ops == NULL))
        return MPO_OK;
    *out = none;
    MPO_CHECK(ops != NULL, MPO_ERR_DEVICE,
              "run.device is %s, but this build has no %s; it has: %s", choice, choice,
              mpo_device_built());
    enum mpo_status opened = open_one(ops, wish, out);
    if (opened != MPO_OK)
        *out = none;
    if (any)
        MPO_TRY(finish_choice(opened, comm, out));
    /* Collective: all ranks call this, with or without a device. */
    MPO_TRY(mpo_device_check_shared(out, comm));
    status = any ? MPO_OK : opened;
cleanup:
    return status;
}

void mpo_device_library_version(char *text, size_t bytes)
{
    const struct mpo_device_ops *ops = mpo_registry_accelerator();
    if (ops != NULL)
        ops->library_version(text, bytes);
    else
        snprintf(text, bytes, "none");
}

enum mpo_status mpo_device_use(const struct mpo_device *device)
{
    const struct mpo_device_ops *ops =
        device != NULL ? mpo_registry_device(device->kind) : NULL;
    return ops != NULL ? ops->use(device) : MPO_OK;
}
