/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What an errno means for the exit code.
 */
#pragma once

#include <stdbool.h>

#include "mpo/status.h"

/**
 * MPO_ERR_PERMISSION, MPO_ERR_IO for a full or failing disk, MPO_ERR_MEMORY beyond a limit of
 * the process (ulimit) or of the machine, and `otherwise` for every other errno. Local.
 */
enum mpo_status mpo_reason_status(int error, enum mpo_status otherwise);

/** The same for whatever is read, be it configuration, prompts, model or record: MPO_ERR_INPUT
 *  where it is missing or a folder, and otherwise what mpo_reason_status says. Local. */
enum mpo_status mpo_reason_of_input(int error);

/** What to do about it, led by "; ", or "" where nothing is known that helps. Local. */
const char *mpo_reason_advice(int error);
