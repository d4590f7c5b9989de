/* SPDX-License-Identifier: Apache-2.0 */
#include "reason.h"

#include <errno.h>

enum mpo_status mpo_reason_status(int error, enum mpo_status otherwise)
{
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        return MPO_ERR_PERMISSION;
    case ENOSPC:
    case EDQUOT:
    case EIO:
        return MPO_ERR_IO;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EFBIG:
        return MPO_ERR_MEMORY;
    default:
        return otherwise;
    }
}

enum mpo_status mpo_reason_of_input(int error)
{
    return mpo_reason_status(error, MPO_ERR_INPUT);
}

const char *mpo_reason_advice(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return "; free space on that disk";
    case EFBIG:
        return "; raise the limit of file sizes (ulimit -f)";
    case EMFILE:
        return "; raise the limit of open files (ulimit -n)";
    case ENFILE:
        return "; raise the machine's limit of open files (fs.file-max)";
    case ENOMEM:
        return "; free memory, or raise its limit (ulimit -v)";
    default:
        return "";
    }
}
