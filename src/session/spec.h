/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a caller asks of mpo_session_open, before anything is opened.
 */
#pragma once

#include "mpo/session.h"

/** Refuse what is no configuration, or more than one, and a size that contradicts itself.
 *  Local. @return MPO_ERR_USAGE with the member, what it should be and what it is */
enum mpo_status mpo_session_check_spec(const struct mpo_session_spec *spec);

/** Whether a size, which was checked, is anything but all zero. Local. */
bool mpo_session_is_sized(const struct mpo_session_size *size);
