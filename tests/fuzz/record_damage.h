/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Damage to a record that HDF5 itself finds no fault with: objects that are missing or of
 * another kind, type or shape, and values that no run writes.
 */
#pragma once

#include <hdf5.h>
#include <stdint.h>

/** One piece of damage, as four bytes of an input. Every byte counts modulo the number of
 *  choices there are, so that any input means something. */
struct record_damage {
    uint8_t verb;
    uint8_t object;
    uint8_t first;  /* a type, a number, an extent */
    uint8_t second; /* a shape, an index, an extent */
};

/** Do it to an open file; what HDF5 refuses to do is left undone. */
void record_damage_apply(hid_t file, const struct record_damage *damage);
