/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How often the library allocates. The linker sends its calls here: --wrap of malloc,
 * calloc, realloc and reallocarray (tests/CMakeLists.txt, mpo_count_allocations). Local,
 * for programs of one thread.
 */
#pragma once

/** Count from zero. */
void allocations_reset(void);

/** Allocations since the program began or since allocations_reset. */
long allocations_made(void);
