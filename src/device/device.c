/*
 * The choice of a device. `auto` takes an accelerator when every rank finds one; a device
 * that is asked for by name and cannot be had is an error, never a silent fall-back.
 */
#include "device_impl.h"

#include <string.h>

#include "mpo/log.h"

static const struct mpo_device cpu = {.kind = "cpu"};

/* Every rank has an accelerator, or none uses it: a job runs on one kind of device. */
static enum mpo_status open_any(const struct mpo_device_ops *ops,
                                const struct mpo_comm *comm, struct mpo_device *out)
{
    enum mpo_status opened = ops->open(mpo_comm_local_rank(comm), out);
    double everywhere = opened == MPO_OK ? 1.0 : 0.0;
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_min(comm, &everywhere, 1));
    if (everywhere == 0.0) {
        mpo_log_note("run.device is auto: using the cpu, because %s",
                     opened == MPO_OK ? "another rank has no other" : mpo_error_text());
        *out = cpu;
    }
cleanup:
    return status;
}

enum mpo_status mpo_device_open(const char *choice, const struct mpo_comm *comm,
                                struct mpo_device *out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_device_ops *ops = mpo_registry_accelerator();
    *out = cpu;
    if (strcmp(choice, "cpu") == 0 || (strcmp(choice, "auto") == 0 && ops == NULL))
        return MPO_OK;
    if (strcmp(choice, "auto") == 0)
        return open_any(ops, comm, out);
    ops = mpo_registry_device(choice);
    MPO_CHECK(ops != NULL, MPO_ERR_DEVICE,
              "run.device is %s, but this build has no %s; it has: %s", choice, choice,
              mpo_device_built());
    MPO_TRY(ops->open(mpo_comm_local_rank(comm), out));
cleanup:
    return status;
}
