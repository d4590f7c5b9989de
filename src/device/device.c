/*
 * The choice of a device. `auto` takes the best that was built in; a device that is asked
 * for by name and was not built in is an error, never a silent fall-back.
 */
#include "mpo/device.h"

#include <string.h>

enum mpo_status mpo_device_choose(const char *choice, const char **device)
{
    enum mpo_status status = MPO_OK;
    *device = "cpu";
    if (strcmp(choice, "auto") != 0 && strcmp(choice, "cpu") != 0)
        MPO_FAIL(MPO_ERR_DEVICE, "run.device is %s, but this build has no %s; it has: %s",
                 choice, choice, mpo_device_built());
cleanup:
    return status;
}
