/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How often the library allocates, and what it does when there is no memory. The linker
 * sends its calls here: --wrap of malloc, calloc, realloc and reallocarray
 * (tests/CMakeLists.txt, mpo_count_allocations). Local; the count is for programs of one
 * thread.
 */
#pragma once

#include <stdbool.h>

/** Count from zero. */
void allocations_reset(void);

/** Allocations since the program began or since allocations_reset. */
long allocations_made(void);

/** Let `count` allocations fail after `made` have been made since allocations_reset; 0:
 *  none. */
void allocations_fail(long made, long count);

/** Those for which this says so fail instead, called by whatever thread allocates; NULL: as
 *  allocations_fail says. */
void allocations_fail_when(bool (*fails)(void));
