/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What tests may do to the stand-in for CUDA's run time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What cudaGetDeviceCount finds; -1: it fails with 35 and leaves the count unwritten, as
 *  CUDA's does where there is no driver. */
void cudart_set_devices(int count);

/** Device memory in bytes; what is over it cannot be allocated. */
void cudart_set_memory(size_t bytes);

/** The next launches succeed, and then one fails. */
void cudart_fail_launch_after(int launches);

/** Bytes of device and pinned memory that are allocated. */
size_t cudart_allocated(void);

/** Whether a range of addresses is within pinned memory. */
bool cudart_is_pinned(const void *address, size_t bytes);

/** Values of rows that all threads of all kernels have read, by what MPO_READS tells; starts
 *  anew from 0. */
uint64_t cudart_take_reads(void);

/** Device that was set last. */
int cudart_device(void);

#ifdef __cplusplus
}
#endif
