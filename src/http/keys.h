/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Keys of clients, by their names. Of a key only its SHA-256 stays in memory.
 */
#pragma once

#include <stdint.h>

#include "mpo/status.h"

struct mpo_http_keys;

/**
 * Read a file of `name:key` lines; empty lines and those that begin with # are skipped.
 *
 * @return MPO_ERR_CONFIG where others may read it, it has no key, or a line is none;
 *         mpo_reason_of_input where it cannot be read
 */
enum mpo_status mpo_http_keys_open(const char *file, struct mpo_http_keys **out);
void mpo_http_keys_close(struct mpo_http_keys **keys);

/** How many there are, at least 1. */
int32_t mpo_http_keys_count(const struct mpo_http_keys *keys);

/** The index of a key, in the order of the file; -1: there is none. Takes as long for each. */
int32_t mpo_http_keys_find(const struct mpo_http_keys *keys, const char *key);

/** The name of a key by its index. Valid as long as the handle. */
const char *mpo_http_keys_name(const struct mpo_http_keys *keys, int32_t index);
