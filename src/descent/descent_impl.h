/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of the descent share; what a mirror map provides is
 * in mpo/backend/descent_ops.h.
 */
#pragma once

#include "mpo/backend/descent_ops.h"

#define MPO_MIRROR_MAP(name) extern const struct mpo_descent_map mpo_descent_##name##_map;
#include "registry.def"

/** All maps, ended by NULL. (src/registry.c) */
extern const struct mpo_descent_map *const mpo_descent_maps[];
