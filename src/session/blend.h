/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The policy that a mixture of adapters draws from.
 */
#pragma once

#include "parts.h"

/**
 * Describe it behind the policies of the configuration: their model with the adapters of all,
 * and how exponents become scales of these. An adapter that several policies have is there
 * once.
 *
 * Local; reads files only where two policies name different ones.
 *
 * @return MPO_ERR_DATA when they are not one model
 */
enum mpo_status mpo_session_describe_blend(struct mpo_session *session);
