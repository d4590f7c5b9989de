/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What stands in for CUDA's libraries asks of the stand-in for its run time.
 */
#pragma once

#include "cuda_runtime_api.h"

#include <functional>

namespace hostsim
{
/** Put work into the stream that is tried, when somebody waits for the stream or asks after
 *  it, until it answers true. The device's memory is open to it. */
void enqueue_until(cudaStream_t stream, const std::function<bool()> &work);

/** The device whose stream this is. */
int device_of(cudaStream_t stream);

/** The number that the host has for a device that this process is shown. */
int physical(int device);

/** The device in whose memory the bytes lie; -1: they do not. */
int device_of(const void *address, size_t bytes);

/** Whether a fault "rank:..." is this process's; text moves behind the rank, and a fault
 *  without one is everybody's. */
bool fault_of_rank(const char **text);
} // namespace hostsim
