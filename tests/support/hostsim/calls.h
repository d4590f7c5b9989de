/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How often a process has asked the stand-ins for CUDA and NCCL for something that takes a
 * device or its driver microseconds, however little it is about.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

struct hostsim_calls {
    int copies;      /* between host and device, on a stream */
    int launches;    /* of kernels */
    int groups;      /* of NCCL's calls */
    int waits;       /* for a stream, until it is done */
    int connections; /* first messages of NCCL to or from a rank: a call waits for it */
};

/** Calls since the last of this one. */
struct hostsim_calls hostsim_take_calls(void);

#ifdef __cplusplus
}

namespace hostsim
{
/** What has been asked for and not been taken yet. */
extern struct hostsim_calls calls;
} // namespace hostsim
#endif
